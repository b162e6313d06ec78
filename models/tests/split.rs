//! Models in several files: opened as one, or refused with the reason.

use std::path::{Path, PathBuf};

use nfl_models::gguf::{Gguf, Metadata, Options, TensorPlan, Writer};
use nfl_models::{Hint, TensorType};

use crate::builder::material;

/// What one shard is written with.
struct Shard {
    number: u16,
    count: u16,
    tensors_total: i32,
    tensors: Vec<&'static str>,
    name: &'static str,
}

fn write_shard(path: &Path, shard: &Shard) {
    let mut metadata = Metadata::new();
    metadata.set("general.name", shard.name);
    metadata.set("split.no", shard.number);
    metadata.set("split.tensors.count", shard.tensors_total);
    metadata.set("split.count", shard.count);
    let plans = shard.tensors.iter().map(|name| TensorPlan {
        name: (*name).to_owned(),
        dimensions: vec![8],
        tensor_type: TensorType::F32,
    });
    let options = Options { pad_without_tensors: true, ..Options::default() };
    let file = std::fs::File::create(path).unwrap();
    let mut writer = Writer::with_options(file, &metadata, plans.collect(), options).unwrap();
    for _ in &shard.tensors {
        writer.write(&[shard.number as u8; 32]).unwrap();
        writer.finish_tensor().unwrap();
    }
    writer.finish().unwrap();
}

/// Three good shards, changed by the test before they are written.
fn open(change: impl FnOnce(&mut [Shard; 3])) -> (tempfile::TempDir, Vec<PathBuf>) {
    let folder = tempfile::tempdir().unwrap();
    let shard =
        |number, tensors| Shard { number, count: 3, tensors_total: 4, tensors, name: "one" };
    let mut shards = [shard(0, vec![]), shard(1, vec!["a", "b"]), shard(2, vec!["c", "d"])];
    change(&mut shards);
    let mut paths = Vec::new();
    for (index, shard) in shards.iter().enumerate() {
        let path = folder.path().join(format!("m-0000{}-of-00003.gguf", index + 1));
        write_shard(&path, shard);
        paths.push(path);
    }
    (folder, paths)
}

fn error_of(change: impl FnOnce(&mut [Shard; 3])) -> String {
    let (_folder, paths) = open(change);
    let error = Gguf::open(&paths[0]).unwrap_err();
    assert!(error.hint().is_some());
    error.to_string()
}

#[test]
fn any_shard_opens_the_whole_model() {
    let (_folder, paths) = open(|_| ());
    for path in &paths {
        let model = Gguf::open(path).unwrap();
        let names: Vec<&str> = model.tensors().iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
        assert_eq!(model.files().collect::<Vec<_>>(), paths);
        assert_eq!(model.metadata().u32("split.no"), Some(0));
        assert_eq!(model.data(model.tensor("d").unwrap()), [2; 32]);
        assert_eq!(model.tensor("b").unwrap().shard, 1);
    }
}

#[test]
fn shards_that_do_not_fit_are_refused() {
    let error = error_of(|shards| shards[1].number = 2);
    assert!(error.contains("split.no of") && error.contains("2 (1 expected)"), "{error}");
    let error = error_of(|shards| shards[1].count = 4);
    assert!(error.contains("split.count of"), "{error}");
    let error = error_of(|shards| shards[0].count = 2);
    assert!(error.contains("under another name"), "{error}");
    let error = error_of(|shards| shards[2].tensors_total = 5);
    assert!(error.contains("split.tensors.count of"), "{error}");
    let error = error_of(|shards| shards[2].tensors = vec!["c"]);
    assert!(error.contains("tensors in all shards: 3 (4 expected)"), "{error}");
    let error = error_of(|shards| shards[2].tensors = vec!["c", "a"]);
    assert!(error.contains("tensor a is in two shards"), "{error}");
    let error = error_of(|shards| shards[2].name = "another");
    assert!(error.contains("belongs to another model: it differs in general.name"), "{error}");
    let error = error_of(|shards| shards[1].count = 1);
    assert!(error.contains("split.count"), "{error}");
}

#[test]
fn a_missing_shard_is_named() {
    let (_folder, paths) = open(|_| ());
    std::fs::remove_file(&paths[1]).unwrap();
    let error = Gguf::open(&paths[2]).unwrap_err();
    assert!(error.to_string().contains("missing shard"), "{error}");
    assert!(error.to_string().contains("m-00002-of-00003.gguf"), "{error}");
}

#[test]
fn a_renamed_shard_is_refused() {
    let (folder, paths) = open(|_| ());
    let renamed = folder.path().join("model.gguf");
    std::fs::rename(&paths[0], &renamed).unwrap();
    let error = Gguf::open(&renamed).unwrap_err();
    assert!(error.to_string().contains("shard 1 of 3 under another name: model.gguf"), "{error}");
}

/// The name is the only thing that leads to other files, and they are beside it however it is
/// written.
#[test]
fn shards_are_looked_for_only_beside_each_other() {
    let (folder, paths) = open(|_| ());
    let below = folder.path().join("below");
    std::fs::create_dir(&below).unwrap();
    let round = below.join("..").join(paths[0].file_name().unwrap());
    assert_eq!(Gguf::open(&round).unwrap().tensors().len(), 4);
    std::fs::rename(&paths[0], below.join(paths[0].file_name().unwrap())).unwrap();
    let error = Gguf::open(&below.join(paths[0].file_name().unwrap())).unwrap_err();
    assert!(error.to_string().contains("missing shard"), "{error}");
}

/// A split that gguf-split wrote.
#[test]
fn a_real_split_opens_as_one() {
    let Some(material) = material() else { return };
    let folder = material.join("formats/gguf");
    let whole = Gguf::open(&folder.join("pkg_distribution_assets_dummy.gguf")).unwrap();
    let path = folder.join("pkg_distribution_assets_dummy-00001-of-00002.gguf");
    let split = Gguf::open(&path).unwrap();
    assert_eq!(split.files().len(), 2);
    assert_eq!(split.tensors().len(), whole.tensors().len());
    for (part, tensor) in split.tensors().iter().zip(whole.tensors()) {
        assert_eq!((&part.name, &part.dimensions), (&tensor.name, &tensor.dimensions));
        assert_eq!(split.data(part), whole.data(tensor));
    }
}
