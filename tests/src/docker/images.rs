//! Images that stand in for official ones, which no registry gives us here, and the agent's own by its `Dockerfile`.
//!
//! Each is made once for what it is made of: its tag names that.

use std::collections::BTreeSet;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::{Engine, root, run};
use crate::lab::Lab;
use crate::wait::unix_now_ns;
use crate::{given, owner};

/// The images of a compose file, by tag.
#[derive(Clone, Debug)]
pub struct Images {
    /// Of the agent and the console.
    pub agent: String,
    /// Instead of `zookeeper`.
    pub zookeeper: String,
    /// Instead of `apache/kafka`.
    pub kafka: String,
}

impl Images {
    /// Makes those that are not there, says of each what it took, and removes older ones.
    pub fn prepare(lab: &Lab) -> Result<Self> {
        let engine = Engine::for_builds(lab)?;
        // What builds that failed or were killed left.
        run(&mut engine.docker(&["container", "prune", "--force"]))?;
        let maker = Maker {
            engine: &engine,
            lab,
        };
        let base = maker.base()?;
        let java = maker.java(&base)?;
        let images = Self {
            zookeeper: maker.zookeeper(&java)?,
            kafka: maker.kafka(&java)?,
            agent: maker.agent(&base)?,
        };
        maker.forget_others(&[
            &base,
            &java,
            &build_tag(&base)?,
            &images.zookeeper,
            &images.kafka,
            &images.agent,
        ])?;
        engine.stop()?;
        Ok(images)
    }

    /// Archives of them, under the names that the charts ask for.
    pub fn archives(&self, lab: &Lab, version: &str) -> Result<Vec<PathBuf>> {
        let engine = Engine::for_builds(lab)?;
        let agent = format!("distributed-trace:{version}");
        let next = format!("{agent}-next");
        Maker {
            engine: &engine,
            lab,
        }
        .next_agent(&self.agent, &next)?;
        let named = [
            (&self.agent, agent.as_str(), "agent.tar"),
            (&next, next.as_str(), "agent-next.tar"),
            (&self.zookeeper, "zookeeper:3.9.4", "zookeeper.tar"),
            (&self.kafka, "apache/kafka:4.1.1", "kafka.tar"),
        ];
        let mut archives = Vec::new();
        for (image, name, file) in named {
            let path = lab.dir().join(file);
            run(&mut engine.docker(&["tag", image, name]))?;
            run(engine.docker(&["save", name, "--output"]).arg(&path))?;
            println!("image {name}: {:.1} MB", megabytes(&engine, name)?);
            run(&mut engine.docker(&["rmi", name]))?;
            archives.push(path);
        }
        let base = tag("base", &[SUITE, INCLUDE]);
        println!("base of all images: {:.1} MB", megabytes(&engine, &base)?);
        engine.stop()?;
        Ok(archives)
    }
}

/// How much an image takes, its base included.
fn megabytes(engine: &Engine, image: &str) -> Result<f64> {
    let size = run(&mut engine.docker(&["image", "inspect", "--format={{.Size}}", image]))?;
    Ok(size.trim().parse::<f64>()? / 1e6)
}

struct Maker<'a> {
    engine: &'a Engine,
    lab: &'a Lab,
}

