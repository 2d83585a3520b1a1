//! Every rung of the datapath ladder, with what forces an agent onto it: the mode, its reason, and that nothing is lost there.

use anyhow::{Context, Result};
use dt_tests::agent::{self, settle, wait_for_feed};
use dt_tests::fault::Faults;
use dt_tests::feed::{excused, unexplained};
use dt_tests::{
    Agent, FaultyWire, Host, Lab, LabObject, Launch, WIRE, given, skip_unless_equipped,
};

#[test]
fn a_foreign_xdp_program_keeps_its_slot_and_the_agent_takes_tc() -> Result<()> {
    skip_unless_equipped!();
    let (lab, _wire) = wire()?;
    let mut foreign = LabObject::load()?;
    foreign.attach_xdp("xdp_pass", lab.host("n2"), "eth0")?;
    let before = xdp_program(lab.host("n2"), "eth0")?;
    assert!(before.is_some());
    let mut agents = start_both(&lab, &[])?;
    let line = agents[1].wait_for_mode("tc")?;
    let reason = agents[1].wait_until_said(TAKEN)?;
    assert!(reason.contains("mode=\"tc\""), "{line}\n{reason}");
    assert_nothing_is_lost(&mut agents, ["xdp", "tc"])?;
    assert_eq!(xdp_program(lab.host("n2"), "eth0")?, before);
    Ok(())
}

#[test]
fn doctor_tells_an_agents_own_programs_from_foreign_ones_and_its_mode() -> Result<()> {
    skip_unless_equipped!();
    let (lab, _wire) = wire()?;
    let mut foreign = LabObject::load()?;
    foreign.attach_xdp("xdp_pass", lab.host("n2"), "eth0")?;
    let mut agents = start_both(&lab, &[])?;
    agents[0].wait_for_mode("xdp")?;
    agents[1].wait_until_said(TAKEN)?;
    let (own, works) = doctor(&lab, "n1")?;
    assert!(works);
    assert_eq!(own["mode"], "xdp");
    assert_eq!(own["agent"]["node"], "n1");
    assert_eq!(own["agent"]["mode"], "xdp");
    assert_eq!(own["why"][0], "xdp: the agent of node n1 uses it here now");
    let (foreign, works) = doctor(&lab, "n2")?;
    assert!(works);
    assert_eq!(foreign["mode"], "tc");
    assert_eq!(foreign["agent"]["node"], "n2");
    assert_eq!(foreign["agent"]["mode"], "tc");
    let why = foreign["why"].to_string();
    assert!(why.contains("the slot is held by program"), "{why}");
    Ok(())
}

/// What `doctor` says of `eth0` on a host, and whether its status says that programs work.
fn doctor(lab: &Lab, host: &str) -> Result<(serde_json::Value, bool)> {
    let output = lab
        .host(host)
        .command(&given::agent()?.display().to_string())
        .args(["doctor", "--json", "--interface=eth0", "--node", host])
        .env("DT_PIN_ROOT", lab.pin_dir())
        .output()?;
    let mut said: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((said["interfaces"][0].take(), output.status.success()))
}

#[test]
fn on_a_veth_whose_other_end_has_no_xdp_program_the_proof_fails_and_tc_does_the_work() -> Result<()>
{
    skip_unless_equipped!();
    let lab = Lab::bridge(2)?;
    assert_tc_for_want_of_proof(&lab)
}

#[test]
fn on_a_veth_whose_other_end_has_gro_only_the_proof_fails_and_tc_does_the_work() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::bridge(2)?;
    let switch = lab.host(dt_tests::SWITCH);
    for device in switch.devices() {
        switch.run(&["ethtool", "-K", device, "gro", "on"])?;
    }
    assert_tc_for_want_of_proof(&lab)
}

#[test]
fn an_interface_for_jumbo_frames_is_probed_in_xdp() -> Result<()> {
    skip_unless_equipped!();
    probe_jumbo_interface("xdp", "3400")
}

