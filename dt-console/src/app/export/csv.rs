//! Rows as comma-separated values (RFC 4180), with a line of names.

use std::borrow::Cow;
use std::io::Write as _;

use anyhow::Result;

use super::{Writer, written};
use crate::app::json;
use crate::rows::{Column, Value};

/// A file of rows.
pub(super) struct Csv<R: 'static> {
    columns: &'static [Column<R>],
    writer: Writer,
    line: String,
}

impl<R> Csv<R> {
    pub(super) fn begin(columns: &'static [Column<R>], writer: Writer) -> Result<Self> {
        let names: Vec<_> = columns.iter().map(|column| column.name).collect();
        let mut csv = Self {
            columns,
            writer,
            line: names.join(","),
        };
        csv.end_line()?;
        Ok(csv)
    }

    pub(super) fn write(&mut self, row: &R) -> Result<()> {
        for (place, column) in self.columns.iter().enumerate() {
            if place > 0 {
                self.line.push(',');
            }
            match (column.value)(row) {
                Value::Absent => (),
                Value::Text(text) => self.line.push_str(&quoted(&text)),
                Value::Number(number) => self.line.push_str(&number.to_string()),
                Value::Flag(flag) => self.line.push_str(if flag { "true" } else { "false" }),
                Value::List(values) => {
                    let mut text = String::new();
                    json::list(&mut text, &values);
                    self.line.push_str(&quoted(&text));
                }
            }
        }
        self.end_line()
    }

    pub(super) fn finish(mut self) -> Result<()> {
        written(self.writer.flush())
    }

    fn end_line(&mut self) -> Result<()> {
        self.line.push_str("\r\n");
        let result = self.writer.write_all(self.line.as_bytes());
        self.line.clear();
        written(result)
    }
}

/// In quotes where something in it has a meaning.
fn quoted(text: &str) -> Cow<'_, str> {
    if text.contains([',', '"', '\r', '\n']) {
        Cow::Owned(format!("\"{}\"", text.replace('"', "\"\"")))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_is_quoted() {
        for (text, expected) in [
            ("n1", "n1"),
            ("a,b", "\"a,b\""),
            ("a\"b", "\"a\"\"b\""),
            ("[1]", "[1]"),
            ("[1,2]", "\"[1,2]\""),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }
}
