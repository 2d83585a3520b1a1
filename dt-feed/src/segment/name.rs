//! Names of segment files: `<begin, ns unix, 20 digits>-<start id, 16 hex digits>.dtseg`.
//!
//! All are equally long, so their order as text is their order in time.

use super::EXTENSION;

/// Name of the segment that an agent's start began at this time.
pub(super) fn format(begin_unix_ns: u64, start_id: u64) -> String {
    format!("{begin_unix_ns:020}-{start_id:016x}.{EXTENSION}")
}

/// Begin in the name of a segment, ns unix; `None` for any other file.
pub(super) fn begin_unix_ns(name: &str) -> Option<u64> {
    let (begin, start_id) = name
        .strip_suffix(EXTENSION)?
        .strip_suffix('.')?
        .split_once('-')?;
    let is_hex = start_id.len() == 16 && start_id.bytes().all(|digit| digit.is_ascii_hexdigit());
    let is_decimal = begin.len() == 20 && begin.bytes().all(|digit| digit.is_ascii_digit());
    if is_hex && is_decimal {
        begin.parse().ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_begin_and_sorts_by_it() {
        for begin in [0, 1_763_900_000_000_000_000, u64::MAX] {
            assert_eq!(begin_unix_ns(&format(begin, 0xAB)), Some(begin));
        }
        assert!(format(9, u64::MAX) < format(10, 0));
    }

    #[test]
    fn other_files_have_no_begin() {
        for name in [
            "",
            "notes.txt",
            ".dtseg",
            "1-2.dtseg",
            "00000000000000000001-00000000000000ab.dtseg.tmp",
        ] {
            assert_eq!(begin_unix_ns(name), None, "{name}");
        }
    }
}
