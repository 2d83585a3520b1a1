//! Says that a node leaves the mesh for good, whether its agent runs or not.

use std::time::Duration;

use ipnet::IpNet;
use tokio::time::timeout;
use zookeeper_client::{Client, Error};

use super::tree::Tree;
use super::{IdentityError, Key, ZookeeperSettings, link, record};
use crate::engine::registry::Announced;

/// Why a node could not leave.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// This host's identity cannot be had.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// ZooKeeper cannot be reached, or says no.
    #[error("cannot tell ZooKeeper at {servers}: {source}")]
    Zookeeper {
        /// Its servers.
        servers: String,
        /// Cause.
        source: Error,
    },
    /// ZooKeeper does not answer.
    #[error("ZooKeeper at {servers} does not answer within {}", humantime::format_duration(*limit))]
    Silent {
        /// Its servers.
        servers: String,
        /// How long it was waited for.
        limit: Duration,
    },
}

/// Marks all nodes of this host and name as left; how many there were.
///
/// # Errors
///
/// No identity, or no ZooKeeper.
pub async fn leave(settings: &ZookeeperSettings, limit: Duration) -> Result<usize, LeaveError> {
    let key = Key::load(&settings.state_dir)?;
    let servers = || settings.servers.clone();
    match timeout(limit, mark(settings, &key)).await {
        Ok(marked) => marked.map_err(|source| LeaveError::Zookeeper {
            servers: servers(),
            source,
        }),
        Err(_) => Err(LeaveError::Silent {
            servers: servers(),
            limit,
        }),
    }
}

async fn mark(settings: &ZookeeperSettings, key: &Key) -> Result<usize, Error> {
    let client: Client = link::connect(settings, key).await?;
    let tree = Tree::new(&settings.root);
    let everybody: [IpNet; 2] = [
        IpNet::new_assert([0, 0, 0, 0].into(), 0),
        IpNet::new_assert([0_u16; 8].into(), 0),
    ];
    let (seen, _stop) = match link::list(&client, &tree, &everybody).await {
        Err(Error::NoNode) => return Ok(0),
        other => other?,
    };
    let mut marked = 0;
    for sighting in seen {
        let Ok(mut held) = sighting.record else {
            continue;
        };
        if held.name == settings.own.name && held.identity == key.identity {
            held.announced = Announced::Left;
            let path = tree.member(&sighting.path);
            match client.set_data(&path, &record::encode(&held), None).await {
                // Its session ended in the meantime, and it with it.
                Err(Error::NoNode) => {}
                other => {
                    other?;
                    marked += 1;
                }
            }
        }
    }
    Ok(marked)
}
