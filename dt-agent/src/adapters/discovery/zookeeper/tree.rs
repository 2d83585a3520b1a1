//! The paths of a mesh in ZooKeeper, and who may do what there.
//!
//! With credentials the directories are made so that the world reads, whoever has the credentials creates, and nobody deletes
//! or changes another's node: a session's end needs no right. Each agent's own node can be changed by that host's secret only.
//! To delete a node is a right on its parent, so the root, where the stop key comes and goes, grants it and the members'
//! directory does not; the latter cannot be deleted while it has members.

use zookeeper_client::{Acl, Acls, AuthId, Client, CreateMode, Error, Permission};

use super::{Credentials, Key};

/// Where a mesh is kept.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    root: String,
}

impl Tree {
    pub fn new(root: &str) -> Self {
        Self {
            root: root.trim_end_matches('/').to_owned(),
        }
    }

    pub fn root(&self) -> &str {
        &self.root
    }

    pub fn members(&self) -> String {
        format!("{}/members", self.root)
    }

    /// While a node is there, nobody probes.
    pub fn stop_key(&self) -> String {
        format!("{}/stop", self.root)
    }

    pub fn member(&self, name: &str) -> String {
        format!("{}/members/{name}", self.root)
    }

    /// Where it is kept that a node left, for those who were not listening.
    pub fn left(&self, node: &str) -> String {
        format!("{}/left/{node}", self.root)
    }

    /// The name of a member's node if that is what this path is.
    pub fn member_name<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(self.root.as_str())?;
        rest.strip_prefix("/members/")
            .filter(|name| !name.is_empty() && !name.contains('/'))
    }

    /// Makes the directories where they are missing.
    ///
    /// # Errors
    ///
    /// ZooKeeper's, or that the tree is open to everybody though credentials were given.
    pub async fn prepare(
        &self,
        client: &Client,
        auth: Option<&Credentials>,
    ) -> Result<(), TreeError> {
        for directory in self.directories() {
            let Directory { path, rights, word } = directory;
            // Looked for first: to create what is there already may be refused.
            if client.check_stat(&path).await?.is_none() {
                let acls = directory_acls(auth, rights);
                let options = CreateMode::Persistent.with_acls(Acls::new(&acls));
                client.mkdir(&path, &options).await?;
            }
            let Some(auth) = auth else {
                continue;
            };
            let (held, _) = client.get_acl(&path).await?;
            if held.iter().any(is_open) {
                let (scheme, user) = auth.id();
                return Err(TreeError::Open {
                    path,
                    scheme,
                    user,
                    word,
                });
            }
        }
        Ok(())
    }

    /// Keeps that a node left, until it comes back or for a day, by ZooKeeper's own clock.
    pub async fn put_left(
        &self,
        client: &Client,
        node: &str,
        data: &[u8],
        key: &Key,
    ) -> Result<(), Error> {
        let path = self.left(node);
        let acls = own_acls(key);
        let options = CreateMode::Persistent.with_acls(Acls::new(&acls));
        let now_ms = match client.create(&path, data, &options).await {
            Err(Error::NodeExists) => client.set_data(&path, data, None).await?.mtime,
            created => created?.0.mtime,
        };
        for name in client.list_children(&format!("{}/left", self.root)).await? {
            let path = self.left(&name);
            let stat = client.check_stat(&path).await?;
            if stat.is_some_and(|stat| now_ms - stat.mtime > KEEP_LEFT_MS) {
                ignore_missing(client.delete(&path, None).await)?;
            }
        }
        Ok(())
    }

    /// Forgets that a node left, because it is back.
    pub async fn take_left(&self, client: &Client, node: &str) -> Result<(), Error> {
        let path = self.left(node);
        // Looked for first: to delete may be refused, and mostly there is nothing.
        if client.check_stat(&path).await?.is_none() {
            return Ok(());
        }
        ignore_missing(client.delete(&path, None).await)
    }

    fn directories(&self) -> [Directory; 3] {
        let join = Permission::READ | Permission::CREATE;
        [
            Directory {
                path: self.root.clone(),
                rights: join | Permission::DELETE,
                word: "rcd",
            },
            Directory {
                path: self.members(),
                rights: join,
                word: "rc",
            },
            Directory {
                path: format!("{}/left", self.root),
                rights: join | Permission::DELETE,
                word: "rcd",
            },
        ]
    }

    /// Makes this agent's node, or renews it where a lost answer left one.
    pub async fn put(
        &self,
        client: &Client,
        name: &str,
        data: &[u8],
        key: &Key,
    ) -> Result<(), Error> {
        let path = self.member(name);
        let acls = own_acls(key);
        let options = CreateMode::Ephemeral.with_acls(Acls::new(&acls));
        match client.create(&path, data, &options).await {
            Err(Error::NodeExists) => client.set_data(&path, data, None).await.map(drop),
            other => other.map(drop),
        }
    }
}

