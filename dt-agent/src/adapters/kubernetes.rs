//! What is asked of a Kubernetes API server: the labels of the node that a pod runs on, and how far a DaemonSet is.
//!
//! For the labels it is one GET at start, of the node's metadata alone: all that it takes is the right `get` on `nodes`. Nothing
//! is watched; who moves a machine to another rack restarts its agent.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// Labels by key.
pub type Labels = BTreeMap<String, String>;

/// Where the API server is, and as whom it is asked.
#[derive(Clone, Debug)]
pub struct ApiServer {
    /// `https://HOST:PORT`.
    url: String,
    /// Directory with the files `token` and `ca.crt`.
    account: PathBuf,
}

/// Why the labels are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// Not in a pod.
    #[error(
        "this process runs in no pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set"
    )]
    NoPod,
    /// Something that the kubelet mounts is missing.
    #[error("cannot read {path}: has the pod a service account, and automountServiceAccountToken?")]
    Account {
        /// The file.
        path: PathBuf,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// `ca.crt` holds no certificate.
    #[error("{path} holds no certificate")]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// The server refused.
    #[error("the API server answers {status} for {path}: {}", remedy(*status))]
    Refused {
        /// Status of HTTP.
        status: u16,
        /// What was asked for.
        path: String,
    },
    /// It cannot be reached, or what it says makes no sense.
    #[error("no answer from {url}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// Cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn remedy(status: u16) -> &'static str {
    match status {
        401 => "the token of the service account is not accepted",
        403 => "the service account needs the right `get` on that",
        404 => {
            "there is none; is the name right? For a node it is spec.nodeName of the pod, by --node"
        }
        _ => "see its log",
    }
}

/// What is wanted of the answer.
#[derive(Deserialize)]
struct Node {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct DaemonSet {
    #[serde(default)]
    status: Rollout,
}

/// How far a DaemonSet is.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(default)]
pub struct Rollout {
    /// Generation that its controller has looked at; 0: none yet.
    #[serde(rename = "observedGeneration")]
    pub observed: u64,
    /// Nodes that are to have a Pod of it.
    #[serde(rename = "desiredNumberScheduled")]
    pub wanted: u64,
    /// Nodes that have one that is ready.
    #[serde(rename = "numberReady")]
    pub ready: u64,
}

impl Rollout {
    /// Every node has a Pod that is ready.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        self.observed > 0 && self.wanted > 0 && self.ready >= self.wanted
    }
}

#[derive(Deserialize)]
struct Metadata {
    #[serde(default)]
    labels: Labels,
}

impl ApiServer {
    /// That of the pod this process runs in; `env` gives variables.
    ///
    /// # Errors
    /// It runs in none.
    pub fn of_pod(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, KubernetesError> {
        let host = env("KUBERNETES_SERVICE_HOST").ok_or(KubernetesError::NoPod)?;
        let port = env("KUBERNETES_SERVICE_PORT").ok_or(KubernetesError::NoPod)?;
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host
        };
        Ok(Self {
            url: format!("https://{host}:{port}"),
            account: PathBuf::from(ACCOUNT),
        })
    }

    /// The labels of a node. Blocks for at most [`LIMIT`].
    ///
    /// # Errors
    /// They are not to be had; what to do about it.
    pub fn node_labels(&self, node: &str) -> Result<Labels, KubernetesError> {
        // Without the node's status, which may be long.
        let accept =
            "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
        let node: Node = self.get(&format!("/api/v1/nodes/{node}"), accept)?;
        Ok(node.metadata.labels)
    }

    /// How far a DaemonSet is. Blocks for at most [`LIMIT`].
    ///
    /// # Errors
    /// The server does not say; what to do about it.
    pub fn rollout(&self, namespace: &str, name: &str) -> Result<Rollout, KubernetesError> {
        let path = format!("/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}");
        let set: DaemonSet = self.get(&path, "application/json")?;
        Ok(set.status)
    }

    fn get<T: DeserializeOwned>(&self, path: &str, accept: &str) -> Result<T, KubernetesError> {
        let token = self.read("token")?;
        let agent = self.agent()?;
        let url = format!("{}{path}", self.url);
        let unreachable =
            |source: Box<dyn std::error::Error + Send + Sync>| KubernetesError::Unreachable {
                url: url.clone(),
                source,
            };
        let request = agent
            .get(&url)
            .header("Authorization", format!("Bearer {}", token.trim()));
        let mut answer = match request.header("Accept", accept).call() {
            Ok(answer) => answer,
            Err(ureq::Error::StatusCode(status)) => {
                let path = path.to_owned();
                return Err(KubernetesError::Refused { status, path });
            }
            Err(error) => return Err(unreachable(Box::new(error))),
        };
        let body = answer
            .body_mut()
            .with_config()
            .limit(MAX_ANSWER)
            .read_to_string();
        let body = body.map_err(|error| unreachable(Box::new(error)))?;
        serde_json::from_str(&body).map_err(|error| unreachable(Box::new(error)))
    }

