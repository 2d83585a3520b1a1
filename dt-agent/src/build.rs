//! What this program was built of.

/// The commit, with `+` and what was changed since; `unknown` unless `cargo xtask build` made this.
pub const COMMIT: &str = env!("DT_BUILD_COMMIT");

/// The first 8 bytes of the SHA-256 of the embedded BPF object, in hexadecimal; `none` where there is none.
pub const BPF_OBJECT: &str = env!("DT_BUILD_OBJECT");

/// What `--version` says behind the program's name.
pub const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit ",
    env!("DT_BUILD_COMMIT"),
    "\nBPF object ",
    env!("DT_BUILD_OBJECT"),
);
