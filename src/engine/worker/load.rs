//! Loading a model: our own check first, then llama.cpp, then an account of what came of it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nfl_models::Hint;
use nfl_models::gguf::Gguf;
use nfl_models::prediction;
use sha2::{Digest, Sha256};

use super::cage::{self, CageInfo, Reach};
use super::embed::Reader;
use super::inbox::Inbox;
use super::memory::memory_use;
use super::state::lock;
use crate::engine::experts::counters::Counters;
use crate::engine::experts::layout::Layout;
use crate::engine::experts::{self, ExpertReader};
use crate::engine::frames::{DeviceInfo, Failure, LoadInfo, MemoryUse, SpecialToken};
use crate::engine::llama::{
    AbortFlag, Adapters, Backend, Context, DeviceKind, Line, LogLevel, Model, Observer, Token,
    Vocabulary, devices,
};
use crate::engine::options::{
    ContextOptions, DraftRequest, LoadRequest, ModelOptions, OptionError,
};
use crate::engine::scheduler::{Fingerprint, Scheduler, States, create_private, ms_since};
use crate::engine::speculate::{DraftModel, PredictionLayer};
use crate::hardware;

/// Lines of placement and warnings that are handed on.
const LINES_MAX: usize = 64;

/// Learned positions: there are as many as the table has rows.
const POSITIONS: &str = "position_embd.weight";

/// Bytes of a tensor that are looked at, twice, to tell its model from others.
const SAMPLE_BYTES: usize = 1024;

/// How long a model that memory does not hold reads experts before it is ready.
const FILL_LIMIT: Duration = Duration::from_secs(2);

/// A loaded model.
pub(super) struct Loaded {
    pub(super) vocabulary: Vocabulary,
    /// None when only the vocabulary, or only embeddings, were asked for.
    pub(super) scheduler: Option<Scheduler>,
    /// None when only the vocabulary was asked for.
    pub(super) reader: Option<Reader>,
    /// The model's files.
    pub(super) files: Vec<PathBuf>,
    /// What reading experts has done, when they are read by our own rule.
    pub(super) experts: Option<Arc<Counters>>,
}

impl Loaded {
    /// The memory of this process and what its experts cost.
    pub(super) fn memory(&self) -> MemoryUse {
        let experts = self.experts.as_ref().map(|counters| counters.counts());
        MemoryUse { experts, ..memory_use(&self.files) }
    }
}

/// Gives up all rights that the load does not need, before anything is read; the process has no
/// other threads yet.
pub(super) fn enter_cage(request: &LoadRequest) -> CageInfo {
    let writable = request.states.as_ref().map(|states| states.directory.clone());
    if let Some(directory) = &writable {
        // Only what exists can be left open; a failure shows when the states are opened.
        let _ = create_private(directory);
    }
    let draft = request.draft.as_ref().map(|draft| &draft.path);
    cage::close(&Reach {
        model: request.path.clone(),
        readable: request.readable.iter().chain(draft).cloned().collect(),
        writable,
        gpu: devices(Backend::get()).iter().any(|device| device.kind == DeviceKind::Gpu),
    })
}

