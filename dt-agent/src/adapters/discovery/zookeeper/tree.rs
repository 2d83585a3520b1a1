//! The paths of a mesh in ZooKeeper, and who may do what there.
//!
//! With credentials the directories are made so that the world reads, whoever has the credentials creates, and nobody deletes
//! or changes another's node: a session's end needs no right. Each agent's own node can be changed by that host's secret only.

use zookeeper_client::{Acl, Acls, AuthId, Client, CreateMode, Error, Permission};

use super::Key;
use super::identity::digest_id;

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
    pub async fn prepare(&self, client: &Client, auth: Option<&str>) -> Result<(), TreeError> {
        let acls = directory_acls(auth);
        let options = CreateMode::Persistent.with_acls(Acls::new(&acls));
        client.mkdir(&self.members(), &options).await?;
        let Some(auth) = auth else {
            return Ok(());
        };
        for path in [self.root.clone(), self.members()] {
            let (held, _) = client.get_acl(&path).await?;
            if held.iter().any(is_open) {
                let user = digest_id(auth);
                return Err(TreeError::Open { path, user });
            }
        }
        Ok(())
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

/// The directories cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum TreeError {
    /// ZooKeeper says no.
    #[error(transparent)]
    Zookeeper(#[from] Error),
    /// Anybody may change it, though credentials were given.
    #[error(
        "{path} is open to everybody, so credentials protect nothing; close it with zkCli.sh: \
         setAcl -R {path} world:anyone:r,digest:{user}:rc"
    )]
    Open {
        /// The directory.
        path: String,
        /// The `digest` user as access lists write it.
        user: String,
    },
}

fn directory_acls(auth: Option<&str>) -> Vec<Acl> {
    match auth {
        None => vec![Acl::new(Permission::ALL, AuthId::anyone())],
        Some(auth) => vec![
            Acl::new(Permission::READ, AuthId::anyone()),
            Acl::new(
                Permission::READ | Permission::CREATE,
                AuthId::new("digest", &digest_id(auth)),
            ),
        ],
    }
}

fn own_acls(key: &Key) -> [Acl; 2] {
    [
        Acl::new(Permission::READ, AuthId::anyone()),
        Acl::new(Permission::ALL, AuthId::new("digest", &key.digest_id())),
    ]
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
        assert!(!directory_acls(Some("u:p")).iter().any(is_open));
        assert!(directory_acls(None).iter().any(is_open));
    }
}
