//! Files of examples in every form, and what is said of bad ones.

use std::fs;
use std::path::PathBuf;

use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::*;

fn file(name: &str, content: impl AsRef<[u8]>) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    (folder, path)
}

fn texts(data: &Data) -> Vec<String> {
    let text = |example: &Example| match example {
        Example::Text(text) => text.clone(),
        other => panic!("{other:?}"),
    };
    data.examples.iter().map(|(_, example)| text(example)).collect()
}

/// A Parquet file with a column of texts.
fn parquet_of(texts: &[&str], compression: parquet::basic::Compression) -> Vec<u8> {
    let schema = parse_message_type("message m { required binary text (UTF8); }").unwrap();
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut bytes = Vec::new();
    let mut writer =
        SerializedFileWriter::new(&mut bytes, schema.into(), properties.into()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let values: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(*text)).collect();
    column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn one_set_of_examples_is_read_from_every_kind_of_file() {
    let compression = parquet::basic::Compression::SNAPPY;
    let parquet = parquet_of(&["a, \"b\"", "c\nd"], compression);
    for (name, content) in [
        ("d.jsonl", b"{\"text\": \"a, \\\"b\\\"\"}\n\n{\"text\": \"c\\nd\"}\n".to_vec()),
        ("d.json", b"\xef\xbb\xbf[{\"text\": \"a, \\\"b\\\"\"}, {\"text\": \"c\\nd\"}]".to_vec()),
        ("d.csv", b"number,text\r\n1,\"a, \"\"b\"\"\"\r\n2,\"c\nd\"\r\n".to_vec()),
        ("d.tsv", b"text\n\"a, \"\"b\"\"\"\n\"c\nd\"\n".to_vec()),
        ("d.parquet", parquet.clone()),
        ("without-ending", parquet),
    ] {
        let (_folder, path) = file(name, content);
        let data = Data::read(&path, false).unwrap();
        assert_eq!(texts(&data), ["a, \"b\"", "c\nd"], "{name}");
        assert_eq!(data.forms, BTreeMap::from([(Form::Text, 2)]), "{name}");
    }
}

#[test]
fn bad_lines_are_counted_and_named_by_their_number() {
    let mut lines = "{\"text\": \"a\"}\n\n{\"text\": \n{\"text\": \"a\"}\n".to_owned();
    lines.push_str(&"{\"txt\": \"a\"}\n".repeat(7));
    let (_folder, path) = file("data.jsonl", &lines);
    let error = Data::read(&path, false).unwrap_err().to_string();
    for part in ["8 of 10 examples make no sense", "line 3: ", "line 8: ", "and 3 more"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!error.contains("line 9"), "{error}");
    let data = Data::read(&path, true).unwrap();
    assert_eq!((texts(&data), data.duplicates, data.bad.count), (vec!["a".to_owned()], 1, 8));

    let (_folder, path) = file("data.csv", "text,other\na,b\nc\nd,e\n");
    let error = Data::read(&path, false).unwrap_err().to_string();
    assert!(error.contains("1 of 3") && error.contains("line 3"), "{error}");
}

#[test]
fn files_that_are_nothing_are_refused() {
    for (name, content, reason) in [
        ("a.jsonl", &b"\n"[..], "no example"),
        ("a.txt", b"", "no example"),
        ("a.csv", b"text\n", "no example"),
        ("a.jsonl", b"\xff\xfe{", "no UTF-8 at byte 0"),
        ("a.json", b"[{]", "line 1"),
        ("a.parquet", b"PAR1 and no more", "footer"),
    ] {
        let (_folder, path) = file(name, content);
        let error = Data::read(&path, true).unwrap_err().to_string();
        assert!(error.to_lowercase().contains(&reason.to_lowercase()), "{name}: {error}");
    }
}

#[test]
fn a_split_takes_its_share_and_leaves_the_rest_in_order() {
    let lines: Vec<String> =
        (0..10).map(|number| format!("{{\"text\": \"{number}\"}}\n")).collect();
    let (_folder, path) = file("data.jsonl", lines.concat());
    let mut data = Data::read(&path, false).unwrap();
    let out = data.split(0.2, <[usize]>::reverse).unwrap();
    let places: Vec<&str> = out.iter().map(|(place, _)| place.as_str()).collect();
    assert_eq!(places, ["line 9", "line 10"]);
    assert_eq!(texts(&data), ["0", "1", "2", "3", "4", "5", "6", "7"]);
    assert!(data.split(0.99, |_| ()).unwrap_err().to_string().contains("of 8 different examples"));
}
