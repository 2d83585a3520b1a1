//! `cargo xtask package`: the Debian package of what is built here.
//!
//! Its texts and scripts are in `packaging/debian`. Same sources, same commit, same compiler: same bytes, because all times in
//! it are the commit's.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use clap::Args;

use crate::build::{self, Built};
use crate::process;
use crate::sbom;
use crate::setup::{self, Group};
use crate::workspace::{self, Workspace};

#[derive(Args)]
pub struct Options {
    /// Version of the package
    #[arg(long, value_name = "VERSION", default_value = env!("CARGO_PKG_VERSION"))]
    version: String,
}

pub fn run(workspace: &Workspace, options: &Options) -> Result<()> {
    setup::run(workspace, Group::Package)?;
    let Built { agent, console, .. } = build::run(workspace)?;
    let programs = Programs {
        agent: &agent,
        console: &console,
    };
    let package = make(workspace, &programs, &options.version)?;
    eprintln!("{}", build::describe(&package)?);
    eprintln!("install it with: apt install {}", package.display());
    Ok(())
}

/// What is in it.
pub struct Programs<'a> {
    pub agent: &'a Path,
    pub console: &'a Path,
}

/// Makes the package below `target/package`; its path.
pub fn make(workspace: &Workspace, programs: &Programs<'_>, version: &str) -> Result<PathBuf> {
    let arch = process::capture(Command::new("dpkg").arg("--print-architecture"))?;
    let name = format!("{NAME}_{version}_{}", arch.trim());
    let work = workspace.target().join("package").join(&name);
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    let tree = Tree {
        root: work.join("tree"),
        texts: workspace.root().join("packaging/debian"),
    };
    tree.programs(programs)?;
    tree.texts(workspace)?;
    let depends = depends(&work, &tree)?;
    tree.control(version, arch.trim(), &depends)?;
    let package = work.with_file_name(format!("{name}.deb"));
    // Without a repository the start of time.
    let time = workspace::git(workspace, &["log", "-1", "--format=%ct"]);
    process::capture(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Zxz", "--build"])
            .args([&tree.root, &package])
            .env("SOURCE_DATE_EPOCH", time.unwrap_or_else(|| "0".to_owned())),
    )?;
    fs::remove_dir_all(&work)?;
    Ok(package)
}

/// What becomes the root directory of a machine.
struct Tree {
    root: PathBuf,
    texts: PathBuf,
}

impl Tree {
    fn programs(&self, programs: &Programs<'_>) -> Result<()> {
        for (name, built) in [
            ("dt-agent", programs.agent),
            ("dt-console", programs.console),
        ] {
            let place = self.place(&format!("usr/bin/{name}"))?;
            process::capture(
                Command::new("strip")
                    .arg("-o")
                    .args([&place, &built.to_owned()]),
            )?;
            mode(&place, 0o755)?;
            self.completions(name, &place)?;
            let pages = self.root.join("usr/share/man/man1");
            process::capture(Command::new(&place).arg("manual").arg(&pages))?;
        }
        for page in fs::read_dir(self.root.join("usr/share/man/man1"))? {
            // Without name and time in it.
            process::capture(Command::new("gzip").arg("-9n").arg(page?.path()))?;
        }
        Ok(())
    }

    fn completions(&self, name: &str, program: &Path) -> Result<()> {
        let places = [
            (
                "bash",
                format!("usr/share/bash-completion/completions/{name}"),
            ),
            (
                "fish",
                format!("usr/share/fish/vendor_completions.d/{name}.fish"),
            ),
            ("zsh", format!("usr/share/zsh/vendor-completions/_{name}")),
        ];
        for (shell, place) in places {
            let script = process::capture(Command::new(program).args(["completions", shell]))?;
            self.write(&place, &script)?;
        }
        Ok(())
    }

