//! `cargo xtask sbom`: what is linked into agent and console, in JSON as `CycloneDX` 1.6 (ECMA-424) has it.
//!
//! Crates and who needs whom are cargo's words, hashes are those of `Cargo.lock`. C code that a crate brings along (librdkafka
//! in `rdkafka-sys`, AWS-LC in `aws-lc-sys`) is a part of that crate here; shared libraries are dependencies of the package.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::workspace::{self, Workspace};

/// The bill of materials, a line break at its end. Same sources, same text.
pub fn text(workspace: &Workspace) -> Result<String> {
    let metadata: Metadata = workspace::metadata(workspace)?;
    let lock: Lock = toml::from_str(&fs::read_to_string(workspace.root().join("Cargo.lock"))?)?;
    let mut bill = bill(&metadata, &lock);
    if let Some(time) = workspace::git(workspace, &["log", "-1", "--format=%cI"]) {
        bill["metadata"]["timestamp"] = json!(time);
    }
    Ok(serde_json::to_string_pretty(&bill)? + "\n")
}

/// Of the programs: their crates, with what each needs.
fn bill(metadata: &Metadata, lock: &Lock) -> Value {
    let packages: BTreeMap<&str, &Package> = metadata
        .packages
        .iter()
        .map(|package| (&*package.id, package))
        .collect();
    let hashes: BTreeMap<_, _> = lock
        .package
        .iter()
        .filter_map(|locked| {
            Some((
                (&*locked.name, &*locked.version),
                locked.checksum.as_deref()?,
            ))
        })
        .collect();
    let edges = edges(metadata, &packages);
    let roots = PROGRAMS.map(|name| {
        let root = metadata
            .packages
            .iter()
            .find(|package| package.name == name && package.source.is_none());
        root.map_or("", |package| &package.id)
    });
    let mut linked = BTreeSet::new();
    let mut left = roots.to_vec();
    while let Some(id) = left.pop() {
        if linked.insert(id) {
            left.extend(edges.get(id).into_iter().flatten());
        }
    }
    let of = |id: &&str| packages.get(*id).copied();
    let components: Vec<_> = linked
        .iter()
        .filter_map(of)
        .map(|package| component(package, &hashes))
        .collect();
    let dependencies: Vec<_> = linked
        .iter()
        .filter_map(|id| {
            let needed = edges.get(id).into_iter().flatten().filter_map(of);
            Some(json!({
                "ref": of(id)?.purl(),
                "dependsOn": needed.map(Package::purl).collect::<Vec<_>>(),
            }))
        })
        .collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "application",
                "name": "distributed-trace",
                "version": env!("CARGO_PKG_VERSION"),
                "bom-ref": "distributed-trace",
            },
        },
        "components": components,
        "dependencies": dependencies,
    })
}

/// By crate, what it links: neither build scripts nor macros nor tests.
fn edges<'a>(
    metadata: &'a Metadata,
    packages: &BTreeMap<&str, &Package>,
) -> BTreeMap<&'a str, Vec<&'a str>> {
    let is_linked = |needed: &&Needed| {
        needed.dep_kinds.iter().any(|kind| kind.kind.is_none())
            && packages
                .get(&*needed.pkg)
                .is_some_and(|package| !package.is_macro())
    };
    let nodes = metadata.resolve.nodes.iter();
    nodes
        .map(|node| {
            (
                &*node.id,
                node.deps
                    .iter()
                    .filter(is_linked)
                    .map(|needed| &*needed.pkg)
                    .collect(),
            )
        })
        .collect()
}

fn component(package: &Package, hashes: &BTreeMap<(&str, &str), &str>) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": package.purl(),
        "purl": package.purl(),
        "name": package.name,
        "version": package.version,
    });
    if let Some(licence) = &package.license {
        // The old way of saying OR.
        component["licenses"] = json!([{"expression": licence.replace('/', " OR ")}]);
    }
    if let Some(hash) = hashes.get(&(&*package.name, &*package.version)) {
        component["hashes"] = json!([{"alg": "SHA-256", "content": hash}]);
    }
    component
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    license: Option<String>,
    /// `None` for the crates of this workspace.
    source: Option<String>,
    targets: Vec<Target>,
}

impl Package {
    /// The package URL, by which scanners know a crate.
    fn purl(&self) -> String {
        format!("pkg:cargo/{}@{}", self.name, self.version)
    }

    fn is_macro(&self) -> bool {
        self.targets
            .iter()
            .any(|target| target.kind.iter().any(|kind| kind == "proc-macro"))
    }
}

#[derive(Deserialize)]
struct Target {
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<Needed>,
}

#[derive(Deserialize)]
struct Needed {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

#[derive(Deserialize)]
struct Kind {
    /// `None` is a normal one.
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

const PROGRAMS: [&str; 2] = ["dt-agent", "dt-console"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed_with_hash_and_licence_and_nothing_else() {
        let package = |name: &str, kind: &str, source: Option<&str>| {
            json!({"id": name, "name": name, "version": "1.0.0", "license": "MIT/Apache-2.0", "source": source,
                "targets": [{"kind": [kind]}]})
        };
        let needs = |id: &str, needed: &[(&str, Option<&str>)]| {
            let deps: Vec<_> = needed
                .iter()
                .map(|(pkg, kind)| json!({"pkg": pkg, "dep_kinds": [{"kind": kind}]}))
                .collect();
            json!({"id": id, "deps": deps})
        };
        let metadata = json!({
            "packages": [
                package("dt-agent", "bin", None), package("dt-console", "bin", None),
                package("linked", "lib", Some("registry")), package("deep", "lib", Some("registry")),
                package("derive", "proc-macro", Some("registry")), package("builder", "lib", Some("registry")),
                package("tester", "lib", Some("registry")),
            ],
            "resolve": {"nodes": [
                needs("dt-agent", &[("linked", None), ("derive", None), ("builder", Some("build")), ("tester", Some("dev"))]),
                needs("dt-console", &[]), needs("linked", &[("deep", None)]), needs("deep", &[]),
                needs("derive", &[]), needs("builder", &[]), needs("tester", &[]),
            ]},
        });
        let lock = "[[package]]\nname = \"deep\"\nversion = \"1.0.0\"\nchecksum = \"abcd\"\n";
        let metadata = serde_json::from_value(metadata).expect("metadata");
        let bill = bill(&metadata, &toml::from_str(lock).expect("a lock file"));
        let names: Vec<_> = bill["components"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|one| one["name"].clone())
            .collect();
        assert_eq!(names, ["deep", "dt-agent", "dt-console", "linked"]);
        assert_eq!(bill["components"][0]["hashes"][0]["content"], "abcd");
        assert_eq!(
            bill["components"][0]["licenses"][0]["expression"],
            "MIT OR Apache-2.0"
        );
        assert_eq!(
            bill["dependencies"][1]["dependsOn"],
            json!(["pkg:cargo/linked@1.0.0"])
        );
    }
}
