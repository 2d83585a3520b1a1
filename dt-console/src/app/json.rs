//! A row as a JSON object of one line. Absent values have no member.

use std::fmt::Write as _;

use crate::rows::{Column, Value};

/// The object, its members in the order of the columns.
pub(super) fn object<R>(columns: &[Column<R>], row: &R) -> String {
    let mut text = String::from("{");
    for column in columns {
        let before = text.len();
        if before > 1 {
            text.push(',');
        }
        // Names of columns need no escapes.
        let _ = write!(text, "\"{}\":", column.name);
        if !push(&mut text, &(column.value)(row)) {
            text.truncate(before);
        }
    }
    text + "}"
}

/// Whether there was a value.
fn push(text: &mut String, value: &Value<'_>) -> bool {
    match value {
        Value::Absent => return false,
        Value::Text(value) => text.push_str(&serde_json::Value::from(&**value).to_string()),
        Value::Number(value) => {
            let _ = write!(text, "{value}");
        }
        Value::Flag(value) => {
            let _ = write!(text, "{value}");
        }
        Value::List(values) => list(text, values),
    }
    true
}

/// The list as JSON has it, which is how CSV has it here too.
pub(super) fn list(text: &mut String, values: &[i64]) {
    text.push('[');
    for (place, value) in values.iter().enumerate() {
        let comma = if place == 0 { "" } else { "," };
        let _ = write!(text, "{comma}{value}");
    }
    text.push(']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Kind;

    struct Row;

    #[test]
    fn members_stand_in_order_and_absent_ones_do_not() {
        let column = |name, kind, value| Column { name, kind, value };
        let columns: [Column<Row>; 6] = [
            column("gone", Kind::Text, |_| Value::Absent),
            column("z", Kind::Text, |_| "a\"b".into()),
            column("gone_too", Kind::Number, |_| Value::Absent),
            column("a", Kind::Number, |_| Value::Number(-3)),
            column("f", Kind::Flag, |_| true.into()),
            column("l", Kind::List, |_| Value::List(vec![1, 2])),
        ];
        let text = object(&columns, &Row);
        assert_eq!(text, r#"{"z":"a\"b","a":-3,"f":true,"l":[1,2]}"#);
        assert_eq!(object(&columns[..1], &Row), "{}");
    }
}
