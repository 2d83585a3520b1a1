//! What a running agent says to whoever scrapes it.

use std::collections::BTreeSet;

use super::Agent;
use crate::adapters::clock;
use crate::adapters::datapath::prober::WindowBatch;
use crate::adapters::metrics::Interface;
use crate::app::report;
use crate::app::run::feed::Feed;
use crate::engine::ladder::Mode;
use crate::engine::mesh::MemberState;
use crate::engine::rollup::Place;
use crate::ports::{Discovered, Publisher as _};

impl Agent {
    /// Where everybody stands; zones and racks that nobody stands in any more are forgotten.
    pub(super) fn tell_membership(&self, discovered: &Discovered) {
        if !self.telemetry.is_served() {
            return;
        }
        let members = &discovered.membership.members;
        let count = |state| {
            members
                .iter()
                .filter(|member| member.state == state)
                .count()
        };
        let states = STATES.map(|state| (state, count(state)));
        let places: BTreeSet<_> = self
            .places
            .values()
            .map(|place| Place::of(&place.peer.labels))
            .collect();
        let own = self
            .mesh
            .own()
            .map(|own| Place::of(&own.labels))
            .unwrap_or_default();
        self.telemetry.update(|status| {
            status.started = true;
            Place {
                zone: status.zone,
                rack: status.rack,
            } = own;
            status.peers = self.places.len();
            status.members = states.to_vec();
            status.is_stopped = self.mesh.stopped();
            status.rollup.keep(&places);
        });
    }

    /// What was measured in windows that just ended.
    pub(super) fn tell_windows(&self, closed: &WindowBatch) {
        self.telemetry.update(|status| {
            status.windows_dropped += closed.dropped;
            for window in &closed.windows {
                let Some(place) = self.places.get(&window.slot) else {
                    // It left; its zone may be gone with it.
                    continue;
                };
                let is_suspect = report::suspect_reasons(&window.report, closed) != 0;
                let place = Place::of(&place.peer.labels);
                status.rollup.add(&place, &window.report, is_suspect);
            }
        });
    }

    /// How the datapath and the way of the measurements are.
    pub(super) fn tell_state(&self) {
        if !self.telemetry.is_served() {
            return;
        }
        let interfaces = self.interfaces();
        let feed = match &self.publisher {
            Feed::None => None,
            publisher => Some(self.reporter.with_own_losses(publisher.status())),
        };
        self.telemetry.update(|status| {
            status.interfaces = interfaces;
            status.peers = self.places.len();
            status.feed = feed;
            status.unanswered.clone_from(&self.unanswered);
            status.lease_s = self.node.as_ref().map(|_| self.config.lease.as_secs_f64());
        });
    }

    /// The programs were told that somebody is there.
    pub(super) fn tell_renewed(&self) {
        let now_s = clock::unix_now_ns() as f64 / 1e9;
        self.telemetry
            .update(|status| status.lease_renewed_unix_s = now_s);
    }

    fn interfaces(&self) -> Vec<Interface> {
        let Some(node) = &self.node else {
            return vec![Interface {
                name: String::from("*"),
                mode: Some(Mode::Socket),
                reason: self.without_programs.clone().unwrap_or_else(|| {
                    String::from("without programs all interfaces are used through sockets")
                }),
            }];
        };
        let interfaces = node.rungs().map(|rung| Interface {
            name: rung.name.to_owned(),
            mode: rung.mode,
            reason: rung.reason.to_owned(),
        });
        interfaces.collect()
    }
}

const STATES: [MemberState; 4] = [
    MemberState::Unsaid,
    MemberState::Alive,
    MemberState::Restarting,
    MemberState::Failed,
];
