//! Compiles the schema with a compiler written in Rust, so that nobody who builds this crate needs `protoc`.

use std::error::Error;

const INCLUDE: &str = "../api/proto";
const SCHEMA: &str = "../api/proto/v1/messages.proto";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={SCHEMA}");
    let descriptors = protox::compile([SCHEMA], [INCLUDE])?;
    prost_build::Config::new().compile_fds(descriptors)?;
    Ok(())
}
