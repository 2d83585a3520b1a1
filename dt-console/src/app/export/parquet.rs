//! Rows as a Parquet file, compressed by zstd.
//!
//! Every column but a list is optional; a list is required and may be empty. Rows are gathered into row groups, whose size
//! bounds memory: about 100 MB.

use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use parquet::basic::{Compression, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::Writer;
use crate::rows::{Column, Kind, Value};

/// A file of rows.
pub(super) struct Parquet<R: 'static> {
    columns: &'static [Column<R>],
    writer: SerializedFileWriter<Writer>,
    buffers: Vec<Buffer>,
    rows: usize,
    /// Entries of lists in the buffers.
    entries: usize,
}

/// Values of one column and, in the terms of Parquet, which of them are there (definition) and which begin a row (repetition).
#[derive(Default)]
struct Buffer {
    values: Values,
    definitions: Vec<i16>,
    repetitions: Vec<i16>,
}

#[derive(Default)]
enum Values {
    #[default]
    None,
    Text(Vec<ByteArray>),
    Numbers(Vec<i64>),
    Flags(Vec<bool>),
}

impl<R> Parquet<R> {
    pub(super) fn begin(columns: &'static [Column<R>], writer: Writer) -> Result<Self> {
        let schema = parse_message_type(&schema(columns)).context("the schema of the file")?;
        let level = ZstdLevel::try_new(COMPRESSION_LEVEL)?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_created_by(concat!("dt-console ", env!("CARGO_PKG_VERSION")).to_owned())
            .build();
        let writer = SerializedFileWriter::new(writer, Arc::new(schema), Arc::new(properties))
            .context("cannot begin the file")?;
        Ok(Self {
            columns,
            writer,
            buffers: buffers(columns),
            rows: 0,
            entries: 0,
        })
    }

    pub(super) fn write(&mut self, row: &R) -> Result<()> {
        for (column, buffer) in self.columns.iter().zip(&mut self.buffers) {
            let value = (column.value)(row);
            if let Value::List(values) = &value {
                self.entries += values.len();
            }
            buffer
                .push(value)
                .with_context(|| format!("column {}", column.name))?;
        }
        self.rows += 1;
        if self.rows >= MAX_ROWS || self.entries >= MAX_ENTRIES {
            self.end_group()?;
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.end_group()?;
        self.writer.close().context("cannot end the file")?;
        Ok(())
    }

    fn end_group(&mut self) -> Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.writer.next_row_group()?;
        let mut buffers = std::mem::replace(&mut self.buffers, buffers(self.columns)).into_iter();
        while let Some(mut column) = group.next_column()? {
            let buffer = buffers.next().context("the schema has a column too many")?;
            buffer
                .write(column.untyped())
                .context("cannot write the rows")?;
            column.close()?;
        }
        group.close().context("cannot write the rows")?;
        (self.rows, self.entries) = (0, 0);
        Ok(())
    }
}

impl Buffer {
    fn of(kind: Kind) -> Self {
        let values = match kind {
            Kind::Text => Values::Text(Vec::new()),
            Kind::Number | Kind::List => Values::Numbers(Vec::new()),
            Kind::Flag => Values::Flags(Vec::new()),
        };
        Self {
            values,
            ..Self::default()
        }
    }

    fn push(&mut self, value: Value<'_>) -> Result<()> {
        match (&mut self.values, value) {
            (Values::Numbers(numbers), Value::List(list)) => {
                self.definitions.extend(list.iter().map(|_| 1));
                self.repetitions
                    .extend((0..list.len()).map(|place| i16::from(place > 0)));
                if list.is_empty() {
                    self.definitions.push(0);
                    self.repetitions.push(0);
                }
                numbers.extend(list);
                return Ok(());
            }
            (_, Value::Absent) => {
                self.definitions.push(0);
                return Ok(());
            }
            (Values::Text(texts), Value::Text(text)) => texts.push(text.as_bytes().to_vec().into()),
            (Values::Numbers(numbers), Value::Number(number)) => numbers.push(number),
            (Values::Flags(flags), Value::Flag(flag)) => flags.push(flag),
            (_, value) => anyhow::bail!("{value:?} is not of its kind"),
        }
        self.definitions.push(1);
        Ok(())
    }

    fn write(self, writer: &mut ColumnWriter<'_>) -> Result<()> {
        let definitions = Some(&self.definitions[..]);
        let repetitions = (!self.repetitions.is_empty()).then_some(&self.repetitions[..]);
        let levels = self.definitions.len();
        let written = match (writer, &self.values) {
            (ColumnWriter::ByteArrayColumnWriter(writer), Values::Text(values)) => {
                writer.write_batch(values, definitions, repetitions)?
            }
            (ColumnWriter::Int64ColumnWriter(writer), Values::Numbers(values)) => {
                writer.write_batch(values, definitions, repetitions)?
            }
            (ColumnWriter::BoolColumnWriter(writer), Values::Flags(values)) => {
                writer.write_batch(values, definitions, repetitions)?
            }
            _ => anyhow::bail!("the schema and the values differ"),
        };
        let there = self.definitions.iter().filter(|level| **level == 1).count();
        ensure!(
            written == there,
            "{written} of {there} values in {levels} rows were taken"
        );
        Ok(())
    }
}

fn buffers<R>(columns: &[Column<R>]) -> Vec<Buffer> {
    columns
        .iter()
        .map(|column| Buffer::of(column.kind))
        .collect()
}

/// In the language of Parquet's own schema files.
fn schema<R>(columns: &[Column<R>]) -> String {
    let mut text = String::from("message rows {\n");
    for Column { name, kind, .. } in columns {
        let _ = match kind {
            Kind::Text => writeln!(text, "OPTIONAL BYTE_ARRAY {name} (STRING);"),
            Kind::Number => writeln!(text, "OPTIONAL INT64 {name};"),
            Kind::Flag => writeln!(text, "OPTIONAL BOOLEAN {name};"),
            Kind::List => writeln!(
                text,
                "REQUIRED GROUP {name} (LIST) {{ REPEATED GROUP list {{ REQUIRED INT64 element; }} }}"
            ),
        };
    }
    text + "}"
}

const COMPRESSION_LEVEL: i32 = 3;
const MAX_ROWS: usize = 1 << 15;
const MAX_ENTRIES: usize = 1 << 21;
