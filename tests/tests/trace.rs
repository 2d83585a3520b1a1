//! The programs' log: in builds for development it tells each verdict, in all others it does not exist.

use std::fs;
use std::path::Path;

use anyhow::Result;
use dt_tests::{Lab, Launch, agent, given, skip_unless_equipped};

#[test]
fn programs_built_for_tracing_load_and_name_each_verdict() -> Result<()> {
    skip_unless_equipped!();
    let lab = Lab::mesh(2)?;
    agent::write_peers(&lab, &agent::all_members(&lab))?;
    let start = |host| {
        Launch::on(&lab, host)?
            .binary(given::trace_agent()?)
            .flags(&["--mode=xdp", "--log=debug"])
            .start(host)
    };
    let mut agents = [start("n1")?, start("n2")?];
    for verdict in ["stamped", "reflected", "collected"] {
        agents[0].wait_until_said(&format!("verdict=\"{verdict}\""))?;
    }
    Ok(())
}

#[test]
fn released_programs_have_no_log() -> Result<()> {
    skip_unless_equipped!();
    for plain in [given::datapath_object()?, given::agent()?] {
        assert!(!has_log(&plain)?, "{} has a log", plain.display());
    }
    assert!(
        has_log(&given::trace_agent()?)?,
        "what is looked for is what a log is known by"
    );
    Ok(())
}

/// Whether a map of programs' logs is named in a BPF object, or in the one that an agent carries.
fn has_log(file: &Path) -> Result<bool> {
    let bytes = fs::read(file)?;
    // Built in two parts, so that it is in nobody's constants but the objects'.
    let name = ["\0AYA", "_LOGS\0"].concat();
    Ok(bytes
        .windows(name.len())
        .any(|window| window == name.as_bytes()))
}
