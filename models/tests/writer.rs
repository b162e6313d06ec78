//! The writer refuses what the reader would refuse, and notices when it gets too much or too little.

use nfl_models::TensorType;
use nfl_models::gguf::{Header, Metadata, Options, TensorPlan, WriteError, Writer};

fn plan(name: &str, dimensions: &[u64], tensor_type: TensorType) -> TensorPlan {
    TensorPlan { name: name.to_owned(), dimensions: dimensions.to_vec(), tensor_type }
}

fn two() -> Writer<Vec<u8>> {
    let plans = vec![plan("a", &[3], TensorType::F32), plan("b", &[32, 2], TensorType::Q8_0)];
    Writer::new(Vec::new(), &Metadata::new(), plans).unwrap()
}

#[test]
fn a_file_is_complete_or_an_error() {
    let mut writer = two();
    assert_eq!(writer.current(), Some("a"));
    assert!(matches!(writer.write(&[0; 13]), Err(WriteError::TooMany { extra: 1, .. })));
    writer.write(&[1; 5]).unwrap();
    let early = writer.finish_tensor();
    assert!(matches!(early, Err(WriteError::Incomplete { missing: 7, .. })));
    writer.write(&[2; 7]).unwrap();
    writer.finish_tensor().unwrap();
    assert_eq!(writer.current(), Some("b"));
    writer.write(&[3; 68]).unwrap();
    let (data_offset, total) = (writer.data_offset(), writer.total_bytes());
    writer.finish_tensor().unwrap();
    assert!(matches!(writer.finish_tensor(), Err(WriteError::NothingLeft)));
    assert!(matches!(writer.write(&[0]), Err(WriteError::TooMany { .. })));
    let bytes = writer.finish().unwrap();
    assert_eq!(bytes.len() as u64, total);
    let header = Header::parse(&bytes).unwrap();
    assert_eq!((header.data_offset, header.tensors[1].offset), (data_offset, 32));
    assert_eq!(
        bytes[data_offset as usize..][..34],
        [&[1; 5][..], &[2; 7], &[0; 20], &[3; 2]].concat()
    );
}

#[test]
fn an_unfinished_file_is_no_file() {
    let error = two().finish().unwrap_err();
    assert_eq!(error.to_string(), "tensor a is incomplete: 12 bytes missing");
    let mut writer = two();
    writer.write(&[0; 12]).unwrap();
    writer.finish_tensor().unwrap();
    writer.write(&[0; 68]).unwrap();
    assert!(writer.finish().is_err(), "the last tensor was not padded");
}

/// Nothing of a file is written that the reader would refuse.
#[test]
fn what_the_reader_refuses_is_not_written() {
    let long = "x".repeat(64);
    let refused = [
        vec![plan("a", &[33], TensorType::Q8_0)],
        vec![plan("a", &[8], TensorType::F32), plan("a", &[8], TensorType::F32)],
        vec![plan("a", &[1 << 40, 1 << 40], TensorType::F32)],
        vec![plan("a", &[1; 5], TensorType::F32)],
        vec![plan(&long, &[8], TensorType::F32)],
        vec![plan("a", &[1 << 60], TensorType::F32), plan("b", &[1 << 61], TensorType::F64)],
    ];
    for plans in refused {
        let mut target = Vec::new();
        let result = Writer::new(&mut target, &Metadata::new(), plans.clone());
        assert!(matches!(result, Err(WriteError::Refused(_))), "{plans:?}");
        drop(result);
        assert!(target.is_empty());
    }
    let mut metadata = Metadata::new();
    metadata.set("general.alignment", 3_u32);
    assert!(Writer::new(Vec::new(), &metadata, Vec::new()).is_err());
    let options = Options { version: 4, ..Options::default() };
    assert!(Writer::with_options(Vec::new(), &Metadata::new(), Vec::new(), options).is_err());
}

#[test]
fn version_2_can_be_written() {
    let options = Options { version: 2, ..Options::default() };
    let writer = Writer::with_options(Vec::new(), &Metadata::new(), Vec::new(), options).unwrap();
    let bytes = writer.finish().unwrap();
    assert_eq!(Header::parse(&bytes).unwrap().version, 2);
    assert_eq!(bytes.len(), 24);
}
