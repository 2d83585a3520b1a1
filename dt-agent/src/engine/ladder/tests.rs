//! The whole machine: every pair of state and input, then stories.

use super::*;

const SECOND: u64 = NANOS_PER_SEC;
const START: MonoNanos = MonoNanos(1_000 * SECOND);

fn ladder(request: ModeRequest) -> Ladder {
    Ladder::new(
        LadderSettings {
            request,
            detach_unproved: false,
        },
        Random::new(7),
        START,
    )
}

fn veth() -> Ladder {
    let settings = LadderSettings {
        request: ModeRequest::Auto,
        detach_unproved: true,
    };
    Ladder::new(settings, Random::new(7), START)
}

fn orders(ladder: &mut Ladder) -> Vec<Command> {
    std::iter::from_fn(|| ladder.poll_command()).collect()
}

/// Orders as short words; reasons left out.
fn words_of(ladder: &mut Ladder) -> String {
    let name = |order: Command| match order {
        Command::AttachTc => String::from("AttachTc"),
        Command::AttachXdp => String::from("AttachXdp"),
        Command::DetachXdp => String::from("DetachXdp"),
        Command::StartProof { .. } => String::from("StartProof"),
        Command::EndProof => String::from("EndProof"),
        Command::Use { mode, .. } => format!("Use({})", mode.map_or("none", Mode::name)),
    };
    orders(ladder)
        .into_iter()
        .map(name)
        .collect::<Vec<_>>()
        .join(" ")
}

fn refusal(kind: RefusalKind) -> Refusal {
    Refusal {
        kind,
        text: String::from("program 17 holds the slot"),
    }
}

fn proof(ladder: &Ladder, verdict: Verdict) -> Input {
    Input::Proof {
        round: ladder.round,
        verdict,
    }
}

/// All states, reached as they are reached in life. Their orders are obeyed.
fn in_state(name: &str) -> Ladder {
    let request = match name {
        "Refused" => ModeRequest::Only(Mode::Xdp),
        "Tc, asked for" => ModeRequest::Only(Mode::Tc),
        "Socket, asked for" => ModeRequest::Only(Mode::Socket),
        _ => ModeRequest::Auto,
    };
    let mut ladder = ladder(request);
    let inputs: Vec<Input> = match name {
        "AttachingTc" | "Socket, asked for" => vec![],
        "Absent" => vec![Input::InterfaceGone],
        "Socket" => vec![Input::TcRefused(refusal(RefusalKind::Permission))],
        "Tc" | "Refused" => vec![
            Input::TcAttached,
            Input::XdpRefused(refusal(RefusalKind::Foreign)),
        ],
        "Tc, asked for" | "AttachingXdp" => vec![Input::TcAttached],
        "Proving" => vec![Input::TcAttached, Input::XdpAttached],
        "Xdp" | "Reproving" => {
            vec![
                Input::TcAttached,
                Input::XdpAttached,
                Input::Proof {
                    round: 1,
                    verdict: Verdict::Proved,
                },
            ]
        }
        other => panic!("{other}"),
    };
    for input in inputs {
        ladder.handle_input(input, START);
    }
    if name == "Reproving" {
        ladder.handle_input(Input::PeersSilent, START.plus(10 * SECOND));
    }
    orders(&mut ladder);
    assert_eq!(label(&ladder), name.trim_end_matches(", asked for"));
    ladder
}

fn label(ladder: &Ladder) -> &'static str {
    match ladder.state {
        State::Absent => "Absent",
        State::AttachingTc => "AttachingTc",
        State::AttachingXdp => "AttachingXdp",
        State::Proving(_) => "Proving",
        State::Xdp { .. } => "Xdp",
        State::Reproving(_) => "Reproving",
        State::Tc { .. } => "Tc",
        State::Socket { .. } => "Socket",
        State::Refused { .. } => "Refused",
    }
}

const STATES: [&str; 11] = [
    "Absent",
    "AttachingTc",
    "AttachingXdp",
    "Proving",
    "Xdp",
    "Reproving",
    "Tc",
    "Tc, asked for",
    "Socket",
    "Socket, asked for",
    "Refused",
];

