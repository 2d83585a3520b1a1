//! The engine of the agent is pure: it reads no clock, opens nothing, and depends on no runtime.
//!
//! Dependencies are proved by compiling the engine in a crate that has no others. What the standard library offers
//! cannot be taken away like that; there the names are looked for.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::process;
use crate::workspace::Workspace;

/// The engine names nothing of `FORBIDDEN`.
pub fn names(workspace: &Workspace) -> Result<()> {
    let mut found = Vec::new();
    for file in sources(workspace)? {
        let text = fs::read_to_string(&file)?;
        let file = file.strip_prefix(workspace.root()).unwrap_or(&file);
        for (number, word) in forbidden_words(&text) {
            found.push(format!("{}:{number}: {word}", file.display()));
        }
    }
    ensure!(
        found.is_empty(),
        "the engine gets time, chance and packets as values, and does no input or output:\n{}",
        found.join("\n")
    );
    Ok(())
}

/// The engine compiles with `OWN_CRATES` and `PURE_CRATES` as its only dependencies.
pub fn builds_alone(workspace: &Workspace) -> Result<()> {
    let dir = workspace.target().join("engine-alone");
    let src = dir.join("src");
    if src.exists() {
        fs::remove_dir_all(&src)?;
    }
    fs::create_dir_all(&src)?;
    for name in ["engine", "engine.rs"] {
        let original = agent_src(workspace).join(name);
        if original.exists() {
            symlink(original, src.join(name))?;
        }
    }
    fs::write(
        src.join("lib.rs"),
        "//! The engine of dt-agent, alone.\n\npub mod engine;\n",
    )?;
    fs::write(dir.join("Cargo.toml"), manifest(workspace))?;
    // The same versions as in the workspace; `--offline` because all of them are on this machine already.
    fs::copy(workspace.root().join("Cargo.lock"), dir.join("Cargo.lock"))?;
    let mut cargo = workspace.cargo();
    cargo
        .args(["check", "--offline", "--manifest-path"])
        .arg(dir.join("Cargo.toml"));
    process::run_judged("engine alone", &workspace.log("check-engine"), &mut cargo)
}

fn manifest(workspace: &Workspace) -> String {
    let own = OWN_CRATES.iter().map(|name| {
        let path = workspace.root().join(name);
        format!("{name} = {{ path = \"{}\" }}", path.display())
    });
    // The copied lock file says which version.
    let pure = PURE_CRATES.iter().map(|name| format!("{name} = \"*\""));
    let dependencies: Vec<_> = own.chain(pure).collect();
    format!(
        "[package]\nname = \"engine-alone\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n\
         [workspace]\n\n[dependencies]\n{}\n",
        dependencies.join("\n")
    )
}

/// Line numbers and words, comments apart.
fn forbidden_words(text: &str) -> Vec<(usize, &'static str)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or(line);
        let hits = FORBIDDEN.iter().filter(|word| names_word(code, word));
        found.extend(hits.map(|word| (index + 1, *word)));
    }
    found
}

/// Whether `word` stands in `code` as a whole, not as a part of a longer name.
fn names_word(code: &str, word: &str) -> bool {
    let in_name =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let bytes = code.as_bytes();
    code.match_indices(word).any(|(start, _)| {
        let before = start.checked_sub(1).and_then(|index| bytes.get(index));
        !in_name(before) && !in_name(bytes.get(start + word.len()))
    })
}

fn sources(workspace: &Workspace) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut open = vec![agent_src(workspace).join("engine")];
    let root_file = agent_src(workspace).join("engine.rs");
    if root_file.exists() {
        files.push(root_file);
    }
    while let Some(dir) = open.pop() {
        let entries =
            fs::read_dir(&dir).with_context(|| format!("no engine in {}", dir.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn agent_src(workspace: &Workspace) -> PathBuf {
    Path::new(workspace.root()).join("dt-agent/src")
}

const OWN_CRATES: &[&str] = &["dt-common", "dt-feed"];
/// Crates without I/O: views over bytes, arithmetic of prefixes, error texts.
const PURE_CRATES: &[&str] = &["ipnet", "thiserror", "zerocopy"];

const FORBIDDEN: &[&str] = &[
    "tokio",
    "aya",
    "nix",
    "libc",
    "rand",
    "Instant",
    "SystemTime",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "std::io",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_names_are_found_and_comments_are_not_read() {
        let text = "use std::time::Instant; // tokio\nlet operand = strand(Instantly);\nrand::random()\n/// std::fs\n";
        assert_eq!(forbidden_words(text), [(1, "Instant"), (3, "rand")]);
    }
}