    fn agent(&self) -> Result<ureq::Agent, KubernetesError> {
        let pem = self.read("ca.crt")?;
        let roots: Vec<Certificate<'static>> = parse_pem(pem.as_bytes())
            .filter_map(|item| match item {
                Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            })
            .collect();
        if roots.is_empty() {
            return Err(KubernetesError::NoCertificate {
                path: self.account.join("ca.crt"),
            });
        }
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::new_with_certs(&roots))
            .unversioned_rustls_crypto_provider(Arc::new(
                rustls::crypto::aws_lc_rs::default_provider(),
            ))
            .build();
        let config = ureq::Agent::config_builder()
            .tls_config(tls)
            .timeout_global(Some(LIMIT))
            .max_redirects(0)
            // The API server is never behind one, and the token is not for others.
            .proxy(None)
            .build();
        Ok(config.into())
    }

    fn read(&self, name: &str) -> Result<String, KubernetesError> {
        let path = self.account.join(name);
        fs::read_to_string(&path).map_err(|source| KubernetesError::Account { path, source })
    }
}

/// Keeps labels for a start at which nobody can be asked.
///
/// # Errors
/// The directory cannot be written.
pub fn remember(state_dir: &Path, labels: &Labels) -> io::Result<()> {
    fs::create_dir_all(state_dir)?;
    let (path, draft) = (state_dir.join(FILE), state_dir.join(DRAFT));
    fs::write(&draft, serde_json::to_vec(labels)?)?;
    fs::rename(draft, path)
}

/// The labels that were kept last; none without any.
#[must_use]
pub fn remembered(state_dir: &Path) -> Option<Labels> {
    let text = fs::read_to_string(state_dir.join(FILE)).ok()?;
    serde_json::from_str(&text).ok()
}

/// Where the kubelet mounts the token.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const FILE: &str = "node-labels.json";
const DRAFT: &str = "node-labels.json.new";
const MAX_ANSWER: u64 = 1 << 20;
/// How long one question may take.
pub const LIMIT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_of_a_pod_it_says_so() {
        let error = ApiServer::of_pod(&|_| None).unwrap_err();
        assert!(error.to_string().contains("KUBERNETES_SERVICE_HOST"));
    }

    #[test]
    fn an_ipv6_server_is_in_brackets() {
        let env = |name: &str| {
            let value = if name.ends_with("HOST") {
                "fd00::1"
            } else {
                "443"
            };
            Some(String::from(value))
        };
        assert_eq!(
            ApiServer::of_pod(&env).unwrap().url,
            "https://[fd00::1]:443"
        );
    }

    #[test]
    fn an_account_that_is_not_mounted_is_named() {
        let server = ApiServer {
            url: String::from("https://127.0.0.1:1"),
            account: PathBuf::from("/nonexistent"),
        };
        let error = server.node_labels("n1").unwrap_err();
        assert!(error.to_string().contains("/nonexistent/token"), "{error}");
    }

    #[test]
    fn a_bundle_without_certificates_is_refused() {
        let account = tempfile::tempdir().unwrap();
        fs::write(account.path().join("token"), "secret").unwrap();
        fs::write(account.path().join("ca.crt"), "nothing\n").unwrap();
        let server = ApiServer {
            url: String::from("https://127.0.0.1:1"),
            account: account.path().to_owned(),
        };
        let error = server.node_labels("n1").unwrap_err();
        assert!(
            matches!(error, KubernetesError::NoCertificate { .. }),
            "{error}"
        );
    }

    #[test]
    fn a_rollout_that_nobody_has_looked_at_is_not_done() {
        let read = |text: &str| serde_json::from_str::<DaemonSet>(text).unwrap().status;
        assert!(!read(r#"{"metadata": {}}"#).is_done());
        assert!(!read(r#"{"status": {"desiredNumberScheduled": 0, "numberReady": 0}}"#).is_done());
        let some = r#"{"status": {"observedGeneration": 1, "desiredNumberScheduled": 3, "numberReady": 2}}"#;
        assert!(!read(some).is_done());
        assert!(read(&some.replace("2}", "3}")).is_done());
    }

    #[test]
    fn labels_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(remembered(dir.path()), None);
        let labels = Labels::from([(String::from("k"), String::from("v"))]);
        remember(dir.path(), &labels).unwrap();
        assert_eq!(remembered(dir.path()), Some(labels));
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert_eq!(remembered(dir.path()), None);
    }
}
