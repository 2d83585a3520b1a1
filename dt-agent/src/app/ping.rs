//! To be written.
use crate::config::PingConfig;
use std::process::ExitCode;
pub fn ping(_c: PingConfig) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not yet")
}