fn all_inputs(ladder: &Ladder) -> Vec<(&'static str, Input)> {
    let foreign = || refusal(RefusalKind::Foreign);
    let no_interface = || refusal(RefusalKind::NoInterface);
    vec![
        ("TcAttached", Input::TcAttached),
        ("TcRefused", Input::TcRefused(foreign())),
        ("TcRefused, no interface", Input::TcRefused(no_interface())),
        ("XdpAttached", Input::XdpAttached),
        ("XdpRefused", Input::XdpRefused(foreign())),
        (
            "XdpRefused, no interface",
            Input::XdpRefused(no_interface()),
        ),
        ("proved", proof(ladder, Verdict::Proved)),
        ("unreturned", proof(ladder, Verdict::Unreturned)),
        ("unanswered", proof(ladder, Verdict::Unanswered)),
        (
            "stale proof",
            Input::Proof {
                round: ladder.round + 1_000,
                verdict: Verdict::Proved,
            },
        ),
        ("PeersSilent", Input::PeersSilent),
        ("ForeignGone", Input::ForeignGone),
        ("InterfaceGone", Input::InterfaceGone),
        ("InterfaceBack", Input::InterfaceBack),
    ]
}

/// (state, input, next state, orders); every pair that is not here changes nothing and orders nothing.
const TABLE: &[(&str, &str, &str, &str)] = &[
    ("Absent", "InterfaceBack", "AttachingTc", "AttachTc"),
    (
        "AttachingTc",
        "TcAttached",
        "AttachingXdp",
        "Use(tc) AttachXdp",
    ),
    ("AttachingTc", "TcRefused", "Socket", "Use(socket)"),
    (
        "AttachingTc",
        "TcRefused, no interface",
        "Absent",
        "Use(none)",
    ),
    ("AttachingTc", "InterfaceGone", "Absent", "Use(none)"),
    ("AttachingXdp", "XdpAttached", "Proving", "StartProof"),
    ("AttachingXdp", "XdpRefused", "Tc", "Use(tc)"),
    (
        "AttachingXdp",
        "XdpRefused, no interface",
        "Absent",
        "Use(none)",
    ),
    ("AttachingXdp", "InterfaceGone", "Absent", "Use(none)"),
    ("Proving", "proved", "Xdp", "Use(xdp) EndProof"),
    ("Proving", "InterfaceGone", "Absent", "Use(none)"),
    ("Xdp", "PeersSilent", "Reproving", "StartProof"),
    ("Xdp", "InterfaceGone", "Absent", "Use(none)"),
    ("Reproving", "proved", "Xdp", "EndProof"),
    ("Reproving", "unanswered", "Xdp", "EndProof"),
    ("Reproving", "InterfaceGone", "Absent", "Use(none)"),
    ("Tc", "ForeignGone", "AttachingXdp", "AttachXdp"),
    ("Tc", "InterfaceGone", "Absent", "Use(none)"),
    ("Tc, asked for", "InterfaceGone", "Absent", "Use(none)"),
    ("Socket", "InterfaceGone", "Absent", "Use(none)"),
    ("Socket, asked for", "InterfaceGone", "Absent", "Use(none)"),
    ("Refused", "ForeignGone", "AttachingTc", "AttachTc"),
    ("Refused", "InterfaceGone", "Absent", "Use(none)"),
];

#[test]
fn every_pair_of_state_and_input_does_what_the_table_says() {
    for state in STATES {
        for (name, input) in all_inputs(&in_state(state)) {
            let mut ladder = in_state(state);
            let before = label(&ladder);
            ladder.handle_input(input, START.plus(20 * SECOND));
            let row = TABLE.iter().find(|row| (row.0, row.1) == (state, name));
            let (next, ordered) = row.map_or((before, ""), |row| (row.2, row.3));
            assert_eq!(
                (label(&ladder), words_of(&mut ladder).as_str()),
                (next, ordered),
                "{state} x {name}"
            );
        }
    }
}

#[test]
fn every_row_of_the_table_is_about_a_state_and_an_input_that_exist() {
    for (state, input, _, _) in TABLE {
        let ladder = in_state(state);
        assert!(
            all_inputs(&ladder).iter().any(|(name, _)| name == input),
            "{state} x {input}"
        );
    }
}

