//! Passes on which commit is built, as `cargo xtask build` says it.

use std::env;

fn main() {
    println!("cargo::rerun-if-env-changed=DT_COMMIT");
    let commit = env::var("DT_COMMIT").unwrap_or_else(|_| String::from("unknown"));
    println!("cargo::rustc-env=DT_BUILD_COMMIT={commit}");
}
