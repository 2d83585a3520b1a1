//! Names from the feed, made harmless for a terminal and for memory.

use std::borrow::Cow;

/// Longest name in bytes that is kept; that of DNS.
pub const MAX_NAME_BYTES: usize = 253;

/// The name without what could steer a terminal or turn its text around, and not longer than [`MAX_NAME_BYTES`].
#[must_use]
pub fn clean(name: &str) -> Cow<'_, str> {
    if name.len() <= MAX_NAME_BYTES && !name.contains(is_harmful) {
        return Cow::Borrowed(name);
    }
    let mut cleaned = String::new();
    for letter in name.chars() {
        let letter = if is_harmful(letter) {
            char::REPLACEMENT_CHARACTER
        } else {
            letter
        };
        if cleaned.len() + letter.len_utf8() > MAX_NAME_BYTES {
            break;
        }
        cleaned.push(letter);
    }
    Cow::Owned(cleaned)
}

/// Control characters, and the marks by which Unicode changes the direction of text.
fn is_harmful(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_name_is_itself() {
        for name in ["", "n1", "node-7.example", "Büro"] {
            assert!(matches!(clean(name), Cow::Borrowed(same) if same == name));
        }
    }

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        assert_eq!(clean("n\x1b[2J1\n"), "n\u{FFFD}[2J1\u{FFFD}");
        assert_eq!(clean("a\u{202E}b"), "a\u{FFFD}b");
        assert_eq!(clean("\u{9B}m"), "\u{FFFD}m");
    }

    #[test]
    fn a_long_name_is_cut_between_letters() {
        let long = "ü".repeat(MAX_NAME_BYTES);
        assert_eq!(clean(&long), "ü".repeat(MAX_NAME_BYTES / 2));
    }
}
