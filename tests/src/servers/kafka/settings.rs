//! A broker's settings: one node that is broker and controller, and small.

use std::path::Path;

use super::Broker;
use crate::servers::server;

pub(super) fn text(broker: &Broker, dir: &Path) -> String {
    let (clients, controller) = (broker.clients.address(), broker.controller.address());
    let mut listeners = format!("PLAINTEXT://{clients},CONTROLLER://{controller}");
    let mut lines = vec![
        format!("controller.quorum.voters=1@{controller}"),
        format!("log.dirs={}", server::data_dir(dir).display()),
    ];
    if !broker.options.users.is_empty() {
        listeners.push_str(",SASL_PLAINTEXT://");
        listeners.push_str(&broker.sasl.address().to_string());
        lines.extend(guard(&broker.options.users));
    }
    lines.push(format!("listeners={listeners}"));
    lines.extend(FIXED.iter().map(|line| (*line).to_owned()));
    lines.extend(broker.options.lines.iter().cloned());
    lines.join("\n") + "\n"
}

/// Passwords, and rights for those who are told so only.
fn guard(users: &[(String, String)]) -> Vec<String> {
    let known: Vec<_> = users
        .iter()
        .map(|(name, password)| format!("user_{name}=\"{password}\""))
        .collect();
    let module = "org.apache.kafka.common.security.plain.PlainLoginModule";
    vec![
        "sasl.enabled.mechanisms=PLAIN".to_owned(),
        format!(
            "listener.name.sasl_plaintext.plain.sasl.jaas.config={module} required {};",
            known.join(" ")
        ),
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned(),
        "super.users=User:ANONYMOUS".to_owned(),
    ]
}

const FIXED: &[&str] = &[
    "process.roles=broker,controller",
    "node.id=1",
    "controller.listener.names=CONTROLLER",
    "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
    "inter.broker.listener.name=PLAINTEXT",
    // One broker can keep one copy.
    "offsets.topic.replication.factor=1",
    "offsets.topic.num.partitions=1",
    "transaction.state.log.replication.factor=1",
    "transaction.state.log.min.isr=1",
    "transaction.state.log.num.partitions=1",
    "share.coordinator.state.topic.replication.factor=1",
    "share.coordinator.state.topic.min.isr=1",
    "share.coordinator.state.topic.num.partitions=1",
    "group.initial.rebalance.delay.ms=0",
    // A killed broker that is started again waits until the session of the killed one is over.
    "broker.session.timeout.ms=3000",
    "broker.heartbeat.interval.ms=500",
    "num.network.threads=2",
    "num.io.threads=4",
    "log.cleaner.dedupe.buffer.size=4194304",
    "metadata.log.max.record.bytes.between.snapshots=1048576",
];
