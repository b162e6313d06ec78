//! Models with weights set by hand, of a kind that training finds by itself: heads that look at the tokens before, and a
//! head that finds where the same tokens occurred and repeats what followed.
//!
//! Every token has a random code. The width is cut into fields of 64: the token's own code, the codes of the five tokens
//! before it (written by the first layer), the code that the second layer found, and a constant. A constant
//! direction, rotated by RoPE, makes a head look back a fixed distance: the angle between query and key is least there.

use std::error::Error;
use std::f32::consts::TAU;

use nfl_models::gguf::{Gguf, Metadata};

use crate::shape::{HEAD, HEADS, HEADS_KV, Weights};

/// Length of a code.
const CODE: usize = 64;
/// Tokens before the last one that the copying head compares.
const BEFORE: usize = 4;
/// Numbers of each compared code.
const COMPARED: usize = 12;
/// Field of what the copying head found, and of the constant.
const FOUND: usize = 1 + BEFORE + 1;
const CONSTANT: usize = FOUND + 1;
/// Rotary base: the first pairs of a head turn with the distance, the second half stands still.
const ROPE_BASE: f32 = 1e12;
/// Pairs that turn.
const TURNING: usize = 24;
/// How sharply a head looks at one distance, and at one place.
const FOCUS: f32 = 60.0;
const AGREEMENT: f32 = 40.0;

/// What a model does with what it finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Copies, with some tokens swapped for others.
    Edit,
    /// Copies, with new digits in place of digits.
    Records,
    /// Ignores it, and goes on from the last tokens as if by chance.
    Random,
}

/// A model by hand.
pub(crate) struct Handmade {
    kind: Kind,
    vocabulary: usize,
    digits: Vec<usize>,
    swapped: Vec<usize>,
}

impl Handmade {
    pub(crate) fn new(small: &Gguf, kind: Kind) -> Result<Self, Box<dyn Error>> {
        let texts = small
            .metadata()
            .array("tokenizer.ggml.tokens")
            .and_then(nfl_models::gguf::Array::as_texts)
            .ok_or("no vocabulary")?;
        let place = |text: &str| texts.iter().position(|token| token.as_str() == Some(text));
        let digits = ('0'..='9').filter_map(|digit| place(&digit.to_string())).collect();
        let mut swapped: Vec<usize> = (0..texts.len()).collect();
        // Names and letters trade places.
        for (left, right) in
            [("▁L", "▁M"), ("▁dog", "▁c"), ("▁day", "▁night"), ("x", "q"), ("▁was", "▁is")]
        {
            if let (Some(left), Some(right)) = (place(left), place(right)) {
                swapped.swap(left, right);
            }
        }
        Ok(Self { kind, vocabulary: texts.len(), digits, swapped })
    }

