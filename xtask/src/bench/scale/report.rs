//! The rows as a table for people and as JSON for programs, with what each peer and each probe adds.

use std::fmt::Write as _;

use serde::Serialize;

use super::{Options, Row, Sender};
use crate::bench::machine::Machine;

#[derive(Serialize)]
pub struct Report {
    machine: String,
    sender: Sender,
    seconds: u32,
    rows: Vec<Row>,
    /// Bytes of resident memory that a peer adds, and those without any, by least squares over the rows of a rate.
    rss_fits: Vec<Fit>,
    /// The whole machine's CPU time: seconds per second that a probe per second adds, and those without any.
    cpu_fit: Option<Line>,
}

/// The rows of one rate.
#[derive(Serialize)]
struct Fit {
    rate: f64,
    line: Line,
}

/// `y = base + slope * x`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Line {
    base: f64,
    slope: f64,
    /// Share of the differences between rows that the line explains (R²).
    explained: f64,
}

impl Report {
    pub fn new(machine: &Machine, options: &Options, rows: Vec<Row>) -> Self {
        let of_rate = |rate: f64| {
            let rows = rows
                .iter()
                .filter(move |row| row.rate.to_bits() == rate.to_bits());
            rows.map(|row| (f64::from(row.peers), row.rss as f64))
        };
        let fits = options.rates.iter().filter_map(|rate| {
            let line = Line::through(&of_rate(*rate).collect::<Vec<_>>())?;
            Some(Fit { rate: *rate, line })
        });
        let cpu: Vec<_> = rows
            .iter()
            .map(|row| (row.probes_per_second(), row.machine_cpu))
            .collect();
        Self {
            machine: machine.line(),
            sender: options.sender,
            seconds: options.seconds,
            rss_fits: fits.collect(),
            cpu_fit: Line::through(&cpu),
            rows,
        }
    }

    pub fn to_markdown(&self) -> String {
        let mut text = format!(
            "{}\nAn agent in mode xdp, windows of 10 s on a feed of files, sender {}; its peers are addresses behind the other host's XDP \
             reflector. At least {} s a row.\n\n{HEAD}",
            self.machine,
            self.sender.name(),
            self.seconds
        );
        for row in &self.rows {
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {} | {} | {:.2} | {:.0} | {:.1} | {:.1} | {:.0} | {:.2} | {:.2} | {:.2} | {:.0} |",
                row.peers,
                row.rate,
                row.reached * 100.0,
                row.made * 100.0,
                mb(row.rss),
                mb(row.maps),
                row.sockets as f64 / 1e3,
                row.agent_cpu * 100.0,
                row.machine_cpu * 100.0,
                row.drift * 100.0,
                row.ns_per_round_trip()
            );
        }
        text.push('\n');
        for Fit { rate, line } in &self.rss_fits {
            let _ = writeln!(
                text,
                "Resident memory at {rate}/s: {:.1} MB and {:.0} bytes a peer (R² {:.3}).",
                line.base / 1e6,
                line.slope,
                line.explained
            );
        }
        if let Some(line) = self.cpu_fit {
            let _ = writeln!(
                text,
                "CPU of the machine over all rows: {:.2} % of one and {:.0} ns a round trip (R² {:.3}).",
                line.base * 100.0,
                line.slope * 1e9,
                line.explained
            );
        }
        text
    }
}

/// A row while others are still measured.
pub fn line(row: &Row) -> String {
    format!(
        "{:.1} MB resident, {:.1} MB of maps; agent {:.2} %, machine {:.2} % of one CPU (the quiet drifted by {:.2} %); {:.2} % of \
         the round trips, {:.0} % of the probes made in the kernel",
        mb(row.rss),
        mb(row.maps),
        row.agent_cpu * 100.0,
        row.machine_cpu * 100.0,
        row.drift * 100.0,
        row.reached * 100.0,
        row.made * 100.0
    )
}

impl Line {
    /// Least squares; none through fewer than two places.
    fn through(points: &[(f64, f64)]) -> Option<Self> {
        let count = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let sum = |of: &dyn Fn(f64, f64) -> f64| {
            points
                .iter()
                .map(|point| of(point.0 - x, point.1 - y))
                .sum::<f64>()
        };
        let (xx, xy, yy) = (sum(&|x, _| x * x), sum(&|x, y| x * y), sum(&|_, y| y * y));
        (xx > 0.0).then(|| Self {
            base: y - xy / xx * x,
            slope: xy / xx,
            explained: if yy > 0.0 { xy * xy / (xx * yy) } else { 1.0 },
        })
    }
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

const HEAD: &str = "\
| peers | probes per second and peer | round trips, % of those asked for | made in the kernel, % | resident, MB | maps, MB | datagrams in sockets, kB | agent, % of one CPU | machine, % of one CPU | drift of the quiet, % | machine, ns a round trip |
| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_where_there_is_one() {
        let line = Line::through(&[(0.0, 3.0), (1.0, 5.0), (3.0, 9.0)]).expect("three points");
        let close = |one: f64, other: f64| (one - other).abs() < 1e-9;
        assert!(close(line.base, 3.0) && close(line.slope, 2.0) && close(line.explained, 1.0));
        assert_eq!(Line::through(&[(1.0, 1.0)]), None);
    }
}
