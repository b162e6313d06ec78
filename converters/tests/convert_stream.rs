//! The stream: many pieces, any number of threads, several levels at once, copies, shards, steps
//! and receipts.

use crate::convert_support::{Reference, material, on};
use nfl_converters::checkpoint::Checkpoint;
use nfl_converters::seeded::{self, Seed};
use nfl_converters::{ConvertError, Order, Receipt, Step, convert, requantize};
use nfl_models::gguf::{Gguf, TensorPlan, Writer};
use nfl_models::{Level, TensorType};
use serde_json::json;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A Mixtral whose matrices span several pieces, and whose experts do not end where pieces do.
fn large(root: &Path) -> PathBuf {
    let config = json!({
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_size": 288,
        "intermediate_size": 992, "num_hidden_layers": 1, "num_attention_heads": 6,
        "num_key_value_heads": 3, "vocab_size": 2048, "num_local_experts": 3,
        "num_experts_per_tok": 2, "max_position_embeddings": 512, "rms_norm_eps": 1e-5
    });
    let file = root.join("config.json");
    fs::write(&file, config.to_string()).unwrap();
    let target = root.join("large");
    let mut on_progress = |_, _| ControlFlow::Continue(());
    seeded::generate(&file, &target, &Seed::default(), &mut on_progress).unwrap();
    target
}

fn files(receipts: &[Receipt]) -> Vec<Vec<u8>> {
    receipts.iter().map(|receipt| fs::read(&receipt.path).unwrap()).collect()
}

#[test]
fn neither_threads_nor_company_change_a_byte() {
    let root = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(&large(root.path())).unwrap();
    let levels = vec![Level::F32, Level::F16, Level::BF16, Level::Q8_0, Level::Q4_0];
    let made = |name: &str, threads: usize, levels: &[Level]| {
        let order = Order { threads, ..Order::new(levels.to_vec(), root.path(), name) };
        files(&convert(&checkpoint, &order, &Reference, &mut on).unwrap())
    };
    let together = made("one", 1, &levels);
    assert!(together == made("seven", 7, &levels));
    for (level, expected) in levels.iter().zip(&together) {
        assert!(made("alone", 2, &[*level])[0] == *expected, "{level}");
    }
}

/// Against the simplest of conversions: the whole tensor decoded, stacked and permuted in one go.
#[test]
fn pieces_join_without_seams() {
    let root = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(&large(root.path())).unwrap();
    let order = Order::new(vec![Level::F32], root.path(), "seams");
    let receipts = convert(&checkpoint, &order, &Reference, &mut on).unwrap();
    let file = Gguf::open(&receipts[0].path).unwrap();
    let whole = |name: &str| {
        let tensor = checkpoint.tensor(name).unwrap();
        let mut values = vec![0.0; tensor.elements() as usize];
        checkpoint.read_f32(tensor, 0, &mut values).unwrap();
        values
    };
    let found = |name: &str| {
        let bytes = file.data(file.tensor(name).unwrap());
        bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect::<Vec<_>>()
    };
    for (kind, part) in [("gate", "w1"), ("down", "w2"), ("up", "w3")] {
        let part =
            |expert| format!("model.layers.0.block_sparse_moe.experts.{expert}.{part}.weight");
        let stacked: Vec<f32> = (0..3).flat_map(|expert| whole(&part(expert))).collect();
        assert!(found(&format!("blk.0.ffn_{kind}_exps.weight")) == stacked, "{kind}");
    }
    for (kind, heads) in [("q", 6), ("k", 3)] {
        let stored = whole(&format!("model.layers.0.self_attn.{kind}_proj.weight"));
        let mut expected = Vec::new();
        for head in 0..heads {
            for pair in 0..24 {
                for half in 0..2 {
                    let row = (head * 48 + half * 24 + pair) * 288;
                    expected.extend_from_slice(&stored[row..row + 288]);
                }
            }
        }
        assert!(found(&format!("blk.0.attn_{kind}.weight")) == expected, "{kind}");
    }
}

#[test]
fn steps_tell_what_happens_in_order() {
    let root = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(&large(root.path())).unwrap();
    let order = Order::new(vec![Level::Q8_0, Level::F16, Level::Q8_0], root.path(), "steps");
    let (mut tensors, mut last, mut total, mut written) = (vec![], 0, 0, vec![]);
    let mut on_step = |step: Step<'_>| {
        match step {
            Step::Started { elements, levels, .. } => {
                assert_eq!(levels, [Level::Q8_0, Level::F16], "each level once");
                total = elements;
            }
            Step::Progress { done, total: all } => {
                // every file asks once more before it is named
                assert!((done > last || last == total) && all == total);
                last = done;
            }
            Step::Tensor { index, name, types, .. } => {
                assert_eq!(index, tensors.len());
                tensors.push((name.to_owned(), types.to_vec()));
            }
            Step::Written { level, bytes, path } => {
                assert_eq!(fs::metadata(path).unwrap().len(), bytes);
                written.push(level);
            }
            Step::Fallback { .. } | Step::Warning { .. } => {}
        }
        ControlFlow::Continue(())
    };
    let receipts = convert(&checkpoint, &order, &Reference, &mut on_step).unwrap();
    assert_eq!(last, total);
    assert_eq!(written, [Level::Q8_0, Level::F16]);
    assert_eq!(tensors.len(), receipts[0].tensors.len());
    let embedding = tensors.iter().find(|(name, _)| name == "token_embd.weight").unwrap();
    assert_eq!(embedding.1, [TensorType::Q8_0, TensorType::F16]);
}

