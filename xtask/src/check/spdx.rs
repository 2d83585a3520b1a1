//! SPDX licence expressions, as far as crates use them: may we use this under a licence we allow?

use std::iter::Peekable;
use std::str::SplitWhitespace;

/// Whether `expression` can be satisfied with the licences in `allowed` alone.
///
/// `A/B` is the form of old manifests for `A OR B`. An expression that cannot be read is not allowed.
pub fn is_allowed(expression: &str, allowed: &[String]) -> bool {
    let spaced = expression
        .replace('/', " OR ")
        .replace('(', " ( ")
        .replace(')', " ) ");
    let mut parser = Parser {
        words: spaced.split_whitespace().peekable(),
        allowed,
    };
    let verdict = parser.any_of();
    verdict == Some(true) && parser.words.next().is_none()
}

/// Recursive descent over `any_of := all_of (OR all_of)*`, `all_of := term (AND term)*`. `None` is a syntax error.
struct Parser<'a> {
    words: Peekable<SplitWhitespace<'a>>,
    allowed: &'a [String],
}

impl Parser<'_> {
    fn any_of(&mut self) -> Option<bool> {
        let mut verdict = self.all_of()?;
        while self.words.next_if_eq(&"OR").is_some() {
            verdict |= self.all_of()?;
        }
        Some(verdict)
    }

    fn all_of(&mut self) -> Option<bool> {
        let mut verdict = self.term()?;
        while self.words.next_if_eq(&"AND").is_some() {
            verdict &= self.term()?;
        }
        Some(verdict)
    }

    fn term(&mut self) -> Option<bool> {
        match self.words.next()? {
            "(" => {
                let verdict = self.any_of()?;
                self.words.next_if_eq(&")")?;
                Some(verdict)
            }
            ")" | "AND" | "OR" | "WITH" => None,
            licence => {
                let mut name = licence.to_owned();
                if self.words.next_if_eq(&"WITH").is_some() {
                    name = format!("{name} WITH {}", self.words.next()?);
                }
                Some(self.allowed.contains(&name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_allowed_branch_is_enough_and_every_joined_part_is_needed() {
        let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned);
        let table = [
            ("MIT", true),
            ("GPL-2.0-only", false),
            ("GPL-2.0-only OR MIT", true),
            ("GPL-2.0-only AND MIT", false),
            ("MIT/Apache-2.0", true),
            ("(MIT OR GPL-2.0-only) AND Apache-2.0", true),
            ("(MIT OR Apache-2.0) AND GPL-2.0-only", false),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("MIT WITH LLVM-exception", false),
            ("MIT OR", false),
            ("(MIT", false),
            ("MIT MIT", false),
            ("", false),
        ];
        for (expression, verdict) in table {
            assert_eq!(is_allowed(expression, &allowed), verdict, "{expression}");
        }
    }
}
