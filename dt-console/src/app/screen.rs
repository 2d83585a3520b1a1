//! Pictures as text: a matrix that is drawn in place on a terminal, a line now and then elsewhere.
//!
//! What is too wide for anybody's terminal becomes a list of the worst pairs.

use std::env;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use anyhow::Result;

use super::output::Output;
use crate::clock::Deadline;
use crate::matrix::{Group, PairFigures, Picture};
use crate::rollup::By;
use crate::state::State;
use crate::units;

#[cfg(test)]
mod tests;

/// The standard output.
pub(super) struct Screen {
    output: Output,
    terminal: bool,
    colour: bool,
    drawn_lines: usize,
    next_line: Deadline,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            output: Output::new(),
            terminal: io::stdout().is_terminal(),
            colour: is_coloured(),
            drawn_lines: 0,
            next_line: Deadline::after(Duration::ZERO),
        }
    }

    /// Shows a picture, if it is time to.
    pub(super) fn show(&mut self, picture: &Picture) -> Result<()> {
        if self.terminal {
            let text = self.redrawn(&drawing(picture, self.colour));
            self.output.text(&text)?;
        } else if self.next_line.has_passed() {
            self.next_line = Deadline::after(LINE_EVERY);
            self.output.line(&summary(picture))?;
        }
        self.output.flush()
    }

    /// The lines over those drawn before. Without line wrap: on a narrow terminal a wrapped line would count twice.
    fn redrawn(&mut self, lines: &[String]) -> String {
        let mut text = String::from(WRAP_OFF);
        if self.drawn_lines > 0 {
            let _ = write!(text, "\x1b[{}A\r", self.drawn_lines);
        }
        for line in lines {
            let _ = writeln!(text, "{CLEAR_LINE}{line}");
        }
        // A picture of fewer lines than the last one.
        text += CLEAR_BELOW;
        self.drawn_lines = lines.len();
        text + WRAP_ON
    }
}

/// Whether colours are wanted.
pub(super) fn is_coloured() -> bool {
    let is_refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !is_refused
}

/// All of a picture, however wide.
pub(super) fn whole(picture: &Picture, colour: bool) -> Vec<String> {
    let mut lines = head(picture, colour);
    lines.extend(matrix(picture, colour));
    lines
}

/// As much of a picture as fits.
fn drawing(picture: &Picture, colour: bool) -> Vec<String> {
    let mut lines = head(picture, colour);
    if picture.groups.len() <= MOST_COLUMNS {
        lines.extend(matrix(picture, colour));
    } else {
        lines.extend(worst(picture, colour));
    }
    lines
}

fn head(picture: &Picture, colour: bool) -> Vec<String> {
    let span = picture.span_s.map_or_else(
        || "since the beginning".to_owned(),
        |seconds| format!("of the last {seconds:.0} s"),
    );
    let mut lines = vec![
        Ink::Bold.paint(&summary(picture), colour),
        format!(
            "P50, P99 (µs) and loss {span}, from the left to the top, by {}",
            noun(picture.by)
        ),
    ];
    lines.extend(
        warnings(picture)
            .into_iter()
            .map(|line| Ink::Red.paint(&line, colour)),
    );
    lines
}

/// All in one line.
fn summary(picture: &Picture) -> String {
    let total = &picture.total;
    let states = picture.nodes();
    let of_state = |(state, count): (&State, &u64)| format!("{count} {}", state.name());
    let states: Vec<_> = states.iter().map(of_state).collect();
    let modes = total.modes.join(", ");
    format!(
        "{} nodes {}; {} pairs {}: P50 {} P99 {} µs, {} round trips, {} lost ({})",
        units::utc(picture.now_unix_ms * 1_000)
            .get(11..19)
            .unwrap_or_default(),
        if states.is_empty() {
            "none yet".to_owned()
        } else {
            states.join(", ")
        },
        picture.cells.len(),
        if modes.is_empty() {
            "in no mode yet"
        } else {
            &modes
        },
        short(total.p50_ns),
        short(total.p99_ns),
        total.received,
        total.lost,
        total.loss.map_or_else(|| "-".to_owned(), units::percent),
    )
}

/// What makes the picture less than it seems.
fn warnings(picture: &Picture) -> Vec<String> {
    let mut lines = Vec::new();
    let crowded = picture.dropped.crowded_windows;
    if crowded > 0 {
        lines.push(format!(
            "more pairs than can be kept: {crowded} windows left out; use --by rack or --by zone, or --node, --zone, --rack"
        ));
    }
    let lost: u64 = picture
        .lost_by_source
        .values()
        .map(|loss| loss.batches)
        .sum();
    for (count, what) in [
        (
            picture.missing_batches,
            "batches are missing between those that came",
        ),
        (lost, "batches were lost at their agents"),
        (picture.faults.broken_windows, "windows are broken"),
        (
            picture.dropped.misdated_windows,
            "windows of sources whose clocks are ahead",
        ),
        (
            picture.faults.crowded_batches,
            "batches of more sources than can be kept",
        ),
    ] {
        if count > 0 {
            lines.push(format!("{count} {what}"));
        }
    }
    lines
}

