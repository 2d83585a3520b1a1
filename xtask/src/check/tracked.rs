//! Files in the repository say nothing about the machine they were written on.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::process;
use crate::workspace::Workspace;

/// No tracked text file has a path of a developer's machine or names another crate registry than the public one.
pub fn check(workspace: &Workspace) -> Result<()> {
    let mut git = Command::new("git");
    // New files too, so that a slip is seen before it is committed.
    git.args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ])
    .current_dir(workspace.root());
    let listing = process::capture(&mut git)?;
    let mut found = Vec::new();
    for name in listing.split('\0').filter(|name| !name.is_empty()) {
        // Deleted but not yet committed, or not text: nothing to read.
        let Ok(text) = fs::read_to_string(workspace.root().join(name)) else {
            continue;
        };
        let slips = slips(&text);
        found.extend(
            slips
                .into_iter()
                .map(|(number, line)| format!("{name}:{number}: {line}")),
        );
    }
    ensure!(
        found.is_empty(),
        "these lines name a machine or a private registry:\n{}",
        found.join("\n")
    );
    Ok(())
}

fn slips(text: &str) -> Vec<(usize, &str)> {
    let numbered = text.lines().enumerate();
    numbered
        .filter(|(_, line)| is_machine_path(line) || is_private_registry(line))
        .map(|(index, line)| (index + 1, line.trim()))
        .collect()
}

fn is_machine_path(line: &str) -> bool {
    MACHINE_PATHS.iter().any(|path| line.contains(path))
}

fn is_private_registry(line: &str) -> bool {
    let names_registry =
        line.contains(concat!("registry", "+")) || line.contains(concat!("sparse", "+"));
    names_registry && !line.contains(PUBLIC_REGISTRY)
}

/// In two halves each, or this file would be its own first finding.
const MACHINE_PATHS: &[&str] = &[
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/wo", "rk/"),
    concat!("/Us", "ers/"),
];
const PUBLIC_REGISTRY: &str = concat!("registry", "+https://github.com/rust-lang/crates.io-index");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_name_a_machine_are_found() {
        let text = format!("fine\ncd {}x\n", MACHINE_PATHS[0]);
        assert_eq!(slips(&text).len(), 1);
    }

    #[test]
    fn only_the_public_registry_may_be_named() {
        let public = format!("source = \"{PUBLIC_REGISTRY}\"");
        assert!(slips(&public).is_empty());
        let private = public.replace("github.com", "mirror.example");
        assert_eq!(slips(&private).len(), 1);
    }
}
