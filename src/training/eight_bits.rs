//! Numbers of 8 bits that share a scale in blocks of 256, bit for bit as bitsandbytes 0.50 has them on a processor.
//!
//! The 256 values are dynamic (Dettmers 2015, arXiv:1511.04561): a number tells by its leading zeros how small it is, and
//! what bits are left divide that decade. A value is looked up by its place on a grid of 65,536 from −1 to 1
//! (`norm_to_lut_index` in csrc/cpu_ops.cpp), so that what lies below half a step of the grid is taken for zero's place.

use std::sync::LazyLock;

/// Numbers that share a scale.
pub const BLOCK: usize = 256;

/// Places of the grid.
const GRID: usize = 1 << 16;

/// The values that a byte stands for, in rising order, and the byte for each place of the grid.
#[derive(Debug)]
pub struct Codebook {
    values: [f32; 256],
    nearest: Vec<u8>,
}

/// For numbers of either sign.
pub static SIGNED: LazyLock<Codebook> = LazyLock::new(|| Codebook::dynamic(true));

/// For numbers that are never negative.
pub static UNSIGNED: LazyLock<Codebook> = LazyLock::new(|| Codebook::dynamic(false));

impl Codebook {
    /// Seven decades, 0 and 1; each decade is divided by twice as many values as the one below it.
    fn dynamic(signed: bool) -> Self {
        let mut all = vec![0.0, 1.0];
        for decade in 0..7 {
            let count = if signed { 1 << decade } else { 2 << decade };
            let bounds = even_steps(count + 1);
            for pair in bounds.windows(2) {
                let mean = 0.5 * (pair[0] + pair[1]);
                let value = 10f64.powi(decade - 6) as f32 * mean;
                all.push(value);
                all.extend(signed.then_some(-value));
            }
        }
        all.sort_unstable_by(f32::total_cmp);
        let values = all.try_into().expect("the counts of the decades add up to 254");
        Self { nearest: nearest(&values), values }
    }

    /// The values, in rising order.
    pub fn values(&self) -> &[f32; 256] {
        &self.values
    }

    fn code(&self, value: f32) -> u8 {
        let place = (value.clamp(-1.0, 1.0) + 1.0) * 0.5 * (GRID - 1) as f32 + 0.5;
        self.nearest[place as usize]
    }

    /// Codes of the numbers of one block; returns their scale, which is the largest magnitude.
    pub fn encode(&self, numbers: &[f32], codes: &mut [u8]) -> f32 {
        let scale = numbers.iter().fold(0.0f32, |largest, number| largest.max(number.abs()));
        if scale == 0.0 {
            // bitsandbytes gives the first code to a block without numbers; the scale makes it zero.
            codes.fill(0);
            return scale;
        }
        let inverse = 1.0 / scale;
        for (code, number) in codes.iter_mut().zip(numbers) {
            *code = self.code(number * inverse);
        }
        scale
    }

    /// The numbers that the codes of one block stand for.
    pub fn decode(&self, codes: &[u8], scale: f32) -> Vec<f32> {
        codes.iter().map(|code| self.values[usize::from(*code)] * scale).collect()
    }

    /// Numbers in blocks.
    pub fn quantize(&self, numbers: &[f32]) -> Numbers {
        let mut codes = vec![0; numbers.len()];
        let blocks = codes.chunks_mut(BLOCK).zip(numbers.chunks(BLOCK));
        let scales = blocks.map(|(codes, numbers)| self.encode(numbers, codes)).collect();
        Numbers { codes, scales }
    }
}

/// Quantised numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Numbers {
    /// One a number.
    pub codes: Vec<u8>,
    /// One a block.
    pub scales: Vec<f32>,
}

/// From 0.1 to 1 in even steps, from both ends to the middle, as `torch.linspace` does.
fn even_steps(count: usize) -> Vec<f32> {
    let step = (1.0f32 - 0.1) / (count - 1) as f32;
    let at = |place: usize| match place {
        place if place < count / 2 => step.mul_add(place as f32, 0.1),
        place => (-step).mul_add((count - 1 - place) as f32, 1.0),
    };
    (0..count).map(at).collect()
}

/// The nearest value's code for each place of the grid.
fn nearest(values: &[f32; 256]) -> Vec<u8> {
    let middle = |code: usize| 0.5 * (values[code] + values[code + 1]);
    let mut code = 0;
    let places = (0..GRID).map(|place| {
        let at = -1.0 + (2.0 * place as f32) / (GRID - 1) as f32;
        while code < 255 && middle(code) < at {
            code += 1;
        }
        code as u8
    });
    places.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_nearest_values_of_the_grid() {
        // A value is at most half a step from its place, and so is the place from the nearest code's value.
        let step = 2.0 / (GRID - 1) as f32;
        for book in [&SIGNED, &UNSIGNED] {
            assert!(book.values.is_sorted());
            for (code, value) in book.values.iter().enumerate() {
                let found = book.values[usize::from(book.code(*value))];
                assert!((found - value).abs() <= step, "code {code}: {value} to {found}");
            }
        }
        assert_eq!([SIGNED.values[127], UNSIGNED.values[0]].map(f32::to_bits), [0, 0]);
    }

    #[test]
    fn blocks_without_numbers_are_zero() {
        let numbers = SIGNED.quantize(&[0.0; 300]);
        assert_eq!(numbers.scales, [0.0, 0.0]);
        let back = SIGNED.decode(&numbers.codes, numbers.scales[0]);
        assert!(back.iter().all(|number| *number == 0.0));
    }
}
