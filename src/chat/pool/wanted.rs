//! What an ask comes to: the model's files, and everything that is wished of loading them.

use std::path::Path;
use std::time::UNIX_EPOCH;

use super::{Ask, PoolOptions};
use crate::chat::carried;
use crate::engine::embedding::Pooling;
use crate::engine::plan::Wishes;
use crate::store::{Capability, Kind, Manifest, Reference, Resolved, Store, StoreError};

use nfl_models::gguf::Gguf;

/// A model's files, held against collection until this is dropped.
#[derive(Debug)]
pub(super) struct Held {
    /// The files and what the model carries.
    pub(super) resolved: Resolved,
    store: Store,
}

/// An ask, looked up.
#[derive(Debug)]
pub(super) struct Wanted {
    /// The name, the same for all its spellings.
    pub(super) name: String,
    /// The files.
    pub(super) held: Held,
    /// How they are to be loaded.
    pub(super) way: Way,
}

/// A model and how it is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Way {
    /// What the worker reads: the same for names that differ in instructions and parameters only.
    pub(super) identity: String,
    /// Context, layers on GPUs and the like.
    pub(super) wishes: Wishes,
    /// Threads.
    pub(super) threads: Option<u32>,
    /// It reads texts and writes none.
    pub(super) reads: bool,
}

impl Wanted {
    /// Looks the model of an ask up.
    pub(super) fn of(ask: &Ask, store: Store, options: &PoolOptions) -> Result<Self, StoreError> {
        let resolved = store.resolve(&ask.name)?;
        let way = Way {
            identity: identity(&resolved),
            wishes: wishes(ask, &resolved, &options.wishes),
            threads: ask.threads,
            reads: ask.embeds && reads(&resolved),
        };
        Ok(Self { name: name_of(&ask.name), held: Held { resolved, store }, way })
    }
}

impl Held {
    /// Notes that the model is being used.
    pub(super) fn note_use(&self) {
        if let Some(manifest) = &self.resolved.manifest {
            self.store.note_use(&manifest.name);
        }
    }
}

/// A name without its differences of spelling; a path as it is.
pub(super) fn name_of(text: &str) -> String {
    text.parse::<Reference>().map_or_else(|_| text.to_owned(), |name| name.key())
}

/// What tells models apart for a worker. A file that was written anew is another one.
fn identity(resolved: &Resolved) -> String {
    let Some(manifest) = &resolved.manifest else { return identity_of_file(&resolved.model) };
    let read_by_worker = [Kind::Model, Kind::Projector, Kind::Adapter, Kind::Template];
    let layers = read_by_worker.into_iter().flat_map(|kind| manifest.layers_of(kind));
    let words: Vec<String> =
        layers.map(|layer| format!("{:?} {}", layer.kind, layer.digest)).collect();
    words.join(", ")
}

fn identity_of_file(file: &Path) -> String {
    let path = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    let metadata = path.metadata().ok();
    let bytes = metadata.as_ref().map_or(0, std::fs::Metadata::len);
    let changed = metadata.and_then(|metadata| metadata.modified().ok());
    let changed = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    format!("{} {bytes} {changed:?}", path.display())
}

/// Whether the model is made for reading: then it is loaded for nothing else when it is asked to read.
fn reads(resolved: &Resolved) -> bool {
    match &resolved.manifest {
        Some(Manifest { facts, .. }) => facts.capabilities.contains(&Capability::Embedding),
        None => Gguf::open(&resolved.model).is_ok_and(|gguf| Pooling::of(&gguf).is_some()),
    }
}

/// What was asked for, then what the model carries, then what holds for every model.
fn wishes(ask: &Ask, resolved: &Resolved, general: &Wishes) -> Wishes {
    let asked = &ask.wishes;
    let carried = carried::context_tokens(&resolved.parameters);
    Wishes {
        context_tokens: asked.context_tokens.or(carried).or(general.context_tokens),
        key_type: asked.key_type.or(general.key_type),
        value_type: asked.value_type.or(general.value_type),
        micro_batch_tokens: asked.micro_batch_tokens.or(general.micro_batch_tokens),
        sequences: if asked.sequences > 0 { asked.sequences } else { general.sequences },
        gpu_layers: asked.gpu_layers.or(general.gpu_layers),
        cpu_expert_blocks: asked.cpu_expert_blocks.or(general.cpu_expert_blocks),
        overrides: [&asked.overrides, &general.overrides]
            .into_iter()
            .find(|overrides| !overrides.is_empty())
            .cloned()
            .unwrap_or_default(),
        load_mode: asked.load_mode.or(general.load_mode),
        lock_memory: asked.lock_memory || general.lock_memory,
        repack: asked.repack.or(general.repack),
        no_fused_attention: asked.no_fused_attention || general.no_fused_attention,
    }
}

