//! The footprint of real and small models.

use nfl_models::gguf::{Gguf, Header};
use nfl_models::{Footprint, Role, Shape, TensorType};

use crate::builder::{material, small_llama, write};

#[test]
fn weights_and_cache_of_a_real_mixture() {
    let Some(material) = material() else { return };
    let path = material.join("oracle/stories260K-mixtral-4x-top2-Q8_0.gguf");
    let gguf = Gguf::open(&path).unwrap();
    let footprint = Footprint::of(&gguf).unwrap();
    let all: u64 = gguf.tensors().iter().map(|tensor| gguf.data(tensor).len() as u64).sum();
    assert_eq!(footprint.weights_bytes(), all);
    let experts = footprint.experts_bytes();
    assert!(experts > all / 2 && experts < all);
    // 5 blocks × 4 heads × 8 numbers, keys and values, two bytes each.
    let cache = footprint.kv_bytes_per_token(TensorType::F16, TensorType::F16);
    assert_eq!(cache, Some(5 * 4 * 8 * 2 * 2));
    // A head of 8 does not divide into blocks of 32.
    assert_eq!(footprint.kv_bytes_per_token(TensorType::Q8_0, TensorType::F16), None);
    let total = footprint.total_bytes(300, TensorType::F16, TensorType::F16);
    assert_eq!(total, Some(all + 512 * 640));
    let row = footprint.role_bytes(Role::TokenEmbedding) / 512;
    let read = all - footprint.role_bytes(Role::TokenEmbedding) + row - experts / 2;
    assert_eq!(footprint.bytes_per_token(), read);
}

#[test]
fn blocks_and_roles_add_up() {
    for experts in [0, 4] {
        let (metadata, tensors) = small_llama(experts);
        let header = Header::parse(&write(&metadata, &tensors)).unwrap();
        let shape = Shape::from_header(&header.metadata, &header.tensors).unwrap();
        let footprint = Footprint::new(shape, &header.tensors);
        let of_model = [Role::TokenEmbedding, Role::Output, Role::OutputNorm];
        let outside: u64 = of_model.iter().map(|role| footprint.role_bytes(*role)).sum();
        let blocks = footprint.block_bytes(0) + footprint.block_bytes(1);
        assert_eq!(outside + blocks, footprint.weights_bytes());
        assert_eq!(footprint.experts_bytes() > 0, experts > 0);
    }
}
