//! What the agent says of a probe is what happened to it, by stamps of programs that share no code with its own.

use std::fs;

use anyhow::{Context, Result, ensure};
use dt_tests::agent::{self, settle, wait_for_feed};
use dt_tests::delay_line::{DelayLine, Holds};
use dt_tests::feed::unexplained;
use dt_tests::truth::{Stamps, overtaken, reported};
use dt_tests::{Lab, Launch, given, skip_unless_equipped};
use nix::sys::signal::Signal;

#[test]
fn each_probe_took_as_long_as_it_is_said_to_have_taken() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::wire()?;
    let holds = Holds {
        there: 0..20_000_000,
        back: 0..5_000_000,
    };
    let line = DelayLine::join(&lab, holds.script(1)?)?;
    agent::write_peers(&lab, &agent::all_members(&lab))?;
    let mut reflector = Launch::on(&lab, "n2")?
        .flags(&["--mode=tc", "--rate=0.001"])
        .start("n2")?;
    reflector.wait_for_mode("tc")?;
    let flags = ["--mode=tc", "--detail=probes", "--rate=200"];
    let mut prober = Launch::on(&lab, "n1")?.flags(&flags).start("n1")?;
    prober.wait_for_mode("tc")?;
    let mut stamps = Stamps::load(&given::lab_object()?)?;
    stamps.attach_to_wire(&lab)?;
    stamps.attach_to_hosts(&lab)?;
    let mut feed = prober.feed();
    wait_for_feed("some thousand answers", &mut feed, |feed| {
        (feed.received("n2") >= 2_000).then_some(())
    })?;
    settle(&mut feed, "n2")?;
    assert!(prober.stop()?.success());

    let said = reported(prober.feed_dir())?;
    let last = *said.keys().next_back().context("no probe was answered")?;
    let passages = stamps.passages(0..last + 1)?;
    let (mut compared, mut held) = (0, 0);
    for (sequence, rtt_ns) in &said {
        let passage = passages[*sequence as usize];
        // The first ones were sent before anybody looked.
        let (Some(true_ns), Some(line_ns)) = (passage.rtt_ns(), passage.line_ns()) else {
            continue;
        };
        ensure!(
            *rtt_ns >= line_ns,
            "probe {sequence}: {rtt_ns} ns, the wire alone took {line_ns}: {passage:?}"
        );
        let off_ns = rtt_ns.abs_diff(true_ns);
        ensure!(
            off_ns < 1_000_000,
            "probe {sequence}: {rtt_ns} ns, it was {true_ns}: {passage:?}"
        );
        compared += 1;
        held += u32::from(line_ns > 5_000_000);
    }
    assert!(compared > 1_000, "{compared} probes were compared");
    assert!(
        held * 2 > compared,
        "{held} of {compared} were held for long"
    );
    let counters = feed.total("n2");
    assert_eq!(unexplained(&counters), 0, "{counters:?}");
    assert!(
        counters.reordered > 0,
        "held for different times, they overtake each other"
    );
    line.cut()
}

#[test]
fn each_reply_that_was_overtaken_is_counted_as_reordered_and_no_other() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::wire()?;
    // Probes leave every 5 ms, so that some are overtaken by several others.
    let holds = Holds {
        there: 0..20_000_000,
        back: 0..5_000_000,
    };
    let line = DelayLine::join(&lab, holds.script(7)?)?;
    agent::write_peers(&lab, &agent::all_members(&lab))?;
    let mut reflector = Launch::on(&lab, "n2")?
        .flags(&["--mode=tc", "--rate=0.001"])
        .start("n2")?;
    reflector.wait_for_mode("tc")?;
    // Almost never, until all stamps are in place. One port is one path: only there is an order.
    let settings = lab.dir().join("n1.toml");
    fs::write(&settings, "rate = 0.001\n")?;
    let config = format!("--config={}", settings.display());
    let mut prober = Launch::on(&lab, "n1")?
        .setting("DT_RATE", "")
        .flags(&["--mode=tc", "--source-ports=61000-61000", &config])
        .start("n1")?;
    prober.wait_for_mode("tc")?;
    let mut stamps = Stamps::load(&given::lab_object()?)?;
    stamps.attach_to_wire(&lab)?;
    stamps.attach_to_hosts(&lab)?;
    fs::write(&settings, "rate = 200\n")?;
    prober.signal(Signal::SIGHUP)?;
    let mut feed = prober.feed();
    wait_for_feed("some thousand answers", &mut feed, |feed| {
        (feed.received("n2") >= 3_000).then_some(())
    })?;
    settle(&mut feed, "n2")?;
    assert!(prober.stop()?.success());
    feed.read()?;

    let counters = feed.total("n2");
    let passages = stamps.passages(0..u32::try_from(counters.sent)?)?;
    let (arrived, overtaken) = overtaken(&passages);
    println!("{overtaken} of {arrived} replies were overtaken");
    assert!(
        overtaken * 4 > counters.received,
        "they are to overtake each other"
    );
    assert_eq!(counters.reordered, overtaken, "{counters:?}");
    line.cut()
}
