//! Converted files against those of upstream's tools on the same checkpoints.

use crate::convert_support::{CHECKPOINTS, Reference, material, on};
use nfl_converters::checkpoint::Checkpoint;
use nfl_converters::{Order, convert, requantize};
use nfl_models::gguf::Gguf;
use nfl_models::{Level, TensorType};

/// Metadata (keys, types, values, order) and tensors (order, dimensions, types, bytes) are those of
/// `convert_hf_to_gguf.py --outtype f32`; so the whole files are.
#[test]
fn f32_files_equal_those_of_upstream_byte_for_byte() {
    for name in CHECKPOINTS {
        let Some(source) = material(&format!("derived/{name}")) else { return };
        let expected = material(&format!("oracle/convert_hf_to_gguf/ref-{name}-f32.gguf")).unwrap();
        let target = tempfile::tempdir().unwrap();
        let order = Order::new(vec![Level::F32], target.path(), name);
        let checkpoint = Checkpoint::open(&source).unwrap();
        let receipts = convert(&checkpoint, &order, &Reference, &mut on).unwrap();
        assert_eq!(receipts[0].path, target.path().join(format!("{name}-F32.gguf")));
        let (found, expected_file) =
            (Gguf::open(&receipts[0].path).unwrap(), Gguf::open(&expected).unwrap());
        for (found, expected) in found.metadata().iter().zip(expected_file.metadata().iter()) {
            assert_eq!(found, expected, "{name}");
        }
        assert_eq!(found.tensors(), expected_file.tensors(), "{name}");
        for tensor in found.tensors() {
            let expected = expected_file.data(expected_file.tensor(&tensor.name).unwrap());
            assert!(found.data(tensor) == expected, "{name}: {}", tensor.name);
        }
        let bytes = std::fs::read(&receipts[0].path).unwrap();
        assert!(bytes == std::fs::read(expected).unwrap(), "{name}: padding or header");
    }
}

/// llama-quantize's own files of Q8_0 and Q4_0, tensor by tensor: names, types, bytes. One pass
/// makes all levels.
#[test]
fn quantised_tensors_equal_those_of_llama_quantize() {
    let levels = vec![Level::Q8_0, Level::F16, Level::Q4_0, Level::BF16];
    for name in &CHECKPOINTS[1..] {
        let Some(source) = material(&format!("derived/{name}")) else { return };
        let target = tempfile::tempdir().unwrap();
        let mut order = Order::new(levels.clone(), target.path(), *name);
        order.threads = 3;
        let checkpoint = Checkpoint::open(&source).unwrap();
        let receipts = convert(&checkpoint, &order, &Reference, &mut on).unwrap();
        for receipt in receipts.iter().filter(|receipt| receipt.level.base_type().is_quantized()) {
            let oracle = format!("oracle/{}-{}.gguf", name.replace("-hf", ""), receipt.level);
            let expected = Gguf::open(&material(&oracle).unwrap()).unwrap();
            let found = Gguf::open(&receipt.path).unwrap();
            assert_eq!(found.tensors().len(), expected.tensors().len());
            for (found_tensor, tensor) in found.tensors().iter().zip(expected.tensors()) {
                assert_eq!(found_tensor, tensor, "{oracle}: the same place in the same order");
                assert!(
                    found.data(found_tensor) == expected.data(tensor),
                    "{oracle}: {}",
                    tensor.name
                );
            }
            let last: Vec<&str> = found.metadata().iter().map(|(key, _)| key).collect();
            let last = &last[last.len() - 2..];
            assert_eq!(last, ["general.quantization_version", "general.file_type"]);
        }
    }
}

/// `convert --level q8_0` and `convert --level f32` followed by `quantize` end in the same file.
#[test]
fn one_step_and_two_steps_make_the_same_file() {
    for name in &CHECKPOINTS[1..] {
        let Some(source) = material(&format!("derived/{name}")) else { return };
        let target = tempfile::tempdir().unwrap();
        let checkpoint = Checkpoint::open(&source).unwrap();
        let levels = vec![Level::F32, Level::Q8_0, Level::Q4_0];
        let order = Order::new(levels, target.path().join("one"), *name);
        let one = convert(&checkpoint, &order, &Reference, &mut on).unwrap();
        let levels = vec![Level::Q4_0, Level::Q8_0];
        let order = Order::new(levels, target.path().join("two"), *name);
        let full = Gguf::open(&one[0].path).unwrap();
        let two = requantize(&full, &order, &Reference, &mut on).unwrap();
        for (one, two) in [(&one[1], &two[1]), (&one[2], &two[0])] {
            assert_eq!(one.level, two.level);
            assert!(std::fs::read(&one.path).unwrap() == std::fs::read(&two.path).unwrap());
        }
    }
}

/// F16 and BF16 files made by llama-quantize from the same weights (ffn 172).
#[test]
fn half_precision_tensors_equal_those_of_upstream() {
    let Some(source) = material("derived/stories260K-hf-llama") else { return };
    let target = tempfile::tempdir().unwrap();
    let order = Order::new(vec![Level::F16, Level::BF16], target.path(), "stories260K");
    let checkpoint = Checkpoint::open(&source).unwrap();
    for receipt in convert(&checkpoint, &order, &Reference, &mut on).unwrap() {
        let oracle = material(&format!("oracle/stories260K-{}.gguf", receipt.level)).unwrap();
        let (found, expected) = (Gguf::open(&receipt.path).unwrap(), Gguf::open(&oracle).unwrap());
        assert_eq!(found.metadata().u32("general.file_type"), Some(receipt.level.file_type()));
        let mut compared = 0;
        for tensor in expected.tensors().iter().filter(|tensor| tensor.name != "rope_freqs.weight")
        {
            let same = found.tensor(&tensor.name).unwrap();
            assert_eq!(same.tensor_type, tensor.tensor_type, "{}", tensor.name);
            assert!(found.data(same) == expected.data(tensor), "{}", tensor.name);
            compared += usize::from(tensor.tensor_type != TensorType::F32);
        }
        assert!(compared > 30, "{compared}");
    }
}
