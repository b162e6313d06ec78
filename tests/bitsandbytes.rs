//! Numbers of few bits against bitsandbytes (`tests/golden/bitsandbytes.py`), bit for bit: NF4 with double quantisation.

use std::fs;
use std::path::Path;

use nfl::store::Digest;
use nfl::training::eight_bits::{SIGNED, UNSIGNED};
use nfl::training::nf4::Nf4;
use serde_json::Value;

fn judge() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/bitsandbytes.json");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The formula of the script: from −1 to 1, of all magnitudes down to 2⁻¹².
fn numbers(seed: u64, count: usize) -> Vec<f32> {
    let number = |place: u64| {
        let spread = ((place + 1) * (7919 + 2 * seed) * 104_729 % 65_521) as f32;
        (spread / 32_760.5 - 1.0) * 2f32.powi(-((place / 7 % 13) as i32))
    };
    (0..count as u64).map(number).collect()
}

fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).hex()
}

fn digest_f32(numbers: &[f32]) -> String {
    digest(&numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>())
}

#[test]
fn nf4_is_bit_for_bit_that_of_bitsandbytes() {
    let judge = judge();
    assert_eq!(judge["signed"], digest_f32(SIGNED.values()));
    assert_eq!(judge["unsigned"], digest_f32(UNSIGNED.values()));
    for (seed, expected) in (0..).zip(judge["nf4"].as_array().unwrap()) {
        let shape: [usize; 2] = serde_json::from_value(expected["shape"].clone()).unwrap();
        let count = shape[0] * shape[1];
        let nf4 = Nf4::quantize(&numbers(seed, count));
        assert_eq!(expected["packed"], digest(nf4.packed()), "{seed}: weights");
        assert_eq!(expected["offset"].as_f64(), Some(f64::from(nf4.offset())), "{seed}: mean");
        assert_eq!(expected["codes"], digest(&nf4.scales().codes), "{seed}: scales");
        assert_eq!(expected["scales"], digest_f32(&nf4.scales().scales), "{seed}: their scales");
        let mut back = vec![0.0; count];
        nf4.read(0, &mut back);
        assert_eq!(expected["dequantized"], digest_f32(&back), "{seed}: dense again");
    }
}