impl Maker<'_> {
    /// Debian as `debian:…-slim` has it, with what the agent links to, and this machine's way to the package registries.
    fn base(&self) -> Result<String> {
        let tag = tag("base", &[SUITE, INCLUDE]);
        self.make(&tag, || {
            let tree = self.lab.dir().join("base");
            run(Command::new("debootstrap")
                .args(["--variant=minbase", &format!("--include={INCLUDE}"), SUITE])
                .arg(&tree))?;
            for (from, to) in REGISTRIES {
                copy_tree(Path::new(from), &tree.join(to))?;
            }
            // Two lists of the same sources are two warnings in each call.
            let _ = fs::remove_file(tree.join("etc/apt/sources.list"));
            self.import(&tree, &tag)?;
            owner::remove_tree(&tree)
        })
    }

    fn import(&self, tree: &Path, tag: &str) -> Result<()> {
        let mut tar = Command::new("tar")
            .arg("-C")
            .arg(tree)
            .args(["-c", "."])
            .stdout(Stdio::piped())
            .spawn()?;
        let archive = tar.stdout.take().context("it is piped")?;
        run(self.engine.docker(&["import", "-", tag]).stdin(archive))?;
        ensure!(tar.wait()?.success(), "tar failed");
        Ok(())
    }

    fn java(&self, base: &str) -> Result<String> {
        let context = images_dir().join("java");
        let tag = tag("java", &[base, &content(&context)?]);
        self.make(&tag, || {
            self.build(&tag, &context, &[("BASE", base)])?;
            Ok(())
        })
    }

    fn zookeeper(&self, java: &str) -> Result<String> {
        let context = images_dir().join("zookeeper");
        let jars = format!("/conf:{}", given::zookeeper_class_path()?);
        let tag = tag("zookeeper", &[java, &content(&context)?, &jars]);
        self.make(&tag, || {
            self.build(&tag, &context, &[("BASE", java), ("CLASSPATH", &jars)])
        })
    }

    fn kafka(&self, java: &str) -> Result<String> {
        let source = images_dir().join("kafka");
        let libs = given::kafka_libs()?;
        let tag = tag("kafka", &[java, &content(&source)?, &content(&libs)?]);
        self.make(&tag, || {
            let context = self.lab.dir().join("kafka-image");
            copy_tree(&source, &context)?;
            copy_tree(&libs, &context.join("libs"))?;
            self.build(&tag, &context, &[("BASE", java)])
        })
    }

    /// By the `Dockerfile` at the top, in an image where all but our own crates is compiled.
    fn agent(&self, base: &str) -> Result<String> {
        let tag = tag("agent", &[base, &source_tree()?]);
        self.make(&tag, || {
            let build = self.build_image(base)?;
            let commit = run(Command::new("git").arg("-C").arg(root()).args([
                "rev-parse",
                "--short=12",
                "HEAD",
            ]))?;
            let args = [
                ("DT_BUILD_IMAGE", &*build),
                ("DT_BASE_IMAGE", base),
                ("DT_COMMIT", commit.trim()),
            ];
            self.build(&tag, &root(), &args)
        })
    }

    /// The same image with the agent of the next ABI version in it.
    fn next_agent(&self, agent: &str, tag: &str) -> Result<()> {
        let context = self.lab.dir().join("next-agent-image");
        fs::create_dir_all(&context)?;
        run(Command::new("strip")
            .arg("-o")
            .args([context.join("dt-agent"), given::next_agent()?]))?;
        fs::write(
            context.join("Dockerfile"),
            format!("FROM {agent}\nCOPY dt-agent /usr/local/bin/dt-agent\n"),
        )?;
        self.build(tag, &context, &[])
    }

    fn build_image(&self, base: &str) -> Result<String> {
        let tag = build_tag(base)?;
        self.make(&tag, || self.fill(base, &tag, &build_packages()?))
    }

    fn fill(&self, base: &str, tag: &str, packages: &[String]) -> Result<()> {
        let (rustup, cargo) = rust_homes()?;
        // At the same places as here, or cargo takes what it compiled for stale.
        let homes = [
            format!("RUSTUP_HOME={}", rustup.display()),
            format!("CARGO_HOME={}", cargo.display()),
        ];
        let mounts = [
            (&rustup, "rustup"),
            (&cargo, "cargo"),
            (&given::target_dir()?, "target"),
            (&images_dir().join("build"), "images"),
        ];
        let container = self.lab.owned_name("fill");
        let mut command = self
            .engine
            .docker(&["run", "--network=host", "--name", &container]);
        for (from, to) in mounts {
            command.arg(format!("--volume={}:/host/{to}:ro", from.display()));
        }
        command.args(homes.iter().map(|home| format!("--env={home}")));
        run(command.args([base, "/host/images/fill.sh"]).args(packages))?;
        let mut commit = self.engine.docker(&["commit"]);
        let path = format!("PATH={}/bin:{IMAGE_PATH}", cargo.display());
        commit.arg(format!("--change=ENV {} {path}", homes.join(" ")));
        run(commit.args([&container, tag]))?;
        run(&mut self.engine.docker(&["rm", &container]))?;
        Ok(())
    }

    fn build(&self, tag: &str, context: &Path, args: &[(&str, &str)]) -> Result<()> {
        let mut command =
            self.engine
                .docker(&["build", "--force-rm", "--network=host", "--tag", tag]);
        for (name, value) in args {
            command.arg(format!("--build-arg={name}={value}"));
        }
        run(command.arg(context))?;
        Ok(())
    }

    /// Makes an image unless it is there; its tag.
    fn make(&self, tag: &str, work: impl FnOnce() -> Result<()>) -> Result<String> {
        let there = self.engine.docker(&["image", "inspect", tag]).output()?;
        if !there.status.success() {
            let began = unix_now_ns()?;
            work().with_context(|| format!("cannot make the image {tag}"))?;
            let seconds = unix_now_ns()?.saturating_sub(began) / 1_000_000_000;
            println!("image {tag}: {seconds} s");
        }
        Ok(tag.to_owned())
    }

    /// Removes what earlier versions of these images were.
    fn forget_others(&self, kept: &[&str]) -> Result<()> {
        let all =
            run(&mut self
                .engine
                .docker(&["image", "ls", "--format={{.Repository}}:{{.Tag}}"]))?;
        let ours = all.lines().filter(|tag| tag.starts_with(PREFIX));
        for tag in ours.filter(|tag| !kept.contains(tag)) {
            run(&mut self.engine.docker(&["image", "rm", tag]))?;
        }
        run(&mut self.engine.docker(&["image", "prune", "--force"]))?;
        Ok(())
    }
}

