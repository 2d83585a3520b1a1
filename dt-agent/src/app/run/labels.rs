//! Where this node stands, as the labels of its Kubernetes node say.

use std::time::Duration;

use crate::adapters::kubernetes::{self, ApiServer, KubernetesError, Labels};
use crate::config::{NodeLabels, RunConfig, SelfConfig};

/// Completes `config` by the node's labels, if it asks for them.
///
/// A server that does not answer is asked again for a while; then the labels of the last start must do, or none: a node that
/// measures under a wrong zone is of more use than one that does not measure.
///
/// # Errors
/// The pod cannot ask at all, or may not.
pub(super) async fn complete(config: &mut RunConfig) -> anyhow::Result<()> {
    if config.own.node_labels == NodeLabels::None {
        return Ok(());
    }
    let server = ApiServer::of_pod(&|name| std::env::var(name).ok())?;
    let mut tried = 0;
    let labels = loop {
        tried += 1;
        match ask(&server, &config.node).await? {
            Ok(labels) => break keep(config, labels),
            Err(error @ KubernetesError::Unreachable { .. }) if tried < TRIES => {
                tracing::warn!("{:#}; asking again.", anyhow::Error::from(error));
                tokio::time::sleep(PAUSE).await;
            }
            Err(error @ KubernetesError::Unreachable { .. }) => {
                tracing::error!("{:#}", anyhow::Error::from(error));
                break recall(config);
            }
            Err(error) => return Err(error.into()),
        }
    };
    take(&mut config.own, &labels);
    let own = &config.own;
    tracing::info!(zone = ?own.zone, rack = ?own.rack, instance_group = ?own.instance_group, "Labels of the node.");
    Ok(())
}

async fn ask(server: &ApiServer, node: &str) -> anyhow::Result<Result<Labels, KubernetesError>> {
    let (server, node) = (server.clone(), node.to_owned());
    Ok(tokio::task::spawn_blocking(move || server.node_labels(&node)).await?)
}

fn keep(config: &RunConfig, labels: Labels) -> Labels {
    if let Err(error) = kubernetes::remember(&config.state_dir, &labels) {
        let directory = config.state_dir.display();
        tracing::warn!(%directory, %error, "The labels of the node are not remembered for the next start.");
    }
    labels
}

fn recall(config: &RunConfig) -> Labels {
    let labels = kubernetes::remembered(&config.state_dir);
    if labels.is_some() {
        tracing::warn!("The labels of the last start are taken.");
    } else {
        tracing::warn!("This node goes without zone and rack until its agent starts again.");
    }
    labels.unwrap_or_default()
}

/// What the settings say goes before what the labels say.
fn take(own: &mut SelfConfig, labels: &Labels) {
    let label = |key: &str| labels.get(key).filter(|value| !value.is_empty()).cloned();
    let rack = label(&own.rack_label);
    own.zone = own.zone.take().or_else(|| label(ZONE));
    own.rack = own.rack.take().or(rack);
    own.instance_group = own.instance_group.take().or_else(|| label(INSTANCE_TYPE));
}

/// Well-known labels of Kubernetes.
const ZONE: &str = "topology.kubernetes.io/zone";
const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn what_is_set_goes_before_what_is_labelled() {
        let mut own = SelfConfig {
            zone: Some(String::from("mine")),
            rack_label: String::from("example.org/rack"),
            ..SelfConfig::default()
        };
        take(
            &mut own,
            &labels(&[
                (ZONE, "theirs"),
                ("example.org/rack", "r7"),
                (INSTANCE_TYPE, ""),
            ]),
        );
        assert_eq!(own.zone.as_deref(), Some("mine"));
        assert_eq!(own.rack.as_deref(), Some("r7"));
        assert_eq!(own.instance_group, None);
    }
}
