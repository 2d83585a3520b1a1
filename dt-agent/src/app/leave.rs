//! `dt-agent leave`: tells the mesh that this node leaves it for good.

use std::process::ExitCode;
use std::time::Duration;

use crate::adapters::discovery::zookeeper::{self, OwnMember, ZookeeperSettings};
use crate::app::discovery;
use crate::config::LeaveConfig;
use crate::engine::mesh::Labels;

/// Marks the node as left; its agent, if one runs, ends by itself.
///
/// # Errors
/// ZooKeeper cannot be reached or says no.
pub fn leave(config: LeaveConfig) -> anyhow::Result<ExitCode> {
    let settings = ZookeeperSettings {
        servers: config.zookeeper.connection(),
        root: config.zookeeper.root.clone(),
        session: config.zookeeper.session,
        grace: Duration::ZERO,
        auth: discovery::credentials(&config.zookeeper),
        tls: discovery::tls(&config.zookeeper)?,
        targets: Vec::new(),
        state_dir: config.state_dir,
        own: OwnMember {
            name: config.node,
            addresses: Vec::new(),
            port: 0,
            labels: Labels::default(),
            handover: Duration::ZERO,
        },
        seed: 0,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let marked = runtime.block_on(zookeeper::leave(&settings, config.timeout))?;
    let node = &settings.own.name;
    if marked == 0 {
        println!("{node} left the mesh; it was not there, so the others were told to forget it");
    } else {
        println!("{node} left the mesh");
    }
    Ok(ExitCode::SUCCESS)
}
