//! The mode that `auto` would take on one interface. Pure.

use super::drivers::{self, Driver, Support};
use super::facts::{InterfaceFacts, KernelRelease};
use super::judge::{AgentHere, FRAGS_KERNEL, Finding, InterfaceDiagnosis, MIN_BPF_KERNEL, version};
use crate::adapters::datapath::ebpf::Tenant;
use crate::adapters::net::{Link, Moderation, XdpMode};
use crate::engine::ladder::Mode;

/// Climbs down the ladder and notes each reason on the way.
pub(super) fn judge(
    facts: &InterfaceFacts,
    kernel: Option<&KernelRelease>,
    bpf_blockers: &[String],
) -> InterfaceDiagnosis {
    let link = &facts.link;
    let (mode, why) = climb_down(facts, kernel, bpf_blockers);
    InterfaceDiagnosis {
        name: link.name.clone(),
        mode: mode.name(),
        why,
        driver: link.driver.clone(),
        mtu: link.mtu,
        agent: facts.tenant.as_ref().map(agent),
        xdp_program: link.xdp.map(|holder| holder.program),
        checksum: if drivers::has_partial_checksums(link.driver.as_deref()) {
            "full"
        } else {
            "incremental"
        },
        receive_moderation_us: facts
            .moderation
            .as_ref()
            .ok()
            .and_then(|found| found.receive_us),
        findings: findings(facts),
    }
}

fn agent(tenant: &Tenant) -> AgentHere {
    AgentHere {
        node: tenant.node.clone(),
        mode: mode_now(tenant).map(Mode::name),
        at_work: tenant.alive,
    }
}

/// What an agent uses now; programs that wait for a successor use nothing.
fn mode_now(tenant: &Tenant) -> Option<Mode> {
    tenant.mode.filter(|_| tenant.alive)
}

fn climb_down(
    facts: &InterfaceFacts,
    kernel: Option<&KernelRelease>,
    bpf_blockers: &[String],
) -> (Mode, Vec<String>) {
    let against = |mode: &str, reasons: &[String]| format!("not {mode}: {}", reasons.join("; "));
    if !bpf_blockers.is_empty() {
        return (Mode::Socket, vec![against("xdp or tc", bpf_blockers)]);
    }
    let against_xdp = xdp_blockers(facts, kernel);
    if against_xdp.is_empty() {
        return (Mode::Xdp, vec![for_xdp(facts)]);
    }
    let mut why = vec![against("xdp", &against_xdp)];
    let against_tc = tc_blockers(facts);
    if against_tc.is_empty() {
        if matches!(&facts.attached, Some(tried) if tried.tc.is_ok()) {
            why.push("tc: the programs were attached here and taken off again".to_owned());
        }
        return (Mode::Tc, why);
    }
    why.push(against("tc", &against_tc));
    (Mode::Socket, why)
}

fn for_xdp(facts: &InterfaceFacts) -> String {
    if let Some(tenant) = &facts.tenant
        && mode_now(tenant) == Some(Mode::Xdp)
    {
        return format!("xdp: the agent of node {} uses it here now", tenant.node);
    }
    let tried = match facts.attached {
        Some(_) => "its program was attached here and taken off again",
        None => "driver, MTU and slot allow it",
    };
    format!(
        "xdp: {tried}; the agent uses it once a neighbour has answered through it, and tc until then"
    )
}

fn xdp_blockers(facts: &InterfaceFacts, kernel: Option<&KernelRelease>) -> Vec<String> {
    let link = &facts.link;
    let mut blockers = Vec::new();
    if let Some(holder) = link.xdp
        && !is_own(facts)
    {
        let place = match holder.mode {
            XdpMode::Native => "native",
            XdpMode::Generic => "generic",
            XdpMode::Offloaded => "on the device",
            XdpMode::Several => "in several places",
        };
        blockers.push(format!(
            "the slot is held by program {} ({place})",
            holder.program
        ));
    }
    if let Some(reason) = no_ethernet(link) {
        blockers.push(reason);
    }
    if !facts.vlans.is_empty() && link.kind.is_none() {
        // The device strips the tag before XDP sees the frame, and the answer would leave without one.
        blockers.push(format!("VLANs {} stand on it", facts.vlans.join(", ")));
    }
    match &facts.attached {
        Some(tried) => blockers.extend(tried.xdp.as_ref().err().cloned()),
        None => blockers.extend(driver_blocker(link, kernel)),
    }
    blockers
}

/// Whether an agent's own program is in the XDP slot, where the next agent of its node takes it over.
fn is_own(facts: &InterfaceFacts) -> bool {
    facts.tenant.as_ref().is_some_and(|tenant| tenant.holds_xdp)
}

