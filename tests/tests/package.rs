//! The Debian package, on two machines that are new but for it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use dt_tests::machine::Machine;
use dt_tests::{Lab, given, skip_unless_equipped, wait};
use serde_json::Value;

#[test]
fn two_machines_measure_each_other_by_the_package_and_it_is_upgraded_and_purged() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::mesh(2)?;
    let machines = [Machine::boot(&lab, "n1")?, Machine::boot(&lab, "n2")?];
    let outcome = check(&lab, &machines);
    if outcome.is_err() {
        for machine in &machines {
            let said = machine.run(&["journalctl", "--no-pager", "--lines=60", "--unit=dt-agent"]);
            eprintln!("{}: {said:?}", machine.host());
        }
    }
    outcome
}

fn check(lab: &Lab, machines: &[Machine<'_>; 2]) -> Result<()> {
    let [first, second] = machines;
    for machine in machines {
        install(machine)?;
    }
    rights_are_the_least(first)?;
    mistakes_are_told(first)?;
    for machine in machines {
        configure(lab, machine)?;
        machine.run(&["systemctl", "enable", "--now", "dt-agent"])?;
    }
    both_measure(machines, 0)?;
    capabilities_are_these(first)?;
    for version in [Version::Next, Version::This] {
        upgrade(machines, version)?;
    }
    first.run(&["systemctl", "reload", "dt-agent"])?;
    remove(first)?;
    // The other one goes on, and knows whom it does not reach.
    ensure!(second.run(&["systemctl", "is-active", "dt-agent"])?.trim() == "active");
    Ok(())
}

/// As root would type it. What is asked for is there, nothing runs, and it is said what comes next.
fn install(machine: &Machine<'_>) -> Result<()> {
    let said = put(machine, Version::This)?;
    for words in [
        "all that are needed",
        "to-n",
        "systemctl enable --now dt-agent",
        "peers.toml",
    ] {
        ensure!(said.contains(words), "{words} is not in\n{said}");
    }
    for file in [
        "/usr/share/man/man1/dt-agent-run.1.gz",
        "/usr/share/bash-completion/completions/dt-agent",
        "/usr/share/doc/distributed-trace/examples/peers.toml",
        "/etc/distributed-trace/agent.toml",
    ] {
        ensure!(machine.path(file).is_file(), "no {file}");
    }
    let state = machine
        .command(&["systemctl", "is-enabled", "dt-agent"])
        .output()?;
    ensure!(String::from_utf8_lossy(&state.stdout).trim() == "disabled");
    let changed = machine.run(&["dpkg", "--verify", "distributed-trace"])?;
    ensure!(changed.is_empty(), "{changed}");
    Ok(())
}

/// The words of systemd itself on the unit.
fn rights_are_the_least(machine: &Machine<'_>) -> Result<()> {
    let unit = "/usr/lib/systemd/system/dt-agent.service";
    let verified = machine
        .command(&["systemd-analyze", "verify", "--man=no", unit])
        .output()?;
    let said = String::from_utf8_lossy(&verified.stderr);
    ensure!(
        verified.status.success() && said.trim().is_empty(),
        "{said}"
    );
    let said = machine.run(&[
        "systemd-analyze",
        "security",
        "--no-pager",
        "dt-agent.service",
    ])?;
    let line = said
        .lines()
        .rfind(|line| line.contains("Overall exposure level"));
    let line = line.context("no exposure level")?;
    println!("systemd-analyze security: {}", line.trim());
    let level = line
        .split_whitespace()
        .find_map(|word| word.parse::<f64>().ok());
    ensure!(level.context("a number")? <= EXPOSURE, "{said}");
    Ok(())
}

/// A mistake in the settings is not tried again and again, and the journal names it.
fn mistakes_are_told(machine: &Machine<'_>) -> Result<()> {
    let settings = machine.path("/etc/distributed-trace/agent.toml");
    let good = fs::read_to_string(&settings)?;
    fs::write(&settings, format!("{good}\nratee = 10\n"))?;
    machine.run(&["systemctl", "start", "dt-agent"])?;
    wait::until("failed service", LIMIT, || {
        let state = machine
            .command(&["systemctl", "is-failed", "dt-agent"])
            .output()?;
        Ok((String::from_utf8_lossy(&state.stdout).trim() == "failed").then_some(()))
    })?;
    let journal = machine.run(&[
        "journalctl",
        "--no-pager",
        "--unit=dt-agent",
        "--output=cat",
    ])?;
    ensure!(
        journal.contains("ratee") && journal.contains("rate"),
        "{journal}"
    );
    machine.run(&["systemctl", "reset-failed", "dt-agent"])?;
    Ok(fs::write(&settings, good)?)
}

fn configure(lab: &Lab, machine: &Machine<'_>) -> Result<()> {
    let peers = ["n1", "n2"].map(|name| {
        let address = lab.host(name).ipv4();
        format!("[[peer]]\nname = \"{name}\"\naddresses = [\"{address}\"]\n")
    });
    fs::write(
        machine.path("/etc/distributed-trace/peers.toml"),
        peers.concat(),
    )?;
    let settings = machine.path("/etc/distributed-trace/agent.toml");
    let mut text = fs::read_to_string(&settings)?;
    text += "rate = 20\nwindow = \"1s\"\n";
    Ok(fs::write(settings, text)?)
}

/// Each has its own and the other's share of what was sent, `more` at least, and nothing was lost.
fn both_measure(machines: &[Machine<'_>; 2], more: u64) -> Result<u64> {
    let mut least = u64::MAX;
    for machine in machines {
        let total = wait::until("measurements", LIMIT, || {
            let Ok(said) = machine.run(&MATRIX) else {
                return Ok(None);
            };
            let picture: Value = serde_json::from_str(&said)?;
            let total = picture["total"].clone();
            Ok((total["received"].as_u64() > Some(more)).then_some(total))
        })?;
        println!(
            "{}: {} sent, {} lost",
            machine.host(),
            total["sent"],
            total["lost"]
        );
        ensure!(total["lost"] == 0, "{total}");
        least = least.min(total["received"].as_u64().unwrap_or_default());
    }
    Ok(least)
}

/// What the kernel says that the process may do.
fn capabilities_are_these(machine: &Machine<'_>) -> Result<()> {
    let pid = main_pid(machine)?;
    let status = machine.run(&["cat", &format!("/proc/{pid}/status")])?;
    let of = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        u64::from_str_radix(line.unwrap_or_default().trim(), 16)
    };
    // CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_PERFMON, CAP_BPF: include/uapi/linux/capability.h.
    let wanted = BTreeSet::from([10, 12, 38, 39]);
    for key in ["CapEff:", "CapPrm:", "CapBnd:"] {
        let set = of(key)?;
        let found: BTreeSet<_> = (0..64).filter(|bit| set >> bit & 1 == 1).collect();
        ensure!(found == wanted, "{key} {found:?}");
    }
    ensure!(
        status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2"),
        "{status}"
    );
    let said = machine.run(&["dt-agent", "doctor"])?;
    ensure!(said.contains("works here in mode xdp now"), "{said}");
    ensure!(
        machine.programs()?.contains("xdp"),
        "{}",
        machine.programs()?
    );
    Ok(())
}

/// Another version on the first machine, whose peers lose nothing meanwhile; settings stay as they are.
fn upgrade(machines: &[Machine<'_>; 2], version: Version) -> Result<()> {
    let first = &machines[0];
    let (before, settings) = (
        main_pid(first)?,
        first.path("/etc/distributed-trace/agent.toml"),
    );
    let text = fs::read_to_string(&settings)?;
    let received = both_measure(machines, 0)?;
    put(first, version)?;
    wait::until("the new one", LIMIT, || {
        Ok(main_pid(first)
            .ok()
            .filter(|pid| *pid != before && pid != "0"))
    })?;
    both_measure(machines, received + 100)?;
    ensure!(fs::read_to_string(&settings)? == text);
    Ok(())
}

fn main_pid(machine: &Machine<'_>) -> Result<String> {
    let said = machine.run(&[
        "systemctl",
        "show",
        "--property=MainPID",
        "--value",
        "dt-agent",
    ])?;
    Ok(said.trim().to_owned())
}

/// Nothing of it is left: first no program and no service, then no file.
fn remove(machine: &Machine<'_>) -> Result<()> {
    machine.run(&["dpkg", "--remove", "distributed-trace"])?;
    let programs = machine.programs()?;
    ensure!(
        !programs.contains("dt_") && !programs.contains("tc_egress"),
        "{programs}"
    );
    let pins = machine.path("/sys/fs/bpf/distributed-trace");
    ensure!(!pins.exists(), "{} is left", pins.display());
    ensure!(machine.path("/etc/distributed-trace/agent.toml").is_file());
    machine.run(&["dpkg", "--purge", "distributed-trace"])?;
    let words = [
        "find",
        "/etc",
        "/usr",
        "/var/lib",
        "-name",
        "*dt-agent*",
        "-o",
        "-name",
        "*distributed-trace*",
    ];
    let left = machine.run(&words)?;
    ensure!(left.is_empty(), "left behind:\n{left}");
    let listed = machine.run(&[
        "systemctl",
        "list-units",
        "--all",
        "--no-legend",
        "dt-agent*",
    ])?;
    ensure!(listed.trim().is_empty(), "{listed}");
    Ok(())
}

#[derive(Clone, Copy)]
enum Version {
    This,
    /// Under another ABI's number.
    Next,
}

fn put(machine: &Machine<'_>, version: Version) -> Result<String> {
    let package = match version {
        Version::This => given::package()?,
        Version::Next => given::next_package()?,
    };
    let there = Path::new("/root").join(package.file_name().context("it is a file")?);
    let there = there.display().to_string();
    fs::copy(&package, machine.path(&there))?;
    // Back to an older version is no mistake either.
    machine.run(&["dpkg", "--install", "--force-downgrade", &there])
}

const MATRIX: [&str; 8] = [
    "dt-console",
    "matrix",
    "--dir",
    "/var/lib/distributed-trace/feed",
    "--once",
    "--json",
    "--span",
    "all",
];
/// Of 10; what it was measured as, and no more.
const EXPOSURE: f64 = 2.5;
const LIMIT: Duration = Duration::from_secs(30);
