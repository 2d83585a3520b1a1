//! The proof of the reply path: a neighbour's answer goes back as a question, and its second answer proves that it left.

use anyhow::Result;
use dt_common::map::{Iface, IfaceMode, Proof};
use dt_tests::datapath::{Hook, IFINDEX, Verdict};
use dt_tests::skip_unless_equipped;

use crate::packet;
use crate::rig::{HOOKS, Rig, moved};

#[test]
fn an_arp_answer_is_asked_back_and_the_second_one_proves_and_is_made_the_first() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = proving()?;
    let answer = arp(2, (THEM, [10, 77, 0, 2]), (US, [10, 77, 0, 1]), US);
    let question = arp(1, (US, [0; 4]), ([0; 6], [10, 77, 0, 2]), THEM);
    assert_eq!(run(&mut rig, &answer)?, (Verdict::Send, true, question));
    assert_eq!(rounds(&mut rig)?, (ROUND, 0));
    // Another host's answer in between is left alone.
    assert_eq!(
        run(&mut rig, &answer)?,
        (Verdict::Pass, false, answer.clone())
    );
    let second = arp(2, (THEM, [10, 77, 0, 2]), (US, [0; 4]), US);
    assert_eq!(run(&mut rig, &second)?, (Verdict::Pass, false, answer));
    assert_eq!(rounds(&mut rig)?, (ROUND, ROUND));
    Ok(())
}

#[test]
fn an_advertisement_is_solicited_back_and_the_second_one_proves() -> Result<()> {
    skip_unless_equipped!();
    for option in [true, false] {
        let mut rig = proving()?;
        let answer = discovery(136, (THEM, 2), (US, 1), option.then_some((2, THEM)));
        let question = discovery(135, (US, 1), (THEM, 2), option.then_some((1, US)));
        assert_eq!(run(&mut rig, &answer)?, (Verdict::Send, true, question));
        assert_eq!(rounds(&mut rig)?, (ROUND, 0));
        assert_eq!(run(&mut rig, &answer)?, (Verdict::Pass, false, answer));
        assert_eq!(rounds(&mut rig)?, (ROUND, ROUND));
    }
    Ok(())
}

#[test]
fn an_advertisement_long_after_the_question_proves_nothing() -> Result<()> {
    skip_unless_equipped!();
    let mut rig = proving()?;
    rig.datapath.set_proof(&Proof {
        turned_round: ROUND,
        turned_ns: 1,
        ..Proof::default()
    })?;
    run(&mut rig, &discovery(136, (THEM, 2), (US, 1), None))?;
    assert_eq!(rounds(&mut rig)?, (ROUND, 0));
    Ok(())
}

#[test]
fn neighbours_are_left_alone_while_nothing_is_proved_and_what_went_to_everybody_always()
-> Result<()> {
    skip_unless_equipped!();
    let answers = [
        arp(2, (THEM, [10, 77, 0, 2]), (US, [10, 77, 0, 1]), US),
        discovery(136, (THEM, 2), (US, 1), Some((2, THEM))),
    ];
    for hook in HOOKS {
        let mut rig = Rig::new(hook)?;
        for answer in &answers {
            assert_eq!(rig.judge(answer)?.0, Verdict::Pass);
        }
    }
    let mut rig = proving()?;
    let everybody = [0xff; 6];
    let left_alone = [
        arp(1, (THEM, [10, 77, 0, 2]), (US, [10, 77, 0, 1]), US),
        arp(
            2,
            (THEM, [10, 77, 0, 2]),
            (everybody, [10, 77, 0, 2]),
            everybody,
        ),
        discovery(
            136,
            (THEM, 2),
            ([0x33, 0x33, 0, 0, 0, 1], 1),
            Some((2, THEM)),
        ),
        discovery(135, (THEM, 2), (US, 1), Some((1, THEM))),
        discovery(136, (THEM, 2), (US, 1), Some((2, THEM)))[..70].to_vec(),
    ];
    for frame in left_alone {
        assert_eq!(
            run(&mut rig, &frame)?,
            (Verdict::Pass, false, frame.clone())
        );
        assert_eq!(rounds(&mut rig)?, (0, 0));
    }
    Ok(())
}

/// XDP, in round [`ROUND`], with nothing turned yet.
fn proving() -> Result<Rig> {
    let mut rig = Rig::new(Hook::Xdp)?;
    rig.datapath.set_proof(&Proof::default())?;
    let iface = Iface {
        ifindex: IFINDEX,
        mode: IfaceMode::XDP,
        flags: 0,
        proof_round: ROUND,
    };
    rig.datapath.set_iface(&iface)?;
    Ok(rig)
}

/// Verdict, whether it was counted as part of a proof, and what became of the frame.
fn run(rig: &mut Rig, frame: &[u8]) -> Result<(Verdict, bool, Vec<u8>)> {
    let before = rig.datapath.counters()?;
    let outcome = rig.datapath.ingress(Hook::Xdp, frame)?;
    let moved = moved(&before, &rig.datapath.counters()?);
    assert!(moved.is_empty() || moved == [("proof", 1)], "{moved:?}");
    Ok((outcome.verdict, !moved.is_empty(), outcome.frame))
}

fn rounds(rig: &mut Rig) -> Result<(u32, u32)> {
    let proof = rig.datapath.proof()?;
    Ok((proof.turned_round, proof.proved_round))
}

/// ARP for IPv4 over Ethernet (RFC 826), to the hardware address `to`.
fn arp(
    operation: u8,
    sender: ([u8; 6], [u8; 4]),
    target: ([u8; 6], [u8; 4]),
    to: [u8; 6],
) -> Vec<u8> {
    let mut frame = [to, sender.0].concat();
    frame.extend([0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, operation]);
    for (mac, address) in [sender, target] {
        frame.extend(mac);
        frame.extend(address);
    }
    frame
}

/// Neighbour discovery (RFC 4861) about `fd77::2` between two hosts, with a link-layer address option or without.
fn discovery(
    kind: u8,
    from: ([u8; 6], u8),
    to: ([u8; 6], u8),
    option: Option<(u8, [u8; 6])>,
) -> Vec<u8> {
    let address = |number| [0xfd, 0x77, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, number];
    let mut body = vec![kind, 0, 0, 0];
    // Solicited and overriding, in an advertisement.
    body.extend([if kind == 136 { 0x60 } else { 0 }, 0, 0, 0]);
    body.extend(address(2));
    if let Some((kind, mac)) = option {
        body.extend([kind, 1]);
        body.extend(mac);
    }
    let addresses = [address(from.1), address(to.1)].concat();
    let sum = packet::sum(&addresses) + packet::sum(&body) + 58 + body.len() as u64;
    body[2..4].copy_from_slice(&(0xffff - (sum % 0xffff) as u16).to_be_bytes());
    let mut frame = [to.0, from.0].concat();
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, body.len() as u8, 58, 255]);
    [frame, addresses, body].concat()
}

const ROUND: u32 = 7;
const US: [u8; 6] = [2, 0, 0, 0, 0, 1];
const THEM: [u8; 6] = [2, 0, 0, 0, 0, 2];
