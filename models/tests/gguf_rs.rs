//! gguf-rs as an independent reader: it agrees with ours where it can read, and reads what our
//! writer writes. The last test keeps the reasons why it is not the reader itself (see the doc of
//! `nfl_models::gguf`).

use std::panic::catch_unwind;
use std::path::Path;

use gguf_rs::{GGUFModel, get_gguf_container_array_size};
use nfl_models::TensorType;
use nfl_models::gguf::{Gguf, Metadata, TensorPlan, Value};

use crate::builder::{material_files, small_llama, write};

fn theirs(path: &Path) -> GGUFModel {
    let container = get_gguf_container_array_size(path.to_str().unwrap(), u64::MAX);
    container.unwrap().decode().unwrap()
}

/// A value as JSON would write it, floats apart.
fn json(value: &Value) -> String {
    match value {
        Value::Array(array) => {
            let items: Vec<String> = array.values().map(|item| json(&item)).collect();
            format!("[{}]", items.join(","))
        }
        Value::String(text) => text.to_string(),
        Value::Bool(value) => value.to_string(),
        Value::F32(value) => value.to_string(),
        Value::F64(value) => value.to_string(),
        Value::U64(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::I8(value) => value.to_string(),
        Value::I16(value) => value.to_string(),
        Value::I32(value) => value.to_string(),
        other => other.as_u64().unwrap().to_string(),
    }
}

/// The same of a value of gguf-rs, whose type (serde_json's) this crate does not name.
macro_rules! their_json {
    ($value:expr) => {{
        let value = $value;
        match (value.as_array(), value.as_str()) {
            (Some(items), _) => {
                let items: Vec<String> = items
                    .iter()
                    .map(|item| match (item.as_str(), item.is_f64()) {
                        (Some(text), _) => text.to_owned(),
                        (None, true) => item.as_f64().unwrap().to_string(),
                        (None, false) => item.to_string(),
                    })
                    .collect();
                format!("[{}]", items.join(","))
            }
            (None, Some(text)) => text.to_owned(),
            (None, None) if value.is_f64() => value.as_f64().unwrap().to_string(),
            (None, None) => value.to_string(),
        }
    }};
}

/// Types whose size gguf-rs has right.
fn sized_rightly(tensor_type: TensorType) -> bool {
    !matches!(tensor_type, TensorType::BF16 | TensorType::IQ4_NL | TensorType::MXFP4)
}

fn compare(path: &Path) {
    let (ours, theirs) = (Gguf::open(path).unwrap(), theirs(path));
    assert_eq!(theirs.get_version(), format!("v{}", ours.version()));
    assert_eq!(theirs.alignment(), ours.alignment());
    assert_eq!(theirs.metadata().len(), ours.metadata().len());
    for (key, value) in ours.metadata().iter() {
        let their_value = &theirs.metadata()[key];
        assert_eq!(their_json!(their_value), json(value), "{key} of {}", path.display());
    }
    assert_eq!(theirs.tensors().len(), ours.tensors().len());
    for (their, our) in theirs.tensors().iter().zip(ours.tensors()) {
        let their_place = (&their.name, &their.shape, their.kind, their.offset);
        assert_eq!(their_place, (&our.name, &our.dimensions, our.tensor_type.id(), our.offset));
        if sized_rightly(our.tensor_type) {
            assert_eq!(their.size, our.bytes(), "{} of {}", our.name, path.display());
        }
    }
}

#[test]
fn the_two_readers_agree_on_real_files() {
    // A split is one model to us, a file each to gguf-rs.
    let shard = |path: &Path| path.to_str().unwrap().contains("-of-");
    for path in material_files().iter().filter(|path| !shard(path)) {
        compare(path);
    }
}

#[test]
fn gguf_rs_reads_what_the_writer_writes() {
    let folder = tempfile::tempdir().unwrap();
    for experts in [0, 4] {
        let (mut metadata, tensors) = small_llama(experts);
        metadata.set("general.alignment", 64_u32);
        metadata.set("all.i8", -1_i8);
        metadata.set("all.u16", 65_535_u16);
        metadata.set("all.i64", i64::MIN);
        metadata.set("all.f64", 0.1_f64);
        metadata.set("all.bools", vec![true, false]);
        metadata.set("all.u64s", vec![u64::MAX, 0]);
        let path = folder.path().join(format!("{experts}.gguf"));
        std::fs::write(&path, write(&metadata, &tensors)).unwrap();
        compare(&path);
    }
}

/// Each of these is a reason for a reader of our own; should gguf-rs mend one, this test says so.
#[test]
fn what_gguf_rs_loses() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file.gguf");
    let file = |metadata: &Metadata, tensor_type: TensorType| {
        let plan = TensorPlan { name: "a".to_owned(), dimensions: vec![256], tensor_type };
        std::fs::write(&path, write(metadata, &[plan])).unwrap();
        path.clone()
    };
    let mut metadata = Metadata::new();
    metadata.set("z", 1_u8);
    metadata.set("a", 1_i64);
    let model = theirs(&file(&metadata, TensorType::BF16));
    let keys: Vec<&String> = model.metadata().keys().collect();
    assert_eq!(keys, ["a", "z"], "the order is lost");
    assert_eq!(model.metadata()["a"], model.metadata()["z"], "the types are lost");
    assert_eq!(model.tensors()[0].size, 2, "256 numbers of BF16 take 512 bytes");
    let nvfp4 = file(&metadata, TensorType::NVFP4);
    let result = catch_unwind(move || theirs(&nvfp4).tensors().len());
    assert!(result.is_err(), "it does not know NVFP4: it panics");
    // A file that ends before its data, and one with the same key twice.
    let whole = std::fs::read(file(&metadata, TensorType::F32)).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 1024]).unwrap();
    assert_eq!(theirs(&path).tensors()[0].size, 1024, "the size of the file is not looked at");
    let twice = crate::builder::Bytes::header(3, 0, 2).entry_u32("a", 1).entry_u32("a", 2);
    std::fs::write(&path, &twice.0).unwrap();
    assert_eq!(theirs(&path).metadata().len(), 1, "the later of two entries wins in silence");
}
