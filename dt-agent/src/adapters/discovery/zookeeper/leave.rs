//! Says that a node leaves the mesh for good, whether its agent runs or not.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::timeout;
use zookeeper_client::Error;

use super::counts::Counts;
use super::link::{LinkError, Reader, Session};
use super::tree::Tree;
use super::{IdentityError, Key, ZookeeperSettings, record};
use crate::engine::registry::{Announced, Record};

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
        source: LinkError,
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

/// Says in all nodes of this host and name that it left; how many there were.
///
/// Where there is none, because the agent does not run and its session is over, one is made that says so and that goes with
/// this call's session: the others may remember the node still. For those who are not listening now it is also kept in a
/// place that outlives the session.
///
/// # Errors
///
/// No identity, or no ZooKeeper.
pub async fn leave(settings: &ZookeeperSettings, limit: Duration) -> Result<usize, LeaveError> {
    let key = Key::find(&settings.state_dir)?;
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

async fn mark(settings: &ZookeeperSettings, key: &Key) -> Result<usize, LinkError> {
    let session = Session::open(settings, key).await?;
    let client = &session.client;
    let tree = Tree::new(&settings.root);
    let everybody: [IpNet; 2] = [
        IpNet::new_assert([0, 0, 0, 0].into(), 0),
        IpNet::new_assert([0_u16; 8].into(), 0),
    ];
    let counts = Counts::default();
    let reader = Reader {
        client,
        tree: &tree,
        targets: &everybody,
        counts: &counts,
    };
    let (seen, _stop) = match reader.list().await {
        // There is no mesh.
        Err(Error::NoNode) => return Ok(0),
        other => other?,
    };
    let farewell = record::encode(&farewell(settings, key));
    let node = &settings.own.name;
    tree.put_left(client, node, &farewell, key).await?;
    let mut marked = 0;
    for sighting in seen {
        let Ok(mut held) = sighting.record else {
            continue;
        };
        if *held.name == *settings.own.name && held.identity == key.identity {
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
    if marked == 0 {
        let name = format!("{}:{:016x}", settings.own.name, client.session_id().0);
        tree.put(client, &name, &farewell, key).await?;
    }
    Ok(marked)
}

/// What somebody says who has nothing else to say.
fn farewell(settings: &ZookeeperSettings, key: &Key) -> Record {
    Record {
        name: settings.own.name.as_str().into(),
        identity: key.identity,
        addresses: [].into(),
        port: 0,
        labels: Arc::new(settings.own.labels.clone()),
        announced: Announced::Left,
        handover_ns: 0,
    }
}
