//! The picture while it runs: a matrix that is redrawn in place on a terminal, a line now and then elsewhere.

use std::env;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use dt_feed::Histogram;

use super::options::{Options, mode_name};
use super::tally::{Pair, Tally};
use super::units;
use crate::clock::Stopwatch;

/// Where the picture is drawn.
pub struct Screen {
    /// Somebody else draws.
    dark: bool,
    terminal: bool,
    colour: bool,
    drawn_lines: usize,
    next_line_s: u64,
    watch: Stopwatch,
}

/// What is to be seen now.
pub struct Scene<'a> {
    pub options: &'a Options,
    pub tally: &'a Tally,
    /// What is going on, with its time.
    pub phase: String,
}

impl Screen {
    /// The standard output.
    pub fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        let colour = terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self {
            dark: false,
            terminal,
            colour,
            drawn_lines: 0,
            next_line_s: 0,
            watch: Stopwatch::start(),
        }
    }

    /// Nothing to be seen on it: somebody else draws.
    pub fn dark() -> Self {
        Self {
            dark: true,
            ..Self::new()
        }
    }

    /// Shows the scene, if it is time to.
    pub fn show(&mut self, scene: &Scene<'_>) {
        if self.dark {
            return;
        }
        let text = if self.terminal {
            self.redrawn(&matrix(scene, self.colour))
        } else if self.watch.elapsed().as_secs() >= self.next_line_s {
            self.next_line_s = self.watch.elapsed().as_secs() + LINE_EVERY_S;
            summary(scene) + "\n"
        } else {
            return;
        };
        // Whoever closed the pipe does not want to see it; the measurement goes on.
        let mut stdout = io::stdout().lock();
        let _ = stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush());
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
        self.drawn_lines = lines.len();
        text + WRAP_ON
    }
}

/// A row per source, a column per destination.
fn matrix(scene: &Scene<'_>, colour: bool) -> Vec<String> {
    let names: Vec<_> = (1..=scene.options.nodes)
        .map(|number| format!("n{number}"))
        .collect();
    let mut lines = vec![
        String::new(),
        Ink::Bold.paint(&summary(scene), colour),
        "Round trips in the kernel in µs: P50 and P99 of the last 5 s; loss since the start"
            .to_owned(),
        names.iter().fold("from\\to".to_owned(), |line, name| {
            line + &format!("{name:^CELL$}")
        }),
    ];
    for source in &names {
        let mut line = format!("{source:<7}");
        for destination in &names {
            let (text, ink) = cell(scene.tally.pair(source, destination));
            line += &ink.paint(&text, colour);
        }
        lines.push(line);
    }
    lines
}

fn cell(pair: Option<&Pair>) -> (String, Ink) {
    let Some((pair, loss)) = pair.and_then(|pair| Some((pair, pair.loss()?))) else {
        return (format!("{:^CELL$}", "·"), Ink::Dim);
    };
    let recent = pair.recent_rtt();
    let quantile = |q| {
        recent
            .quantile(q)
            .map_or_else(|| "-".to_owned(), units::short)
    };
    let text = format!(
        "{:>6}{:>6}{:>6}",
        quantile(0.5),
        quantile(0.99),
        units::percent(loss)
    );
    let slow = recent.quantile(0.99).is_none_or(|ns| ns >= SLOW_NS);
    let ink = match (loss > 0.0, slow) {
        (true, _) => Ink::Red,
        (false, true) => Ink::Yellow,
        (false, false) => Ink::Green,
    };
    (text, ink)
}

/// All in one line.
fn summary(scene: &Scene<'_>) -> String {
    let Scene {
        options,
        tally,
        phase,
    } = scene;
    let mut recent = Histogram::new();
    let (mut received, mut lost) = (0, 0);
    for pair in tally.pairs() {
        recent.merge(&pair.recent_rtt());
        received += pair.counters.received;
        lost += pair.counters.lost();
    }
    let quantile = |q| {
        recent
            .quantile(q)
            .map_or_else(|| "-".to_owned(), units::short)
    };
    format!(
        "{phase}: {} of {} pairs answered ({}), P50 {} P99 {} µs, {received} round trips, {lost} lost",
        tally.answered(),
        options.pair_count(),
        modes(tally),
        quantile(0.5),
        quantile(0.99),
    )
}

fn modes(tally: &Tally) -> String {
    let known = [
        dt_feed::proto::Mode::Xdp,
        dt_feed::proto::Mode::Tc,
        dt_feed::proto::Mode::Socket,
    ];
    let counted = known.map(|mode| (tally.in_mode(mode), mode_name(mode)));
    let named = counted
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| format!("{count} {name}"));
    let named: Vec<_> = named.collect();
    if named.is_empty() {
        "no mode yet".to_owned()
    } else {
        named.join(", ")
    }
}

#[derive(Clone, Copy)]
enum Ink {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
}

impl Ink {
    fn paint(self, text: &str, colour: bool) -> String {
        let code = match self {
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
const LINE_EVERY_S: u64 = 5;
/// From here on a P99 on one machine is worth a look.
const SLOW_NS: u64 = 1_000_000;
const WRAP_OFF: &str = "\x1b[?7l";
const WRAP_ON: &str = "\x1b[?7h";
const CLEAR_LINE: &str = "\x1b[2K";

#[cfg(test)]
mod tests;
