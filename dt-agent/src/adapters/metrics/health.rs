//! `/readyz`: whether this agent can do its work, and what is wrong around it.

use std::fmt::Write as _;

use super::{SourceState, Status};

/// What `/readyz` answers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Readiness {
    /// Probes can be sent and answered here.
    pub is_ready: bool,
    /// A line per check.
    pub text: String,
}

impl Readiness {
    /// Ready is who has an interface on which some mode works. What is amiss elsewhere is named, but an agent that goes on
    /// measuring without Kafka or ZooKeeper must not be taken out of service for it.
    pub fn of(status: &Status) -> Self {
        let mut text = String::new();
        let mut check = |name: &str, verdict: Result<String, String>| {
            let (sign, words) = match &verdict {
                Ok(words) => ('+', words),
                Err(words) => ('-', words),
            };
            // Writing to a string does not fail.
            let _ = writeln!(text, "[{sign}]{name} {words}");
        };
        check("membership", membership(status));
        check("discovery", discovery(status));
        for interface in &status.interfaces {
            check(&format!("interface {}", interface.name), mode_of(interface));
        }
        check("reflector", reflector(status));
        check("feed", feed(status));
        check("mesh", mesh(status));
        let is_ready = status.started && status.interfaces.iter().any(|one| one.mode.is_some());
        let _ = writeln!(text, "{}", if is_ready { "ready" } else { "not ready" });
        Self { is_ready, text }
    }
}

fn membership(status: &Status) -> Result<String, String> {
    if status.started {
        Ok(format!("ok, {} peers", status.peers))
    } else {
        Err(String::from(
            "waiting for a membership that lists this node",
        ))
    }
}

fn discovery(status: &Status) -> Result<String, String> {
    match &status.discovery {
        SourceState::Waiting => Err(String::from("has not answered yet")),
        SourceState::Readable => Ok(String::from("ok")),
        SourceState::Failed(reason) => Err(reason.clone()),
    }
}

fn mode_of(interface: &super::Interface) -> Result<String, String> {
    let reason = &interface.reason;
    match interface.mode {
        Some(mode) if reason.is_empty() => Ok(String::from(mode.name())),
        Some(mode) => Ok(format!("{}: {reason}", mode.name())),
        None => Err(format!("no mode works: {reason}")),
    }
}

fn reflector(status: &Status) -> Result<String, String> {
    let ok = || Ok(String::from("ok"));
    status.unanswered.clone().map_or_else(ok, Err)
}

fn feed(status: &Status) -> Result<String, String> {
    match &status.feed {
        None => Ok(String::from("ok, measurements go nowhere, as told")),
        Some(feed) if feed.is_connected => Ok(String::from("ok")),
        Some(feed) => Err(format!(
            "out of reach; {} bytes wait in memory, {} on disk",
            feed.queue_bytes, feed.spool_bytes
        )),
    }
}

fn mesh(status: &Status) -> Result<String, String> {
    if status.is_stopped {
        Err(String::from("told to stop: nobody is probed"))
    } else {
        Ok(String::from("ok"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Interface;
    use super::*;
    use crate::engine::ladder::Mode;
    use crate::ports::FeedStatus;

    fn interface(name: &str, mode: Option<Mode>, reason: &str) -> Interface {
        Interface {
            name: name.to_owned(),
            mode,
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn who_has_no_members_yet_is_not_ready_and_says_what_it_waits_for() {
        let status = Status {
            discovery: SourceState::Failed(String::from("cannot read the members from zk:2181")),
            ..Status::default()
        };
        let readiness = Readiness::of(&status);
        assert!(!readiness.is_ready);
        assert!(readiness.text.contains("[-]membership waiting"));
        assert!(
            readiness
                .text
                .contains("[-]discovery cannot read the members from zk:2181")
        );
        assert!(readiness.text.ends_with("not ready\n"));
    }

    #[test]
    fn who_lacks_the_right_to_the_port_says_so_and_is_ready_all_the_same() {
        let status = Status {
            started: true,
            interfaces: vec![interface("eth0", Some(Mode::Tc), "")],
            unanswered: Some(String::from("cannot bind")),
            ..Status::default()
        };
        let readiness = Readiness::of(&status);
        assert!(readiness.is_ready);
        assert!(readiness.text.contains("[-]reflector cannot bind\n"));
    }

    #[test]
    fn ready_is_who_has_one_interface_that_works_whatever_else_is_down() {
        let status = Status {
            started: true,
            interfaces: vec![
                interface("eth0", None, "no neighbour answers"),
                interface("eth1", Some(Mode::Tc), "the XDP slot is taken"),
            ],
            discovery: SourceState::Failed(String::from("gone")),
            feed: Some(FeedStatus {
                queue_bytes: 7,
                spool_bytes: 8,
                ..FeedStatus::default()
            }),
            is_stopped: true,
            ..Status::default()
        };
        let readiness = Readiness::of(&status);
        assert!(readiness.is_ready);
        for line in [
            "[+]membership ok, 0 peers",
            "[-]interface eth0 no mode works: no neighbour answers",
            "[+]interface eth1 tc: the XDP slot is taken",
            "[-]feed out of reach; 7 bytes wait in memory, 8 on disk",
            "[-]mesh told to stop",
        ] {
            assert!(
                readiness.text.contains(line),
                "{line:?} in {}",
                readiness.text
            );
        }
    }

    #[test]
    fn without_a_mode_anywhere_it_is_not_ready() {
        let status = Status {
            started: true,
            interfaces: vec![interface("eth0", None, "the driver drops replies")],
            ..Status::default()
        };
        assert!(!Readiness::of(&status).is_ready);
    }
}
