//! The charts, on a real Kubernetes of three nodes.

use std::path::PathBuf;

use anyhow::Result;
use dt_tests::docker::images::Images;
use dt_tests::kube::{self, Cluster};
use dt_tests::{Lab, skip_unless_equipped, skip_unless_served};

#[test]
fn the_two_commands_make_every_node_measure_every_other_one() -> Result<()> {
    skip_unless_equipped!();
    skip_unless_served!();
    let mut lab = Lab::empty()?;
    let nodes = kube::add_hosts(&mut lab, 3)?;
    let images = Images::prepare(&lab)?.archives(&lab, env!("CARGO_PKG_VERSION"))?;
    let cluster = Cluster::start(&lab, &nodes, &images)?;
    println!("{}", cluster.kubectl(&["get", "nodes", "-o", "wide"])?);
    if let Ok(path) = std::env::var("HOLD") {
        while PathBuf::from(&path).exists() {
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
    }
    Ok(())
}
