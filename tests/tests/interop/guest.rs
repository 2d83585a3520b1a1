//! `ping` beside a running agent, which must not notice.

use std::fs;
use std::path::Path;
use std::thread;

use anyhow::Result;
use dt_tests::{Proc, skip_unless_equipped, wait};
use nix::sys::signal::Signal;

use crate::field::{Field, LIMIT, agent, texts};

#[test]
fn ping_joins_a_running_agent_and_leaves_it_as_it_was() -> Result<()> {
    skip_unless_equipped!();
    let field = Field::new("tc")?;
    let mut agents = start_agents(&field)?;
    let pins = field.lab.pin_dir().join("n1");
    let before = names(&pins.join("links"))?;
    let summary = field.ping_summary(&[
        "-c",
        "1000",
        "-i",
        "0.002",
        "--compare",
        "--node",
        "n1",
        "-q",
        "10.77.0.2",
        "fd77::2",
        "10.77.0.3",
    ])?;
    assert_eq!(summary["received"], 1000, "{summary}");
    assert_eq!(summary["peer"], "distributed-trace", "{summary}");
    assert_eq!(summary["user_rtt_ns"]["count"], 1000, "{summary}");
    assert_eq!(names(&pins.join("links"))?, before);
    let others: Vec<_> = names(&field.lab.pin_dir())?
        .into_iter()
        .filter(|name| name.starts_with("ping-"))
        .collect();
    assert!(
        others.is_empty(),
        "it loaded programs of its own: {others:?}"
    );
    for agent in &mut agents {
        assert!(agent.terminate(LIMIT)?.success(), "{}", agent.output()?);
        assert!(!agent.output()?.contains("WARN"), "{}", agent.output()?);
    }
    Ok(())
}

#[test]
fn guests_at_one_time_and_one_that_crashed_do_not_disturb_each_other() -> Result<()> {
    skip_unless_equipped!();
    let field = Field::new("tc")?;
    let _agents = start_agents(&field)?;
    crash_a_guest(&field)?;
    thread::scope(|scope| {
        let guests: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let options = [
                        "-c",
                        "300",
                        "-i",
                        "0.002",
                        "--node",
                        "n1",
                        "-q",
                        "10.77.0.2",
                    ];
                    field.ping_summary(&options)
                })
            })
            .collect();
        for guest in guests {
            let summary = guest.join().expect("no panic")?;
            assert_eq!(summary["received"], 300, "{summary}");
        }
        Ok(())
    })
}

#[test]
fn ping_without_an_agent_takes_its_programs_away_also_on_ctrl_c() -> Result<()> {
    skip_unless_equipped!();
    let field = Field::new("xdp")?;
    let _reflector = reflector_on_n2(&field)?;
    let mut ping = field.ours().command(agent()?.as_str());
    ping.args([
        "ping",
        "-i",
        "0.01",
        "--mode",
        "xdp",
        "10.77.0.2",
        "--pin-root",
    ]);
    ping.arg(field.lab.pin_dir());
    let mut ping = Proc::spawn("ping", &field.lab.dir(), &mut ping)?;
    ping.wait_for_line("seq=10 ", LIMIT)?;
    assert!(holds_xdp(&field)?, "native XDP is attached");
    ping.signal(Signal::SIGINT)?;
    assert!(ping.wait(LIMIT)?.success(), "{}", ping.output()?);
    assert!(
        ping.output()?.contains("ping statistics"),
        "{}",
        ping.output()?
    );
    assert!(!holds_xdp(&field)?);
    assert_eq!(
        names(&field.lab.pin_dir())?,
        ["x"],
        "only the reflector's own pins"
    );
    Ok(())
}

#[test]
fn ping_without_a_privilege_goes_by_sockets_and_says_why() -> Result<()> {
    skip_unless_equipped!();
    let field = Field::new("socket")?;
    let _suite = field.stamp_suite(field.foreign_addresses()[0], &[])?;
    let mut ping = field.ours().command("setpriv");
    ping.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    // Whoever is not root may not read where tests are built.
    let copy = std::env::temp_dir().join(format!("dt-agent-{}", std::process::id()));
    fs::copy(agent()?, &copy)?;
    ping.arg(&copy);
    ping.args([
        "ping",
        "-c",
        "50",
        "-i",
        "0.002",
        "--json",
        "-q",
        "10.77.0.2",
    ]);
    let output = ping.output();
    fs::remove_file(&copy)?;
    let output = output?;
    let (stdout, stderr) = texts(&output);
    assert!(output.status.success(), "{stdout}{stderr}");
    let summary: serde_json::Value = serde_json::from_str(&stdout)?;
    assert_eq!(summary["received"], 50, "{summary}");
    assert_eq!(summary["t4"], serde_json::json!(["socket"]), "{summary}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    Ok(())
}

/// Leaves what a guest leaves that is killed.
fn crash_a_guest(field: &Field) -> Result<()> {
    let mut crashed = field.ours().command(agent()?.as_str());
    crashed.args([
        "ping",
        "--node",
        "n1",
        "-i",
        "0.01",
        "10.77.0.2",
        "--pin-root",
    ]);
    crashed.arg(field.lab.pin_dir());
    let mut crashed = Proc::spawn("crashed", &field.lab.dir(), &mut crashed)?;
    crashed.wait_for_line("seq=5 ", LIMIT)?;
    crashed.kill()
}

/// Agents on all hosts; they probe each other when this returns.
fn start_agents(field: &Field) -> Result<Vec<Proc>> {
    let peers = field.lab.dir().join("peers.toml");
    let hosts = field.lab.hosts();
    let entries: Vec<_> = hosts
        .iter()
        .map(|host| {
            let (name, v4, v6) = (host.name(), host.ipv4(), host.ipv6());
            format!("[[peer]]\nname = \"{name}\"\naddresses = [\"{v4}\", \"{v6}\"]\n")
        })
        .collect();
    fs::write(&peers, entries.concat())?;
    let mut agents = Vec::new();
    for host in &hosts {
        let mut command = host.command(agent()?.as_str());
        command.args([
            "run",
            "--mode",
            "tc",
            "--node",
            host.name(),
            "--rate",
            "100",
        ]);
        command
            .arg("--discovery")
            .arg(format!("file:{}", peers.display()));
        command.arg("--pin-root").arg(field.lab.pin_dir());
        agents.push(Proc::spawn(host.name(), &field.lab.dir(), &mut command)?);
    }
    for agent in &mut agents {
        wait::until("rung of both interfaces", LIMIT, || {
            let chosen = agent.output()?.matches("Datapath chosen.").count();
            Ok((chosen >= 2).then_some(()))
        })?;
    }
    Ok(agents)
}

fn reflector_on_n2(field: &Field) -> Result<Proc> {
    let mut command = field.foreign().command(agent()?.as_str());
    command.args([
        "reflect",
        "--mode",
        "tc",
        "--node",
        "x",
        "--interface",
        "to-n1",
    ]);
    command.args(["--allow", "10.77.0.0/16", "--pin-root"]);
    command.arg(field.lab.pin_dir().join("x"));
    let mut reflector = Proc::spawn("reflect", &field.lab.dir(), &mut command)?;
    reflector.wait_for_line("mode tc", LIMIT)?;
    Ok(reflector)
}

/// Whether a program is in the XDP slot of the device of `n1` that leads to `n2`.
fn holds_xdp(field: &Field) -> Result<bool> {
    let shown = field
        .ours()
        .run(&["ip", "-o", "link", "show", "dev", "to-n2"])?;
    Ok(shown.contains("prog/xdp"))
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let mut names: Vec<_> = fs::read_dir(directory)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}