/// A directory of a mesh.
struct Directory {
    path: String,
    /// What those may do there who have the credentials.
    rights: Permission,
    /// The same as access lists write it.
    word: &'static str,
}

/// The directories cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TreeError {
    /// ZooKeeper says no.
    #[error(transparent)]
    Zookeeper(#[from] Error),
    /// Anybody may change it, though credentials were given.
    #[error(
        "{path} is open to everybody, so credentials protect nothing; close it with zkCli.sh: \
         setAcl {path} world:anyone:r,{scheme}:{user}:{word}"
    )]
    Open {
        /// The directory.
        path: String,
        /// Scheme of the user.
        scheme: &'static str,
        /// The user as access lists write it.
        user: String,
        /// What it may do there, as access lists write it.
        word: &'static str,
    },
}

fn directory_acls(auth: Option<&Credentials>, rights: Permission) -> Vec<Acl> {
    match auth {
        None => vec![Acl::new(Permission::ALL, AuthId::anyone())],
        Some(auth) => {
            let (scheme, user) = auth.id();
            vec![
                Acl::new(Permission::READ, AuthId::anyone()),
                Acl::new(rights, AuthId::new(scheme, &user)),
            ]
        }
    }
}

fn own_acls(key: &Key) -> [Acl; 2] {
    [
        Acl::new(Permission::READ, AuthId::anyone()),
        Acl::new(Permission::ALL, AuthId::new("digest", &key.digest_id())),
    ]
}

fn ignore_missing(result: Result<(), Error>) -> Result<(), Error> {
    match result {
        Err(Error::NoNode) => Ok(()),
        other => other,
    }
}

/// Whether it lets everybody do more than read.
fn is_open(acl: &Acl) -> bool {
    let more = [
        Permission::WRITE,
        Permission::CREATE,
        Permission::DELETE,
        Permission::ADMIN,
    ];
    acl.scheme() == "world" && more.iter().any(|right| acl.permission().has(*right))
}

const KEEP_LEFT_MS: i64 = 24 * 3_600 * 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_nodes_of_members_are_members() {
        let tree = Tree::new("/mesh/");
        assert_eq!(tree.member_name("/mesh/members/n1:7"), Some("n1:7"));
        for other in [
            "/mesh/stop",
            "/mesh/members",
            "/mesh/members/",
            "/mesh/members/a/b",
            "/other/members/n1",
        ] {
            assert_eq!(tree.member_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_directory_made_with_credentials_is_not_open() {
        for Directory { rights, .. } in Tree::new("/mesh").directories() {
            let sasl = Credentials::Sasl {
                user: String::from("u"),
                password: String::from("p"),
            };
            for auth in [Credentials::Digest(String::from("u:p")), sasl] {
                assert!(!directory_acls(Some(&auth), rights).iter().any(is_open));
            }
            assert!(directory_acls(None, rights).iter().any(is_open));
        }
    }
}
