//! How figures are written for people.

use std::time::Duration;

/// A time in at most five characters, in microseconds unless it says otherwise.
#[must_use]
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
#[must_use]
pub fn us(ns: u64) -> String {
    match ns as f64 / 1e3 {
        us if us < 9_999.95 => format!("{us:.1}"),
        us if us < 9_999_950.0 => format!("{:.1}ms", us / 1e3),
        us => format!("{:.1}s", us / 1e6),
    }
}

/// A share in at most five characters; what is not nothing never looks like it.
#[must_use]
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
#[must_use]
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// A time in us unix as date and time in UTC, to the microsecond (RFC 3339).
#[must_use]
pub fn utc(unix_us: u64) -> String {
    let (seconds, us) = (unix_us / 1_000_000, unix_us % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{us:06}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60,
    )
}

/// Year, month and day of a day since 1970. Counted from the first of March, so that the day that not every year has is the last.
const fn date(days: u64) -> (u64, u64, u64) {
    // 0000-03-01 is 719,468 days before 1970; the calendar repeats after 400 years of 146,097 days.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates_of_the_calendar() {
        for (unix_s, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(utc(unix_s * 1_000_000), expected);
        }
        // Whatever a feed says, it is a text.
        assert!(utc(u64::MAX).starts_with("586524"));
    }

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