/// The name of the image to build in.
fn build_tag(base: &str) -> Result<String> {
    let lock = fs::read_to_string(root().join("Cargo.lock"))?;
    let fill = fs::read_to_string(images_dir().join("build/fill.sh"))?;
    let (rustup, cargo) = rust_homes()?;
    let homes = format!("{} {}", rustup.display(), cargo.display());
    let packages = build_packages()?.join(" ");
    Ok(tag("build", &[base, &packages, &lock, &fill, &homes]))
}

fn build_packages() -> Result<Vec<String>> {
    let dockerfile = fs::read_to_string(root().join("Dockerfile"))?;
    Ok(dockerfile_packages(&dockerfile))
}

/// The packages that the first stage of a Dockerfile installs.
#[must_use]
pub fn dockerfile_packages(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let line = joined.lines().find(|line| line.contains("apt-get install"));
    let install = line.and_then(|line| line.split("apt-get install").nth(1));
    let words = install.unwrap_or_default().split("&&").next();
    words
        .unwrap_or_default()
        .split_whitespace()
        .filter(|word| !word.starts_with('-'))
        .map(str::to_owned)
        .collect()
}

/// All that decides what the `Dockerfile` makes, as one word.
fn source_tree() -> Result<String> {
    let listed = run(Command::new("git").arg("-C").arg(root()).args([
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    let mut hasher = DefaultHasher::new();
    let is_of_it =
        |path: &&str| !path.is_empty() && !NOT_IN_IT.iter().any(|prefix| path.starts_with(prefix));
    let paths: BTreeSet<_> = listed.split('\0').filter(is_of_it).collect();
    for path in paths {
        // One that was deleted and not yet committed is not there.
        if let Ok(bytes) = fs::read(root().join(path)) {
            (path, bytes).hash(&mut hasher);
        }
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// Names and contents of all files in a directory, as one word.
fn content(dir: &Path) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    let mut left = vec![dir.to_owned()];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let mut entries = fs::read_dir(&path)?
                .map(|entry| Ok(entry?.path()))
                .collect::<Result<Vec<_>>>()?;
            entries.sort();
            left.extend(entries);
        } else {
            let name = path.strip_prefix(dir)?.to_path_buf();
            (name, fs::read(&path)?).hash(&mut hasher);
        }
    }
    Ok(format!("{:016x}", hasher.finish()))
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    // Certificates are often links to where they were installed.
    run(Command::new("cp")
        .args(["--archive", "--dereference", "--remove-destination"])
        .arg(from.join("."))
        .arg(to))?;
    Ok(())
}

fn tag(name: &str, of: &[&str]) -> String {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    format!("{PREFIX}{name}:{:016x}", hasher.finish())
}

/// Where rustup and cargo keep what they have.
fn rust_homes() -> Result<(PathBuf, PathBuf)> {
    let home = std::env::home_dir().context("no home directory")?;
    let place = |variable: &str, name: &str| {
        std::env::var_os(variable).map_or_else(|| home.join(name), PathBuf::from)
    };
    Ok((
        place("RUSTUP_HOME", ".rustup"),
        place("CARGO_HOME", ".cargo"),
    ))
}

fn images_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("images")
}

/// What does not get into a program of the image.
const NOT_IN_IT: [&str; 3] = ["docs/", "helm-charts/", "tests/"];
const PREFIX: &str = "dt-test-";
const IMAGE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const SUITE: &str = "bookworm";
const INCLUDE: &str = "ca-certificates,libssl3";
/// How this machine gets at packages: its sources, their keys, and the certificates it trusts.
const REGISTRIES: [(&str, &str); 3] = [
    ("/etc/apt", "etc/apt"),
    ("/usr/share/keyrings", "usr/share/keyrings"),
    ("/etc/ssl/certs", "etc/ssl/certs"),
];

#[cfg(test)]
mod tests {
    use super::dockerfile_packages;

    #[test]
    fn packages_are_read_over_several_lines() {
        let text = "FROM a\nRUN apt-get update && apt-get install -y --no-install-recommends \\\n  cmake g++ \\\n  make \\\n && rm x\n";
        assert_eq!(dockerfile_packages(text), ["cmake", "g++", "make"]);
    }
}