    fn texts(&self, workspace: &Workspace) -> Result<()> {
        let doc = "usr/share/doc/distributed-trace";
        let top = workspace.root();
        let texts = [
            (
                self.texts.join("dt-agent.service"),
                "usr/lib/systemd/system/dt-agent.service".to_owned(),
            ),
            (
                self.texts.join("agent.toml"),
                "etc/distributed-trace/agent.toml".to_owned(),
            ),
            (self.texts.join("copyright"), format!("{doc}/copyright")),
            (
                self.texts.join("peers.toml"),
                format!("{doc}/examples/peers.toml"),
            ),
            (top.join("CHANGELOG.md"), format!("{doc}/NEWS")),
            (
                top.join("docs/operations.md"),
                format!("{doc}/operations.md"),
            ),
        ];
        for (from, to) in texts {
            let text = fs::read_to_string(&from)
                .with_context(|| format!("{} is missing in this checkout", from.display()))?;
            self.write(&to, &text)?;
        }
        process::capture(
            Command::new("gzip")
                .arg("-9n")
                .arg(self.root.join(doc).join("NEWS")),
        )?;
        self.write(&format!("{doc}/sbom.cdx.json"), &sbom::text(workspace)?)
    }

    fn control(&self, version: &str, arch: &str, depends: &str) -> Result<()> {
        for script in ["postinst", "prerm", "postrm"] {
            let text = fs::read_to_string(self.texts.join(script))?;
            self.write(&format!("DEBIAN/{script}"), &text)?;
            mode(&self.root.join("DEBIAN").join(script), 0o755)?;
        }
        self.write("DEBIAN/conffiles", "/etc/distributed-trace/agent.toml\n")?;
        let (sums, bytes) = sums(&self.root)?;
        self.write("DEBIAN/md5sums", &sums)?;
        let text = fs::read_to_string(self.texts.join("control"))?;
        let control = text
            .replace("@VERSION@", version)
            .replace("@ARCHITECTURE@", arch)
            .replace("@DEPENDS@", depends)
            .replace("@KIBIBYTES@", &bytes.div_ceil(1024).to_string());
        self.write("DEBIAN/control", &control)
    }

    fn write(&self, place: &str, text: &str) -> Result<()> {
        let place = self.place(place)?;
        fs::write(&place, text)?;
        mode(&place, 0o644)
    }

    /// The path of a file in a directory that is there.
    fn place(&self, name: &str) -> Result<PathBuf> {
        let path = self.root.join(name);
        let dir = path.parent().context("a file lies in a directory")?;
        fs::create_dir_all(dir)?;
        Ok(path)
    }
}

/// The packages whose libraries the programs are linked to, as Debian's own tool finds them.
fn depends(work: &Path, tree: &Tree) -> Result<String> {
    // It insists on a source package around it.
    fs::create_dir_all(work.join("debian"))?;
    fs::write(
        work.join("debian/control"),
        format!("Source: {NAME}\n\nPackage: {NAME}\nArchitecture: any\n"),
    )?;
    let said = process::capture(
        Command::new("dpkg-shlibdeps")
            .current_dir(work)
            .args(["-O", "--warnings=0"])
            .args(["dt-agent", "dt-console"].map(|name| tree.root.join("usr/bin").join(name))),
    )?;
    let line = said
        .lines()
        .find_map(|line| line.strip_prefix("shlibs:Depends="));
    Ok(line
        .context("dpkg-shlibdeps names no dependency")?
        .to_owned())
}

/// A line for each file outside of `DEBIAN`, as `md5sum` has it, and how many bytes they are.
fn sums(root: &Path) -> Result<(String, u64)> {
    let mut files = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            if path.is_dir() {
                // Whatever mask is in force.
                mode(&path, 0o755)?;
                left.push(path);
            } else if !path.starts_with(root.join("DEBIAN")) {
                files.push(path.strip_prefix(root)?.to_owned());
            }
        }
    }
    files.sort();
    let mut bytes = 0;
    for file in &files {
        bytes += fs::metadata(root.join(file))?.len();
    }
    let sums = process::capture(Command::new("md5sum").current_dir(root).args(&files))?;
    Ok((sums, bytes))
}

fn mode(path: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

const NAME: &str = "distributed-trace";
