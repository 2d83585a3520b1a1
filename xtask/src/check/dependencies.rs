//! The dependency tree against `deny.toml` and `docs/dependencies.md`.
//!
//! `deny.toml` is written so that `cargo deny` reads it too; here it is enforced with what every developer already has.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::spdx;
use crate::workspace::{self, Workspace};

/// Every crate is used under a licence of the list.
pub fn licences(workspace: &Workspace) -> Result<()> {
    let policy = Policy::read(workspace)?;
    let mut refused = Vec::new();
    for package in Tree::read(workspace)?.foreign() {
        let licence = package.license.as_deref().unwrap_or("none named");
        if !spdx::is_allowed(licence, &policy.licenses.allow) {
            refused.push(format!("{} {}: {licence}", package.name, package.version));
        }
    }
    ensure!(
        refused.is_empty(),
        "licences that deny.toml does not allow:\n{}",
        refused.join("\n")
    );
    Ok(())
}

/// No crate is there twice, but for the versions that `deny.toml` excuses with a reason.
pub fn duplicates(workspace: &Workspace) -> Result<()> {
    let policy = Policy::read(workspace)?;
    let excused: BTreeSet<&str> = policy
        .bans
        .skip
        .iter()
        .map(|skip| skip.name.as_str())
        .collect();
    let tree = Tree::read(workspace)?;
    let complaints = complaints(&tree.versions(), &excused);
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    Ok(())
}

/// Every direct dependency has its line in `docs/dependencies.md`.
pub fn reasons(workspace: &Workspace) -> Result<()> {
    let file = workspace.root().join("docs/dependencies.md");
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let tree = Tree::read(workspace)?;
    let unexplained: Vec<_> = tree
        .direct()
        .into_iter()
        .filter(|name| !text.lines().any(|line| line.contains(&format!("`{name}`"))))
        .collect();
    ensure!(
        unexplained.is_empty(),
        "direct dependencies without a line in docs/dependencies.md: {}",
        unexplained.join(", ")
    );
    Ok(())
}

fn complaints(versions: &BTreeMap<&str, BTreeSet<&str>>, excused: &BTreeSet<&str>) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut used = BTreeSet::new();
    for (name, versions) in versions {
        let (skipped, kept): (Vec<String>, Vec<String>) = versions
            .iter()
            .map(|version| format!("{name}@{version}"))
            .partition(|spec| excused.contains(spec.as_str()));
        // An excuse counts only while there is something to excuse.
        if versions.len() > 1 {
            used.extend(skipped);
        }
        if kept.len() > 1 {
            complaints.push(format!("in several versions: {}", kept.join(", ")));
        }
    }
    let stale = excused.iter().filter(|spec| !used.contains(**spec));
    complaints.extend(stale.map(|spec| format!("deny.toml excuses {spec}, which is no duplicate")));
    complaints
}

/// `deny.toml`, as far as it is enforced here.
#[derive(Deserialize)]
struct Policy {
    licenses: Licenses,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licenses {
    allow: Vec<String>,
}

#[derive(Deserialize)]
struct Bans {
    skip: Vec<Skip>,
}

#[derive(Deserialize)]
struct Skip {
    #[serde(rename = "crate")]
    name: String,
    /// Not read, but an excuse without a reason is refused.
    #[serde(rename = "reason")]
    _reason: String,
}

impl Policy {
    fn read(workspace: &Workspace) -> Result<Self> {
        let file = workspace.root().join("deny.toml");
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        toml::from_str(&text).with_context(|| format!("in {}", file.display()))
    }
}

/// What `cargo metadata` says of the tree on this platform.
#[derive(Deserialize)]
struct Tree {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// `None` for the crates of this workspace.
    source: Option<String>,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    source: Option<String>,
}

impl Tree {
    fn read(workspace: &Workspace) -> Result<Self> {
        workspace::metadata(workspace)
    }

    fn foreign(&self) -> impl Iterator<Item = &Package> {
        self.packages
            .iter()
            .filter(|package| package.source.is_some())
    }

    fn versions(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for package in self.foreign() {
            versions
                .entry(&package.name)
                .or_default()
                .insert(&package.version);
        }
        versions
    }

    fn direct(&self) -> BTreeSet<&str> {
        let ours = self
            .packages
            .iter()
            .filter(|package| package.source.is_none());
        ours.flat_map(|package| &package.dependencies)
            .filter(|dependency| dependency.source.is_some())
            .map(|dependency| dependency.name.as_str())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duplicate_needs_an_excuse_and_an_excuse_a_duplicate() {
        let versions = BTreeMap::from([
            ("once", BTreeSet::from(["1.0.0"])),
            ("twice", BTreeSet::from(["1.0.0", "2.0.0"])),
        ]);
        let none = BTreeSet::new();
        assert_eq!(
            complaints(&versions, &none),
            ["in several versions: twice@1.0.0, twice@2.0.0"]
        );
        let right = BTreeSet::from(["twice@1.0.0"]);
        assert!(complaints(&versions, &right).is_empty());
        let stale = BTreeSet::from(["twice@1.0.0", "once@1.0.0"]);
        assert_eq!(
            complaints(&versions, &stale),
            ["deny.toml excuses once@1.0.0, which is no duplicate"]
        );
    }
}
