//! Any bytes as a GGUF file: parsed, checked, every tensor's range touched, and written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nfl_models::gguf::{Header, TensorInfo, TensorPlan, Writer};
use nfl_models::{Footprint, Shape, TensorType, check_inventory, preflight};

fuzz_target!(|bytes: &[u8]| {
    let Ok(header) = Header::parse(bytes) else { return };
    let _ = preflight::check(&header.metadata, &header.tensors);
    for tensor in &header.tensors {
        let start = (header.data_offset + tensor.offset) as usize;
        let data = &bytes[start..start + tensor.bytes() as usize];
        std::hint::black_box(data.iter().fold(0_u8, |sum, byte| sum ^ byte));
        assert!(tensor.elements() == tensor.rows() * tensor.row_elements());
    }
    if let Ok(shape) = Shape::from_header(&header.metadata, &header.tensors) {
        let _ = check_inventory(&shape, &header.tensors);
        let footprint = Footprint::new(shape, &header.tensors);
        std::hint::black_box(footprint.bytes_per_token());
        let _ = footprint.total_bytes(u64::MAX, TensorType::F16, TensorType::Q8_0);
    }
    // What was read can be written, and is then read as the same.
    let written = head_of(&header);
    let reread = Header::parse_prefix(&written, u64::MAX >> 1).expect("the writer asserts this");
    assert!(head_of(&reread) == written);
});

/// The head that the writer makes of a file that was read.
fn head_of(header: &Header) -> Vec<u8> {
    let plan = |tensor: &TensorInfo| TensorPlan {
        name: tensor.name.clone(),
        dimensions: tensor.dimensions.clone(),
        tensor_type: tensor.tensor_type,
    };
    let plans = header.tensors.iter().map(plan).collect();
    let mut bytes = Vec::new();
    Writer::new(&mut bytes, &header.metadata, plans).expect("what was read can be written");
    bytes
}
