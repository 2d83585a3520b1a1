//! Adds to each flag's help what the table of settings knows: variable and default.

use clap::{Arg, Command};

use crate::config::{CommandSettings, Setting};

/// The commands with variable and default behind the help of each flag.
pub(super) fn annotated(root: Command) -> Command {
    root.mut_subcommands(
        |command| match CommandSettings::of_command(command.get_name()) {
            Some(settings) => command.mut_args(|arg| match settings.find(arg.get_id().as_str()) {
                Some(setting) => annotate(arg, setting),
                None => arg,
            }),
            None => command,
        },
    )
}

fn annotate(arg: Arg, setting: &Setting) -> Arg {
    let default = setting
        .default
        .map_or_else(String::new, |default| format!(" [default: {default}]"));
    let note = format!("[env: {}]{default}", setting.env);
    let short = arg.get_help().map_or_else(String::new, ToString::to_string);
    let long = arg.get_long_help().map(|help| format!("{help}\n\n{note}"));
    let arg = arg.help(format!("{short} {note}"));
    match long {
        Some(long) => arg.long_help(long),
        None => arg,
    }
}
