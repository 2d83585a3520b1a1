//! `cargo xtask setup`: everything the other commands need, as a table of needs.
//!
//! A need is looked for before anything is done and looked for again after it was provided, so a step that claims
//! success is believed only when the thing is there. What each need takes is in the modules below.

mod bpf_core;
mod cargo_tools;
mod go_tools;
mod packages;
mod python;
mod servers;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;

use crate::clock::Stopwatch;
use crate::process;
use crate::workspace::{Workspace, is_root};

pub use bpf_core::{BpfCore, DEBIAN_RUSTC};
pub use cargo_tools::{BPF_LINKER, CargoTool, LLVM_STRIP, STAMP_SUITE};
use go_tools::{BLACKBOX, COREDNS, GoTools, HELM, KUBERNETES, PROMETHEUS};
pub use servers::{kafka_libs, zookeeper_class_path};

/// What to set up for.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Group {
    All,
    Build,
    Demo,
    /// What `demo --full` needs beside that: ZooKeeper and Kafka.
    DemoFull,
    Test,
    /// The part of that which only the last tests need, and which takes as long as all the rest
    LastTests,
    Bench,
    Package,
}

/// Provides everything `group` needs, and says of each step what it found or did and how long that took.
pub fn run(workspace: &Workspace, group: Group) -> Result<()> {
    for need in NEEDS.iter().filter(|need| need.is_for(group)) {
        need.satisfy_named(workspace)?;
    }
    go_tools::forget_cache(workspace)
}

/// The same for the tests, but for what only the last of them need.
pub fn run_for_first_tests(workspace: &Workspace) -> Result<()> {
    let first = |need: &&Need| need.is_for(Group::Test) && !need.groups.contains(&Group::LastTests);
    for need in NEEDS.iter().filter(first) {
        need.satisfy_named(workspace)?;
    }
    Ok(())
}

/// One row of the table: a thing, and the commands that cannot work without it.
struct Need {
    what: What,
    groups: &'static [Group],
}

enum What {
    Packages(&'static [&'static str]),
    BpfCore,
    CargoTool(&'static CargoTool),
    GoTools(&'static GoTools),
    Python,
    Kafka,
    BpfFilesystem,
}

impl Need {
    fn is_for(&self, group: Group) -> bool {
        group == Group::All || self.groups.contains(&group)
    }

    fn satisfy_named(&self, workspace: &Workspace) -> Result<()> {
        self.satisfy(workspace)
            .with_context(|| format!("set-up of {} failed", self.what.name()))
    }

    fn satisfy(&self, workspace: &Workspace) -> Result<()> {
        let watch = Stopwatch::start();
        let name = self.what.name();
        if let Some(found) = self.what.find(workspace)? {
            eprintln!("{name:<28} {found}: already there ({watch})");
            return Ok(());
        }
        eprintln!("{name:<28} to be installed");
        self.what.provide(workspace)?;
        let found = self
            .what
            .find(workspace)?
            .context("it was installed without an error and is still not there")?;
        eprintln!("{name:<28} {found}: installed ({watch})");
        Ok(())
    }
}

impl What {
    fn name(&self) -> &'static str {
        match self {
            Self::Packages(_) => "Debian packages",
            Self::BpfCore => "core for the BPF target",
            Self::CargoTool(tool) => tool.name,
            Self::GoTools(tools) => tools.name,
            Self::Python => "Python packages",
            Self::Kafka => "Kafka",
            Self::BpfFilesystem => "BPF file system",
        }
    }

    /// What is there already, in words; `None` when it has to be provided.
    fn find(&self, workspace: &Workspace) -> Result<Option<String>> {
        match self {
            Self::Packages(names) => packages::find(names),
            Self::BpfCore => Ok(BpfCore::find(workspace)?.map(|core| core.to_string())),
            Self::CargoTool(tool) => Ok(tool.find(workspace).map(|path| tool.describe(&path))),
            Self::GoTools(tools) => tools.find(workspace),
            Self::Python => Ok(python::find(workspace)),
            Self::Kafka => Ok(servers::find_kafka(workspace)),
            Self::BpfFilesystem => Ok(bpf_filesystem_is_mounted()?.then(|| BPF_FS.to_owned())),
        }
    }

    fn provide(&self, workspace: &Workspace) -> Result<()> {
        match self {
            Self::Packages(names) => packages::install(workspace, names),
            Self::BpfCore => bpf_core::install(workspace),
            Self::CargoTool(tool) => tool.install(workspace),
            Self::GoTools(tools) => tools.install(workspace),
            Self::Python => python::install(workspace),
            Self::Kafka => servers::install_kafka(workspace),
            Self::BpfFilesystem => mount_bpf_filesystem(),
        }
    }
}

fn bpf_filesystem_is_mounted() -> Result<bool> {
    ensure!(
        Path::new(BPF_FS).is_dir(),
        "{BPF_FS} does not exist: this kernel was built without BPF"
    );
    let kind = nix::sys::statfs::statfs(BPF_FS)?.filesystem_type();
    Ok(kind == nix::sys::statfs::BPF_FS_MAGIC)
}

