//! Thousands of small changes to a good header: ours and the `safetensors` crate's reader must
//! agree on each, except where ours is stricter by design.

use nfl_converters::checkpoint::{HeaderError, parse_header};
use safetensors::SafeTensors;

use crate::checkpoint_support::safetensors;

/// How many random changes are tried after the systematic ones.
const RANDOM_CHANGES: u64 = 60_000;

fn good() -> Vec<u8> {
    let header = concat!(
        r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"#,
        r#""data_offsets":[0,24]},"b.c":{"dtype":"BF16","shape":[8],"data_offsets":[24,40]},"#,
        r#""e":{"dtype":"I64","shape":[],"data_offsets":[40,48]},"#,
        r#""f":{"dtype":"F8_E4M3","shape":[0,7],"data_offsets":[48,48]}}  "#
    );
    safetensors(header, &(0..48).collect::<Vec<u8>>())
}

/// Whether both readers accept or refuse, and accept the same.
fn check(bytes: &[u8]) -> bool {
    let ours = parse_header(bytes);
    let theirs = SafeTensors::read_metadata(bytes);
    match (ours, theirs) {
        (Ok(ours), Ok((length, theirs))) => {
            assert_eq!(ours.data_start, length as u64 + 8);
            assert_eq!(ours.tensors.len(), theirs.tensors().len());
            for tensor in ours.tensors {
                let info = theirs.info(&tensor.name).unwrap();
                let shape: Vec<u64> = info.shape.iter().map(|&n| n as u64).collect();
                let offsets = (tensor.range.start as usize, tensor.range.end as usize);
                assert_eq!((tensor.dtype, tensor.shape), (info.dtype, shape));
                assert_eq!(offsets, info.data_offsets);
            }
            true
        }
        // Stricter by design: equal names, and limits that the crate does not have.
        (Err(_), Err(_)) | (Err(HeaderError::NameTwice { .. }), Ok(_)) => false,
        (Err(HeaderError::Json(error)), Ok(_)) if error.to_string().contains("8 dimensions") => {
            false
        }
        (ours, theirs) => {
            let text = String::from_utf8_lossy(bytes);
            panic!("ours {ours:?}, theirs {theirs:?}: {text}")
        }
    }
}

#[test]
fn every_byte_of_a_header_changed() {
    let good = good();
    assert!(check(&good));
    let mut accepted = 0;
    for place in 0..good.len() - 48 {
        for value in 0..=u8::MAX {
            let mut bytes = good.clone();
            bytes[place] = value;
            accepted += u64::from(check(&bytes));
        }
        let mut bytes = good.clone();
        bytes.remove(place);
        accepted += u64::from(check(&bytes));
        let mut bytes = good.clone();
        bytes.insert(place, b'0');
        accepted += u64::from(check(&bytes));
        check(&good[..place]);
    }
    // Names, the metadata and spaces may change freely; nothing else.
    assert!(accepted > 1000, "{accepted}");
}

#[test]
fn random_changes_to_a_header() {
    let good = good();
    let mut state = 1_u64;
    let mut random = |below: usize| {
        // xorshift64 (Marsaglia 2003): any spread will do here.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let words: [&[u8]; 12] = [
        b"0",
        b"-1",
        b"18446744073709551615",
        b"[",
        b"]",
        b"{",
        b"}",
        b"\"",
        b",",
        b"\"data_offsets\":[0,24]",
        b"null",
        b"\\u0000",
    ];
    for _ in 0..RANDOM_CHANGES {
        let mut bytes = good.clone();
        for _ in 0..=random(3) {
            let place = 8 + random(bytes.len() - 8);
            match random(4) {
                0 => bytes[place] ^= 1 << random(8),
                1 => {
                    let end = bytes.len().min(place + random(20));
                    bytes.drain(place..end);
                }
                2 => {
                    let word = words[random(words.len())];
                    bytes.splice(place..place, word.iter().copied());
                }
                _ => {
                    let from = 8 + random(bytes.len() - 8);
                    let piece = bytes[from..bytes.len().min(from + random(40))].to_vec();
                    bytes.splice(place..place, piece);
                }
            }
            if bytes.len() <= 9 {
                break;
            }
        }
        // Half of them keep a length that fits, so that the change reaches the JSON.
        if random(2) == 0 && bytes.len() > 56 {
            let length = bytes.len() as u64 - 56;
            bytes[..8].copy_from_slice(&length.to_le_bytes());
        }
        check(&bytes);
    }
}
