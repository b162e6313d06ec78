//! Experts read by our own rule: to the bit the same logits as from the plain mapping, in one file and in several.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nfl::engine::experts::ExpertReader;
use nfl::engine::experts::counters::{Counters, ExpertCounts};
use nfl::engine::experts::layout::Layout;
use nfl::engine::llama::{AbortFlag, Backend, Context, Model, Observer, Token};
use nfl::engine::options::{ContextOptions, ModelOptions};
use nfl_models::gguf::{Gguf, Metadata, TensorPlan, Value, Writer};

use crate::fixture;

/// Room for about a fifth of the experts, so that they come and go all the time.
const BUDGET_BYTES: u64 = 1 << 20;

/// 4 layers of 16 experts of 3 × 24 KiB: slices that share pages with their neighbours.
const CONFIG: &str = r#"{"architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "hidden_size": 128,
    "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 4,
    "num_local_experts": 16, "num_experts_per_tok": 2, "vocab_size": 400, "rope_theta": 1000000.0,
    "rms_norm_eps": 1e-5, "max_position_embeddings": 512, "hidden_act": "silu", "sliding_window": null,
    "tie_word_embeddings": false, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32"}"#;

fn small_model(folder: &Path) -> PathBuf {
    let config = folder.join("config.json");
    std::fs::write(&config, CONFIG).unwrap();
    let checkpoint = folder.join("many-experts");
    let arguments = ["synthesize", fixture::text(&config), "--output", fixture::text(&checkpoint)];
    let options = ["--seed", "7", "--dtype", "f32", "--router-sharpness", "4", "--quiet"];
    fixture::nfl(&[&arguments[..], &options[..]].concat()).expect_success();
    fixture::convert(&checkpoint, "f16", folder).remove(0)
}

/// The same model in two files.
fn split(file: &Path) -> PathBuf {
    let gguf = Gguf::open(file).unwrap();
    let (first, second) = gguf.tensors().split_at(gguf.tensors().len() / 2);
    let folder = file.parent().unwrap().join("split");
    std::fs::create_dir(&folder).unwrap();
    for (number, tensors) in [first, second].into_iter().enumerate() {
        let mut metadata = if number == 0 { gguf.metadata().clone() } else { Metadata::new() };
        metadata.set("split.no", Value::U16(number as u16));
        metadata.set("split.count", Value::U16(2));
        metadata.set("split.tensors.count", Value::I32(gguf.tensors().len() as i32));
        let plan = |tensor: &nfl_models::gguf::TensorInfo| TensorPlan {
            name: tensor.name.clone(),
            dimensions: tensor.dimensions.clone(),
            tensor_type: tensor.tensor_type,
        };
        let path = folder.join(format!("model-0000{}-of-00002.gguf", number + 1));
        let target = File::create(path).unwrap();
        let mut writer =
            Writer::new(target, &metadata, tensors.iter().map(plan).collect()).unwrap();
        for tensor in tensors {
            writer.write(gguf.data(tensor)).unwrap();
            writer.finish_tensor().unwrap();
        }
        writer.finish().unwrap();
    }
    folder.join("model-00001-of-00002.gguf")
}

/// A prompt, then tokens one by one: the logits after each of these steps.
fn logits(file: &Path, reads_experts: bool) -> (Vec<Vec<f32>>, Option<ExpertCounts>) {
    let gguf = Gguf::open(file).unwrap();
    let layout = Layout::of(&gguf).unwrap();
    assert_eq!((layout.layers.len(), layout.experts_used), (4, 2));
    let files: Vec<PathBuf> = gguf.files().map(Path::to_owned).collect();
    drop(gguf);
    let options = ModelOptions { repack: false, ..ModelOptions::default() };
    let model = Model::load(Backend::get(), file, &options, &mut |_| true).unwrap();
    let mut counters: Option<Arc<Counters>> = None;
    let observer = reads_experts.then(|| {
        let reader = ExpertReader::new(&model, &layout, &files).unwrap();
        counters = Some(reader.counters());
        let reader = reader.with_pinned(&layout).with_budget_at_most(BUDGET_BYTES);
        Box::new(reader) as Box<dyn Observer>
    });
    let options = ContextOptions::with_threads(1);
    let mut context = Context::new(&model, &options, 256, AbortFlag::default(), observer).unwrap();
    if let Some(observer) = context.observer() {
        let reader = observer.as_any().downcast_mut::<ExpertReader>().unwrap();
        reader.fill(Duration::from_secs(1));
        assert!(reader.counters().counts().held_bytes > BUDGET_BYTES / 2, "the room is filled");
    }
    let token = |index: usize| ((index * index * 31 + index * 7 + 1) % 397 + 3) as Token;
    let mut rows = Vec::new();
    for prompt in [0..48, 100..130] {
        let tokens: Vec<Token> = prompt.map(token).collect();
        context.decode(&tokens, tokens.len() - 1).unwrap();
        rows.push(context.logits_of_last().unwrap().to_vec());
        for index in 0..40 {
            context.decode(&[token(1000 + index)], 0).unwrap();
            rows.push(context.logits_of_last().unwrap().to_vec());
        }
    }
    (rows, counters.map(|counters| counters.counts()))
}

#[cfg(target_os = "linux")]
#[test]
fn logits_are_those_of_the_plain_mapping() {
    let folder = tempfile::tempdir().unwrap();
    let file = small_model(folder.path());
    let (plain, _) = logits(&file, false);
    for file in [file.clone(), split(&file)] {
        let (ours, counts) = logits(&file, true);
        let counts = counts.unwrap();
        assert_eq!(counts.failures, 0, "{counts:?}");
        assert_eq!(counts.tokens, 48 + 30 + 80, "{counts:?}");
        assert!(counts.budget_bytes <= BUDGET_BYTES && counts.held_bytes <= BUDGET_BYTES);
        // Experts came and went: more was read than there is room for.
        assert!(counts.read_bytes > 4 * BUDGET_BYTES, "{counts:?}");
        assert!(counts.present > 0 && counts.needed > counts.present, "{counts:?}");
        for (step, (ours, plain)) in ours.iter().zip(&plain).enumerate() {
            assert!(ours == plain, "{}: step {step} differs", file.display());
        }
    }
}

#[test]
fn the_program_says_the_same_either_way() {
    let folder = tempfile::tempdir().unwrap();
    let file = small_model(folder.path());
    let text = |mode: &str| {
        let arguments = ["run", fixture::text(&file), "once", "--raw", "--temperature", "0"];
        let options = ["-n", "24", "--ignore-eos", "--no-repack", "--experts-from-disk", mode];
        fixture::nfl(&[&arguments[..], &options[..]].concat()).expect_success()
    };
    let off = text("off");
    assert_eq!(text("on"), off);
    assert_eq!(text("auto"), off);
}
