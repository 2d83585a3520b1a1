//! `dt-console matrix`: the mesh at a glance, drawn again and again, or once.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::output::Output;
use super::screen::{self, Screen};
use super::{Talk, open, told};
use crate::cli::MatrixArgs;
use crate::clock::{self, Deadline};
use crate::intake::Intake;
use crate::interrupt::Interrupt;
use crate::matrix::{Matrix, Picture};
use crate::rollup::{MAX_CELLS, Rollup, Span};
use crate::source::{Begin, Event, Skipped, Source};

/// Draws until it is interrupted, for a time, or once.
pub(super) fn run(arguments: &MatrixArgs, interrupt: &Interrupt) -> Result<ExitCode> {
    let mut source = open(&arguments.source, begin(arguments), interrupt)?;
    let mut matrix = matrix(arguments);
    let mut display = Display::new(arguments);
    let mut talk = Talk::default();
    let end = Deadline::after(arguments.for_time.unwrap_or(if arguments.once {
        Duration::ZERO
    } else {
        Duration::MAX
    }));
    let mut next_picture = Deadline::after(FIRST_PICTURE.min(arguments.interval));
    loop {
        let event = source.poll(PATIENCE.min(next_picture.left()))?;
        if let Some(event) = event {
            if let Event::Batch {
                batch,
                log_ms,
                context,
            } = &event
            {
                matrix.handle_batch(batch, *log_ms, *context);
            }
            talk.take(&event);
            source.confirm();
        }
        let is_over =
            interrupt.is_set() || end.has_passed() && (!arguments.once || source.is_caught_up());
        if is_over || next_picture.has_passed() && !arguments.once {
            next_picture = Deadline::after(arguments.interval);
            let now_ms = now_ms(&source, arguments);
            matrix.handle_time(now_ms);
            display.show(&matrix.picture(now_ms), source.skipped())?;
        }
        if is_over {
            break;
        }
    }
    let skipped = source.skipped();
    source.close();
    if !arguments.json {
        told(skipped);
    }
    Ok(ExitCode::SUCCESS)
}

/// So far back that the first picture is whole.
fn begin(arguments: &MatrixArgs) -> Begin {
    // What a directory shows at once ends with its last batch, however long ago.
    let is_past = arguments.once && !arguments.source.dir.is_empty();
    match arguments.span.0 {
        Some(span) if !is_past => {
            let back_ms = span.as_millis() as u64 * 5 / 4;
            Begin::At(clock::now_ms().saturating_sub(back_ms))
        }
        Some(_) | None => Begin::Earliest,
    }
}

/// Up to when everything was read. One look at files that nobody writes any more shows them as they ended.
fn now_ms(source: &Source, arguments: &MatrixArgs) -> u64 {
    match source {
        Source::Directories(directories) if arguments.once => directories.latest_ms(),
        _ => source.horizon_ms(),
    }
}

fn matrix(arguments: &MatrixArgs) -> Matrix {
    let span: Span = arguments.span.into();
    let intake = Intake::new(arguments.silent_after.as_millis() as u64);
    let rollup = Rollup::new(arguments.by.into(), span, MAX_CELLS);
    Matrix::new(intake, rollup, arguments.filter.filter())
}

/// Where pictures go.
enum Display {
    /// A JSON object a line.
    Json(Output),
    /// Drawn in place on a terminal, else a line now and then.
    Screen(Screen),
    /// Text, once.
    Text(Output, bool),
}

/// What a line of JSON has.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    picture: &'a Picture,
    #[serde(flatten)]
    skipped: Skipped,
}

impl Display {
    fn new(arguments: &MatrixArgs) -> Self {
        if arguments.json {
            Self::Json(Output::new())
        } else if arguments.once {
            Self::Text(Output::new(), screen::is_coloured())
        } else {
            Self::Screen(Screen::new())
        }
    }

    fn show(&mut self, picture: &Picture, skipped: Skipped) -> Result<()> {
        match self {
            Self::Json(output) => {
                output.line(&serde_json::to_string(&Document { picture, skipped })?)?;
                output.flush()
            }
            Self::Screen(screen) => screen.show(picture),
            Self::Text(output, colour) => {
                for line in screen::whole(picture, *colour) {
                    output.line(&line)?;
                }
                output.flush()
            }
        }
    }
}

const PATIENCE: Duration = Duration::from_millis(100);
/// A first picture soon, so that nobody waits before nothing.
const FIRST_PICTURE: Duration = Duration::from_millis(300);
