//! Random files: what is written is read again; what is damaged is refused or read, never a panic.
//!
//! Seeds are fixed, so that a failure is the same on every machine.

use std::path::PathBuf;

use nfl_models::gguf::{Array, Header, Metadata, TensorInfo, TensorPlan, Text, Value, Writer};
use nfl_models::{Footprint, Shape, TensorType, check_inventory, preflight};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed};

use crate::builder::{material, small_llama, write};

fn config(cases: u32) -> Config {
    Config {
        cases,
        rng_seed: RngSeed::Fixed(260_000),
        failure_persistence: None,
        ..Config::default()
    }
}

fn text() -> impl Strategy<Value = Text> {
    vec(any::<u8>(), 0..12).prop_map(Text::from_bytes)
}

/// Floats by their bits, but no NaN: it is not equal to itself.
fn f32s() -> impl Strategy<Value = f32> {
    any::<u32>().prop_map(f32::from_bits).prop_filter("NaN", |value| !value.is_nan())
}

fn f64s() -> impl Strategy<Value = f64> {
    any::<u64>().prop_map(f64::from_bits).prop_filter("NaN", |value| !value.is_nan())
}

fn array() -> impl Strategy<Value = Array> {
    prop_oneof![
        vec(any::<u8>(), 0..9).prop_map(Array::U8),
        vec(any::<i8>(), 0..9).prop_map(Array::I8),
        vec(any::<u16>(), 0..9).prop_map(Array::U16),
        vec(any::<i16>(), 0..9).prop_map(Array::I16),
        vec(any::<u32>(), 0..9).prop_map(Array::U32),
        vec(any::<i32>(), 0..9).prop_map(Array::I32),
        vec(f32s(), 0..9).prop_map(Array::F32),
        vec(any::<bool>(), 0..9).prop_map(Array::Bool),
        vec(text(), 0..9).prop_map(Array::String),
        vec(any::<u64>(), 0..9).prop_map(Array::U64),
        vec(any::<i64>(), 0..9).prop_map(Array::I64),
        vec(f64s(), 0..9).prop_map(Array::F64),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::U8),
        any::<i8>().prop_map(Value::I8),
        any::<u16>().prop_map(Value::U16),
        any::<i16>().prop_map(Value::I16),
        any::<u32>().prop_map(Value::U32),
        any::<i32>().prop_map(Value::I32),
        f32s().prop_map(Value::F32),
        any::<bool>().prop_map(Value::Bool),
        text().prop_map(Value::String),
        array().prop_map(Value::Array),
        any::<u64>().prop_map(Value::U64),
        any::<i64>().prop_map(Value::I64),
        f64s().prop_map(Value::F64),
    ]
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let entry = ("[a-zé.]{1,20}", value());
    let alignment = proptest::option::of(0_u32..8);
    (vec(entry, 0..12), alignment).prop_map(|(entries, alignment)| {
        let mut metadata: Metadata = entries.into_iter().collect();
        if let Some(power) = alignment {
            metadata.set("general.alignment", 1_u32 << power);
        }
        metadata
    })
}

