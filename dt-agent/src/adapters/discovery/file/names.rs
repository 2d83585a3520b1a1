//! Names of hosts and what they resolve to, as far as is known.
//!
//! No clock: time is counted in looks at the file, one a second. A name that once resolved keeps its addresses while it
//! does not.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, ToSocketAddrs};

/// Asks for the addresses of a name. Blocks, perhaps for many seconds.
pub trait Resolve: Clone + Send + 'static {
    /// All addresses of a name.
    ///
    /// # Errors
    ///
    /// It has none, or nobody could be asked.
    fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The resolver of the system: hosts file, DNS and whatever else is configured.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok((name, 0)
            .to_socket_addrs()?
            .map(|address| address.ip())
            .collect())
    }
}

/// All names in use.
#[derive(Debug, Default)]
pub(super) struct Names {
    by_name: BTreeMap<String, Name>,
    looks: u64,
    busy: usize,
}

#[derive(Debug, Default)]
struct Name {
    /// None: never tried to the end.
    outcome: Option<Result<Vec<IpAddr>, String>>,
    busy: bool,
    /// Count of looks at which to ask again.
    ask_at: u64,
}

impl Names {
    /// From now on these names are in use.
    pub fn keep<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        let names: BTreeSet<_> = names.collect();
        // A busy one stays, so that its answer does not count for another question.
        self.by_name
            .retain(|name, state| state.busy || names.contains(name.as_str()));
        for name in names {
            self.by_name.entry(name.to_owned()).or_default();
        }
    }

    /// One look more.
    pub fn tick(&mut self) {
        self.looks += 1;
    }

    /// Asks for all that failed at the next opportunity.
    pub fn hurry(&mut self) {
        for name in self.by_name.values_mut() {
            name.ask_at = 0;
        }
    }

    /// Names to ask for now; each must be answered by [`Self::handle`].
    pub fn poll_questions(&mut self) -> Vec<String> {
        let mut questions = Vec::new();
        for (text, name) in &mut self.by_name {
            if self.busy >= MOST_QUESTIONS {
                break;
            }
            if !name.busy && name.ask_at <= self.looks {
                name.busy = true;
                self.busy += 1;
                questions.push(text.clone());
            }
        }
        questions
    }

    /// Takes an answer; true if it changes anything.
    pub fn handle(&mut self, text: &str, answer: io::Result<Vec<IpAddr>>) -> bool {
        let Some(name) = self.by_name.get_mut(text) else {
            return false;
        };
        name.busy = false;
        self.busy -= 1;
        let fresh = match answer {
            Ok(addresses) if addresses.is_empty() => Err(format!("{text} has no address")),
            Ok(mut addresses) => {
                // Servers rotate their answers; a change of order must not look like a change of address.
                addresses.sort_unstable();
                addresses.dedup();
                Ok(addresses)
            }
            Err(error) => Err(format!("{text} cannot be resolved: {error}")),
        };
        name.ask_at = self.looks
            + if fresh.is_ok() {
                LOOKS_TO_REFRESH
            } else {
                LOOKS_TO_RETRY
            };
        if fresh.is_err() && matches!(name.outcome, Some(Ok(_))) {
            return false;
        }
        let changed = name.outcome.as_ref() != Some(&fresh);
        name.outcome = Some(fresh);
        changed
    }

    /// The addresses of a name, or why there are none.
    pub fn addresses(&self, text: &str) -> Result<&[IpAddr], String> {
        match self
            .by_name
            .get(text)
            .and_then(|name| name.outcome.as_ref())
        {
            Some(Ok(addresses)) => Ok(addresses),
            Some(Err(reason)) => Err(reason.clone()),
            None => Err(format!("{text} is not resolved yet")),
        }
    }

    /// Whether every name was asked for at least once.
    pub fn is_settled(&self) -> bool {
        self.by_name.values().all(|name| name.outcome.is_some())
    }
}

/// Questions at one time; each may hold a thread for as long as the resolver waits.
const MOST_QUESTIONS: usize = 16;
const LOOKS_TO_RETRY: u64 = 10;
const LOOKS_TO_REFRESH: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn a_name_is_asked_for_once_and_refreshed_later() {
        let mut names = Names::default();
        names.keep(["a"].into_iter());
        assert!(!names.is_settled());
        assert_eq!(names.poll_questions(), ["a"]);
        assert_eq!(names.poll_questions(), [""; 0], "it is being asked for");
        assert!(names.handle("a", Ok(vec![address(2), address(1), address(2)])));
        assert!(names.is_settled());
        assert_eq!(names.addresses("a"), Ok(&[address(1), address(2)][..]));
        assert_eq!(names.poll_questions(), [""; 0]);
        (0..LOOKS_TO_REFRESH).for_each(|_| names.tick());
        assert_eq!(names.poll_questions(), ["a"]);
        assert!(
            !names.handle("a", Ok(vec![address(2), address(1)])),
            "only the order changed"
        );
    }

    #[test]
    fn a_failure_is_retried_and_does_not_undo_a_success() {
        let mut names = Names::default();
        names.keep(["a"].into_iter());
        names.poll_questions();
        assert!(names.handle("a", Err(io::Error::other("no server"))));
        assert_eq!(
            names.addresses("a"),
            Err(String::from("a cannot be resolved: no server"))
        );
        (0..LOOKS_TO_RETRY).for_each(|_| names.tick());
        assert_eq!(names.poll_questions(), ["a"]);
        assert!(names.handle("a", Ok(vec![address(1)])));
        names.hurry();
        assert_eq!(names.poll_questions(), ["a"]);
        assert!(!names.handle("a", Err(io::Error::other("no server"))));
        assert!(names.addresses("a").is_ok());
    }

    #[test]
    fn questions_are_bounded_and_all_get_their_turn() {
        let mut names = Names::default();
        let texts: Vec<_> = (0..40).map(|index| format!("n{index}")).collect();
        names.keep(texts.iter().map(String::as_str));
        let mut rounds = 0;
        while !names.is_settled() {
            rounds += 1;
            let questions = names.poll_questions();
            assert!(questions.len() <= MOST_QUESTIONS);
            for question in questions {
                names.handle(&question, Ok(vec![]));
            }
        }
        assert_eq!(rounds, 3);
    }

    #[test]
    fn the_answer_to_a_question_nobody_has_any_more_is_dropped() {
        let mut names = Names::default();
        names.keep(["a"].into_iter());
        names.poll_questions();
        names.keep(["b"].into_iter());
        names.handle("a", Ok(vec![address(1)]));
        names.keep(["b"].into_iter());
        assert!(!names.handle("a", Ok(vec![address(1)])));
        assert_eq!(names.poll_questions(), ["b"]);
    }
}
