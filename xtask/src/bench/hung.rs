//! Our programs on an interface, at work as an agent's are, but without an agent.

use anyhow::{Context, Result};
use aya::programs::{SchedClassifier, TcAttachType, Xdp, XdpMode};
use dt_common::ABI_VERSION;
use dt_common::map::{Config, Iface, IfaceFlags, IfaceMode};
use dt_tests::Host;
use dt_tests::datapath::Datapath;
use nix::net::if_::if_nametoindex;

use crate::build::Built;

/// Which program acts on what comes in. What leaves passes `tc_egress` either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hung {
    Xdp,
    Tc,
}

/// Loads the programs and hangs them on a device of `host`, with a lease that never ends and the usual port, as `config` has the
/// rest.
pub fn hang(
    built: &Built,
    host: &Host,
    device: &str,
    hung: Hung,
    config: Config,
) -> Result<Datapath> {
    let mut datapath = Datapath::load(&built.datapath_object)?;
    let ifindex = host
        .enter(|| if_nametoindex(device))?
        .context("the device is not there")?;
    datapath.set_config(&Config {
        abi_version: ABI_VERSION,
        lease_until_ns: u64::MAX,
        port: dt_common::STAMP_PORT,
        ..config
    })?;
    datapath.set_iface(&Iface {
        ifindex,
        mode: match hung {
            Hung::Xdp => IfaceMode::XDP,
            Hung::Tc => IfaceMode::TC,
        },
        flags: IfaceFlags::CHECKSUM_FULL,
        proof_round: 0,
    })?;
    let ebpf = datapath.ebpf_mut();
    // An agent takes tc ingress off where XDP does the work.
    let mut at_tc = vec![("tc_egress", TcAttachType::Egress)];
    match hung {
        Hung::Xdp => {
            let program = ebpf.program_mut("xdp_ingress").context("no such program")?;
            let xdp: &mut Xdp = program.try_into()?;
            host.enter(|| xdp.attach(device, XdpMode::Driver))??;
        }
        Hung::Tc => at_tc.push(("tc_ingress", TcAttachType::Ingress)),
    }
    for (name, way) in at_tc {
        let program = ebpf.program_mut(name).context("no such program")?;
        let tc: &mut SchedClassifier = program.try_into()?;
        host.enter(|| tc.attach(device, way))??;
    }
    Ok(datapath)
}
