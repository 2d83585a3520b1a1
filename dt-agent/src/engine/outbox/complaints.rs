//! One line for one trouble, however often it is met: again only when it changes or has lasted, and one when it is over.

use dt_common::time::MonoNanos;

/// What was said of the present trouble.
#[derive(Clone, Debug, Default)]
pub struct Complaints {
    present: Option<Present>,
}

#[derive(Clone, Debug)]
struct Present {
    since: MonoNanos,
    /// When each of its faces was named; a trouble that changes to and fro is not named at each change.
    said: Vec<(String, MonoNanos)>,
}

impl Complaints {
    /// Whether to speak of a trouble now. Two with one key are the same.
    pub fn handle_trouble(&mut self, key: &str, now: MonoNanos) -> bool {
        let present = self.present.get_or_insert_with(|| Present {
            since: now,
            said: Vec::new(),
        });
        present.said.retain(|(_, at)| now.since(*at) < AGAIN_NS);
        if present.said.iter().any(|(said, _)| said == key) || present.said.len() >= MOST_FACES {
            return false;
        }
        present.said.push((key.to_owned(), now));
        true
    }

    /// All is well: for how long, in ns, it was not, if that was ever said.
    pub fn handle_well(&mut self, now: MonoNanos) -> Option<u64> {
        let present = self.present.take()?;
        Some(now.since(present.since))
    }
}

/// A trouble that lasts is named again this often.
const AGAIN_NS: u64 = 300_000_000_000;
/// Lines in that time, whatever happens.
const MOST_FACES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_trouble_is_named_once_and_again_when_it_changes_or_lasts() {
        let mut complaints = Complaints::default();
        let said: Vec<_> = [
            (0, "gone"),
            (1, "gone"),
            (2, "refused"),
            (3, "gone"),
            (4, "refused"),
            (299, "gone"),
            (300, "gone"),
            (301, "gone"),
            (301, "refused"),
            (302, "refused"),
        ]
        .into_iter()
        .filter(|(at, key)| complaints.handle_trouble(key, MonoNanos(at * SECOND)))
        .collect();
        assert_eq!(
            said,
            [(0, "gone"), (2, "refused"), (300, "gone"), (302, "refused")]
        );
    }

    #[test]
    fn a_trouble_with_a_thousand_faces_makes_few_lines() {
        let mut complaints = Complaints::default();
        let said = (0..1000)
            .filter(|at| complaints.handle_trouble(&at.to_string(), MonoNanos(*at)))
            .count();
        assert_eq!(said, MOST_FACES);
    }

    #[test]
    fn the_end_of_a_trouble_is_told_once_and_only_if_the_trouble_was() {
        let mut complaints = Complaints::default();
        assert_eq!(complaints.handle_well(MonoNanos(1)), None);
        assert!(complaints.handle_trouble("gone", MonoNanos(SECOND)));
        assert_eq!(
            complaints.handle_well(MonoNanos(5 * SECOND)),
            Some(4 * SECOND)
        );
        assert_eq!(complaints.handle_well(MonoNanos(6 * SECOND)), None);
        assert!(complaints.handle_trouble("gone", MonoNanos(7 * SECOND)));
    }
}