fn mount_bpf_filesystem() -> Result<()> {
    ensure!(is_root(), "type: sudo mount -t bpf bpf {BPF_FS}");
    process::capture(std::process::Command::new("mount").args(["-t", "bpf", "bpf", BPF_FS]))?;
    Ok(())
}

const BPF_FS: &str = "/sys/fs/bpf";

/// Needed by every command that makes something.
const ALL: &[Group] = &[
    Group::Build,
    Group::Demo,
    Group::DemoFull,
    Group::Test,
    Group::Bench,
    Group::Package,
];
/// Needed where hosts are made of network namespaces.
const LAB: &[Group] = &[Group::Demo, Group::DemoFull, Group::Test, Group::Bench];
/// Needed where real servers run.
const SERVED: &[Group] = &[Group::DemoFull, Group::Test, Group::Bench];

/// In the order of installation: what fails fast comes first.
const NEEDS: &[Need] = &[
    Need {
        what: What::Packages(&[
            "iproute2",
            "util-linux",
            "iputils-ping",
            "ethtool",
            "stress-ng",
        ]),
        groups: LAB,
    },
    // librdkafka is built from the source in its crate; it wants curl's headers with TLS, whether it uses curl or not.
    Need {
        what: What::Packages(&[
            "cmake",
            "g++",
            "make",
            "pkg-config",
            "libssl-dev",
            "libcurl4-openssl-dev",
            "zlib1g-dev",
        ]),
        groups: ALL,
    },
    Need {
        what: What::Packages(&["binutils", "dpkg-dev", "gzip"]),
        groups: &[Group::Test, Group::Package],
    },
    Need {
        what: What::Packages(servers::PACKAGES),
        groups: SERVED,
    },
    Need {
        what: What::Packages(&["protobuf-compiler", "python3-venv", "bpftool"]),
        groups: &[Group::Test, Group::Bench],
    },
    // The compose file is brought up by an engine of the tests' own, on images made from scratch.
    Need {
        what: What::Packages(&["docker.io", "docker-compose", "iptables", "debootstrap"]),
        groups: &[Group::Test],
    },
    // The rest of a Kubernetes, see `tests/src/kube`.
    Need {
        what: What::Packages(&[
            "etcd-server",
            "containerd",
            "runc",
            "containernetworking-plugins",
            "conntrack",
            "openssl",
        ]),
        groups: &[Group::Test],
    },
    Need {
        what: What::Packages(&["fping", "iperf3", "irtt", "sockperf"]),
        groups: &[Group::Bench],
    },
    Need {
        what: What::BpfFilesystem,
        groups: LAB,
    },
    Need {
        what: What::BpfCore,
        groups: ALL,
    },
    Need {
        what: What::CargoTool(&BPF_LINKER),
        groups: ALL,
    },
    Need {
        what: What::CargoTool(&STAMP_SUITE),
        groups: &[Group::Test, Group::LastTests, Group::Bench],
    },
    Need {
        what: What::Kafka,
        groups: SERVED,
    },
    // With them comes a Go.
    Need {
        what: What::Python,
        groups: &[Group::Test, Group::Bench],
    },
    Need {
        what: What::GoTools(&BLACKBOX),
        groups: &[Group::Bench],
    },
    Need {
        what: What::GoTools(&PROMETHEUS),
        groups: &[Group::Test, Group::LastTests],
    },
    Need {
        what: What::GoTools(&HELM),
        groups: &[Group::Test, Group::LastTests],
    },
    Need {
        what: What::GoTools(&COREDNS),
        groups: &[Group::Test, Group::LastTests],
    },
    Need {
        what: What::GoTools(&KUBERNETES),
        groups: &[Group::Test, Group::LastTests],
    },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_demo_does_not_install_what_only_tests_need() {
        let demo = NEEDS.iter().filter(|need| need.is_for(Group::Demo));
        for need in demo {
            assert!(!matches!(need.what, What::Python | What::Kafka));
            assert!(!matches!(need.what, What::Packages(servers::PACKAGES)));
            assert!(need.what.name() != STAMP_SUITE.name);
        }
    }

    #[test]
    fn the_dockerfile_installs_what_set_up_installs_to_build() {
        let dockerfile = include_str!("../../Dockerfile");
        let building = NEEDS.iter().filter(|need| need.is_for(Group::Build));
        let packages = building.flat_map(|need| match need.what {
            What::Packages(names) => names,
            What::CargoTool(tool) => tool.packages,
            _ => &[],
        });
        let wanted: BTreeSet<_> = packages.map(|name| (*name).to_owned()).collect();
        let installed = dt_tests::docker::images::dockerfile_packages(dockerfile);
        assert_eq!(BTreeSet::from_iter(installed), wanted);
        let linker = format!("{} --version {}", BPF_LINKER.name, BPF_LINKER.version);
        assert!(dockerfile.contains(&linker), "no {linker}");
    }

    #[test]
    fn whoever_runs_something_can_also_build_it() {
        for group in ALL {
            let linkers = NEEDS.iter().filter(|need| need.is_for(*group));
            assert!(
                linkers
                    .into_iter()
                    .any(|need| need.what.name() == BPF_LINKER.name)
            );
        }
    }
}
