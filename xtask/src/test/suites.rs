//! Which tests there are, in the order in which they run.

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::workspace::{self, Workspace};

/// One run of `cargo test`.
pub struct Suite {
    pub name: &'static str,
    /// What cargo is to test.
    pub targets: Vec<String>,
    /// For the test programs.
    pub options: &'static [&'static str],
    /// Needs what is set up beside the others.
    pub is_last: bool,
}

/// All of them. Of those that need a kernel first those whose programs are there.
pub fn all(workspace: &Workspace) -> Result<Vec<Suite>> {
    let (mut first, mut last) = (words("--lib --bins"), Vec::new());
    for program in kernel_programs(workspace)? {
        let targets = if LAST.contains(&program.as_str()) {
            &mut last
        } else {
            &mut first
        };
        targets.extend([String::from("--test"), program]);
    }
    ensure!(
        last.len() == 2 * LAST.len(),
        "of the programs {LAST:?} cargo knows only {last:?}"
    );
    let kernel = |name, targets: Vec<String>, is_last| Suite {
        name,
        targets: [words("--package dt-tests --features kafka"), targets].concat(),
        // Hosts and clocks are shared: two tests at a time would disturb each other's measurements.
        options: &["--test-threads=1"],
        is_last,
    };
    let plain = |name, targets| Suite {
        name,
        targets: words(targets),
        options: &[],
        is_last: false,
    };
    Ok(vec![
        // With xtask's own tests of what the benches with a broker compute.
        plain(
            "host",
            "--workspace --exclude dt-ebpf --exclude dt-tests --features xtask/kafka",
        ),
        plain("BPF crate", "--package dt-ebpf"),
        kernel("kernel", first, false),
        kernel("documentation's", words("--doc"), false),
        kernel("last", last, true),
    ])
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

/// The test programs of `dt-tests`, as cargo names them.
fn kernel_programs(workspace: &Workspace) -> Result<Vec<String>> {
    let metadata: Metadata = workspace::metadata(workspace)?;
    let mut packages = metadata.packages.into_iter();
    let tests = packages
        .find(|package| package.name == "dt-tests")
        .context("the workspace has no dt-tests")?;
    let programs = tests.targets.into_iter();
    Ok(programs
        .filter(|target| target.kind.iter().any(|kind| kind == "test"))
        .map(|target| target.name)
        .collect())
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    targets: Vec<Target>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// The test programs that run what [`crate::setup::Group::LastTests`] stands for; and `compose`, which makes images and would
/// have to share the CPUs with that set-up, while the others mostly wait.
const LAST: [&str; 5] = ["charts", "compose", "interop", "kube", "metrics"];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    fn sources(directory: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(directory).expect("a directory");
        let paths = entries.map(|entry| entry.expect("readable").path());
        paths
            .flat_map(|path| {
                if path.is_dir() {
                    sources(&path)
                } else {
                    vec![path]
                }
            })
            .collect()
    }

    #[test]
    fn only_the_last_tests_run_programs_that_are_built_beside_the_others() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/tests");
        let mut users = BTreeSet::new();
        for path in sources(&root) {
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            if !text.contains("given::tool(") && !text.contains("dt_tests::kube") {
                continue;
            }
            let place = path.strip_prefix(&root).expect("below it");
            let program = place.iter().next().and_then(|name| name.to_str());
            users.extend(program.map(|name| name.trim_end_matches(".rs").to_owned()));
        }
        let last = LAST.into_iter().filter(|program| *program != "compose");
        assert!(users.iter().map(String::as_str).eq(last), "{users:?}");
    }

    #[test]
    fn every_test_program_is_in_one_suite() {
        let workspace = Workspace::find().expect("this one");
        let suites = all(&workspace).expect("cargo knows them");
        for program in kernel_programs(&workspace).expect("cargo knows them") {
            let holders = suites.iter().filter(|suite| {
                suite
                    .targets
                    .windows(2)
                    .any(|pair| pair == ["--test", &program])
            });
            assert_eq!(holders.count(), 1, "{program}");
        }
    }
}
