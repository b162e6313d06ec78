//! Any bytes as a safetensors file: what our reader accepts, the `safetensors` crate accepts as
//! the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nfl_converters::checkpoint::{HeaderError, parse_header};
use nfl_models::Hint;
use safetensors::SafeTensors;

fuzz_target!(|bytes: &[u8]| {
    let theirs = SafeTensors::read_metadata(bytes);
    let header = match parse_header(bytes) {
        Ok(header) => header,
        Err(error) => {
            assert!(error.hint().is_some());
            // Ours is stricter only in equal names and in limits, which are errors of the JSON.
            let is_stricter = matches!(error, HeaderError::NameTwice { .. } | HeaderError::Json(_));
            assert!(theirs.is_err() || is_stricter, "{error}");
            return;
        }
    };
    let data = &bytes[header.data_start as usize..];
    for tensor in &header.tensors {
        let range = tensor.range.start as usize..tensor.range.end as usize;
        std::hint::black_box(data[range].iter().fold(0_u8, |sum, byte| sum ^ byte));
    }
    // Entries that nobody knows are skipped without a look inside: theirs may find fault in them.
    let Ok((length, theirs)) = theirs else { return };
    assert_eq!(header.data_start, length as u64 + 8);
    for tensor in &header.tensors {
        let info = theirs.info(&tensor.name).expect("both accept the file");
        let shape: Vec<u64> = info.shape.iter().map(|&length| length as u64).collect();
        let offsets = (tensor.range.start as usize, tensor.range.end as usize);
        assert_eq!((tensor.dtype, &tensor.shape), (info.dtype, &shape));
        assert_eq!(offsets, info.data_offsets);
    }
});