#[test]
fn receipts_carry_checksums_when_asked() {
    let root = tempfile::tempdir().unwrap();
    let checkpoint = Checkpoint::open(&large(root.path())).unwrap();
    let order = Order::new(vec![Level::F16], root.path(), "plain");
    let plain = convert(&checkpoint, &order, &Reference, &mut on).unwrap();
    assert!(plain[0].tensors.iter().all(|tensor| tensor.sha256.is_none()));
    let order = Order { checksums: true, ..Order::new(vec![Level::F16], root.path(), "sums") };
    let sums = convert(&checkpoint, &order, &Reference, &mut on).unwrap();
    let norm = sums[0].tensors.iter().find(|tensor| tensor.name == "output_norm.weight").unwrap();
    assert_eq!(norm.sha256.as_ref().unwrap().len(), 64);
    assert!(sums[0].tensors.iter().all(|tensor| tensor.sha256.is_some()));
}

#[test]
fn a_vocabulary_comes_without_tensors() {
    let Some(source) = material("derived/stories260K-hf-llama") else { return };
    let root = tempfile::tempdir().unwrap();
    let order = Order { vocab_only: true, ..Order::new(vec![], root.path(), "stories") };
    let checkpoint = Checkpoint::open(&source).unwrap();
    let receipts = convert(&checkpoint, &order, &Reference, &mut on).unwrap();
    assert_eq!(receipts[0].path, root.path().join("stories-vocab.gguf"));
    let file = Gguf::open(&receipts[0].path).unwrap();
    assert!(file.tensors().is_empty());
    assert_eq!(file.metadata().array("tokenizer.ggml.tokens").unwrap().len(), 512);
    assert!(file.metadata().get("general.size_label").is_none(), "there are no weights to count");
}

/// Permissions are those that any new file gets, not the private ones of a temporary file.
#[cfg(unix)]
#[test]
fn others_may_read_the_output() {
    use std::os::unix::fs::PermissionsExt;
    let Some(source) = material("derived/stories260K-hf-llama") else { return };
    let root = tempfile::tempdir().unwrap();
    let order = Order::new(vec![Level::F32], root.path(), "stories");
    let checkpoint = Checkpoint::open(&source).unwrap();
    let receipts = convert(&checkpoint, &order, &Reference, &mut on).unwrap();
    let plain = root.path().join("plain");
    fs::write(&plain, "").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&receipts[0].path), mode(&plain));
}

#[test]
fn quantised_sources_need_permission_and_are_copied_where_nothing_changes() {
    let Some(eight) = material("oracle/stories260K-llama-ffn256-Q8_0.gguf") else { return };
    let root = tempfile::tempdir().unwrap();
    let source = Gguf::open(&eight).unwrap();
    let order = Order::new(vec![Level::Q4_0], root.path(), "again");
    let error = requantize(&source, &order, &Reference, &mut on).unwrap_err();
    assert!(matches!(error, ConvertError::AlreadyQuantized { .. }), "{error}");

    let mut warnings = 0;
    let order = Order { allow_requantize: true, ..order };
    let mut on_step = |step: Step<'_>| {
        warnings += usize::from(matches!(step, Step::Warning { .. }));
        ControlFlow::Continue(())
    };
    requantize(&source, &order, &Reference, &mut on_step).unwrap();
    assert_eq!(warnings, 1);

    // the same level again: every byte of every tensor stays
    let order = Order::new(vec![Level::Q8_0], root.path(), "same");
    let same = requantize(&source, &order, &Reference, &mut on).unwrap();
    let same = Gguf::open(&same[0].path).unwrap();
    for tensor in source.tensors() {
        let copy = same.tensor(&tensor.name).unwrap();
        assert_eq!(copy.tensor_type, tensor.tensor_type);
        assert!(same.data(copy) == source.data(tensor), "{}", tensor.name);
    }
}

#[test]
fn a_source_in_shards_becomes_one_file() {
    let Some(whole) = material("derived/stories260K-llama-ffn256-F32.gguf") else { return };
    let root = tempfile::tempdir().unwrap();
    let source = Gguf::open(&whole).unwrap();
    let (first, second) = source.tensors().split_at(20);
    for (number, part) in [first, second].iter().enumerate() {
        let mut metadata = source.metadata().clone();
        metadata.set("split.no", nfl_models::gguf::Value::U16(number as u16));
        metadata.set("split.count", nfl_models::gguf::Value::U16(2));
        metadata.set("split.tensors.count", source.tensors().len() as i32);
        let path = root.path().join(format!("m-{:05}-of-00002.gguf", number + 1));
        let plans = part.iter().map(|tensor| TensorPlan {
            name: tensor.name.clone(),
            dimensions: tensor.dimensions.clone(),
            tensor_type: tensor.tensor_type,
        });
        let file = fs::File::create(path).unwrap();
        let mut writer = Writer::new(file, &metadata, plans.collect()).unwrap();
        for tensor in *part {
            writer.write(source.data(tensor)).unwrap();
            writer.finish_tensor().unwrap();
        }
        writer.finish().unwrap();
    }
    let shards = Gguf::open(&root.path().join("m-00001-of-00002.gguf")).unwrap();
    let order = |name: &str| Order::new(vec![Level::Q8_0, Level::F16], root.path(), name);
    let joined = requantize(&shards, &order("joined"), &Reference, &mut on).unwrap();
    let direct = requantize(&source, &order("direct"), &Reference, &mut on).unwrap();
    assert!(files(&joined) == files(&direct));
}
