//! `dt-console tail`: a line for each window or probe, as they come.
//!
//! A batch is confirmed when all of its lines were handed to standard output, so a member of a group passes nothing over.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use dt_feed::proto::Batch;

use super::output::Output;
use super::{Talk, json, open, told};
use crate::cli::Tail;
use crate::cli::value::Moment;
use crate::clock;
use crate::filter::{Filter, Threshold};
use crate::intake::{Intake, Source as Origins};
use crate::interrupt::Interrupt;
use crate::merge::loss;
use crate::rows::{self, Column, PROBE_COLUMNS, ProbeRow, WINDOW_COLUMNS, WindowRow, outcome_name};
use crate::source::Event;
use crate::units;

/// Prints until it is interrupted, or until there is nothing more where that was asked for.
pub(super) fn run(arguments: &Tail, interrupt: &Interrupt) -> Result<ExitCode> {
    let since = arguments.since.unwrap_or(if arguments.once {
        Moment::Start
    } else {
        Moment::End
    });
    let begin = since.begin(clock::now_ms());
    let mut source = open(&arguments.source, begin, interrupt)?;
    let mut tail = Printer::new(arguments);
    let mut talk = Talk::default();
    while !interrupt.is_set() && tail.wants_more() {
        match source.poll(PATIENCE)? {
            Some(Event::Batch {
                batch,
                log_ms,
                context,
            }) => {
                tail.take(&batch, log_ms, context)?;
                tail.intake.handle_time(log_ms);
                tail.output.flush()?;
                source.confirm();
            }
            Some(other) => {
                talk.take(&other);
                source.confirm();
            }
            None if arguments.once && source.is_caught_up() => break,
            None => (),
        }
    }
    let skipped = source.skipped();
    source.close();
    told(skipped);
    tail.tell_faults();
    Ok(ExitCode::SUCCESS)
}

struct Printer<'a> {
    arguments: &'a Tail,
    filter: Filter,
    threshold: Threshold,
    intake: Intake,
    output: Output,
    lines: u64,
}

impl<'a> Printer<'a> {
    fn new(arguments: &'a Tail) -> Self {
        Self {
            arguments,
            filter: arguments.filter.filter(),
            threshold: arguments.threshold(),
            intake: Intake::default(),
            output: Output::new(),
            lines: 0,
        }
    }

    fn wants_more(&self) -> bool {
        self.arguments
            .lines
            .is_none_or(|wanted| self.lines < wanted)
    }

    fn take(&mut self, batch: &Batch, log_ms: u64, context: bool) -> Result<()> {
        let Some(source) = self.intake.handle_batch(batch, log_ms) else {
            return Ok(());
        };
        if context {
            return Ok(());
        }
        if self.arguments.probes {
            self.probes(source, batch)?;
        } else {
            self.windows(source, batch)?;
        }
        Ok(())
    }

    fn windows(&mut self, source: Origins, batch: &Batch) -> Result<()> {
        let (rows, broken) = rows::windows_of(&self.intake, source, batch, &self.filter);
        self.intake.faults_mut().broken_windows += broken;
        for row in rows {
            if self.threshold.accepts(&row.counters, &row.rtt) {
                self.print(WINDOW_COLUMNS, &row, window_line)?;
            }
        }
        Ok(())
    }

    fn probes(&mut self, source: Origins, batch: &Batch) -> Result<()> {
        let Ok(rows) = rows::probes_of(&self.intake, source, batch, &self.filter) else {
            self.intake.faults_mut().broken_probe_blocks += 1;
            return Ok(());
        };
        for row in rows {
            if self
                .threshold
                .accepts_probe(row.is_lost(), row.record.outcome.rtt_ns())
            {
                self.print(PROBE_COLUMNS, &row, probe_line)?;
            }
        }
        Ok(())
    }

    /// A line, unless there are enough.
    fn print<R>(&mut self, columns: &[Column<R>], row: &R, line: fn(&R) -> String) -> Result<()> {
        if !self.wants_more() {
            return Ok(());
        }
        self.lines += 1;
        self.output.line(&if self.arguments.json {
            json::object(columns, row)
        } else {
            line(row)
        })
    }

    fn tell_faults(&self) {
        let faults = self.intake.faults();
        for (count, what) in [
            (
                self.intake.missing_batches(),
                "batches are missing between those that came",
            ),
            (faults.broken_windows, "broken windows left out"),
            (
                faults.broken_probe_blocks,
                "broken blocks of probes left out",
            ),
            (
                faults.crowded_batches,
                "batches of more sources than there is room for",
            ),
        ] {
            if count > 0 {
                eprintln!("dt-console: {count} {what}");
            }
        }
    }
}

