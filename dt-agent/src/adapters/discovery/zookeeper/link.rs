//! Connects to ZooKeeper, and reads many nodes with few requests.
//!
//! The client library keeps a session by a task of the runtime in which it connected. That task spins without ever yielding
//! when there is no route to the servers and the session's time is over, so it has a thread of its own, which is told to end
//! before that moment: see [`Session::ends_after`].

use std::io;
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use tokio::sync::oneshot;
use tokio::time::timeout;
use zookeeper_client::{Client, Error, MultiReadResult};

use super::counts::Counts;
use super::tree::Tree;
use super::{Credentials, Key, ZookeeperSettings, record};
use crate::engine::registry::{Record, Sighting};

/// A session and the thread that keeps it. Dropping it ends the connection; the session outlives it by its timeout: that is
/// what peers wait for when an agent is started anew.
pub(super) struct Session {
    pub client: Client,
    /// The thread ends when this is dropped.
    _keeper: oneshot::Sender<()>,
}

/// There is no session, or no more.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// ZooKeeper says no.
    #[error(transparent)]
    Zookeeper(#[from] Error),
    /// ZooKeeper says nothing.
    #[error("no answer within {}", humantime::format_duration(*limit))]
    Silent {
        /// How long it was waited for.
        limit: Duration,
    },
    /// This host has no thread for it.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

impl Session {
    /// Tries each server once.
    pub async fn open(settings: &ZookeeperSettings, key: &Key) -> Result<Self, LinkError> {
        let mut connector = Client::connector()
            .with_session_timeout(settings.session)
            .with_connection_timeout(CONNECT_LIMIT)
            .with_auth("digest", key.digest_auth().as_bytes())
            .with_detached()
            .with_fail_eagerly();
        if let Some(Credentials::Digest(auth)) = &settings.auth {
            connector = connector.with_auth("digest", auth.as_bytes());
        }
        if let Some(sasl) = settings.auth.as_ref().and_then(Credentials::sasl) {
            connector = connector.with_sasl(sasl);
        }
        let secure = settings.tls.is_some();
        if let Some(tls) = &settings.tls {
            connector = connector.with_tls(tls.options()?);
        }
        let servers = settings.servers.clone();
        let limit = before(settings.session);
        let (keeper, mut released) = oneshot::channel::<()>();
        let (told, connected) = oneshot::channel();
        thread::Builder::new()
            .name(String::from("zookeeper"))
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let runtime = match runtime {
                    Ok(runtime) => runtime,
                    Err(error) => {
                        // Nobody waits any more: then nobody wants it.
                        let _ = told.send(Err(LinkError::Thread(error)));
                        return;
                    }
                };
                runtime.block_on(async {
                    let attempt = timeout(limit, async {
                        if secure {
                            connector.secure_connect(&servers).await
                        } else {
                            connector.connect(&servers).await
                        }
                    });
                    let result = tokio::select! {
                        biased;
                        _ = &mut released => return,
                        result = attempt => result,
                    };
                    let result = match result {
                        Ok(result) => result.map_err(LinkError::Zookeeper),
                        Err(_) => Err(LinkError::Silent { limit }),
                    };
                    if result.is_ok() & told.send(result).is_ok() {
                        // Until the keeper is dropped; nothing is ever sent.
                        let _ = released.await;
                    }
                });
            })?;
        let client = connected
            .await
            .unwrap_or(Err(LinkError::Silent { limit }))?;
        Ok(Self {
            client,
            _keeper: keeper,
        })
    }

    /// How long after it was disconnected this session is to be given up. ZooKeeper has ended it by then, or will.
    pub fn ends_after(&self) -> Duration {
        before(self.client.session_timeout())
    }
}

/// Why there is no session, in words that say what to look at.
pub(super) async fn explain(settings: &ZookeeperSettings, error: &LinkError) -> String {
    if let LinkError::Zookeeper(Error::AuthFailed) = error {
        return String::from(
            "ZooKeeper refuses user or password; see --zookeeper-sasl-file and --zookeeper-auth-file",
        );
    }
    let Some(tls) = settings.tls.clone() else {
        return error.to_string();
    };
    let servers = settings.servers.clone();
    let found = tokio::task::spawn_blocking(move || tls.diagnose(&servers)).await;
    found.ok().flatten().unwrap_or_else(|| error.to_string())
}

/// Well before the library's own limits: the whole time for a first attempt; 1.4 times it after the last answer, where up to
/// 3 s or 0.4 times it have passed when the loss is told.
fn before(session: Duration) -> Duration {
    session.mul_f64(0.75)
}

/// One connection, and what is read through it.
pub(super) struct Reader<'a> {
    pub client: &'a Client,
    pub tree: &'a Tree,
    pub targets: &'a [IpNet],
    pub counts: &'a Counts,
}

impl Reader<'_> {
    /// All members there are, and whether the mesh's stop key is there.
    pub async fn list(&self) -> Result<(Vec<Sighting>, bool), Error> {
        // What other servers of the ensemble have agreed on before now shall be seen.
        self.client.sync(self.tree.root()).await?;
        let names = self.client.list_children(&self.tree.members()).await?;
        self.counts.add_requests(2);
        let (seen, _gone) = self.read(&names).await?;
        Ok((seen, self.is_stopped().await?))
    }

    /// Whether the mesh's stop key is there.
    pub async fn is_stopped(&self) -> Result<bool, Error> {
        self.counts.add_requests(1);
        Ok(self
            .client
            .check_stat(&self.tree.stop_key())
            .await?
            .is_some())
    }

    /// The nodes of these names: those that are there, and the names of those that are not. One request at a time.
    pub async fn read(&self, names: &[String]) -> Result<(Vec<Sighting>, Vec<String>), Error> {
        self.read_at(names, |name| self.tree.member(name)).await
    }

    /// Those of these nodes, by the names of hosts, that left and did not come back.
    pub async fn read_left(&self, nodes: &[String]) -> Result<Vec<Record>, Error> {
        let (seen, _) = self.read_at(nodes, |node| self.tree.left(node)).await?;
        Ok(seen.into_iter().filter_map(|one| one.record.ok()).collect())
    }

    async fn read_at(
        &self,
        names: &[String],
        path: impl Fn(&str) -> String,
    ) -> Result<(Vec<Sighting>, Vec<String>), Error> {
        let (mut seen, mut gone) = (Vec::new(), Vec::new());
        for names in names.chunks(AT_ONCE) {
            let mut reader = self.client.new_multi_reader();
            for name in names {
                reader.add_get_data(&path(name))?;
            }
            let answers = reader.commit().await?;
            self.counts.add_requests(1);
            for (name, answer) in names.iter().zip(answers) {
                match answer {
                    MultiReadResult::Data { data, stat } => {
                        self.counts.add_node(data.len());
                        seen.push(Sighting {
                            path: name.clone(),
                            created: stat.czxid,
                            record: record::decode(&data, self.targets),
                        });
                    }
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
}

const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// Nodes of one request. An answer then has at most 32 times the 1 MiB that ZooKeeper lets a node have; those of ours
/// have some hundred bytes.
const AT_ONCE: usize = 32;
