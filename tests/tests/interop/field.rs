//! Two hosts, one of which runs our agent; the other end of a veth has the program that native XDP needs there.

use std::net::IpAddr;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dt_tests::{Host, Lab, LabObject, Proc, given};
use serde_json::Value;

/// The modes of the datapath ladder.
pub const MODES: [&str; 3] = ["xdp", "tc", "socket"];
/// Longer than anything here takes, on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Our agent is on `n1`, the foreign peer on `n2`; `n3` is nobody's friend.
pub struct Field {
    // Before the lab: its programs are on the lab's devices.
    _object: Option<LabObject>,
    pub lab: Lab,
}

impl Field {
    /// Hosts on which `mode` can work.
    pub fn new(mode: &str) -> Result<Self> {
        let lab = Lab::mesh(3)?;
        let object = if mode == "xdp" {
            let mut object = LabObject::load()?;
            for host in ["n2", "n3"] {
                object.attach_xdp("xdp_pass", lab.host(host), "to-n1")?;
            }
            Some(object)
        } else {
            None
        };
        Ok(Self {
            _object: object,
            lab,
        })
    }

    pub fn ours(&self) -> &Host {
        self.lab.host("n1")
    }

    pub fn foreign(&self) -> &Host {
        self.lab.host("n2")
    }

    /// Our reflector, which answers `n2` on both interfaces; it works when this returns.
    pub fn reflect(&self, mode: &str) -> Result<Proc> {
        let foreign = self.foreign();
        let mut command = self.ours().command(agent()?.as_str());
        command.args(["reflect", "--mode", mode, "--node", "reflect"]);
        command.args(["--interface", "to-n2", "--interface", "to-n3"]);
        command.arg("--pin-root").arg(self.lab.pin_dir());
        command.args(["--allow", &format!("{}/32", foreign.ipv4())]);
        command.args(["--allow", &format!("{}/128", foreign.ipv6())]);
        let mut reflector = Proc::spawn("reflect", &self.lab.dir(), &mut command)?;
        for interface in ["to-n2", "to-n3"] {
            let line = match mode {
                "socket" => String::from("in mode socket"),
                mode => format!("{interface}: mode {mode},"),
            };
            reflector.wait_for_line(&line, LIMIT)?;
        }
        Ok(reflector)
    }

    /// `stamp-suite` as the reflector of `n2` on one address.
    pub fn stamp_suite(&self, address: IpAddr, options: &[&str]) -> Result<Proc> {
        let tool = given::tool("stamp-suite")?;
        let mut command = self.foreign().command(&tool.to_string_lossy());
        command
            .args(["-i", "-S", &address.to_string()])
            .args(options);
        let name = if address.is_ipv4() {
            "suite-4"
        } else {
            "suite-6"
        };
        let mut suite = Proc::spawn(name, &self.lab.dir(), &mut command)?;
        suite.wait_for_line("listening on", LIMIT)?;
        Ok(suite)
    }

    /// Addresses of `n2` by both IP versions.
    pub fn foreign_addresses(&self) -> [IpAddr; 2] {
        [self.foreign().ipv4().into(), self.foreign().ipv6().into()]
    }

    /// `dt-agent ping` on `n1`, to its end.
    pub fn ping(&self, options: &[&str]) -> Result<Output> {
        let mut command = self.ours().command(agent()?.as_str());
        command.args(["ping", "--json", "--pin-root"]);
        command.arg(self.lab.pin_dir()).args(options);
        Ok(command.output()?)
    }

    /// The summary of a `ping` that succeeded.
    pub fn ping_summary(&self, options: &[&str]) -> Result<Value> {
        let output = self.ping(options)?;
        let (stdout, stderr) = texts(&output);
        ensure!(
            output.status.success(),
            "ping {options:?} ended with {}\n{stdout}{stderr}",
            output.status
        );
        let last = stdout.lines().last().context("it printed nothing")?;
        Ok(serde_json::from_str(last)?)
    }
}

/// What a command wrote.
pub fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

pub fn agent() -> Result<String> {
    Ok(given::agent()?.to_string_lossy().into_owned())
}
