//! The verdict table: every reason to answer, drop or pass, at both hooks, for both IP versions, with 0 to 2 tags.

use anyhow::{Context, Result, ensure};
use dt_tests::skip_unless_equipped;

use crate::rig::{HOOKS, Rig, TAGS};
use crate::table::{Case, replies, requests};

#[test]
fn every_reason_gives_its_verdict_at_both_hooks_for_both_ip_versions_and_all_tags() -> Result<()> {
    skip_unless_equipped!();
    for hook in HOOKS {
        let mut rig = Rig::new(hook)?;
        for case in requests().into_iter().chain(replies()) {
            for ipv6 in case.versions {
                for tags in TAGS {
                    case.hold(&mut rig, *ipv6, tags).with_context(|| {
                        format!("{} ({hook:?}, IPv6: {ipv6}, tags: {tags:x?})", case.name)
                    })?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn the_table_has_every_reason_that_made_frames_can_show() {
    let cases: Vec<_> = requests()
        .into_iter()
        .chain(replies())
        .filter_map(|case| case.reason)
        .collect();
    // Elsewhere: rates and the ring in `limits`, the stamper's in `egress` and `fan`, and `proof`.
    let elsewhere = [
        "source_rate",
        "total_rate",
        "ring_full",
        "stamped",
        "unstamped_lease",
        "made",
        "proof",
    ];
    for reason in dt_common::map::Reason::ALL {
        let name = reason.name();
        assert!(cases.contains(&name) != elsewhere.contains(&name), "{name}");
    }
}

impl Case {
    fn hold(&self, rig: &mut Rig, ipv6: bool, tags: &[(u16, u16)]) -> Result<()> {
        let usual = rig.oracle.settings.clone();
        rig.set(self.settings)?;
        let mut frame = (self.frame)(ipv6);
        frame.tags = tags.to_vec();
        let mut bytes = frame.bytes();
        (self.spoil)(&mut bytes, frame.ip_offset(), frame.udp_offset());
        let (verdict, reason, _) = rig.judge(&bytes)?;
        ensure!(
            (verdict, reason) == (self.verdict, self.reason),
            "{verdict:?} {reason:?}, but the table says {:?} {:?}",
            self.verdict,
            self.reason
        );
        rig.set(|settings| *settings = usual)
    }
}
