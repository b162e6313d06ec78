//! Random weights by position: the value of element `i` depends on the seed, the tensor and `i`.
//!
//! SplitMix64 (Steele, Lea, Flood 2014, <https://doi.org/10.1145/2660193.2660195>) is a counter
//! followed by a hash, so any piece of a tensor can be made on any thread. The sum of four 16-bit
//! parts of one output is close enough to a normal distribution (kurtosis 2.7 instead of 3, no
//! value beyond 3.46 deviations) and costs a few additions where the exact methods need logarithms.

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::WeightType;

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
/// Mean of the sum of four numbers of 0 to 65535.
const SUM_MEAN: i32 = 2 * 0xFFFF;
/// Standard deviation of that sum: each part is uniform over 2^16 values, variance (2^32 - 1) / 12.
const SUM_DEVIATION: f32 = 37_837.227;
/// Elements that are made at a time, on the stack.
const PIECE: usize = 512;

/// The stream of random numbers of one tensor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream {
    key: u64,
}

impl Stream {
    pub(super) fn new(seed: u64, name: &str) -> Self {
        // FNV-1a over the name, then the hash of SplitMix64 over both, so that near seeds differ.
        let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
        });
        Self { key: mix(mix(seed.wrapping_add(GOLDEN)) ^ hash) }
    }

    /// Fills `target` with values of the given standard deviation, `start` being the first
    /// element's index in the tensor.
    pub(super) fn fill(self, start: u64, deviation: f32, target: &mut [f32]) {
        let scale = deviation / SUM_DEVIATION;
        let mut state = self.key.wrapping_add(start.wrapping_mul(GOLDEN));
        for value in target {
            state = state.wrapping_add(GOLDEN);
            *value = (sum_of_parts(mix(state)) - SUM_MEAN) as f32 * scale;
        }
    }
}

fn mix(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The sum of the four 16-bit parts of `z`.
fn sum_of_parts(z: u64) -> i32 {
    const EVEN: u64 = 0x0000_FFFF_0000_FFFF;
    let pairs = (z & EVEN) + ((z >> 16) & EVEN);
    (pairs as u32 + (pairs >> 32) as u32) as i32
}

/// Writes the elements `start..` of a tensor into `target`, as many as fit: random ones, or all
/// equal to 1 without a deviation.
pub(super) fn encode(
    stream: Stream,
    deviation: Option<f32>,
    start: u64,
    weight_type: WeightType,
    target: &mut [u8],
) {
    let width = weight_type.bytes() as usize;
    let mut values = [1.0; PIECE];
    for (number, bytes) in target.chunks_mut(PIECE * width).enumerate() {
        let values = &mut values[..bytes.len() / width];
        if let Some(deviation) = deviation {
            stream.fill(start + (number * PIECE) as u64, deviation, values);
        }
        match weight_type {
            WeightType::F32 => each(values, bytes, f32::to_le_bytes),
            WeightType::BF16 => each(values, bytes, bf16_bytes),
            WeightType::F16 => {
                let mut halves = [f16::ZERO; PIECE];
                let halves = &mut halves[..values.len()];
                halves.convert_from_f32_slice(values);
                for (target, half) in bytes.as_chunks_mut::<2>().0.iter_mut().zip(halves) {
                    *target = half.to_le_bytes();
                }
            }
        }
    }
}

fn each<const N: usize>(source: &[f32], target: &mut [u8], bytes: impl Fn(f32) -> [u8; N]) {
    for (target, &value) in target.as_chunks_mut::<N>().0.iter_mut().zip(source) {
        *target = bytes(value);
    }
}

/// Rounds to the nearest, ties to even; the value is finite and far from the largest.
fn bf16_bytes(value: f32) -> [u8; 2] {
    let bits = value.to_bits();
    let rounded = bits + 0x7FFF + ((bits >> 16) & 1);
    ((rounded >> 16) as u16).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mix_is_splitmix64() {
        // The first outputs of the reference implementation for the seed 1234567.
        let expected: [u64; 5] = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        for (number, expected) in (1..).zip(expected) {
            assert_eq!(mix(1_234_567_u64.wrapping_add(GOLDEN.wrapping_mul(number))), expected);
        }
    }

    #[test]
    fn values_have_the_mean_and_deviation_asked_for() {
        let mut values = vec![0.0; 1 << 20];
        Stream::new(7, "w").fill(0, 0.02, &mut values);
        let count = values.len() as f64;
        let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
        let square = values.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>();
        let deviation = (square / count).sqrt();
        // Five standard errors: 0.02 / 1024 of the mean, about 0.02 / 1024 / sqrt(2) of the other.
        assert!(mean.abs() < 1e-4, "{mean}");
        assert!((deviation - 0.02).abs() < 7e-5, "{deviation}");
    }

    #[test]
    fn a_piece_equals_its_part_of_the_whole() {
        let stream = Stream::new(1, "model.embed_tokens.weight");
        for weight_type in [WeightType::F32, WeightType::F16, WeightType::BF16] {
            let width = weight_type.bytes() as usize;
            let mut whole = vec![0; 5000 * width];
            encode(stream, Some(0.5), 0, weight_type, &mut whole);
            for start in [0_usize, 1, 511, 512, 3000] {
                let mut piece = vec![0; 1500 * width];
                encode(stream, Some(0.5), start as u64, weight_type, &mut piece);
                assert_eq!(piece, whole[start * width..][..1500 * width], "{start}");
            }
        }
    }

    #[test]
    fn types_are_rounded_as_the_half_crate_does() {
        let stream = Stream::new(3, "x");
        let mut values = [0.0; 4096];
        stream.fill(0, 1.0, &mut values);
        let mut bytes = [0; 8192];
        encode(stream, Some(1.0), 0, WeightType::BF16, &mut bytes);
        for (bytes, value) in bytes.as_chunks::<2>().0.iter().zip(values) {
            assert_eq!(u16::from_le_bytes(*bytes), half::bf16::from_f32(value).to_bits());
        }
        encode(stream, Some(1.0), 0, WeightType::F16, &mut bytes);
        for (bytes, value) in bytes.as_chunks::<2>().0.iter().zip(values) {
            assert_eq!(u16::from_le_bytes(*bytes), f16::from_f32(value).to_bits());
        }
    }
}
