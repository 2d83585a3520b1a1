//! The BPF object with the programs that stand on the wire and in the switch: passes and faults.

use std::path::Path;

use anyhow::{Context, Result};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{
    LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
};
use aya::{Ebpf, EbpfLoader};

use crate::host::Host;
use crate::lab::Lab;
use crate::{SWITCH, given};

/// The loaded lab object (`dt-ebpf/src/lab.rs`). Its programs stay attached until it is dropped.
#[derive(Debug)]
pub struct LabObject {
    ebpf: Ebpf,
}

impl LabObject {
    /// Loads the object that `cargo xtask` built.
    pub fn load() -> Result<Self> {
        Self::load_file(&given::lab_object()?, &[])
    }

    /// Loads the object from a file, with constants of its programs set.
    pub fn load_file(path: &Path, globals: &[(&str, u32)]) -> Result<Self> {
        let mut loader = EbpfLoader::new();
        for (name, value) in globals {
            loader.override_global(name, value, true);
        }
        let ebpf = loader
            .load_file(path)
            .with_context(|| format!("cannot load {}", path.display()))?;
        Ok(Self { ebpf })
    }

    /// Attaches an XDP program to a device of `host`, in the driver: generic XDP would not let the peer answer.
    pub fn attach_xdp(&mut self, program: &str, host: &Host, device: &str) -> Result<()> {
        let xdp: &mut Xdp = self.program(program)?.try_into()?;
        load_once(xdp.fd().is_ok(), || xdp.load())?;
        host.enter(|| xdp.attach(device, XdpMode::Driver))?
            .with_context(|| format!("cannot attach {program} to {device} of {}", host.name()))?;
        Ok(())
    }

    /// Attaches a tc program to a device of `host`, behind those that are there.
    pub fn attach_tc(
        &mut self,
        program: &str,
        host: &Host,
        device: &str,
        way: TcAttachType,
    ) -> Result<()> {
        self.attach_tc_in_order(program, host, device, way, LinkOrder::last())
    }

    /// The same, before those that are there.
    pub fn attach_tc_first(
        &mut self,
        program: &str,
        host: &Host,
        device: &str,
        way: TcAttachType,
    ) -> Result<()> {
        self.attach_tc_in_order(program, host, device, way, LinkOrder::first())
    }

    fn attach_tc_in_order(
        &mut self,
        program: &str,
        host: &Host,
        device: &str,
        way: TcAttachType,
        order: LinkOrder,
    ) -> Result<()> {
        let tc: &mut SchedClassifier = self.program(program)?.try_into()?;
        load_once(tc.fd().is_ok(), || tc.load())?;
        let options = TcAttachOptions::TcxOrder(order);
        host.enter(|| tc.attach_with_options(device, way, options))?
            .with_context(|| format!("cannot attach {program} to {device} of {}", host.name()))?;
        Ok(())
    }

    /// Lets the hosts of [`Lab::bridge`] answer by `XDP_TX`, by a program on every end of the switch that passes all.
    pub fn open_switch(&mut self, lab: &Lab) -> Result<()> {
        let switch = lab.host(SWITCH);
        for device in switch.devices() {
            self.attach_xdp("xdp_pass", switch, device)?;
        }
        Ok(())
    }

    /// The object with its maps.
    pub fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    fn program(&mut self, name: &str) -> Result<&mut Program> {
        self.ebpf
            .program_mut(name)
            .with_context(|| format!("the lab object has no program {name}"))
    }
}

fn load_once(loaded: bool, load: impl FnOnce() -> Result<(), ProgramError>) -> Result<()> {
    if !loaded {
        // The verifier's words are in the error.
        load()?;
    }
    Ok(())
}