/// Loads what was asked for.
pub(super) fn load(
    request: &LoadRequest,
    inbox: &Arc<Mutex<Inbox>>,
    progress: &mut dyn FnMut(f32),
) -> Result<(Loaded, LoadInfo), Failure> {
    let started = Instant::now();
    request.context.check()?;
    let Checked { gguf, files, mut warnings, layout, predicts } = check(&request.path)?;
    let first = first_file(&gguf, &request.path);
    let backend = Backend::get();
    let mark = backend.mark();
    let available = hardware::memory().available_bytes;
    let has_gpu = device_infos().iter().any(|device| device.is_gpu);
    let reads_experts = !request.embeddings_only
        && experts::decide(&request.model, layout.as_ref(), available)
        && (!has_gpu || keeps_experts(&request.model));
    let options = ModelOptions {
        // A repacked copy is not the file's: it can neither be dropped nor read again.
        repack: request.model.repack && !reads_experts,
        // One kind of drafter is enough, and who names a small model wants that.
        prediction: request.model.prediction && predicts && request.draft.is_none(),
        ..request.model.clone()
    };
    let model = Model::load(backend, &first, &options, &mut |share| {
        progress(share);
        !lock(inbox).is_pointless()
    })?;
    let trained_tokens = model.context_trained_tokens();
    let (positions, reads_only) = (learned_positions(&gguf), request.embeddings_only);
    let context = within_positions(&request.context, positions, trained_tokens, reads_only)?;
    let request = &LoadRequest { context, ..request.clone() };
    let expert_reader = layout.filter(|_| reads_experts).and_then(|layout| {
        let told = |error| warnings.push(format!("experts are left to the page cache: {error}"));
        let reader = ExpertReader::new(&model, &layout, &files).map_err(told).ok()?;
        Some(if has_gpu { reader } else { reader.with_pinned(&layout) })
    });
    let counters = expert_reader.as_ref().map(ExpertReader::counters);
    let vocabulary = model.vocabulary();
    let reader = if request.model.vocabulary_only {
        None
    } else {
        Some(Reader::new(&model, &gguf, &request.context, inbox)?)
    };
    let scheduler = if request.model.vocabulary_only || request.embeddings_only {
        None
    } else {
        let scheduler = open_scheduler(&model, request, inbox, expert_reader)?
            .with_adapters(Adapters::new(&model, &request.path));
        let scheduler = if options.prediction {
            scheduler.with_prediction(open_prediction(&model, request)?)
        } else {
            scheduler
        };
        Some(match open_states(request) {
            Ok(Some(states)) => scheduler.with_states(states),
            Ok(None) => scheduler,
            Err(message) => {
                warnings.push(message);
                scheduler
            }
        })
    };
    let lines = backend.lines_since(mark);
    let (serious, mut notes) = sorted_warnings(&lines);
    warnings.extend(serious);
    notes.extend(backend.refused());
    let loaded = Loaded { vocabulary, scheduler, reader, files, experts: counters };
    let load_ms = ms_since(started);
    let info = account(&loaded, request, load_ms);
    warnings.extend(stretched(&info));
    Ok((loaded, LoadInfo { placement: placement(&lines), warnings, notes, ..info }))
}

/// How many positions a model has learned, one by one; None where they are computed.
fn learned_positions(gguf: &Gguf) -> Option<u32> {
    gguf.tensor(POSITIONS).map(|table| u32::try_from(table.rows()).unwrap_or(u32::MAX))
}

/// A context that no token leaves the table of learned positions in: llama.cpp reads beyond its end, or aborts.
fn within_positions(
    context: &ContextOptions,
    positions: Option<u32>,
    trained_tokens: u32,
    reads_only: bool,
) -> Result<ContextOptions, OptionError> {
    let Some(limit) = positions else { return Ok(context.clone()) };
    match context.context_tokens {
        Some(asked) if asked > limit && !reads_only => {
            Err(OptionError::ContextTooLarge { asked, limit, trained_tokens })
        }
        _ => {
            // Who reads only is told of each text that is too long.
            let context_tokens = Some(context.context_for(trained_tokens)?.min(limit));
            Ok(ContextOptions { context_tokens, ..context.clone() })
        }
    }
}

/// Whether experts stay on the processor though there is a GPU.
fn keeps_experts(options: &ModelOptions) -> bool {
    options.cpu_experts
        || options.gpu_layers == Some(0)
        || !options.cpu_tensors.is_empty()
        || !options.overrides.is_empty()
}

/// A context beyond what the model knows.
fn stretched(info: &LoadInfo) -> Option<String> {
    let (context, trained) = (info.context_tokens, info.context_trained_tokens);
    (trained > 0 && context > trained).then(|| {
        format!(
            "context: {context} tokens, but the model was trained on {trained}: beyond that it may \
             talk nonsense"
        )
    })
}

/// llama.cpp's warnings: those that something asked for did not happen, and the rest.
fn sorted_warnings(lines: &[Line]) -> (Vec<String>, Vec<String>) {
    let serious = |text: &String| {
        ["fail", "unable", "cannot", "not support", "mlock"].iter().any(|word| text.contains(word))
    };
    let mut texts: Vec<String> = lines
        .iter()
        .filter(|line| line.level == LogLevel::Warning)
        .map(|line| line.message().to_owned())
        .collect();
    texts.dedup();
    texts.truncate(LINES_MAX);
    texts.into_iter().partition(serious)
}

/// A model that passed our own check.
struct Checked {
    gguf: Gguf,
    /// All files, as the system names them in its list of mappings.
    files: Vec<PathBuf>,
    warnings: Vec<String>,
    /// Where its experts are, when it has any.
    layout: Option<Layout>,
    /// Whether it has a layer that guesses further tokens and can be used.
    predicts: bool,
}

