//! Rows of a file: JSON objects, whatever the file's form, and where each of them stands.

use std::fs::File;
use std::path::Path;

use bytes::Bytes;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::record::Field;
use serde_json::{Map, Value, json};

use super::error::DataError;

/// What Parquet files begin with.
const PARQUET_MAGIC: &[u8] = b"PAR1";

/// A row's place, as people find it, and the row or why it cannot be read.
pub(super) type Row = (String, Result<Value, String>);

/// All rows of a file; empty lines are none.
pub(super) fn read(path: &Path, bytes: Vec<u8>) -> Result<Vec<Row>, DataError> {
    let refuse = |reason: String| DataError::Form { path: path.to_owned(), reason };
    if bytes.starts_with(PARQUET_MAGIC) {
        return parquet(bytes).map_err(refuse);
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        refuse(format!("it is no UTF-8 at byte {}", error.utf8_error().valid_up_to()))
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let is =
        |ending: &str| path.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending));
    if is("txt") {
        let row = ("the text".to_owned(), Ok(json!({ "text": text })));
        Ok(if text.is_empty() { Vec::new() } else { vec![row] })
    } else if is("csv") || is("tsv") {
        separated(text, if is("tsv") { b'\t' } else { b',' }).map_err(refuse)
    } else if text.trim_start().starts_with('[') {
        let all: Vec<Value> =
            serde_json::from_str(text).map_err(|error| refuse(error.to_string()))?;
        let numbered = (1..).zip(all);
        Ok(numbered
            .map(|(number, value): (usize, _)| (format!("example {number}"), Ok(value)))
            .collect())
    } else {
        let lines = (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty());
        let row = |(number, line): (usize, &str)| {
            let value = serde_json::from_str(line).map_err(|error| error.to_string());
            (format!("line {number}"), value)
        };
        Ok(lines.map(row).collect())
    }
}

/// Rows of a CSV file with a head line (RFC 4180).
fn separated(text: &str, separator: u8) -> Result<Vec<Row>, String> {
    let mut reader = csv::ReaderBuilder::new().delimiter(separator).from_reader(text.as_bytes());
    let names = reader.headers().map_err(|error| error.to_string())?.clone();
    let row = |record: Result<csv::StringRecord, csv::Error>| {
        let line = |position: Option<&csv::Position>| position.map_or(0, csv::Position::line);
        match record {
            Ok(record) => {
                let fields = names.iter().zip(&record);
                let fields = fields.map(|(name, value)| (name.to_owned(), Value::from(value)));
                (format!("line {}", line(record.position())), Ok(Value::Object(fields.collect())))
            }
            Err(error) => (format!("line {}", line(error.position())), Err(error.to_string())),
        }
    };
    Ok(reader.records().map(row).collect())
}

/// Rows of a Parquet file.
fn parquet(bytes: Vec<u8>) -> Result<Vec<Row>, String> {
    let reader =
        SerializedFileReader::new(Bytes::from(bytes)).map_err(|error| error.to_string())?;
    let rows = reader.get_row_iter(None).map_err(|error| error.to_string())?;
    let mut all = Vec::new();
    for (number, row) in (1..).zip(rows) {
        // A page that cannot be read ends all that follows it.
        let row = row.map_err(|error| format!("row {number}: {error}"))?;
        let fields = row.get_column_iter().map(|(name, field)| (name.clone(), value(field)));
        all.push((format!("row {number}"), Ok(Value::Object(fields.collect()))));
    }
    Ok(all)
}

/// What examples are made of; a number, a date or bytes stay as they print.
fn value(field: &Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(truth) => (*truth).into(),
        Field::Str(text) => text.as_str().into(),
        Field::Group(row) => {
            let fields = row.get_column_iter().map(|(name, field)| (name.clone(), value(field)));
            // A struct's optional fields are there in every row.
            Value::Object(fields.filter(|(_, value)| !value.is_null()).collect::<Map<_, _>>())
        }
        Field::ListInternal(list) => list.elements().iter().map(value).collect(),
        other => other.to_string().into(),
    }
}

/// Reads a file into memory.
pub(super) fn bytes_of(path: &Path, bytes_max: u64) -> Result<Vec<u8>, DataError> {
    use std::io::Read as _;
    let io = |source| DataError::Io { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    let bytes = file.metadata().map_err(io)?.len();
    if bytes > bytes_max {
        return Err(DataError::TooLarge { path: path.to_owned(), bytes });
    }
    let mut all = Vec::with_capacity(bytes as usize);
    file.read_to_end(&mut all).map_err(io)?;
    Ok(all)
}
