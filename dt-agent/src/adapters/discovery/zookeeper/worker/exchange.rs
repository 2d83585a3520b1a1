//! What is asked of ZooKeeper once it is connected: the own node made, and what changed, or everything, read.

use std::sync::Arc;

use tokio::time::Instant;
use zookeeper_client::{Client, Error, SessionState};

use super::{Halt, RETRY, Worker, lost};
use crate::adapters::clock;
use crate::adapters::discovery::zookeeper::link::Reader;
use crate::engine::registry::Announced;

impl Worker {
    /// Reads what changed, or everything; makes the own node where it is missing.
    pub(super) async fn read(&mut self, client: &Client) -> Result<(), Halt> {
        self.read_at = None;
        if let Err(error) = self.exchange(client).await? {
            return self.note_failure(error);
        }
        if let Some(rival) = self.registry.rival() {
            return Err(Halt::Refused(format!(
                "another host (identity {rival}) is called {} already; give this one another --node, or end the other one",
                self.settings.own.name
            )));
        }
        self.say();
        if self.registry.told_to_leave(&self.own_node) {
            return Err(Halt::Stop(None));
        }
        Ok(())
    }

    pub(super) fn note_failure(&mut self, error: Error) -> Result<(), Halt> {
        if error != Error::ConnectionLoss {
            return Err(lost(error));
        }
        // The session may live on, and the node with it; the watcher tells what becomes of it.
        self.rewatch = true;
        self.list = true;
        self.register |= self.announced;
        self.read_at = Some(Instant::now() + RETRY);
        self.note_session(SessionState::Disconnected)
    }

    async fn exchange(&mut self, client: &Client) -> Result<Result<(), Error>, Halt> {
        if std::mem::take(&mut self.register) {
            let tree = self.tree.clone();
            let (data, name, key) = (
                self.own_data(Announced::Alive),
                self.own_node.clone(),
                self.key.clone(),
            );
            let put = tree.put(client, &name, &data, &key);
            if let Err(error) = self.attend(put).await? {
                return Ok(Err(error));
            }
            let node = self.settings.own.name.clone();
            let coming_back = tree.take_left(client, &node);
            if let Err(error) = self.attend(coming_back).await? {
                tracing::debug!(%error, "ZooKeeper keeps that this node left earlier.");
            }
        }
        let (tree, targets) = (self.tree.clone(), self.settings.targets.clone());
        let counts = Arc::clone(&self.outlets.counts);
        let reader = Reader {
            client,
            tree: &tree,
            targets: &targets,
            counts: &counts,
        };
        if std::mem::take(&mut self.list) {
            self.exchange_all(&reader).await
        } else {
            self.exchange_changes(&reader).await
        }
    }

    async fn exchange_all(&mut self, reader: &Reader<'_>) -> Result<Result<(), Error>, Halt> {
        self.changed.clear();
        self.gone.clear();
        self.look_at_stop = false;
        let listing = reader.list();
        let (seen, stop) = match self.attend(listing).await? {
            Ok(listing) => listing,
            Err(error) => return Ok(Err(error)),
        };
        // Deleted by hand while nobody told us.
        if self.announced && !seen.iter().any(|one| one.path == self.own_node) {
            self.register = true;
            self.list = true;
            self.read_at = Some(Instant::now());
        }
        self.registry.handle_listing(seen, stop, clock::now());
        let missing = self.registry.missing();
        match self.attend(reader.read_left(&missing)).await? {
            Ok(left) => left
                .iter()
                .for_each(|record| self.registry.handle_left(record)),
            Err(error) => return Ok(Err(error)),
        }
        Ok(Ok(()))
    }

    async fn exchange_changes(&mut self, reader: &Reader<'_>) -> Result<Result<(), Error>, Halt> {
        let names: Vec<_> = std::mem::take(&mut self.changed).into_iter().collect();
        let gone = std::mem::take(&mut self.gone);
        let reading = reader.read(&names);
        let (seen, vanished) = match self.attend(reading).await? {
            Ok(read) => read,
            Err(error) => return Ok(Err(error)),
        };
        let gone = gone.into_iter().chain(vanished);
        self.registry.handle_changes(seen, gone, clock::now());
        if std::mem::take(&mut self.look_at_stop) {
            let looking = reader.is_stopped();
            match self.attend(looking).await? {
                Ok(stop) => self.registry.handle_stop(stop),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(()))
    }
}