/// What is known without a try.
fn driver_blocker(link: &Link, kernel: Option<&KernelRelease>) -> Option<String> {
    let name = link.driver.as_deref().unwrap_or("unknown");
    let version_here = kernel.map_or(MIN_BPF_KERNEL, |kernel| kernel.version);
    match drivers::support(name) {
        Support::Never => Some(format!("{name} has no native XDP")),
        Support::Unknown => Some(format!(
            "nothing is known of XDP in driver {name}; the agent tries it all the same"
        )),
        Support::Native(driver) if version_here < driver.since => Some(format!(
            "{name} has native XDP from kernel {} on",
            version(driver.since)
        )),
        Support::Native(driver) => {
            let limit = mtu_limit(driver, version_here)?;
            (link.mtu > limit).then(|| {
                format!(
                    "MTU {} is above {limit}, the most that {name} takes with XDP",
                    link.mtu
                )
            })
        }
    }
}

fn mtu_limit(driver: Driver, kernel: (u32, u32)) -> Option<u32> {
    if kernel >= FRAGS_KERNEL {
        driver.mtu_limit
    } else {
        Some(driver.linear_mtu_limit)
    }
}

fn tc_blockers(facts: &InterfaceFacts) -> Vec<String> {
    let refused = facts
        .attached
        .as_ref()
        .and_then(|tried| tried.tc.as_ref().err().cloned());
    no_ethernet(&facts.link)
        .into_iter()
        .chain(refused)
        .collect()
}

fn no_ethernet(link: &Link) -> Option<String> {
    let reason = "it carries no Ethernet frames, which the programs expect";
    (link.mac.is_none() && !link.loopback).then(|| reason.to_owned())
}

fn findings(facts: &InterfaceFacts) -> Vec<Finding> {
    let link = &facts.link;
    let mut findings = Vec::new();
    if !(link.up && link.running) {
        let says = if link.up { "no carrier" } else { "down" };
        findings.push(Finding::problem(
            "link",
            says,
            "ip link set up, and look at the cable or the other end",
        ));
    }
    findings.extend(facts.tenant.as_ref().map(tenancy));
    if let Some(holder) = link.xdp
        && !is_own(facts)
    {
        let says = format!("program {} holds it and is left alone", holder.program);
        let advice =
            "bpftool prog show id says whose it is; an agent's own programs are known to root only";
        findings.push(Finding::note("XDP slot", says, advice));
    }
    if link.controller.is_some() {
        let advice =
            "name the bond or bridge instead, unless probes are to leave by this port alone";
        findings.push(Finding::note(
            "link",
            "it is a port of a bond or bridge",
            advice,
        ));
    }
    if let Some((demands, advice)) = demands(link) {
        findings.push(Finding::note(
            "driver",
            format!("native XDP needs {demands}"),
            advice,
        ));
    }
    findings.push(match &facts.moderation {
        Ok(found) => moderation(*found),
        Err(reason) if is_virtual(link) => {
            Finding::good("interrupt moderation", format!("none here ({reason})"))
        }
        Err(reason) => Finding::unseen("interrupt moderation", reason),
    });
    findings
}

fn tenancy(tenant: &Tenant) -> Finding {
    let subject = "agent";
    let node = &tenant.node;
    match (tenant.alive, tenant.mode) {
        (true, Some(mode)) => Finding::good(
            subject,
            format!("node {node} works here in mode {} now", mode.name()),
        ),
        (true, None) => Finding::note(
            subject,
            format!("node {node} has programs here and has not chosen a mode"),
            "its log says why; a proof takes some seconds",
        ),
        (false, _) => Finding::note(
            subject,
            format!("node {node} left programs here, which do nothing"),
            "start its agent, which takes them over, or: dt-agent detach --node",
        ),
    }
}

fn demands(link: &Link) -> Option<(&'static str, &'static str)> {
    match drivers::support(link.driver.as_deref()?) {
        Support::Native(driver) => driver.demands,
        Support::Never | Support::Unknown => None,
    }
}

fn moderation(found: Moderation) -> Finding {
    let subject = "interrupt moderation";
    let adaptive = if found.adaptive {
        ", changing with the load"
    } else {
        ""
    };
    match found.receive_us {
        None => Finding::good(subject, format!("the device does not say{adaptive}")),
        Some(0) => Finding::good(
            subject,
            format!("a received packet interrupts at once{adaptive}"),
        ),
        Some(held) => {
            let says = format!(
                "a received packet may be held back {held} us{adaptive}: it is in every figure"
            );
            Finding::note(
                subject,
                says,
                "ethtool -C rx-usecs 0 on one queue, if that is too much",
            )
        }
    }
}

/// No device stands behind it that could moderate anything.
const fn is_virtual(link: &Link) -> bool {
    link.kind.is_some() || link.loopback
}