/// Lets time pass up to `end` as a loop would; `answer` gives the verdict on each try, at once.
fn live(
    ladder: &mut Ladder,
    end: MonoNanos,
    mut answer: impl FnMut(MonoNanos) -> Option<Verdict>,
) -> Vec<String> {
    let mut log = Vec::new();
    let mut now = START;
    loop {
        while let Some(command) = ladder.poll_command() {
            match command {
                Command::AttachTc => ladder.handle_input(Input::TcAttached, now),
                Command::AttachXdp => {
                    log.push(format!("{} attach xdp", (now.0 - START.0) / SECOND));
                    ladder.handle_input(Input::XdpAttached, now);
                }
                Command::DetachXdp => {
                    log.push(format!("{} detach xdp", (now.0 - START.0) / SECOND));
                }
                Command::StartProof { round } => {
                    if let Some(verdict) = answer(now) {
                        ladder.handle_input(Input::Proof { round, verdict }, now);
                    }
                }
                Command::EndProof => {}
                Command::Use { mode, reason } => {
                    let mode = mode.map_or("none", Mode::name);
                    log.push(format!("{} {mode}: {reason}", (now.0 - START.0) / SECOND));
                }
            }
        }
        match ladder.poll_timeout().filter(|next| *next <= end) {
            Some(next) => {
                assert!(next >= now || now == START, "time goes forward");
                now = next.max(now);
                ladder.handle_timeout(now);
                assert!(
                    ladder.poll_timeout().is_none_or(|next| next > now)
                        || !ladder.commands.is_empty()
                );
            }
            None => return log,
        }
    }
}

#[test]
fn a_good_interface_ends_on_xdp_at_once() {
    let mut ladder = ladder(ModeRequest::Auto);
    let log = live(&mut ladder, START.plus(600 * SECOND), |_| {
        Some(Verdict::Proved)
    });
    assert_eq!(
        log,
        [
            "0 tc: xdp is not proved yet",
            "0 attach xdp",
            "0 xdp: a neighbour answered what xdp sent"
        ]
    );
    assert!(ladder.is_settled());
}

#[test]
fn two_agents_that_start_two_seconds_apart_do_not_demote_each_other() {
    let later = START.plus(2 * SECOND);
    let answer = |now| {
        Some(if now < later {
            Verdict::Unreturned
        } else {
            Verdict::Proved
        })
    };
    let mut ladder = veth();
    let log = live(&mut ladder, START.plus(100 * SECOND), answer);
    assert_eq!(
        log.last().map(String::as_str),
        Some("2 xdp: a neighbour answered what xdp sent")
    );
    assert_eq!(log.len(), 3, "{log:?}");
}

#[test]
fn a_veth_without_xdp_at_the_other_end_stays_on_tc_and_says_why() {
    let mut ladder = veth();
    let log = live(&mut ladder, START.plus(2_000 * SECOND), |_| {
        Some(Verdict::Unreturned)
    });
    assert_eq!(
        log[2],
        "3 tc: xdp is attached, but what it sends does not reach the wire (15 tries); on a veth the other end needs an \
         xdp program too"
    );
    assert_eq!(ladder.mode(), Some(Mode::Tc));
    assert!(
        log[3].ends_with("detach xdp") && log[3].starts_with("36"),
        "after it lingered: {log:?}"
    );
    let attached = log
        .iter()
        .filter(|line| line.ends_with("attach xdp"))
        .count();
    assert!(attached >= 5, "it is put back for each try: {log:?}");
}

#[test]
fn on_a_nic_an_unproved_program_stays_because_attaching_is_what_hurts() {
    let mut ladder = ladder(ModeRequest::Auto);
    let log = live(&mut ladder, START.plus(2_000 * SECOND), |_| {
        Some(Verdict::Unreturned)
    });
    assert_eq!(
        log.iter().filter(|line| line.contains("tach xdp")).count(),
        1,
        "{log:?}"
    );
}

#[test]
fn the_back_off_grows_from_seconds_to_minutes() {
    let mut ladder = ladder(ModeRequest::Auto);
    let mut tries = Vec::new();
    live(&mut ladder, START.plus(3_000 * SECOND), |now| {
        tries.push(now);
        Some(Verdict::Unreturned)
    });
    let waits: Vec<_> = tries
        .windows(2)
        .map(|pair| (pair[1].0 - pair[0].0) as f64 / 1e9)
        .filter(|wait| *wait > 1.0)
        .collect();
    for (wait, wanted) in waits
        .iter()
        .zip([5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0])
    {
        assert!((wait - wanted).abs() <= wanted * 0.1 + 0.3, "{waits:?}");
    }
}

