//! The engine's ports, filled: kernel, files, clocks.

pub mod clock;
pub mod datapath;
pub mod discovery;
pub mod kubernetes;
pub mod metrics;
pub mod net;
pub mod publish;
