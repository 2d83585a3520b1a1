use std::sync::{Arc, Mutex};

use ::parquet::file::reader::{FileReader as _, SerializedFileReader};
use ::parquet::record::Field;

use super::*;
use crate::rows::{Kind, Value};

struct Row(Option<&'static str>, Option<i64>, bool, Vec<i64>);

const COLUMNS: &[Column<Row>] = &[
    Column {
        name: "text",
        kind: Kind::Text,
        value: |row| row.0.into(),
    },
    Column {
        name: "number",
        kind: Kind::Number,
        value: |row| row.1.into(),
    },
    Column {
        name: "flag",
        kind: Kind::Flag,
        value: |row| row.2.into(),
    },
    Column {
        name: "list",
        kind: Kind::List,
        value: |row| Value::List(row.3.clone()),
    },
];

fn rows() -> Vec<Row> {
    vec![
        Row(Some("a,b"), Some(-1), true, vec![1, 2, 3]),
        Row(None, None, false, vec![]),
        Row(Some("ü"), Some(i64::MAX), true, vec![7]),
    ]
}

/// Bytes that outlive the writer.
#[derive(Clone, Default)]
struct Sheet(Arc<Mutex<Vec<u8>>>);

impl Write for Sheet {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("nobody panicked").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn exported(format: Format, times: usize) -> Vec<u8> {
    let sheet = Sheet::default();
    let writer: Writer = BufWriter::new(Box::new(sheet.clone()));
    let mut table = Table::new(COLUMNS, format, writer).expect("a sound schema");
    for _ in 0..times {
        for row in rows() {
            table.write(&row).expect("room in memory");
        }
    }
    table.finish().expect("room in memory");
    let bytes = sheet.0.lock().expect("nobody panicked");
    bytes.clone()
}

#[test]
fn csv_has_a_line_of_names_and_one_for_each_row() {
    let text = String::from_utf8(exported(Format::Csv, 1)).expect("it is UTF-8");
    let lines: Vec<_> = text.split("\r\n").collect();
    assert_eq!(
        lines,
        [
            "text,number,flag,list",
            "\"a,b\",-1,true,\"[1,2,3]\"",
            ",,false,[]",
            "ü,9223372036854775807,true,[7]",
            "",
        ]
    );
}

#[test]
fn parquet_gives_back_what_was_written_over_several_row_groups() {
    // More rows than fit one group.
    let times = 12_000;
    let mut file = tempfile::tempfile().expect("a writable directory");
    file.write_all(&exported(Format::Parquet, times))
        .expect("room on the disk");
    let reader = SerializedFileReader::new(file).expect("a whole file");
    assert!(reader.metadata().num_row_groups() > 1);
    let found: Vec<String> = reader
        .get_row_iter(None)
        .expect("rows")
        .map(|row| {
            let row = row.expect("a readable row");
            let fields = row
                .get_column_iter()
                .map(|(name, field)| format!("{name}={}", shown(field)));
            fields.collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert_eq!(found.len(), 3 * times);
    assert_eq!(
        found[3 * times - 3..],
        [
            "text=a,b number=-1 flag=true list=[1, 2, 3]",
            "text=null number=null flag=false list=[]",
            "text=ü number=9223372036854775807 flag=true list=[7]",
        ]
    );
}

fn shown(field: &Field) -> String {
    match field {
        Field::Str(text) => text.clone(),
        other => other.to_string(),
    }
}

#[test]
fn an_export_that_is_not_finished_leaves_no_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("windows.csv");
    drop(Unfinished::create(&path).expect("a writable directory"));
    assert_eq!(fs::read_dir(directory.path()).expect("readable").count(), 0);
    let file = Unfinished::create(&path).expect("a writable directory");
    file.finish().expect("a writable directory");
    assert!(path.exists());
    assert_eq!(fs::read_dir(directory.path()).expect("readable").count(), 1);
}
