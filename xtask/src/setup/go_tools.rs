//! Programs in Go that the tests run: a Kubernetes, what goes with it, and Prometheus.
//!
//! Debian has none of them, or none that is new enough, and no image of theirs can be fetched. Each is built from the module
//! proxy by a module below `tests/go`, whose `go.sum` pins every byte.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::Workspace;

/// Programs of one module.
pub struct GoTools {
    /// Directory below `tests/go`, and what set-up calls it.
    pub name: &'static str,
    packages: &'static [&'static str],
    /// Build tags, which leave out what the tests do not use and others wait for.
    tags: &'static [&'static str],
    /// For the linker, beside what strips symbols.
    set: &'static [&'static str],
}

impl GoTools {
    pub fn find(&self, workspace: &Workspace) -> Result<Option<String>> {
        let done = fs::read_to_string(self.mark(workspace)).unwrap_or_default();
        let programs = workspace.tools().join("bin");
        let is_there = |package: &&str| programs.join(name_of(package)).is_file();
        if done != self.wanted(workspace)? || !self.packages.iter().all(is_there) {
            return Ok(None);
        }
        let names: Vec<_> = self
            .packages
            .iter()
            .map(|package| name_of(package))
            .collect();
        Ok(Some(names.join(" ")))
    }

    pub fn install(&self, workspace: &Workspace) -> Result<()> {
        let programs = workspace.tools().join("bin");
        fs::create_dir_all(&programs)?;
        let mut flags = String::from("-s -w");
        for value in self.set {
            flags.push_str(" -X ");
            flags.push_str(value);
        }
        let mut go = Command::new(workspace.venv().join("bin/go"));
        go.args([
            "build",
            "-mod=readonly",
            "-trimpath",
            "-buildvcs=false",
            "-tags",
            &self.tags.join(","),
            "-ldflags",
            &flags,
            "-o",
        ])
        // With the slash it is a directory, whether one program is built or many.
        .arg(programs.join(""))
        .args(self.packages)
        .current_dir(self.directory(workspace))
        .env("CGO_ENABLED", "0")
        .env("GOTOOLCHAIN", "local")
        .env("GOCACHE", cache(workspace))
        .env_remove("GOFLAGS");
        let label = format!("go build {}", self.name);
        process::run_logged(
            &label,
            &workspace.log(&format!("go-{}", self.name)),
            &mut go,
        )?;
        Ok(fs::write(self.mark(workspace), self.wanted(workspace)?)?)
    }

    fn directory(&self, workspace: &Workspace) -> PathBuf {
        workspace.root().join("tests/go").join(self.name)
    }

    /// Says what the programs were built from.
    fn mark(&self, workspace: &Workspace) -> PathBuf {
        workspace.tools().join(format!("{}.built", self.name))
    }

    fn wanted(&self, workspace: &Workspace) -> Result<String> {
        let module = self.directory(workspace).join("go.mod");
        let text = fs::read_to_string(&module)
            .with_context(|| format!("{} is missing in this checkout", module.display()))?;
        let mut wanted = format!(
            "{text}\n{}\n{}\n",
            self.packages.join(" "),
            self.set.join(" ")
        );
        if !self.tags.is_empty() {
            wanted += &self.tags.join(",");
        }
        Ok(wanted)
    }
}

/// Removes what the compiler kept: the programs share much of it, and nobody needs its gigabytes after the last.
pub fn forget_cache(workspace: &Workspace) -> Result<()> {
    let cache = cache(workspace);
    if cache.exists() {
        fs::remove_dir_all(cache)?;
    }
    Ok(())
}

/// What the compiler keeps between the builds: beside the programs and not in the user's home.
fn cache(workspace: &Workspace) -> PathBuf {
    workspace.target().join("go-cache")
}

fn name_of(package: &str) -> &str {
    package.rsplit('/').next().unwrap_or(package)
}

/// The whole of a cluster but its container runtime and etcd, which Debian has.
pub const KUBERNETES: GoTools = GoTools {
    name: "kubernetes",
    packages: &[
        "k8s.io/kubernetes/cmd/kube-apiserver",
        "k8s.io/kubernetes/cmd/kube-controller-manager",
        "k8s.io/kubernetes/cmd/kube-proxy",
        "k8s.io/kubernetes/cmd/kube-scheduler",
        "k8s.io/kubernetes/cmd/kubectl",
        "k8s.io/kubernetes/cmd/kubelet",
    ],
    tags: &[],
    // Helm refuses a cluster that does not say its version.
    set: &[
        "k8s.io/component-base/version.gitVersion=v1.34.4",
        "k8s.io/component-base/version.gitMajor=1",
        "k8s.io/component-base/version.gitMinor=34",
    ],
};

/// The names of services, for pods and for agents on the hosts' network.
pub const COREDNS: GoTools = GoTools {
    name: "coredns",
    packages: &["coredns-of-the-tests/coredns"],
    tags: &[],
    set: &[],
};

pub const HELM: GoTools = GoTools {
    name: "helm",
    packages: &["helm.sh/helm/v4/cmd/helm"],
    tags: &[],
    set: &[],
};

pub const PROMETHEUS: GoTools = GoTools {
    name: "prometheus",
    packages: &[
        "github.com/prometheus/prometheus/cmd/prometheus",
        "github.com/prometheus/prometheus/cmd/promtool",
    ],
    // Discovery of targets, with the libraries of all clouds.
    tags: &["remove_all_sd"],
    set: &[],
};

/// What benches are compared with.
pub const BLACKBOX: GoTools = GoTools {
    name: "blackbox",
    packages: &["github.com/prometheus/blackbox_exporter"],
    tags: &[],
    set: &[],
};