fn tensors() -> impl Strategy<Value = Vec<TensorPlan>> {
    let shape = (0..TensorType::ALL.len(), 0_u64..3, vec(0_u64..4, 0..=3));
    vec(shape, 0..8).prop_map(|shapes| {
        let plan = |(index, (tensor_type, blocks, others)): (usize, (usize, u64, Vec<u64>))| {
            let tensor_type = TensorType::ALL[tensor_type];
            let row = blocks * tensor_type.block_elements();
            let dimensions = std::iter::once(row).chain(others).collect();
            TensorPlan { name: format!("tensor.{index}"), dimensions, tensor_type }
        };
        shapes.into_iter().enumerate().map(plan).collect()
    })
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn what_is_written_is_read(metadata in metadata(), plans in tensors()) {
        let bytes = write(&metadata, &plans);
        let header = Header::parse(&bytes).unwrap();
        prop_assert_eq!(&header.metadata, &metadata);
        prop_assert_eq!(header.tensors.len(), plans.len());
        for (tensor, plan) in header.tensors.iter().zip(&plans) {
            prop_assert_eq!(&tensor.name, &plan.name);
            prop_assert_eq!(&tensor.dimensions, &plan.dimensions);
            prop_assert_eq!(tensor.tensor_type, plan.tensor_type);
            let start = (header.data_offset + tensor.offset) as usize;
            let data = &bytes[start..start + tensor.bytes() as usize];
            prop_assert!(data.iter().enumerate().all(|(place, byte)| *byte == place as u8));
            prop_assert_eq!(start as u64 % header.alignment, 0);
        }
    }

    #[test]
    fn damaged_files_never_panic(
        file in 0_usize..3,
        flips in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        in_head in any::<bool>(),
    ) {
        let mut bytes = honest_files()[file].clone();
        // Most of a file is data, where nothing can break; most damage goes to the head.
        let end = if in_head { bytes.len().min(800) } else { bytes.len() };
        for (place, byte) in flips {
            let place = place.index(end);
            bytes[place] ^= byte;
        }
        survive(&bytes);
    }

    #[test]
    fn noise_never_panics(
        tail in vec(any::<u8>(), 0..200),
        tensors in 0_u64..4,
        entries in 0_u64..4,
    ) {
        let head = crate::builder::Bytes::header(3, tensors, entries);
        survive(&head.raw(&tail).0);
    }
}

/// Small honest files: dense, mixture, and one of a llama.cpp tool where the material is there.
fn honest_files() -> &'static [Vec<u8>; 3] {
    static FILES: std::sync::OnceLock<[Vec<u8>; 3]> = std::sync::OnceLock::new();
    FILES.get_or_init(|| {
        let small = |experts| {
            let (metadata, tensors) = small_llama(experts);
            write(&metadata, &tensors)
        };
        let real: Option<PathBuf> = material().map(|folder| folder.join("formats/gguf/dummy.gguf"));
        [small(0), small(4), real.map_or_else(|| small(2), |path| std::fs::read(path).unwrap())]
    })
}

/// Reads a file as every part of the crate would.
fn survive(bytes: &[u8]) {
    let Ok(header) = Header::parse(bytes) else { return };
    let _ = preflight::check(&header.metadata, &header.tensors);
    let mut sum = 0_u64;
    for tensor in &header.tensors {
        let start = (header.data_offset + tensor.offset) as usize;
        let data = &bytes[start..start + tensor.bytes() as usize];
        sum += data.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        sum = sum.wrapping_add(tensor.rows()).wrapping_add(tensor.row_elements());
    }
    assert!(sum < u64::MAX);
    if let Ok(shape) = Shape::from_header(&header.metadata, &header.tensors) {
        let _ = check_inventory(&shape, &header.tensors);
        let footprint = Footprint::new(shape, &header.tensors);
        let _ = footprint.bytes_per_token();
        let _ = footprint.total_bytes(u64::MAX - 300, TensorType::F16, TensorType::Q8_0);
    }
    // What was read can be written, and is then read as the same.
    let again = head_of(&header);
    let total = header.data_offset + bytes.len() as u64 + (1 << 20);
    let reread = Header::parse_prefix(&again, total).unwrap();
    assert_eq!(head_of(&reread), again);
}

/// The head that the writer makes of a file that was read.
fn head_of(header: &Header) -> Vec<u8> {
    let plan = |tensor: &TensorInfo| TensorPlan {
        name: tensor.name.clone(),
        dimensions: tensor.dimensions.clone(),
        tensor_type: tensor.tensor_type,
    };
    let mut bytes = Vec::new();
    let plans = header.tensors.iter().map(plan).collect();
    Writer::new(&mut bytes, &header.metadata, plans).unwrap();
    bytes
}