impl Way {
    /// Whether a model that was loaded this way, with this much room, does for another wish: what is left open is content
    /// with anything, but for a context that is shorter than the one it would have got.
    pub(super) fn suits(&self, asked: &Self, room: Room) -> bool {
        let (ours, theirs) = (&self.wishes, &asked.wishes);
        let context_suits = match theirs.context_tokens {
            Some(tokens) => tokens <= ours.context_tokens.unwrap_or(room.context_tokens),
            None => ours.context_tokens.is_none_or(|tokens| tokens >= room.unasked_tokens),
        };
        self.identity == asked.identity
            && (asked.reads || !self.reads)
            && context_suits
            && is_open_or(asked.threads, self.threads)
            && is_open_or(theirs.key_type, ours.key_type)
            && is_open_or(theirs.value_type, ours.value_type)
            && is_open_or(theirs.micro_batch_tokens, ours.micro_batch_tokens)
            && is_open_or(theirs.gpu_layers, ours.gpu_layers)
            && is_open_or(theirs.cpu_expert_blocks, ours.cpu_expert_blocks)
            && is_open_or(theirs.load_mode, ours.load_mode)
            && is_open_or(theirs.repack, ours.repack)
            && theirs.sequences <= ours.sequences.max(room.sequences)
            && (theirs.overrides.is_empty() || theirs.overrides == ours.overrides)
            && (!theirs.lock_memory || ours.lock_memory)
            && (!theirs.no_fused_attention || ours.no_fused_attention)
    }
}

fn is_open_or<T: PartialEq + Copy>(asked: Option<T>, loaded: Option<T>) -> bool {
    asked.is_none() || asked == loaded
}

/// What a loaded model has room for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Room {
    /// Tokens of one conversation.
    pub(super) context_tokens: u32,
    /// The tokens that one has when nobody asks.
    pub(super) unasked_tokens: u32,
    /// Conversations side by side.
    pub(super) sequences: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(context_tokens: Option<u32>) -> Way {
        let wishes = Wishes { context_tokens, ..Wishes::default() };
        Way { identity: "x".to_owned(), wishes, threads: None, reads: false }
    }

    #[test]
    fn a_larger_context_does_for_a_smaller_one_and_a_short_one_for_none_that_is_left_open() {
        let room = Room { context_tokens: 8192, unasked_tokens: 8192, sequences: 4 };
        for (loaded, asked, suits) in [
            (None, None, true),
            (None, Some(8192), true),
            (None, Some(100), true),
            (None, Some(8193), false),
            (Some(16_384), Some(9000), true),
            (Some(16_384), None, true),
            (Some(2048), None, false),
            (Some(2048), Some(2049), false),
        ] {
            assert_eq!(way(loaded).suits(&way(asked), room), suits, "{loaded:?} {asked:?}");
        }
    }

    #[test]
    fn what_is_asked_must_be_so_and_what_is_open_may_be_anything() {
        let room = Room { context_tokens: 8192, ..Room::default() };
        let open = way(None);
        let asked = Way { threads: Some(3), ..way(None) };
        assert!(asked.suits(&open, room) && !open.suits(&asked, room));
        let wishes = Wishes { gpu_layers: Some(0), ..Wishes::default() };
        let asked = Way { wishes, ..way(None) };
        assert!(asked.suits(&open, room) && !open.suits(&asked, room));
        let reader = Way { reads: true, ..way(None) };
        assert!(open.suits(&reader, room), "a model that writes can read");
        assert!(!reader.suits(&open, room));
        let other = Way { identity: "y".to_owned(), ..way(None) };
        assert!(!open.suits(&other, room));
    }

    #[test]
    fn the_nearest_wish_counts() {
        let mut resolved = Resolved::default();
        let general = Wishes { context_tokens: Some(1), gpu_layers: Some(7), ..Wishes::default() };
        let mut ask = Ask::new("x");
        assert_eq!(wishes(&ask, &resolved, &general), general);
        resolved.parameters.set("num_ctx", "2").unwrap();
        assert_eq!(wishes(&ask, &resolved, &general).context_tokens, Some(2));
        ask.wishes.context_tokens = Some(3);
        let found = wishes(&ask, &resolved, &general);
        assert_eq!((found.context_tokens, found.gpu_layers), (Some(3), Some(7)));
    }

    #[test]
    fn names_are_the_same_however_they_are_spelt() {
        assert_eq!(name_of("Qwen3"), name_of("qwen3:latest"));
        assert_ne!(name_of("qwen3"), name_of("qwen3:8b"));
        assert_eq!(name_of("/a/B.gguf"), "/a/B.gguf");
    }
}
