//! Connects to ZooKeeper, and reads many nodes with few requests.

use std::time::Duration;

use ipnet::IpNet;
use zookeeper_client::{Client, Error, MultiReadResult};

use super::tree::Tree;
use super::{Key, ZookeeperSettings, record};
use crate::engine::registry::Sighting;

/// A session that outlives this process by its timeout: that is what peers wait for when an agent is started anew.
pub(super) async fn connect(settings: &ZookeeperSettings, key: &Key) -> Result<Client, Error> {
    let mut connector = Client::connector()
        .with_session_timeout(settings.session)
        .with_connection_timeout(CONNECT_LIMIT)
        .with_auth("digest", key.digest_auth().as_bytes())
        .with_detached();
    if let Some(auth) = &settings.auth {
        connector = connector.with_auth("digest", auth.as_bytes());
    }
    connector.connect(&settings.servers).await
}

/// All members there are.
pub(super) async fn list(
    client: &Client,
    tree: &Tree,
    targets: &[IpNet],
) -> Result<(Vec<Sighting>, bool), Error> {
    // What other servers of the ensemble have agreed on before now shall be seen.
    client.sync(tree.root()).await?;
    let names = client.list_children(&tree.members()).await?;
    let (seen, _gone) = read(client, tree, targets, &names).await?;
    Ok((seen, is_stopped(client, tree).await?))
}

/// Whether the mesh's stop key is there.
pub(super) async fn is_stopped(client: &Client, tree: &Tree) -> Result<bool, Error> {
    Ok(client.check_stat(&tree.stop_key()).await?.is_some())
}

/// The nodes of these names: those that are there, and the names of those that are not. One request at a time.
pub(super) async fn read(
    client: &Client,
    tree: &Tree,
    targets: &[IpNet],
    names: &[String],
) -> Result<(Vec<Sighting>, Vec<String>), Error> {
    let (mut seen, mut gone) = (Vec::new(), Vec::new());
    for names in names.chunks(AT_ONCE) {
        let mut reader = client.new_multi_reader();
        for name in names {
            reader.add_get_data(&tree.member(name))?;
        }
        let answers = reader.commit().await?;
        for (name, answer) in names.iter().zip(answers) {
            match answer {
                MultiReadResult::Data { data, stat } => seen.push(Sighting {
                    path: name.clone(),
                    created: stat.czxid,
                    record: record::decode(&data, targets),
                }),
                MultiReadResult::Error { err: Error::NoNode } => gone.push(name.clone()),
                MultiReadResult::Error { err } => seen.push(Sighting {
                    path: name.clone(),
                    created: i64::MAX,
                    record: Err(format!("it cannot be read: {err}")),
                }),
                _ => {}
            }
        }
    }
    Ok((seen, gone))
}

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Nodes of one request. An answer then has at most 100 times the 1 MiB that ZooKeeper lets a node have; those of ours
/// have some hundred bytes.
const AT_ONCE: usize = 100;
