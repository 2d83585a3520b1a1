//! A test that cannot run says so and why; it neither fails nor passes in silence.

use std::env;
use std::io::Write;

/// Ends the calling test as skipped, with the reason given like to `format!`.
///
/// Where `DT_NO_SKIP=1` (one CI job) it panics instead. The test returns `()` or `Result<()>`.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        let here = || ();
        $crate::skip::report($crate::skip::function_around(&here), &format!($($reason)+));
        return $crate::skip::Skipped::skipped();
    }};
}

/// Skips the calling test where there is no root or where `cargo xtask test` did not say what it built.
#[macro_export]
macro_rules! skip_unless_equipped {
    () => {
        if let Some(reason) = $crate::given::missing() {
            $crate::skip!("{reason}");
        }
    };
}

/// Skips the calling test where there is no root or no ZooKeeper and Kafka to start.
#[macro_export]
macro_rules! skip_unless_served {
    () => {
        if let Some(reason) = $crate::given::missing_servers() {
            $crate::skip!("{reason}");
        }
    };
}

/// What a skipped test returns.
pub trait Skipped {
    /// The value that the harness takes for a pass.
    fn skipped() -> Self;
}

impl Skipped for () {
    fn skipped() -> Self {}
}

impl<E> Skipped for Result<(), E> {
    fn skipped() -> Self {
        Ok(())
    }
}

/// Writes the line that `cargo xtask test` counts.
///
/// # Panics
///
/// When nothing may be skipped.
pub fn report(test: &str, reason: &str) {
    assert!(
        env::var("DT_NO_SKIP").as_deref() != Ok("1"),
        "{test} cannot run here, and DT_NO_SKIP=1: {reason}"
    );
    // Not `eprintln!`: the harness would capture that and drop it.
    let line = format!("skipped: {test}: {reason}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// The path of the function in which the closure stands.
#[must_use]
pub fn function_around<F: Fn()>(_here: &F) -> &'static str {
    std::any::type_name::<F>().trim_end_matches("::{{closure}}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_skip_names_the_test_it_stands_in() {
        let name = super::function_around(&|| ());
        assert!(
            name.ends_with("skip::tests::a_skip_names_the_test_it_stands_in"),
            "{name}"
        );
    }
}