#[test]
fn nobody_to_ask_is_said_as_such() {
    let mut ladder = ladder(ModeRequest::Auto);
    let log = live(&mut ladder, START.plus(4 * SECOND), |_| None);
    assert_eq!(
        log[2],
        "3 tc: xdp is attached, but no neighbour answered to prove it with (15 tries)"
    );
}

#[test]
fn a_proof_is_repeated_every_minute() {
    let mut ladder = ladder(ModeRequest::Auto);
    let mut tries = 0;
    live(&mut ladder, START.plus(600 * SECOND), |_| {
        tries += 1;
        Some(Verdict::Proved)
    });
    assert!((10..=12).contains(&tries), "{tries}");
}

#[test]
fn two_failures_are_forgiven_and_three_are_not() {
    for (failures, fallen) in [(2, false), (3, true)] {
        let mut ladder = ladder(ModeRequest::Auto);
        let mut tries = 0;
        let log = live(&mut ladder, START.plus(66 * SECOND + SECOND / 2), |_| {
            tries += 1;
            Some(if (2..2 + failures).contains(&tries) {
                Verdict::Unreturned
            } else {
                Verdict::Proved
            })
        });
        let fell = log
            .iter()
            .any(|line| line.contains("any more (3 tries in a row)"));
        assert_eq!(fell, fallen, "{log:?}");
    }
}

#[test]
fn neighbours_that_fall_silent_do_not_cost_a_rung() {
    let mut ladder = ladder(ModeRequest::Auto);
    let mut tries = 0;
    live(&mut ladder, START.plus(1_000 * SECOND), |_| {
        tries += 1;
        (tries == 1).then_some(Verdict::Proved)
    });
    assert_eq!(ladder.mode(), Some(Mode::Xdp));
    assert!(tries > 10);
}

#[test]
fn silent_peers_bring_the_proof_forward_but_not_in_a_storm() {
    let mut ladder = in_state("Xdp");
    ladder.handle_input(Input::PeersSilent, START.plus(SECOND / 2));
    assert_eq!(words_of(&mut ladder), "");
    assert_eq!(ladder.poll_timeout(), Some(START.plus(SECOND)));
    ladder.handle_timeout(START.plus(SECOND));
    assert_eq!(words_of(&mut ladder), "StartProof");
}

#[test]
fn after_a_step_down_it_climbs_back() {
    let mut ladder = ladder(ModeRequest::Auto);
    let bad = START.plus(30 * SECOND)..START.plus(100 * SECOND);
    let log = live(&mut ladder, START.plus(200 * SECOND), |now| {
        Some(if bad.contains(&now) {
            Verdict::Unreturned
        } else {
            Verdict::Proved
        })
    });
    let mut modes: Vec<_> = ladder.history().filter_map(|step| step.mode).collect();
    modes.dedup();
    assert_eq!(modes, [Mode::Tc, Mode::Xdp, Mode::Tc, Mode::Xdp], "{log:?}");
}

#[test]
fn asked_for_xdp_and_refused_it_is_an_error_that_names_the_reason() {
    let mut ladder = in_state("Refused");
    assert_eq!(
        ladder.refusal(),
        Some(
            "mode xdp was asked for and cannot be had: xdp cannot be attached: program 17 holds the slot"
        )
    );
    assert_eq!(ladder.mode(), None);
    ladder.handle_input(Input::ForeignGone, START);
    ladder.handle_input(Input::TcAttached, START);
    assert_eq!(
        words_of(&mut ladder),
        "AttachTc AttachXdp",
        "tc is no stand-in a second time"
    );
    assert_eq!(ladder.refusal(), None);
}

#[test]
fn asked_for_xdp_tc_stands_in_until_the_first_proof() {
    let mut ladder = ladder(ModeRequest::Only(Mode::Xdp));
    ladder.handle_input(Input::TcAttached, START);
    assert_eq!(
        (ladder.mode(), ladder.is_settled()),
        (Some(Mode::Tc), false)
    );
    ladder.handle_input(Input::XdpAttached, START);
    ladder.handle_input(
        Input::Proof {
            round: 1,
            verdict: Verdict::Proved,
        },
        START,
    );
    assert_eq!(
        (ladder.mode(), ladder.is_settled()),
        (Some(Mode::Xdp), true)
    );
}

