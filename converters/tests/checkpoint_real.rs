//! Reading real checkpoints, judged by the `safetensors` crate, and FP8 checkpoints, judged by
//! plain loops over the definition.

#![expect(clippy::float_cmp, reason = "decoding is exact")]

use std::fs;
use std::path::Path;

use nfl_converters::checkpoint::{Checkpoint, CheckpointError, SourceType, parse_header};
use nfl_models::Hint;
use safetensors::{Dtype, SafeTensors};

use crate::checkpoint_support::{Draft, material, one_tensor, refused, safetensors};

/// Every tensor of a file as the `safetensors` crate sees it, against ours: name, shape, bytes and
/// values, in whole and in pieces.
fn compare(directory: &Path) {
    let checkpoint = Checkpoint::open(directory).unwrap();
    let bytes = fs::read(directory.join("model.safetensors")).unwrap();
    let judge = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(checkpoint.tensors().count(), judge.len());
    for (name, view) in judge.iter() {
        let tensor = checkpoint.tensor(name).unwrap();
        let shape: Vec<u64> = view.shape().iter().map(|&n| n as u64).collect();
        assert_eq!(tensor.shape, shape, "{name}");
        assert_eq!(tensor.dtype, SourceType::from(view.dtype()), "{name}");
        assert_eq!(checkpoint.raw(tensor), view.data(), "{name}");
        if view.dtype() != Dtype::F32 {
            assert_eq!(view.dtype(), Dtype::I64, "a counter of mnist");
            assert!(checkpoint.read_f32(tensor, 0, &mut [0.0]).is_err(), "{name}");
            continue;
        }
        let expected: Vec<f32> =
            view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        for piece in [expected.len(), 1000, 7] {
            let mut start = 0;
            for expected in expected.chunks(piece) {
                let mut values = vec![f32::NAN; expected.len()];
                checkpoint.read_f32(tensor, start, &mut values).unwrap();
                assert_eq!(values, expected, "{name} from {start}");
                start += expected.len() as u64;
            }
        }
        checkpoint.release(tensor);
        assert_eq!(checkpoint.raw(tensor), view.data(), "{name} after its release");
    }
}

#[test]
fn real_checkpoints_equal_what_the_safetensors_crate_reads() {
    let Some(folder) = material("derived") else { return };
    for name in ["llama", "llama-ffn256", "mixtral-4x-top2", "mixtral-split4-top4"] {
        let directory = folder.join(format!("stories260K-hf-{name}"));
        compare(&directory);
        let checkpoint = Checkpoint::open(&directory).unwrap();
        assert_eq!(checkpoint.name(), format!("stories260K-hf-{name}"));
        assert_eq!(checkpoint.config().u64("hidden_size").unwrap(), 64);
        let architecture = checkpoint.config().architecture().unwrap();
        assert!(["LlamaForCausalLM", "MixtralForCausalLM"].contains(&architecture));
        assert!(checkpoint.file("tokenizer.model").unwrap().is_some());
    }
    let Some(mnist) = material("formats/burn-pt/mnist.safetensors") else { return };
    let draft = Draft::new().with("model.safetensors", &fs::read(mnist).unwrap());
    compare(draft.path());
}

#[test]
fn shards_are_read_in_the_order_of_files_and_offsets() {
    let two = r#"{"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},
                  "a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let data: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|value| value.to_le_bytes()).collect();
    let draft = Draft::new()
        .with("model-00002-of-00002.safetensors", &safetensors(two, &data))
        .with("model-00001-of-00002.safetensors", &one_tensor("z", 3));
    let names = |path: &Path| {
        let checkpoint = Checkpoint::open(path).unwrap();
        let mut value = [0.0];
        checkpoint.read_f32(checkpoint.tensor("b").unwrap(), 0, &mut value).unwrap();
        assert_eq!(value, [-2.0]);
        checkpoint.tensors().map(|tensor| tensor.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(draft.path()), ["z", "a", "b"], "without an index");
    let draft = draft.with_index(&[
        ("a", "model-00002-of-00002.safetensors"),
        ("b", "model-00002-of-00002.safetensors"),
        ("z", "model-00001-of-00002.safetensors"),
    ]);
    assert_eq!(names(draft.path()), ["z", "a", "b"], "with an index");
}

#[test]
fn every_float_type_is_decoded_at_any_offset() {
    // One byte first, so that nothing after it is aligned.
    let header = r#"{"odd":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
        "d":{"dtype":"F64","shape":[2],"data_offsets":[1,17]},
        "h":{"dtype":"F16","shape":[2],"data_offsets":[17,21]},
        "b":{"dtype":"BF16","shape":[2],"data_offsets":[21,25]},
        "s":{"dtype":"F32","shape":[2],"data_offsets":[25,33]}}"#;
    let mut data = vec![7];
    data.extend([0.1_f64, -3.0].iter().flat_map(|value| value.to_le_bytes()));
    data.extend([0x3555_u16, 0xC200].iter().flat_map(|value| value.to_le_bytes()));
    data.extend([0x3EAB_u16, 0xC040].iter().flat_map(|value| value.to_le_bytes()));
    data.extend([0.1_f32, -3.0].iter().flat_map(|value| value.to_le_bytes()));
    let draft = Draft::new().with("model.safetensors", &safetensors(header, &data));
    let checkpoint = Checkpoint::open(draft.path()).unwrap();
    for (name, first) in [("d", 0.1_f32), ("h", 0.333_251_95), ("b", 0.333_984_38), ("s", 0.1)] {
        let mut values = [0.0; 2];
        let tensor = checkpoint.tensor(name).unwrap();
        checkpoint.read_f32(tensor, 0, &mut values).unwrap();
        assert_eq!(values, [first, -3.0], "{name}");
        let error = checkpoint.read_f32(tensor, 1, &mut values).unwrap_err();
        assert_eq!(error.to_string(), format!("tensor {name:?}: elements 1..3 asked of 2"));
        assert!(checkpoint.read_f32(tensor, u64::MAX, &mut values).is_err());
        checkpoint.read_f32(tensor, 2, &mut []).unwrap();
    }
}

