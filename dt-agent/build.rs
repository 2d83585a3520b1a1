//! Embeds the BPF object that `cargo xtask build` made, and compiles the schema of what agents say in ZooKeeper.
//!
//! Without `DT_BPF_OBJECT` (a plain `cargo build`, clippy, docs) an empty one is embedded: such an agent says so and has
//! only the `socket` datapath.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs, io};

use sha2::{Digest as _, Sha256};

const INCLUDE: &str = "../api/proto";
const SCHEMA: &str = "../api/proto/v1/membership.proto";

fn main() -> Result<(), Box<dyn Error>> {
    let object = embed_object()?;
    println!("cargo::rerun-if-env-changed=DT_COMMIT");
    let commit = env::var("DT_COMMIT").unwrap_or_else(|_| String::from("unknown"));
    println!("cargo::rustc-env=DT_BUILD_COMMIT={commit}");
    println!("cargo::rustc-env=DT_BUILD_OBJECT={object}");
    println!("cargo::rerun-if-changed={SCHEMA}");
    let descriptors = protox::compile([SCHEMA], [INCLUDE])?;
    prost_build::Config::new()
        .btree_map(["."])
        .compile_fds(descriptors)?;
    Ok(())
}

/// Puts the object where the agent includes it; the first half of its SHA-256, or that there is none.
fn embed_object() -> io::Result<String> {
    println!("cargo::rerun-if-env-changed=DT_BPF_OBJECT");
    let out =
        PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?).join("dt-datapath.o");
    let Some(object) = env::var_os("DT_BPF_OBJECT") else {
        fs::write(out, [])?;
        return Ok(String::from("none"));
    };
    println!(
        "cargo::rerun-if-changed={}",
        PathBuf::from(&object).display()
    );
    let bytes = fs::read(object)?;
    fs::write(out, &bytes)?;
    let hash = format!("{:x}", Sha256::digest(&bytes));
    Ok(hash.chars().take(16).collect())
}
