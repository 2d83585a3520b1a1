//! How figures are written for people.

use std::time::Duration;

/// A time in at most five characters, in microseconds unless it says otherwise.
pub fn short(ns: u64) -> String {
    let us = ns as f64 / 1e3;
    let (value, unit) = match us {
        _ if us < 999.5 => (us, ""),
        _ if us < 999_500.0 => (us / 1e3, "ms"),
        _ => (us / 1e6, "s"),
    };
    if value < 9.95 {
        format!("{value:.1}{unit}")
    } else {
        format!("{value:.0}{unit}")
    }
}

/// A time in at most seven characters, in microseconds with a tenth unless it says otherwise.
pub fn us(ns: u64) -> String {
    match ns as f64 / 1e3 {
        us if us < 9_999.95 => format!("{us:.1}"),
        us if us < 9_999_950.0 => format!("{:.1}ms", us / 1e3),
        us => format!("{:.1}s", us / 1e6),
    }
}

/// A share in at most five characters; what is not nothing never looks like it.
pub fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if share <= 0.0 {
        "0%".to_owned()
    } else if percent < 0.01 {
        "<.01%".to_owned()
    } else if percent < 9.95 {
        format!("{percent:.2}%").replace(".00%", "%")
    } else {
        format!("{percent:.0}%")
    }
}

/// Seconds with a tenth.
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fit_into_five_characters() {
        let shown = [
            0,
            4_120,
            9_960,
            41_200,
            999_400,
            999_600,
            12_000_000,
            999_600_000,
            12_000_000_000,
        ]
        .map(short);
        assert_eq!(
            shown,
            [
                "0.0", "4.1", "10", "41", "999", "1.0ms", "12ms", "1.0s", "12s"
            ]
        );
    }

    #[test]
    fn times_with_a_tenth_fit_into_seven_characters() {
        let shown = [
            4_120,
            999_400,
            9_999_900,
            10_000_000,
            104_381_000,
            12_000_000_000,
        ]
        .map(us);
        assert_eq!(
            shown,
            ["4.1", "999.4", "9999.9", "10.0ms", "104.4ms", "12.0s"]
        );
    }

    #[test]
    fn a_loss_never_looks_like_none() {
        let shown = [0.0, 0.000_001, 0.000_1, 0.012_34, 0.05, 0.5, 1.0].map(percent);
        assert_eq!(
            shown,
            ["0%", "<.01%", "0.01%", "1.23%", "5%", "50%", "100%"]
        );
    }
}
