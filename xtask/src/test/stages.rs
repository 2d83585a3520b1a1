//! How long each part of a test run took.

use std::fmt;
use std::time::Duration;

/// The parts in their order. `Display` is a table of those that took a second or more, and the sum of all.
#[derive(Debug, Default)]
pub struct Stages {
    rows: Vec<(String, Duration)>,
    /// The test program that prints now.
    running: Option<String>,
}

impl Stages {
    pub fn add(&mut self, name: &str, took: Duration) {
        self.rows.push((name.to_owned(), took));
    }

    pub fn total(&self) -> Duration {
        self.rows.iter().map(|(_, took)| took).sum()
    }

    /// Takes one line of what cargo and the test programs print into account.
    pub fn count_line(&mut self, line: &str) {
        if let Some(name) = started(line) {
            self.running = Some(name);
        } else if let Some(took) = finished(line) {
            let name = self.running.take().unwrap_or_else(|| "tests".to_owned());
            self.add(&name, took);
        }
    }
}

/// The test program that cargo says it starts: `Running tests/kube.rs (target/debug/deps/kube-0123456789abcdef)`.
fn started(line: &str) -> Option<String> {
    let line = line.trim();
    if let Some(library) = line.strip_prefix("Doc-tests ") {
        return Some(format!("{library}, examples in docs"));
    }
    let (_, program) = line.strip_prefix("Running ")?.split_once(" (")?;
    let file = program.trim_end_matches(')').rsplit('/').next()?;
    let (name, _) = file.rsplit_once('-')?;
    Some(name.to_owned())
}

/// How long a test program took, from its last line.
fn finished(line: &str) -> Option<Duration> {
    let (_, counts) = line.split_once("test result: ")?;
    let (_, took) = counts.rsplit_once("finished in ")?;
    let seconds = took.trim().strip_suffix('s')?.parse().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

impl fmt::Display for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let long = self
            .rows
            .iter()
            .filter(|(_, took)| *took >= Duration::from_secs(1));
        for (name, took) in long {
            writeln!(f, "{:>8.1} s  {name}", took.as_secs_f64())?;
        }
        let total = self.total().as_secs_f64();
        write!(f, "{total:>8.1} s  all, {:.1} min", total / 60.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_test_program_gets_the_time_that_it_says_it_took() {
        let mut stages = Stages::default();
        stages.add("set-up", Duration::from_millis(1_500));
        let output = "
     Running unittests src/lib.rs (target/debug/deps/dt_agent-45b7e973963470b8)
test result: ok. 85 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.03s
     Running tests/zookeeper/main.rs (target/debug/deps/zookeeper-048d1584c6298997)
test a::b ... ok
test result: FAILED. 6 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 350.07s
   Doc-tests dt_tests
test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 2.00s";
        output.lines().for_each(|line| stages.count_line(line));
        assert_eq!(
            stages.to_string(),
            "     1.5 s  set-up\n   350.1 s  zookeeper\n     2.0 s  dt_tests, examples in docs\n   353.6 s  all, 5.9 min"
        );
    }
}