/// A row per source, a column per destination.
fn matrix(picture: &Picture, colour: bool) -> Vec<String> {
    let left = picture
        .groups
        .iter()
        .map(|group| label(group).chars().count());
    let left = left.max().unwrap_or(0).max(LEAST_LEFT);
    let mut header = format!("{:<left$}", "from\\to");
    for group in &picture.groups {
        let name = shortened(&label(group));
        header += &ink(group.state).paint(&format!("{name:^CELL$}"), colour);
    }
    let mut lines = vec![header];
    for from in &picture.groups {
        let mut line = ink(from.state).paint(&format!("{:<left$}", label(from)), colour);
        for to in &picture.groups {
            let (text, ink) = cell(picture.cell(&from.name, &to.name));
            line += &ink.paint(&text, colour);
        }
        lines.push(line);
    }
    lines
}

/// The pairs that lost most, then the slowest; and the groups that are not well.
fn worst(picture: &Picture, colour: bool) -> Vec<String> {
    let mut lines = Vec::new();
    let unwell = picture
        .groups
        .iter()
        .filter(|group| group.state > State::Gone);
    let unwell: Vec<String> = unwell.map(label).collect();
    if !unwell.is_empty() {
        let shown = unwell[..unwell.len().min(MOST_UNWELL)].join(", ");
        let more = unwell.len().saturating_sub(MOST_UNWELL);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        lines.push(Ink::Red.paint(&format!("not well: {shown}{more}"), colour));
    }
    let mut pairs: Vec<&PairFigures> = picture.cells.iter().collect();
    let badness = |pair: &PairFigures| {
        let loss = pair.figures.loss.unwrap_or(0.0);
        // A share as a whole number, so that it has an order.
        ((loss * 1e9) as u64, pair.figures.p99_ns.unwrap_or(0))
    };
    pairs.sort_by_key(|pair| std::cmp::Reverse(badness(pair)));
    lines.push(format!("the worst of {} pairs:", pairs.len()));
    for pair in pairs.into_iter().take(MOST_PAIRS) {
        let (text, ink) = cell(Some(pair));
        lines.push(ink.paint(&format!("{text}  {} → {}", pair.from, pair.to), colour));
    }
    lines
}

fn cell(pair: Option<&PairFigures>) -> (String, Ink) {
    let Some(pair) = pair else {
        return (format!("{:^CELL$}", "·"), Ink::Dim);
    };
    let figures = &pair.figures;
    let loss = figures.loss.map_or_else(|| "-".to_owned(), units::percent);
    let text = format!(
        "{:>6}{:>6}{loss:>6}",
        short(figures.p50_ns),
        short(figures.p99_ns)
    );
    let ink = match (figures.lost > 0, figures.p99_ns) {
        (true, _) => Ink::Red,
        (false, None) => Ink::Dim,
        (false, Some(SLOW_NS..)) => Ink::Yellow,
        (false, Some(_)) => Ink::Green,
    };
    (text, ink)
}

/// The name of a group, with its state if that is not the usual one.
fn label(group: &Group) -> String {
    let bad: u64 = group
        .nodes
        .iter()
        .filter(|(state, _)| **state == group.state)
        .map(|(_, count)| count)
        .sum();
    let all: u64 = group.nodes.values().sum();
    match group.state {
        State::Alive => group.name.clone(),
        state if all <= 1 => format!("{} {}", group.name, state.name()),
        state => format!("{} {bad}/{all} {}", group.name, state.name()),
    }
}

/// At most as wide as a cell with a space on either side.
fn shortened(text: &str) -> String {
    if text.chars().count() <= CELL - 2 {
        return text.to_owned();
    }
    let begin: String = text.chars().take(CELL - 3).collect();
    begin + "…"
}

fn short(ns: Option<u64>) -> String {
    ns.map_or_else(|| "-".to_owned(), units::short)
}

const fn noun(by: By) -> &'static str {
    match by {
        By::Node => "node",
        By::Rack => "rack",
        By::Zone => "zone",
    }
}

const fn ink(state: State) -> Ink {
    match state {
        State::Alive => Ink::Plain,
        State::New | State::Gone => Ink::Dim,
        State::Restarting => Ink::Yellow,
        State::Silent | State::Failed => Ink::Red,
    }
}

#[derive(Clone, Copy)]
enum Ink {
    Plain,
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
}

impl Ink {
    fn paint(self, text: &str, colour: bool) -> String {
        let code = match self {
            Self::Plain => return text.to_owned(),
            Self::Bold => 1,
            Self::Dim => 2,
            Self::Red => 31,
            Self::Green => 32,
            Self::Yellow => 33,
        };
        if colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

const CELL: usize = 18;
const LEAST_LEFT: usize = 8;
/// So many columns a wide terminal shows.
const MOST_COLUMNS: usize = 12;
const MOST_PAIRS: usize = 20;
const MOST_UNWELL: usize = 10;
const LINE_EVERY: Duration = Duration::from_secs(5);
/// From here on a P99 within a site is worth a look.
const SLOW_NS: u64 = 1_000_000;
const WRAP_OFF: &str = "\x1b[?7l";
const WRAP_ON: &str = "\x1b[?7h";
const CLEAR_LINE: &str = "\x1b[2K";
const CLEAR_BELOW: &str = "\x1b[J";
