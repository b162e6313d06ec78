//! Blocks against differences, whatever is kept.

use super::*;
use crate::training::linear::Linear;
use crate::training::lora::Lora;
use crate::training::ops::check;
use crate::training::ops::rope::frequencies;
use crate::training::weight::Weight;

const HIDDEN: usize = 8;
const INNER: usize = 10;
const HEAD_WIDTH: usize = 6;

fn shape(extras: bool) -> BlockShape {
    BlockShape {
        heads: 4,
        key_heads: 2,
        epsilon: 1e-5,
        activation: Activation::Silu,
        pairs: Pairs::Halves,
        residual_scale: extras.then_some(0.6),
    }
}

fn block(adapters: &mut Adapters, extras: bool) -> Block {
    let mut seed = 10;
    let mut linear = |outputs: usize, inputs: usize| {
        seed += 3;
        let number = adapters.0.len();
        adapters.0.push(Lora {
            a: check::noise(seed + 1, &[3, inputs]),
            b: check::noise(seed + 2, &[outputs, 3]),
            scale: 0.7,
        });
        Linear {
            weight: Weight::Dense(check::noise(seed, &[outputs, inputs])),
            bias: extras.then(|| check::noise(seed + 500, &[outputs])),
            adapter: Some(number),
        }
    };
    let norm = |seed: u64, width: usize| check::noise(seed, &[width]);
    let shape = shape(extras);
    let (q, k) = (shape.heads * HEAD_WIDTH, shape.key_heads * HEAD_WIDTH);
    let attention = Attention {
        norm: norm(1, HIDDEN),
        q: linear(q, HIDDEN),
        k: linear(k, HIDDEN),
        v: linear(k, HIDDEN),
        q_norm: extras.then(|| norm(2, HEAD_WIDTH)),
        k_norm: extras.then(|| norm(3, HEAD_WIDTH)),
        o: linear(HIDDEN, q),
        post_norm: extras.then(|| norm(4, HIDDEN)),
    };
    let feed_forward = FeedForward {
        norm: norm(5, HIDDEN),
        gate: linear(INNER, HIDDEN),
        up: linear(INNER, HIDDEN),
        down: linear(HIDDEN, INNER),
        post_norm: extras.then(|| norm(6, HIDDEN)),
    };
    Block { attention, feed_forward }
}

#[test]
fn gradients_are_those_of_the_formula() {
    for extras in [false, true] {
        let mut adapters = Adapters::default();
        let block = block(&mut adapters, extras);
        let shape = shape(extras);
        let (x, dy) = (check::noise(7, &[5, HIDDEN]), check::noise(8, &[5, HIDDEN]));
        let angles = Angles::new(8, &frequencies(3, 100.0, 1.0, None));
        let view = View::new(&[2, 3], None, 0.4, None);
        let scene = Scene {
            shape: &shape,
            positions: &[0, 1, 0, 1, 2],
            angles: &angles,
            view: &view,
            adapters: &adapters,
        };
        let value = |x: &Tensor, adapters: &Adapters| {
            let (y, _) = block.forward(x, Scene { adapters, ..scene }, Keep::Boundary)?;
            Ok(check::weighted(&y, &dy))
        };
        let mut firsts: Option<Vec<Vec<f64>>> = None;
        for keep in [Keep::All, Keep::Selective, Keep::Boundary] {
            let mut gradients = Gradients::new(adapters.0.len());
            let (_, saved) = block.forward(&x, scene, keep).unwrap();
            let dx = block.backward(saved, &dy, scene, &mut gradients).unwrap();
            check::gradient("x", &x, &dx, &|x| value(x, &adapters));
            let mut all = vec![check::values(&dx)];
            for (number, gradient) in gradients.0.iter().enumerate() {
                let gradient = gradient.as_ref().unwrap();
                for (is_a, given) in [(true, &gradient.a), (false, &gradient.b)] {
                    all.push(check::values(given));
                    let own = &adapters.0[number];
                    let at = if is_a { &own.a } else { &own.b };
                    check::gradient("adapter", at, given, &|moved| {
                        let mut adapters = adapters.clone();
                        let own = &mut adapters.0[number];
                        *(if is_a { &mut own.a } else { &mut own.b }) = moved.clone();
                        value(&x, &adapters)
                    });
                }
            }
            // What is kept changes no bit.
            match &firsts {
                Some(first) => assert_eq!(*first, all),
                None => firsts = Some(all),
            }
        }
    }
}