    /// A random number in -1..1 that depends on the arguments only.
    fn random(field: usize, row: usize, column: usize) -> f32 {
        let mut state =
            (field as u64) << 40 ^ (row as u64) << 20 ^ column as u64 ^ 0x5bf0_3635_dead_beef;
        for _ in 0..3 {
            state = (state ^ state >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        }
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    /// The code of a token: random signs of length 1.
    fn code(token: usize) -> impl Iterator<Item = f32> {
        (0..CODE).map(move |index| Self::random(0, token, index).signum() / (CODE as f32).sqrt())
    }

    /// One of the numbers that a code is compared by.
    fn comparison(field: usize, index: usize, target: &mut [f32]) {
        for (column, target) in target.iter_mut().enumerate() {
            *target = Self::random(1, index, column).signum() / (COMPARED as f32).sqrt()
                * (AGREEMENT * (HEAD as f32).sqrt()).sqrt();
        }
        debug_assert!(field < FOUND);
    }

    /// Queries and keys. In the first layer head `h` looks back `h / 2 + 1` tokens; in the second the first head finds the
    /// place behind the same tokens.
    fn attention(layer: usize, row: usize, is_query: bool, target: &mut [f32]) {
        let (head, inside) = (row / HEAD, row % HEAD);
        let pair = inside / 2;
        let group = if is_query { head / (HEADS / HEADS_KV) } else { head };
        match layer {
            0 if group <= BEFORE && pair < TURNING => {
                let distance = (group + 1) as f32;
                let angle = if is_query {
                    -distance * ROPE_BASE.powf(-(2.0 * pair as f32) / HEAD as f32)
                } else {
                    0.0
                };
                let size = (FOCUS * (HEAD as f32).sqrt()).sqrt();
                let turned = if inside % 2 == 0 {
                    angle.rem_euclid(TAU).cos()
                } else {
                    angle.rem_euclid(TAU).sin()
                };
                target[CONSTANT * CODE] = size * turned;
            }
            1 if group == 0 && inside >= HEAD / 2 => {
                let (field, index) =
                    ((inside - HEAD / 2) / COMPARED, (inside - HEAD / 2) % COMPARED);
                if field > BEFORE {
                    return;
                }
                // A query's last tokens are a key's tokens before.
                let field = if is_query { field } else { field + 1 };
                Self::comparison(field, index, &mut target[field * CODE..(field + 1) * CODE]);
            }
            _ => {}
        }
    }

    fn output(&self, row: usize, target: &mut [f32]) {
        let found = FOUND * CODE..(FOUND + 1) * CODE;
        let chance = |target: &mut [f32], size: f32| {
            for (column, target) in target[..(1 + BEFORE) * CODE].iter_mut().enumerate() {
                *target = Self::random(2, row, column) * size;
            }
        };
        match self.kind {
            Kind::Random => chance(target, 3.0),
            Kind::Records if self.digits.contains(&row) => {
                chance(target, 2.0);
                for &digit in &self.digits {
                    for (target, code) in target[found.clone()].iter_mut().zip(Self::code(digit)) {
                        *target += 20.0 * code;
                    }
                }
            }
            Kind::Edit | Kind::Records => {
                let source = if self.kind == Kind::Edit { self.swapped[row] } else { row };
                for (target, code) in target[found].iter_mut().zip(Self::code(source)) {
                    *target = 20.0 * code;
                }
            }
        }
    }
}

impl Weights for Handmade {
    fn row(&self, tensor: &str, layer: usize, row: usize, target: &mut [f32]) {
        debug_assert!(row < self.vocabulary.max(target.len() * 8));
        match tensor {
            "token_embd" => {
                target.iter_mut().zip(Self::code(row)).for_each(|(target, code)| *target = code);
                target[CONSTANT * CODE] = 1.0;
            }
            // Makes up for the division by the root of the mean: what a layer reads is about what the fields hold.
            "attn_norm" | "output_norm" => {
                let length: f32 = if layer == 0 && tensor == "attn_norm" {
                    2.0
                } else {
                    2.0 + BEFORE as f32 + 1.0
                };
                target.fill((length / target.len() as f32).sqrt());
            }
            "attn_q" => Self::attention(layer, row, true, target),
            "attn_k" => Self::attention(layer, row, false, target),
            // Every head takes the token's own code along.
            "attn_v" if layer < 2 && row % HEAD < CODE => target[row % HEAD] = 1.0,
            "attn_output" if layer == 0 => {
                let (field, inside) = (row / CODE, row % CODE);
                if (1..=BEFORE + 1).contains(&field) {
                    target[(field - 1) * (HEADS / HEADS_KV) * HEAD + inside] = 1.0;
                }
            }
            "attn_output" if layer == 1 && row / CODE == FOUND => target[row % CODE] = 1.0,
            "output" => self.output(row, target),
            _ => {}
        }
    }

    fn metadata(&self, metadata: &mut Metadata) {
        metadata.set("llama.rope.freq_base", ROPE_BASE);
        metadata.set("llama.attention.layer_norm_rms_epsilon", 1e-6_f32);
    }
}
