//! Probes that the programs make: the same on the wire and in the feed as those of sockets, and only where that is safe.

use anyhow::{Context, Result, ensure};
use dt_common::map::Reason;
use dt_feed::proto::StampSource;
use dt_tests::agent::{self, LIMIT, settle, wait_for_feed};
use dt_tests::feed::{excused, unexplained};
use dt_tests::pinned::counter;
use dt_tests::{Agent, Lab, LabObject, skip_unless_equipped, wait};

#[test]
fn probes_made_in_the_kernel_are_as_good_as_those_of_sockets() -> Result<()> {
    skip_unless_equipped!();
    for mode in ["xdp", "tc"] {
        for family in ["4", "6"] {
            let lab = Lab::mesh(3)?;
            compare(
                &lab,
                &[&format!("--mode={mode}"), &format!("--family={family}")],
            )
            .with_context(|| format!("mode {mode}, IPv{family}"))?;
        }
    }
    Ok(())
}

#[test]
fn auto_makes_probes_in_the_kernel_where_many_leave_together() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::bridge(3)?;
    let mut switch = LabObject::load()?;
    switch.open_switch(&lab)?;
    // One tick has the probes of two peers, three of each.
    let mut agents = agent::start_all(&lab, &["--mode=xdp", "--sender=auto", "--rate=3000"])?;
    wait_until_made(&lab, "n1", 10_000)?;
    check(&lab, &mut agents)
}

/// The hop that was learned is one for ten seconds: after that the host's routes have their say again.
#[test]
fn a_route_that_goes_away_is_noticed_though_probes_are_made_in_the_kernel() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::mesh(2)?;
    let mut agents = agent::start_all(&lab, &["--mode=xdp", "--sender=kernel"])?;
    wait_until_made(&lab, "n1", 100)?;
    let host = lab.host("n1");
    let address = lab.host("n2").ipv4().to_string();
    let route = host.run(&["ip", "route", "show", &address])?;
    host.run(&["ip", "route", "replace", "unreachable", &address])?;
    let mut feed = agents[0].feed();
    wait_for_feed("probes that cannot be sent", &mut feed, |feed| {
        (feed.total("n2").send_failed > 100).then_some(())
    })?;
    host.run(&["ip", "route", "del", "unreachable", &address])?;
    let words = ["ip", "route", "add"].into_iter();
    host.run(&words.chain(route.split_whitespace()).collect::<Vec<_>>())?;
    let made = counter(&lab, "n1", Reason::Made)?;
    wait_until_made(&lab, "n1", made + 100)?;
    settle(&mut feed, "n2")?;
    let counters = feed.total("n2");
    assert_eq!(unexplained(&counters), 0, "{counters:?}");
    assert!(
        agents
            .iter_mut()
            .all(|agent| agent.stop().is_ok_and(|status| status.success()))
    );
    Ok(())
}

/// The firewall sees the list, not the probes: what it takes away must not be missed, and not be sent twice.
#[test]
fn behind_a_firewall_that_takes_the_lists_probes_go_through_sockets() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::mesh(2)?;
    let rule = "iptables -A OUTPUT -p udp --dport 9 -j DROP";
    lab.host("n1").run(&rule.split(' ').collect::<Vec<_>>())?;
    let agents = agent::start_all(&lab, &["--mode=xdp", "--sender=kernel"])?;
    let mut feed = agents[0].feed();
    wait_for_feed("answers", &mut feed, |feed| {
        (feed.received("n2") >= 500).then_some(())
    })?;
    settle(&mut feed, "n2")?;
    let pair = feed.pair("n2").context("it was measured")?;
    assert!(pair.adds_up(), "{:?}", pair.counters);
    let counters = feed.total("n2");
    let disorder = counters.reordered + counters.duplicate_forward + counters.send_failed;
    assert_eq!((unexplained(&counters), disorder), (0, 0), "{counters:?}");
    assert_eq!(counter(&lab, "n1", Reason::Made)?, 0);
    Ok(())
}

#[test]
fn sockets_alone_make_probes_when_that_is_asked_for() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::mesh(2)?;
    let agents = agent::start_all(&lab, &["--mode=xdp", "--sender=sockets"])?;
    let mut feed = agents[0].feed();
    wait_for_feed("answers", &mut feed, |feed| {
        (feed.received("n2") >= 200).then_some(())
    })?;
    assert_eq!(counter(&lab, "n1", Reason::Made)?, 0);
    Ok(())
}

/// Some thousand probes of each pair, most of them made in the kernel.
fn compare(lab: &Lab, flags: &[&str]) -> Result<()> {
    let flags = [&["--sender=kernel", "--rate=200"], flags].concat();
    let mut agents = agent::start_all(lab, &flags)?;
    for host in lab.hosts() {
        wait_until_made(lab, host.name(), 1_000)?;
    }
    check(lab, &mut agents)
}

/// Nothing lost, doubled or out of order, all of it stamped at egress.
fn check(lab: &Lab, agents: &mut [Agent]) -> Result<()> {
    for (host, agent) in lab.hosts().into_iter().zip(agents) {
        let mut feed = agent.feed();
        let others = lab.hosts().into_iter().map(dt_tests::Host::name);
        for peer in others.filter(|peer| *peer != host.name()) {
            settle(&mut feed, peer)?;
            let pair = feed.pair(peer).context("it was measured")?;
            let counters = pair.counters;
            assert!(pair.adds_up(), "{counters:?}");
            assert_eq!(unexplained(&counters), 0, "{counters:?}");
            assert_eq!(excused(&counters), counters.not_admitted, "{counters:?}");
            let disorder = counters.reordered
                + counters.duplicate_forward
                + counters.duplicate_return
                + counters.send_failed;
            assert_eq!(disorder, 0, "{counters:?}");
            let method = pair.history.last().context("a window")?.method;
            assert_eq!(method.t1(), StampSource::TcEgress);
        }
        let (made, stamped) = (
            counter(lab, host.name(), Reason::Made)?,
            counter(lab, host.name(), Reason::Stamped)?,
        );
        ensure!(
            made * 2 > stamped,
            "{made} of {stamped} were made in the kernel"
        );
    }
    Ok(())
}

fn wait_until_made(lab: &Lab, host: &str, least: u64) -> Result<()> {
    wait::until("probes made in the kernel", LIMIT, || {
        // The map comes with the agent.
        let made = counter(lab, host, Reason::Made).unwrap_or(0);
        Ok((made >= least).then_some(()))
    })
    .with_context(|| format!("{host} made {:?}", counter(lab, host, Reason::Made)))
}
