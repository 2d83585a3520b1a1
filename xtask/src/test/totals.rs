//! The sums over all `test result:` lines.

use std::fmt;

/// How many tests ended how. `Display` is the closing line of a test run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    reported_passed: u64,
    failed: u64,
    /// Ignored by the harness, or said of themselves that they could not run.
    pub skipped: u64,
    /// Those of `skipped` that the harness counts as passed.
    skipped_themselves: u64,
}

impl Totals {
    /// Takes one line of output into account.
    pub fn count_line(&mut self, line: &str) {
        if line.starts_with("skipped: ") {
            self.skipped += 1;
            self.skipped_themselves += 1;
        }
        let Some((_, counts)) = line.trim_start().split_once("test result: ") else {
            return;
        };
        for part in counts.split([';', '.']) {
            let mut words = part.split_whitespace();
            let (Some(Ok(count)), Some(kind)) = (words.next().map(str::parse::<u64>), words.next())
            else {
                continue;
            };
            match kind {
                "passed" => self.reported_passed += count,
                "failed" => self.failed += count,
                "ignored" => self.skipped += count,
                _ => {}
            }
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passed = self.reported_passed.saturating_sub(self.skipped_themselves);
        write!(
            f,
            "{passed} passed, {} failed, {} skipped",
            self.failed, self.skipped
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals_of(output: &str) -> String {
        let mut totals = Totals::default();
        output.lines().for_each(|line| totals.count_line(line));
        totals.to_string()
    }

    #[test]
    fn results_are_summed_and_a_test_that_skipped_itself_did_not_pass() {
        let output = "\
test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.02s
skipped: lab::mesh: not root
test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out; finished in 1.25s";
        assert_eq!(totals_of(output), "6 passed, 1 failed, 2 skipped");
    }

    #[test]
    fn no_output_is_no_tests() {
        assert_eq!(
            totals_of("running 0 tests\n\n"),
            "0 passed, 0 failed, 0 skipped"
        );
    }
}