/// Our own reading of the file, which llama.cpp sees only when there is nothing to refuse.
fn check(path: &Path) -> Result<Checked, Failure> {
    let refuse = |error: &dyn std::fmt::Display, hint: Option<String>| Failure::Refused {
        path: path.to_owned(),
        message: error.to_string(),
        hint,
    };
    let gguf = Gguf::open(path).map_err(|error| refuse(&error, error.hint()))?;
    let warnings = nfl_models::preflight(&gguf).map_err(|error| {
        let message = format!("{}: {error}", path.display());
        refuse(&message, error.hint())
    })?;
    Ok(Checked {
        files: gguf.files().map(|file| file.canonicalize().unwrap_or(file.to_owned())).collect(),
        warnings: warnings.iter().map(ToString::to_string).collect(),
        layout: Layout::of(&gguf),
        predicts: prediction::find(&gguf).is_ok(),
        gguf,
    })
}

/// The file to load: of a split model the first, by its own name, from which llama.cpp derives the others.
fn first_file(gguf: &Gguf, path: &Path) -> PathBuf {
    gguf.files().next().unwrap_or(path).to_owned()
}

fn open_scheduler(
    model: &Arc<Model>,
    request: &LoadRequest,
    inbox: &Arc<Mutex<Inbox>>,
    reader: Option<ExpertReader>,
) -> Result<Scheduler, Failure> {
    let context_tokens = request.context.context_for(model.context_trained_tokens())?;
    let abort = AbortFlag::default();
    let observer = reader.map(|reader| Box::new(reader) as Box<dyn Observer>);
    let mut context =
        Context::new(model, &request.context, context_tokens, Arc::clone(&abort), observer)?;
    let reader = context.observer().and_then(|one| one.as_any().downcast_mut::<ExpertReader>());
    if let Some(reader) = reader {
        reader.fill(FILL_LIMIT);
    }
    let watched = Arc::clone(inbox);
    context.set_watch(Box::new(move || lock(&watched).is_pointless()));
    let batch_invariant = request.context.batch_invariant;
    if batch_invariant && !context.can_be_steady() {
        let message = "replies that do not depend on the batch: only where the CPU alone computes";
        return Err(Failure::Load(message.to_owned()));
    }
    let scheduler = Scheduler::new(context, abort, request.context.queue_max as usize)
        .with_batch_invariance(batch_invariant);
    Ok(match &request.draft {
        Some(draft) => scheduler.with_draft(open_draft(draft, model, context_tokens)?),
        None => scheduler,
    })
}

/// The model that guesses, in a context as large as the other's.
fn open_draft(
    request: &DraftRequest,
    model: &Arc<Model>,
    context_tokens: u32,
) -> Result<DraftModel, Failure> {
    let path = &request.path;
    let first = first_file(&check(path)?.gguf, path);
    let own = ModelOptions { prediction: false, ..request.model.clone() };
    let draft = Model::load(Backend::get(), &first, &own, &mut |_| true)?;
    let options = ContextOptions { sequences: 1, ..request.context.clone() };
    let context = Context::new(&draft, &options, context_tokens, AbortFlag::default(), None)?;
    DraftModel::new(context, &model.vocabulary()).map_err(|error| Failure::Refused {
        path: path.clone(),
        message: format!("{}: {error}", path.display()),
        hint: Some(
            "a draft model must be of the same family: same vocabulary, token by token".to_owned(),
        ),
    })
}

/// The model's own layer that guesses further tokens, in a context as large as the model's.
fn open_prediction(model: &Arc<Model>, request: &LoadRequest) -> Result<PredictionLayer, Failure> {
    let context_tokens = request.context.context_for(model.context_trained_tokens())?;
    let abort = AbortFlag::default();
    let context = Context::of_prediction(model, &request.context, context_tokens, abort)?;
    Ok(PredictionLayer::new(context))
}

/// The saved states of this model; a folder that cannot be used costs time, not the model.
fn open_states(request: &LoadRequest) -> Result<Option<States>, String> {
    let Some(options) = &request.states else { return Ok(None) };
    let told = |error: &dyn std::fmt::Display| format!("saved states are not used: {error}");
    let gguf = Gguf::open(&request.path).map_err(|error| told(&error))?;
    let fingerprint = fingerprint(&gguf, &request.context);
    States::open(options, fingerprint).map(Some).map_err(|error| told(&error))
}