#[test]
fn jumbo_probes_are_probed_whole_in_tc() -> Result<()> {
    skip_unless_equipped!();
    probe_jumbo_interface("tc", "8900")
}

#[test]
fn probes_too_long_for_xdp_are_refused_before_anything_is_sent() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::mesh(2)?;
    let mut agent = Launch::on(&lab, "n1")?
        .flags(&["--size=8900"])
        .start("n1")?;
    agent
        .process
        .wait_for_line("use mode tc or socket", agent::LIMIT)?;
    assert_eq!(agent.process.wait(agent::LIMIT)?.code(), Some(64));
    Ok(())
}

fn probe_jumbo_interface(mode: &str, size: &str) -> Result<()> {
    let (lab, _wire) = wire()?;
    for (host, device) in [
        (WIRE, "to-n1"),
        (WIRE, "to-n2"),
        ("n1", "eth0"),
        ("n2", "eth0"),
    ] {
        lab.host(host)
            .run(&["ip", "link", "set", device, "mtu", "9000"])?;
    }
    let flags = [format!("--mode={mode}"), format!("--size={size}")];
    let mut agents = start_both(&lab, &flags.each_ref().map(String::as_str))?;
    for agent in &mut agents {
        agent.wait_for_mode(mode)?;
    }
    assert_nothing_is_lost(&mut agents, [mode, mode])
}

/// Nothing about such a device says that the packets which come by it were never on a wire, and have unfinished checksums.
#[test]
fn above_a_virtual_link_no_packet_of_this_machine_is_taken_for_spoilt() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::mesh(2)?;
    agent::write_peers(&lab, &agent::all_members(&lab))?;
    for (host, peer, own_mac, peer_mac) in [
        ("n1", "n2", "02:00:00:00:07:01", "02:00:00:00:07:02"),
        ("n2", "n1", "02:00:00:00:07:02", "02:00:00:00:07:01"),
    ] {
        let (below, from) = (format!("to-{peer}"), lab.host(host).ipv4().to_string());
        let to = lab.host(peer).ipv4().to_string();
        for line in [
            format!("ip link add above link {below} address {own_mac} type macvlan mode bridge"),
            "ip link set above up".to_owned(),
            format!("ip route replace {to} dev above src {from}"),
            format!("ip neighbour replace {to} lladdr {peer_mac} dev above nud permanent"),
        ] {
            lab.host(host).run(&line.split(' ').collect::<Vec<_>>())?;
        }
    }
    let mut agents = start_both(&lab, &["--mode=tc"])?;
    for agent in &mut agents {
        agent.wait_for_mode("tc")?;
    }
    assert_nothing_is_lost(&mut agents, ["tc", "tc"])
}

#[test]
fn three_capabilities_are_enough_for_xdp() -> Result<()> {
    skip_unless_equipped!();
    let (lab, _wire) = wire()?;
    let mut agents = start_with(&lab, "-all,+bpf,+net_admin,+perfmon")?;
    for agent in &mut agents {
        agent.wait_for_mode("xdp")?;
    }
    assert_nothing_is_lost(&mut agents, ["xdp", "xdp"])
}

#[test]
fn with_two_capabilities_sockets_do_the_work_and_the_third_is_named() -> Result<()> {
    skip_unless_equipped!();
    let (lab, _wire) = wire()?;
    let mut agents = start_with(&lab, "-all,+bpf,+net_admin")?;
    for agent in &mut agents {
        let process = &mut agent.process;
        process.wait_for_line("No BPF on this node, probes go by sockets", agent::LIMIT)?;
        process.wait_for_line("the verifier wants CAP_PERFMON", agent::LIMIT)?;
    }
    assert_nothing_is_lost(&mut agents, ["socket", "socket"])
}

