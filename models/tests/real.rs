//! Real files: written again byte for byte, and their shape, inventory and footprint told rightly.

use std::path::Path;

use nfl_models::gguf::{Gguf, Header, Options, TensorPlan, Writer};
use nfl_models::{Level, Role, Shape, TensorType, check_inventory, preflight};

use crate::builder::{material, material_files};

/// Reads one file and writes it again.
fn rewrite(bytes: &[u8]) -> Vec<u8> {
    let header = Header::parse(bytes).unwrap();
    let plans = header.tensors.iter().map(|tensor| TensorPlan {
        name: tensor.name.clone(),
        dimensions: tensor.dimensions.clone(),
        tensor_type: tensor.tensor_type,
    });
    let options = Options {
        version: header.version,
        pad_without_tensors: header.data_offset < bytes.len() as u64,
    };
    let mut writer =
        Writer::with_options(Vec::new(), &header.metadata, plans.collect(), options).unwrap();
    assert_eq!(writer.total_bytes(), bytes.len() as u64);
    for tensor in &header.tensors {
        let start = (header.data_offset + tensor.offset) as usize;
        // In pieces, as a converter would.
        for piece in bytes[start..start + tensor.bytes() as usize].chunks(1000) {
            writer.write(piece).unwrap();
        }
        writer.finish_tensor().unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn real_files_are_written_again_byte_for_byte() {
    for path in material_files() {
        let bytes = std::fs::read(&path).unwrap();
        assert!(rewrite(&bytes) == bytes, "{}", path.display());
    }
}

#[test]
fn real_models_pass_the_check_and_fit_their_inventory() {
    for path in material_files() {
        let gguf = Gguf::open(&path).unwrap();
        if gguf.metadata().architecture().is_none() {
            assert!(preflight(&gguf).is_err(), "{}", path.display());
            continue;
        }
        let warnings =
            preflight(&gguf).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(warnings.is_empty(), "{}: {warnings:?}", path.display());
        if gguf.metadata().architecture() == Some("llama") && !gguf.tensors().is_empty() {
            let shape = Shape::of(&gguf).unwrap();
            check_inventory(&shape, gguf.tensors()).unwrap();
            assert_eq!((shape.blocks, shape.embedding, shape.vocabulary), (5, 64, 512));
            assert_eq!((shape.heads, shape.heads_kv, shape.key_length), (8, 4, 8));
        }
    }
}

#[test]
fn the_mixture_has_experts() {
    let Some(material) = material() else { return };
    let path =
        material.join("oracle/convert_hf_to_gguf/ref-stories260K-hf-mixtral-4x-top2-f32.gguf");
    let gguf = Gguf::open(&path).unwrap();
    let shape = Shape::of(&gguf).unwrap();
    assert_eq!((shape.experts, shape.experts_used), (4, 2));
    let router = gguf.tensor("blk.4.ffn_gate_inp.weight").unwrap();
    assert_eq!(router.dimensions, [64, 4]);
    assert_eq!(Role::of_name(&router.name), (Role::Router, Some(4)));
    let mut tensors = gguf.tensors().to_vec();
    tensors.retain(|tensor| tensor.name != "blk.2.ffn_up_exps.weight");
    tensors[0].name = "blk.0.ffn_gate.0.weight".to_owned();
    let error = check_inventory(&shape, &tensors).unwrap_err();
    assert_eq!(error.missing, ["blk.2.ffn_up_exps.weight", "output.weight"]);
    assert_eq!(error.unexpected, ["blk.0.ffn_gate.0.weight"]);
}

/// `general.file_type`, which llama-quantize writes, names the level in each file's name.
#[test]
fn levels_have_llama_cpps_numbers() {
    for path in material_files() {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let Some((_, level)) = name.rsplit_once('-') else { continue };
        let Ok(level) = level.parse::<Level>() else { continue };
        let gguf = Gguf::open(Path::new(&path)).unwrap();
        let Some(file_type) = gguf.metadata().u32("general.file_type") else { continue };
        assert_eq!(Level::from_file_type(file_type), Some(level), "{name}");
    }
}

#[test]
fn every_type_of_the_real_files_has_the_right_size() {
    let mut seen = std::collections::BTreeSet::new();
    for path in material_files() {
        let gguf = Gguf::open(&path).unwrap();
        // The reader has shown that each tensor ends where the next begins: sizes are right.
        seen.extend(gguf.tensors().iter().map(|tensor| tensor.tensor_type));
    }
    if !seen.is_empty() {
        for each in [
            TensorType::F16,
            TensorType::BF16,
            TensorType::Q4_0,
            TensorType::Q8_0,
            TensorType::Q4_K,
        ] {
            assert!(seen.contains(&each), "{each} in no real file");
        }
    }
}
