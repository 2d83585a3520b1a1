//! Embeds the BPF object that `cargo xtask build` made.
//!
//! Without `DT_BPF_OBJECT` (a plain `cargo build`, clippy, docs) an empty one is embedded: such an agent says so and has
//! only the `socket` datapath.

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
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
