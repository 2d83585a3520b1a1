//! The figures as tables for people and as JSON for programs.

use std::fmt::Write;

use serde::Serialize;

use super::Options;
use super::broker::Throughput;
use super::codec::Costs;
use super::recording::Recording;
use crate::bench::machine::Machine;

/// All that was measured.
#[derive(Serialize)]
pub struct Report {
    machine: String,
    recorded_seconds: u32,
    recorded_probes: usize,
    seed: u64,
    rounds: u32,
    costs: Vec<Costs>,
    throughputs: Vec<Throughput>,
}

impl Report {
    pub fn new(
        machine: &Machine,
        options: &Options,
        recording: &Recording,
        costs: Vec<Costs>,
        throughputs: Vec<Throughput>,
    ) -> Self {
        Self {
            machine: machine.host(),
            recorded_seconds: options.seconds,
            recorded_probes: recording.probes(),
            seed: options.seed,
            rounds: options.rounds,
            costs,
            throughputs,
        }
    }

    pub fn to_markdown(&self) -> String {
        let mut text = format!(
            "{}.\nDrawn from {} probes of a demo of {} s, seed {}; a minute of flushes of 1 s for each line. CPU times are of {} rounds: median \
             (least to greatest).\n\n{HEAD}",
            self.machine, self.recorded_probes, self.recorded_seconds, self.seed, self.rounds
        );
        for costs in &self.costs {
            let (shape, bytes) = (costs.shape, &costs.bytes);
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {} | {} | {} | {:.2} | {:.2} | {:.2} | {} | {} |",
                shape.peers,
                shape.probes_per_peer,
                shape.ports,
                bytes.total,
                bytes.zstd,
                bytes.dictionary,
                costs.encode_ns,
                costs.decode_ns,
            );
        }
        text + &self.columns() + &self.verdict() + &self.throughput()
    }

    /// What the columns of the judged meshes take.
    fn columns(&self) -> String {
        let mut text = String::from("\n");
        for costs in self.costs.iter().filter(|costs| costs.shape.is_judged()) {
            let columns = costs.bytes.columns.iter();
            let columns: Vec<_> = columns
                .filter(|(_, bytes)| *bytes >= 0.005)
                .map(|(name, bytes)| format!("{name} {bytes:.2}"))
                .collect();
            let _ = writeln!(
                text,
                "Bytes by column at {} peers: {}.",
                costs.shape.peers,
                columns.join(", ")
            );
        }
        text
    }

    fn verdict(&self) -> String {
        let judged = || self.costs.iter().filter(|costs| costs.shape.is_judged());
        let worst = |of: fn(&Costs) -> f64| judged().map(of).fold(0.0, f64::max);
        let mut text = String::from("\n");
        for (what, found, promised) in [
            ("bytes a probe", worst(|costs| costs.bytes.total), 8.0),
            ("bytes compressed", worst(|costs| costs.bytes.zstd), 6.0),
            ("ns to encode", worst(|costs| costs.encode_ns.median), 100.0),
            ("ns to decode", worst(|costs| costs.decode_ns.median), 100.0),
        ] {
            let word = if found <= promised {
                "kept"
            } else {
                "NOT kept"
            };
            let _ = writeln!(
                text,
                "- at most {promised} {what}, with the agent's default ports: {found:.2}: {word}"
            );
        }
        text
    }

    fn throughput(&self) -> String {
        if self.throughputs.is_empty() {
            return String::new();
        }
        let mut text = BROKER_HEAD.to_owned();
        for one in &self.throughputs {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {:.2} |",
                one.shape.peers,
                one.shape.probes_per_peer,
                one.probes_per_second,
                one.broker_ns,
                one.disk_bytes_per_probe,
            );
        }
        text
    }
}

const BROKER_HEAD: &str = "
One producer, one broker, one consumer that decodes every probe and is never more than 64 batches behind, all on this machine:

| peers | probes per peer and flush | probes per second | CPU of the broker, ns a probe | bytes a probe on its disk |
| ---: | ---: | ---: | ---: | ---: |
";
const HEAD: &str = "\
| peers | probes per peer and flush | source ports | bytes a probe | zstd | dictionary's share | ns to encode | ns to decode |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
";