/// Time of the end, both ends, mode, what was sent and lost, times in µs, and what is remarkable.
fn window_line(row: &WindowRow) -> String {
    let counters = &row.counters;
    let us = |q| {
        row.rtt
            .quantile(q)
            .map_or_else(|| "-".to_owned(), units::us)
    };
    let mut line = format!(
        "{} {} → {} {} sent {} received {} lost {} ({}) P50 {} P99 {} max {} µs",
        units::utc(row.end_unix_ns / 1_000),
        row.origin.source,
        row.peer.shown(),
        row.mode().unwrap_or("-"),
        counters.sent,
        counters.received,
        counters.lost(),
        loss(counters).map_or_else(|| "-".to_owned(), units::percent),
        us(0.5),
        us(0.99),
        us(1.0),
    );
    if counters.lost() > 0 {
        let _ = write!(
            line,
            ", there {} back {} unknown {}",
            counters.lost_forward, counters.lost_return, counters.lost_unknown
        );
    }
    if let Some(state) = row.peer_state().filter(|state| *state != "alive") {
        let _ = write!(line, ", {state}");
    }
    if row.is_suspect {
        line += ", suspect";
    }
    let (dscp, packet_bytes) = row.class();
    line + &class_words(dscp, packet_bytes)
}

/// What is remarkable of probes of a kind: a code point, and a length that is not an agent's least.
fn class_words(dscp: Option<u32>, packet_bytes: u32) -> String {
    let mut words = String::new();
    if let Some(dscp) = dscp.filter(|dscp| *dscp != 0) {
        let _ = write!(words, ", dscp {dscp}");
    }
    if ![0, LEAST_IPV4, LEAST_IPV6].contains(&packet_bytes) {
        let _ = write!(words, ", {packet_bytes} bytes");
    }
    words
}

fn probe_line(row: &ProbeRow) -> String {
    let record = &row.record;
    let rtt = record.outcome.rtt_ns();
    format!(
        "{} {} → {} seq {} {}{} port {}{}",
        units::utc(record.sent_unix_us),
        row.origin.source,
        row.peer.shown(),
        record.sequence,
        outcome_name(record.outcome),
        rtt.map_or_else(String::new, |ns| format!(" {:.3} µs", ns as f64 / 1e3)),
        record.source_port,
        class_words(record.class.dscp, record.class.packet_bytes),
    )
}

/// IP packets of 96 bytes of UDP payload.
const LEAST_IPV4: u32 = 124;
const LEAST_IPV6: u32 = 144;
/// How long one look for something new takes at most; Ctrl-C waits for it.
const PATIENCE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use dt_feed::Histogram;
    use dt_feed::probes::{Outcome, ProbeRecord};
    use dt_feed::proto::{Counters, Method, Mode, PeerState, ProbeClass, StampSource, Window};

    use super::*;
    use crate::nodes::Labels;
    use crate::rows::{Origin, Peer};

    fn origin() -> Origin {
        Origin {
            source: "n1".into(),
            labels: Labels::default(),
            start_id: 1,
            sequence: 0,
            agent_version: "".into(),
        }
    }

    fn peer() -> Peer {
        Peer {
            index: 3,
            node: Some(("n2".into(), Labels::default())),
            address: None,
        }
    }

    #[test]
    fn a_window_is_one_line_with_what_is_remarkable_at_its_end() {
        let stamp = StampSource::Unspecified;
        let mut window = Window {
            end_unix_ns: 1_800_000_000_000_000_000,
            method: Some(Method::of(Mode::Xdp, stamp, stamp, stamp)),
            counters: Some(Counters {
                sent: 10,
                received: 10,
                ..Counters::default()
            }),
            rtt: Some((&Histogram::from_iter([4_000; 10])).into()),
            ..Window::default()
        };
        let row = WindowRow::new(origin(), peer(), &window).expect("it is sound");
        let line = "2027-01-15T08:00:00.000000Z n1 → n2 xdp sent 10 received 10 lost 0 (0%) P50 4.0 P99 4.0 max 4.0 µs";
        assert_eq!(window_line(&row), line);
        window.peer_state = PeerState::Failed.into();
        window.host_suspect = true;
        window.counters = Some(Counters {
            sent: 4,
            lost_return: 4,
            ..Counters::default()
        });
        window.rtt = None;
        let row = WindowRow::new(origin(), Peer::new(3, None), &window).expect("it is sound");
        let line = "2027-01-15T08:00:00.000000Z n1 → #3 xdp sent 4 received 0 lost 4 (100%) P50 - P99 - max - µs, there 0 back 4 unknown 0, failed, suspect";
        assert_eq!(window_line(&row), line);
    }

    #[test]
    fn a_probe_is_one_line() {
        let record = ProbeRecord {
            peer: 3,
            sent_unix_us: 1_800_000_000_000_001,
            sequence: 9,
            outcome: Outcome::Received { rtt_ns: 4_120 },
            source_port: 50_000,
            hops_forward: None,
            hops_return: None,
            method: Method::default(),
            suspect_reasons: 0,
            class: ProbeClass::default(),
        };
        let row = |record| ProbeRow {
            origin: origin(),
            peer: peer(),
            record,
        };
        let begin = "2027-01-15T08:00:00.000001Z n1 → n2 seq 9";
        assert_eq!(
            probe_line(&row(record)),
            format!("{begin} received 4.120 µs port 50000")
        );
        let lost = ProbeRecord {
            outcome: Outcome::LostForward,
            class: ProbeClass {
                dscp: Some(46),
                packet_bytes: 1_500,
            },
            ..record
        };
        assert_eq!(
            probe_line(&row(lost)),
            format!("{begin} lost_forward port 50000, dscp 46, 1500 bytes")
        );
    }
}
