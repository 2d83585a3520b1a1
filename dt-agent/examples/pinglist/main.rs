//! The agent's own pinglists, timed and compared with the rule of the paper: what `cargo xtask bench pinglist` runs.
//!
//! `pinglist ROUNDS NODES…` writes one line of JSON for each number of nodes. Times are of one thread; what changes is
//! counted in the lists of all nodes, by as many threads as there are CPUs.

mod changes;
mod times;
mod town;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use changes::Changes;
use times::Times;
use town::Town;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let rounds = args.next().context("pinglist ROUNDS NODES…")?.parse()?;
    for nodes in args {
        println!("{}", measure(nodes.parse()?, rounds)?);
    }
    Ok(())
}

fn measure(nodes: usize, rounds: usize) -> Result<Value> {
    let town = Town::of(nodes);
    // What the default is for ten thousand; it must be too low for everybody to probe everybody.
    let limit = nodes / 4;
    let times = Times::measure(&town, limit, rounds);
    let changes = Changes::count(&town, limit)?;
    Ok(json!({
        "nodes": nodes,
        "racks": town.racks(),
        "zones": town.zones(),
        "limit": limit,
        "times": times,
        "changes": changes,
    }))
}
