//! What the programs did, written down for a judge in another language.
//!
//! Entries are `S`, a 32-bit length and settings in JSON; or `P`, hook, verdict, two 64-bit times, two 32-bit lengths, the
//! frame that went in and the one that came out. Numbers are little-endian.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::Result;
use dt_tests::datapath::{Hook, Outcome, Verdict};
use serde_json::json;
use tempfile::TempDir;

use crate::fuzz::python;
use crate::rig::Rig;

pub struct Record {
    dir: TempDir,
    file: BufWriter<File>,
    hook: Hook,
}

impl Record {
    pub fn new() -> Result<Self> {
        let dir = TempDir::new()?;
        let file = BufWriter::new(File::create(dir.path().join(NAME))?);
        Ok(Self {
            dir,
            file,
            hook: Hook::Xdp,
        })
    }

    /// From here on packets meet the world as the rig has it, with nothing remembered.
    pub fn settings(&mut self, rig: &Rig) -> Result<()> {
        let settings = &rig.oracle.settings;
        let hex = |address: &[u8; 16]| {
            address
                .iter()
                .fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
        };
        let permits: Vec<_> = settings.permits.iter().map(|permit| {
            json!({ "address": hex(&permit.address), "bits": permit.bits, "member": permit.member, "low_ports": permit.low_ports })
        }).collect();
        let targets: Vec<_> = settings.targets.iter().map(|target| {
            json!({ "ssid": target.ssid, "address": hex(&target.address), "port": target.port, "pass_every": target.pass_every })
        }).collect();
        let text = json!({
            "port": settings.port,
            "source_ports": settings.source_ports,
            "locals": settings.locals.iter().map(hex).collect::<Vec<_>>(),
            "permits": permits,
            "targets": targets,
            "port_owners": settings.port_owners,
            "allow_all": settings.allow_all,
            "stateless": settings.stateless,
            "partial_checksums": settings.partial_checksums,
            "clock_offset_ns": settings.clock_offset_ns,
            "clock_generation": settings.clock_generation,
            "error_estimate": settings.error_estimate,
        })
        .to_string();
        self.hook = rig.hook;
        self.file.write_all(b"S")?;
        self.file.write_all(&(text.len() as u32).to_le_bytes())?;
        Ok(self.file.write_all(text.as_bytes())?)
    }

    pub fn packet(&mut self, frame: &[u8], outcome: &Outcome) -> Result<()> {
        let hook = u8::from(self.hook == Hook::Tc);
        let verdict = match outcome.verdict {
            Verdict::Pass => 0,
            Verdict::Drop => 1,
            Verdict::Send => 2,
        };
        self.file.write_all(&[b'P', hook, verdict])?;
        for time in [outcome.before_ns, outcome.after_ns] {
            self.file.write_all(&time.to_le_bytes())?;
        }
        for bytes in [frame, &outcome.frame] {
            self.file.write_all(&(bytes.len() as u32).to_le_bytes())?;
        }
        self.file.write_all(frame)?;
        Ok(self.file.write_all(&outcome.frame)?)
    }

    /// Has Python judge all of it; its closing line.
    pub fn judge(mut self) -> Result<String> {
        self.file.flush()?;
        let record = self.dir.path().join(NAME);
        python(Path::new("python3"), "judge.py", &[record.as_os_str()])
    }
}

const NAME: &str = "record";
