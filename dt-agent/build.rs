//! Embeds the BPF object that `cargo xtask build` made, and compiles the schema of what agents say in ZooKeeper.
//!
//! Without `DT_BPF_OBJECT` (a plain `cargo build`, clippy, docs) an empty one is embedded: such an agent says so and has
//! only the `socket` datapath.

use std::error::Error;
use std::path::PathBuf;
use std::{env, fs, io};

const INCLUDE: &str = "../api/proto";
const SCHEMA: &str = "../api/proto/v1/membership.proto";

fn main() -> Result<(), Box<dyn Error>> {
    embed_object()?;
    println!("cargo::rerun-if-changed={SCHEMA}");
    let descriptors = protox::compile([SCHEMA], [INCLUDE])?;
    prost_build::Config::new()
        .btree_map(["."])
        .compile_fds(descriptors)?;
    Ok(())
}

fn embed_object() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed=DT_BPF_OBJECT");
    let out =
        PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?).join("dt-datapath.o");
    match env::var_os("DT_BPF_OBJECT") {
        Some(object) => {
            println!(
                "cargo::rerun-if-changed={}",
                PathBuf::from(&object).display()
            );
            fs::copy(object, out).map(drop)
        }
        None => fs::write(out, []),
    }
}