/// What a state depends on: the model, by its list of tensors and samples of each, and how the cache
/// is laid out. llama.cpp's own format changes with its version.
fn fingerprint(gguf: &Gguf, context: &ContextOptions) -> Fingerprint {
    let mut hash = Sha256::new();
    hash.update(env!("CARGO_PKG_VERSION"));
    let layout = (context.key_type, context.value_type, context.flash_attention);
    hash.update(format!("{layout:?}"));
    // The cache knows tokens by their numbers, not by their texts.
    for (key, value) in gguf.metadata().iter().filter(|(key, _)| !key.starts_with("tokenizer.")) {
        hash.update(format!("{key} {value:?}"));
    }
    for tensor in gguf.tensors() {
        let data = gguf.data(tensor);
        hash.update(format!("{} {:?} {}", tensor.name, tensor.dimensions, tensor.tensor_type));
        for start in [0, data.len() / 2] {
            hash.update(&data[start..data.len().min(start + SAMPLE_BYTES)]);
        }
    }
    hash.finalize().into()
}

fn account(loaded: &Loaded, request: &LoadRequest, load_ms: f64) -> LoadInfo {
    let vocabulary = &loaded.vocabulary;
    let model = vocabulary.model();
    let special = |token: Option<Token>| {
        let id = token?;
        let bytes = vocabulary.pieces(&[id], true).ok()?;
        Some(SpecialToken { id, text: String::from_utf8_lossy(&bytes).into_owned() })
    };
    let context = loaded.scheduler.as_ref();
    let context = context.map_or(0, |scheduler| scheduler.context().context_tokens());
    LoadInfo {
        architecture: model.metadata("general.architecture").unwrap_or_default(),
        description: model.description(),
        parameters: model.parameters(),
        weights_bytes: model.weights_bytes(),
        blocks: model.blocks(),
        context_tokens: context as u32,
        embedding_tokens: loaded.reader.as_ref().map_or(0, Reader::limit_tokens) as u32,
        pooling: loaded.reader.as_ref().and_then(|reader| reader.abilities().pooling),
        embedding_length: model.embedding_length() as u32,
        context_trained_tokens: model.context_trained_tokens(),
        vocabulary_tokens: vocabulary.len() as u32,
        begin: special(vocabulary.begin()),
        end: special(vocabulary.end()),
        end_of_turn: special(vocabulary.end_of_turn()),
        adds_begin: vocabulary.adds_begin(),
        control: vocabulary
            .control()
            .into_iter()
            .filter_map(|token| special(Some(token)))
            .collect(),
        threads: request.context.threads,
        load_ms,
        memory: loaded.memory(),
        devices: device_infos(),
        cage: CageInfo::default(),
        placement: Vec::new(),
        warnings: Vec::new(),
        notes: Vec::new(),
    }
}

fn device_infos() -> Vec<DeviceInfo> {
    devices(Backend::get())
        .into_iter()
        .map(|device| DeviceInfo {
            name: device.name,
            description: device.description,
            is_gpu: device.kind == DeviceKind::Gpu,
            memory_bytes: device.memory_bytes,
            memory_free_bytes: device.memory_free_bytes,
        })
        .collect()
}

/// The lines in which llama.cpp says where it put what, without the name of its function in front.
fn placement(lines: &[Line]) -> Vec<String> {
    let tells = |line: &&Line| {
        line.level == LogLevel::Info
            && (line.text.contains("buffer size") || line.text.contains("offloaded "))
    };
    let short = |line: &Line| line.message().split_whitespace().collect::<Vec<_>>().join(" ");
    lines.iter().filter(tells).map(short).take(LINES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_context_goes_beyond_learned_positions() {
        let asking =
            |context_tokens| ContextOptions { context_tokens, ..ContextOptions::with_threads(1) };
        let given = |asked, positions| {
            within_positions(&asking(asked), positions, 1024, false)
                .map(|options| options.context_tokens)
        };
        // As every model whose positions are computed.
        assert_eq!(given(Some(4096), None), Ok(Some(4096)));
        assert_eq!(given(None, None), Ok(None));
        assert_eq!(given(None, Some(1024)), Ok(Some(1024)));
        assert_eq!(given(None, Some(512)), Ok(Some(512)));
        assert_eq!(given(Some(100), Some(512)), Ok(Some(100)));
        let refused = given(Some(4096), Some(1024)).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "context: 4096 tokens asked, 1024 is the most for a model trained on 1024"
        );
    }
}