#[test]
fn asked_for_tc_xdp_is_never_attached_and_what_was_left_is_taken_off() {
    let mut ladder = ladder(ModeRequest::Only(Mode::Tc));
    assert_eq!(words_of(&mut ladder), "DetachXdp AttachTc");
    ladder.handle_input(Input::TcAttached, START);
    assert_eq!(words_of(&mut ladder), "Use(tc)");
    assert_eq!(ladder.poll_timeout(), None);
}

#[test]
fn asked_for_tc_and_refused_it_is_an_error_and_not_socket() {
    let mut ladder = ladder(ModeRequest::Only(Mode::Tc));
    ladder.handle_input(Input::TcRefused(refusal(RefusalKind::Permission)), START);
    assert_eq!(ladder.mode(), None);
    assert!(
        ladder
            .refusal()
            .is_some_and(|reason| reason.starts_with("mode tc was asked for and cannot be had"))
    );
}

#[test]
fn asked_for_socket_nothing_is_attached() {
    let mut ladder = ladder(ModeRequest::Only(Mode::Socket));
    assert_eq!(words_of(&mut ladder), "Use(socket)");
    assert_eq!(ladder.poll_timeout(), None);
}

#[test]
fn without_tc_there_is_socket_and_a_new_try_later() {
    let mut ladder = in_state("Socket");
    let retry = ladder.poll_timeout().expect("it tries again");
    ladder.handle_timeout(retry);
    assert_eq!(words_of(&mut ladder), "AttachTc");
    ladder.handle_input(Input::TcAttached, retry);
    assert_eq!(words_of(&mut ladder), "Use(tc) AttachXdp");
}

#[test]
fn orders_for_an_interface_that_vanished_are_void() {
    let mut ladder = ladder(ModeRequest::Auto);
    ladder.handle_input(Input::TcAttached, START);
    ladder.handle_input(Input::InterfaceGone, START);
    assert_eq!(words_of(&mut ladder), "Use(none)");
    ladder.handle_input(Input::XdpAttached, START);
    ladder.handle_input(Input::InterfaceBack, START);
    assert_eq!(words_of(&mut ladder), "AttachTc");
}

#[test]
fn the_history_keeps_the_latest_steps_only() {
    let mut ladder = in_state("Xdp");
    for _ in 0..50 {
        ladder.handle_input(Input::InterfaceGone, START);
        ladder.handle_input(Input::InterfaceBack, START);
        ladder.handle_input(Input::TcAttached, START);
    }
    assert_eq!(ladder.history().count(), Ladder::HISTORY);
    assert_eq!(
        ladder.history().next_back().map(|step| step.mode),
        Some(Some(Mode::Tc))
    );
}

#[test]
fn a_free_slot_is_no_news_to_who_was_refused_for_another_reason() {
    let mut ladder = ladder(ModeRequest::Auto);
    ladder.handle_input(Input::TcAttached, START);
    ladder.handle_input(Input::XdpRefused(refusal(RefusalKind::Unsupported)), START);
    orders(&mut ladder);
    ladder.handle_input(Input::ForeignGone, START);
    assert_eq!(words_of(&mut ladder), "");
}

#[test]
fn two_ends_of_a_veth_that_start_minutes_apart_find_each_other() {
    for apart in [4, 30, 200, 500, 1_000, 5_000] {
        let mut ends = [
            veth(),
            Ladder::new(veth().settings, Random::new(8), START.plus(apart * SECOND)),
        ];
        let mut attached = [false; 2];
        let mut now = START;
        while now < START.plus((apart + 1_800) * SECOND) {
            for end in 0..2 {
                if now < START.plus(end as u64 * apart * SECOND) {
                    continue;
                }
                ends[end].handle_timeout(now);
                while let Some(command) = ends[end].poll_command() {
                    match command {
                        Command::AttachTc => ends[end].handle_input(Input::TcAttached, now),
                        Command::AttachXdp => {
                            attached[end] = true;
                            ends[end].handle_input(Input::XdpAttached, now);
                        }
                        Command::DetachXdp => attached[end] = false,
                        Command::StartProof { round } => {
                            let verdict = if attached[1 - end] {
                                Verdict::Proved
                            } else {
                                Verdict::Unreturned
                            };
                            ends[end].handle_input(Input::Proof { round, verdict }, now);
                        }
                        Command::EndProof | Command::Use { .. } => {}
                    }
                }
            }
            now = now.plus(SECOND / 10);
        }
        let modes = ends.each_ref().map(Ladder::mode);
        assert_eq!(modes, [Some(Mode::Xdp); 2], "{apart} s apart");
    }
}