#[test]
fn integers_are_listed_but_refused_when_their_values_are_needed() {
    for dtype in ["I64", "U64", "I32", "U32", "I16", "U16", "I8", "U8", "BOOL", "C64"] {
        let bytes = match dtype {
            "I64" | "U64" | "C64" => 8,
            "I32" | "U32" => 4,
            "I16" | "U16" => 2,
            _ => 1,
        };
        let header =
            format!(r#"{{"ids":{{"dtype":"{dtype}","shape":[1,1],"data_offsets":[0,{bytes}]}}}}"#);
        let draft = Draft::new().with("model.safetensors", &safetensors(&header, &vec![0; bytes]));
        let checkpoint = Checkpoint::open(draft.path()).unwrap();
        let tensor = checkpoint.tensors().next().unwrap();
        let error = checkpoint.read_f32(tensor, 0, &mut [0.0]).unwrap_err();
        let expected = format!("tensor \"ids\": type {dtype} holds no floating-point weights");
        assert_eq!(error.to_string(), expected);
        assert!(error.hint().unwrap().contains("unquantised"));
    }
}

#[test]
fn packed_weights_are_recognised_by_their_method() {
    let tensor = |name: &str, dtype: &str, bytes: usize| {
        let header = format!(
            r#"{{"{name}":{{"dtype":"{dtype}","shape":[1,{bytes}],"data_offsets":[0,{}]}}}}"#,
            bytes * if dtype == "I32" { 4 } else { 1 }
        );
        safetensors(&header, &vec![0; bytes * if dtype == "I32" { 4 } else { 1 }])
    };
    for (method, name, dtype) in [
        ("gptq", "model.layers.0.mlp.up_proj.qweight", "I32"),
        ("awq", "model.layers.0.mlp.up_proj.qweight", "I32"),
        ("bitsandbytes", "model.layers.0.mlp.up_proj.weight", "U8"),
        ("compressed-tensors", "model.layers.0.mlp.up_proj.weight_packed", "I32"),
        ("mxfp4", "model.layers.0.mlp.experts.gate_up_proj_blocks", "U8"),
        ("bitnet", "model.layers.0.mlp.up_proj.weight", "U8"),
    ] {
        let config = format!(r#"{{"quantization_config":{{"quant_method":"{method}"}}}}"#);
        let draft = Draft::empty()
            .with("config.json", config.as_bytes())
            .with("model.safetensors", &tensor(name, dtype, 8));
        refused(draft.path(), &format!("weights packed by {method:?}"));
    }
    // The word alone refuses nothing.
    let draft = Draft::empty()
        .with("config.json", br#"{"quantization_config":{"quant_method":"gptq"}}"#)
        .with("model.safetensors", &one_tensor("model.norm.weight", 4));
    assert!(Checkpoint::open(draft.path()).is_ok());
}

/// E4M3 by its definition, with no case for NaN, which the test data avoids.
fn e4m3(code: u8) -> f32 {
    let sign = if code < 128 { 1.0 } else { -1.0 };
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f32::from(code & 7));
    match exponent {
        0 => sign * mantissa / 8.0 * 2_f32.powi(-6),
        _ => sign * (1.0 + mantissa / 8.0) * 2_f32.powi(exponent - 7),
    }
}

/// An FP8 weight of `rows` × `columns` with a scale of the given name and shape.
fn fp8(rows: usize, columns: usize, scale: &str, shape: &[usize]) -> (Vec<u8>, Vec<u8>, Vec<f32>) {
    let codes: Vec<u8> = (0..rows * columns).map(|n| (n * 89 % 127 + n % 2 * 128) as u8).collect();
    let count: usize = shape.iter().product();
    let scales: Vec<f32> = (0..count).map(|n| 0.25 + n as f32 / 8.0).collect();
    let end = codes.len() + count * 4;
    let header = format!(
        r#"{{"x.weight":{{"dtype":"F8_E4M3","shape":[{rows},{columns}],"data_offsets":[0,{0}]}},
            "x.input_scale":{{"dtype":"F32","shape":[0],"data_offsets":[{0},{0}]}},
            "{scale}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{0},{end}]}}}}"#,
        codes.len()
    );
    let mut data = codes.clone();
    data.extend(scales.iter().flat_map(|value| value.to_le_bytes()));
    (safetensors(&header, &data), codes, scales)
}

const BLOCKS_OF_128: &[u8] =
    br#"{"quantization_config":{"quant_method":"fp8","weight_block_size":[128,128]}}"#;

#[test]
fn fp8_with_block_scales_as_deepseek_writes_it() {
    let (rows, columns) = (300, 200);
    let (file, codes, scales) = fp8(rows, columns, "x.weight_scale_inv", &[3, 2]);
    let draft = Draft::empty().with("config.json", BLOCKS_OF_128).with("model.safetensors", &file);
    let checkpoint = Checkpoint::open(draft.path()).unwrap();
    let names: Vec<&str> = checkpoint.tensors().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, ["x.weight"], "scales are no weights");
    let tensor = checkpoint.tensor("x.weight").unwrap();
    let mut values = vec![0.0; rows * columns];
    checkpoint.read_f32(tensor, 0, &mut values).unwrap();
    for row in 0..rows {
        for column in 0..columns {
            let place = row * columns + column;
            let expected = e4m3(codes[place]) * scales[row / 128 * 2 + column / 128];
            assert_eq!(values[place].to_bits(), expected.to_bits(), "{row}, {column}");
        }
    }
    let mut piece = vec![0.0; 777];
    checkpoint.read_f32(tensor, 12_345, &mut piece).unwrap();
    assert_eq!(piece, values[12_345..][..777]);
}

#[test]
fn fp8_with_one_scale_for_a_row_or_the_tensor() {
    let compressed = br#"{"quantization_config":{"quant_method":"compressed-tensors"}}"#;
    for (name, shape) in [
        ("x.weight_scale", &[5, 1][..]),
        ("x.weight_scale", &[5]),
        ("x.weight_scale", &[1]),
        ("x.weight_scale_inv", &[]),
        ("x.qscale_weight", &[]),
    ] {
        let (file, codes, scales) = fp8(5, 3, name, shape);
        let draft = Draft::empty().with("config.json", compressed).with("model.safetensors", &file);
        let checkpoint = Checkpoint::open(draft.path()).unwrap();
        assert_eq!(checkpoint.tensors().count(), 1);
        let mut values = [0.0; 15];
        checkpoint.read_f32(checkpoint.tensor("x.weight").unwrap(), 0, &mut values).unwrap();
        for (place, value) in values.into_iter().enumerate() {
            let scale = if scales.len() == 1 { scales[0] } else { scales[place / 3] };
            assert_eq!(value.to_bits(), (e4m3(codes[place]) * scale).to_bits(), "{name} {place}");
        }
    }
}

#[test]
fn fp8_without_a_fitting_scale_is_refused() {
    let open = |config: &[u8], scale: &str, shape: &[usize]| {
        let (file, ..) = fp8(300, 200, scale, shape);
        let draft = Draft::empty().with("config.json", config).with("model.safetensors", &file);
        Checkpoint::open(draft.path()).map(|checkpoint| checkpoint.tensors().count())
    };
    let fp8_only = br#"{"quantization_config":{"quant_method":"fp8"}}"#;
    for (config, name, shape) in [
        (BLOCKS_OF_128, "x.other", &[3, 2][..]),
        (BLOCKS_OF_128, "x.weight_scale_inv", &[3, 3]),
        (BLOCKS_OF_128, "x.weight_scale_inv", &[2, 3]),
        (fp8_only, "x.weight_scale_inv", &[3, 2]),
    ] {
        let error = open(config, name, shape).unwrap_err();
        assert!(matches!(error, CheckpointError::Scale { .. }), "{error}");
        assert!(error.hint().is_some());
    }
    // Weights that were merely cast have no scale and say nothing of quantisation.
    assert_eq!(open(b"{}", "y.weight", &[2]).unwrap(), 2);
}

#[test]
fn the_headers_of_real_files_parse_as_the_crate_does() {
    let Some(mnist) = material("formats/burn-pt/mnist.safetensors") else { return };
    let bytes = fs::read(mnist).unwrap();
    let ours = parse_header(&bytes).unwrap();
    let (length, theirs) = SafeTensors::read_metadata(&bytes).unwrap();
    assert_eq!(ours.data_start, length as u64 + 8);
    let names: Vec<&str> = ours.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    assert_eq!(names, theirs.offset_keys());
}