#[test]
fn without_any_capability_sockets_do_the_work() -> Result<()> {
    skip_unless_equipped!();
    let (lab, _wire) = wire()?;
    let mut agents = start_with(&lab, "-all")?;
    for agent in &mut agents {
        let line = agent
            .process
            .wait_for_line("No BPF on this node, probes go by sockets", agent::LIMIT)?;
        assert!(
            line.contains("CAP_BPF and CAP_NET_ADMIN are needed"),
            "{line}"
        );
    }
    assert_nothing_is_lost(&mut agents, ["socket", "socket"])
}

fn assert_tc_for_want_of_proof(lab: &Lab) -> Result<()> {
    agent::write_peers(lab, &agent::all_members(lab))?;
    let mut agents = start_both(lab, &[])?;
    for agent in &mut agents {
        let line = agent
            .process
            .wait_for_line("what it sends does not reach the wire", agent::LIMIT)?;
        assert!(line.contains("mode=\"tc\""), "{line}");
    }
    assert_nothing_is_lost(&mut agents, ["tc", "tc"])
}

/// A wire whose ends have XDP programs, so that either host may answer by `XDP_TX` whatever the other one does.
fn wire() -> Result<(Lab, FaultyWire)> {
    let lab = Lab::wire()?;
    let wire = FaultyWire::join(&lab, PORT, Faults::default(), Faults::default())?;
    agent::write_peers(&lab, &agent::all_members(&lab))?;
    Ok((lab, wire))
}

fn start_both(lab: &Lab, flags: &[&str]) -> Result<[Agent; 2]> {
    let start = |host| Launch::on(lab, host)?.flags(flags).start(host);
    Ok([start("n1")?, start("n2")?])
}

/// Both with no more than these capabilities, and so on a port that needs none.
fn start_with(lab: &Lab, capabilities: &str) -> Result<[Agent; 2]> {
    let words = only(capabilities);
    let start = |host| {
        let launch = Launch::on(lab, host)?.flags(&["--port=8620"]);
        launch
            .through(&words.each_ref().map(String::as_str))
            .start(host)
    };
    Ok([start("n1")?, start("n2")?])
}

/// Probes go on in these modes, and from the first answer on everything has come back.
fn assert_nothing_is_lost(agents: &mut [Agent], modes: [&str; 2]) -> Result<()> {
    for ((agent, peer), mode) in agents.iter_mut().zip(["n2", "n1"]).zip(modes) {
        let mut feed = agent.feed();
        wait_for_feed(
            &format!("probes of {peer} in mode {mode}"),
            &mut feed,
            |feed| {
                let last = feed.pair(peer)?.history.last()?;
                (last.mode == mode && last.received > 0).then_some(())
            },
        )?;
        settle(&mut feed, peer)?;
        let pair = feed.pair(peer).context("it was measured")?;
        let counters = pair.counters;
        eprintln!("{mode} to {peer}: {counters:?}");
        assert_eq!(pair.history.last().map(|last| last.mode), Some(mode));
        assert_eq!(unexplained(&counters), 0, "{counters:?}");
        // Until the other agent was there nobody could be asked to answer.
        assert_eq!(excused(&counters), counters.not_admitted, "{counters:?}");
        assert!(pair.adds_up(), "{counters:?}");
    }
    Ok(())
}

/// The kernel's number of the program in the XDP slot.
fn xdp_program(host: &Host, device: &str) -> Result<Option<u64>> {
    let text = host.run(&["ip", "-j", "link", "show", "dev", device])?;
    let links: serde_json::Value = serde_json::from_str(&text)?;
    Ok(links[0]["xdp"]["prog"]["id"].as_u64())
}

/// As a service manager would restrict it: only these capabilities, and no way to any other.
fn only(capabilities: &str) -> [String; 5] {
    [
        "setpriv".to_owned(),
        format!("--bounding-set={capabilities}"),
        format!("--inh-caps={capabilities}"),
        format!("--ambient-caps={capabilities}"),
        "--".to_owned(),
    ]
}

const TAKEN: &str = "the XDP slot of eth0 is taken by another program";
const PORT: u16 = 862;
