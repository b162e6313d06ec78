//! Attention of packed documents: causal, grouped queries, windows; a block of queries at a time.
//!
//! softmax(q·kᵀ·scale + mask)·v (Vaswani et al. 2017, arXiv:1706.03762) with several query heads a key head (Ainslie et al.
//! 2023, arXiv:2305.13245). Nothing but q, k and v is kept for the way back: probabilities are computed again, block by
//! block, which costs two products more and saves heads · tokens² numbers.

use candle_core::{Result, Tensor};
use rayon::prelude::*;

use super::{Real, by_type, read};

/// Queries that are computed at once.
const BLOCK: usize = 256;

/// What a query sees, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// For each token the first one that it sees; it sees all from there to itself. Begins of documents and windows.
    pub first: Vec<u32>,
    /// Factor on products of queries and keys.
    pub scale: f64,
    /// Scores are bent into ±cap by cap·tanh(score/cap), when there is one.
    pub cap: Option<f64>,
}

impl View {
    /// Each token sees its own document, of the last `window` tokens when there is a window.
    pub fn new(documents: &[usize], window: Option<usize>, scale: f64, cap: Option<f64>) -> Self {
        let mut first = Vec::new();
        let mut start = 0;
        for tokens in documents {
            let windowed =
                |token: usize| window.map_or(0, |window| (token + 1).saturating_sub(window));
            first.extend((start..start + tokens).map(|token| windowed(token).max(start) as u32));
            start += tokens;
        }
        Self { first, scale, cap }
    }
}

/// A block of queries with the keys that one of them sees.
struct Block {
    queries: std::ops::Range<usize>,
    keys: std::ops::Range<usize>,
}

fn blocks(view: &View) -> Vec<Block> {
    let tokens = view.first.len();
    (0..tokens)
        .step_by(BLOCK)
        .map(|start| {
            let end = (start + BLOCK).min(tokens);
            let first = view.first[start..end].iter().min().copied().unwrap_or(0) as usize;
            Block { queries: start..end, keys: first..end }
        })
        .collect()
}

/// Rows of `x` \[tokens, heads, width\] as \[key heads, heads/key heads · rows, width\].
fn by_key_head(x: &Tensor, rows: &std::ops::Range<usize>, key_heads: usize) -> Result<Tensor> {
    let (_, heads, width) = x.dims3()?;
    let group = heads / key_heads;
    x.narrow(0, rows.start, rows.len())?
        .reshape((rows.len(), key_heads, group, width))?
        .permute((1, 2, 0, 3))?
        .contiguous()?
        .reshape((key_heads, group * rows.len(), width))
}

/// The way back from [`by_key_head`]: \[rows, heads, width\].
fn by_token(x: &Tensor, rows: usize) -> Result<Tensor> {
    let (key_heads, all, width) = x.dims3()?;
    let group = all / rows;
    x.reshape((key_heads, group, rows, width))?.permute((2, 0, 1, 3))?.contiguous()?.reshape((
        rows,
        key_heads * group,
        width,
    ))
}

/// Probabilities of a block from its scores \[key heads, group · queries, keys\]; with a cap also the slope of the bend.
fn probabilities<T: Real>(
    scores: &Tensor,
    view: &View,
    block: &Block,
) -> Result<(Tensor, Option<Vec<T>>)> {
    let (_, _, width) = scores.dims3()?;
    let mut all = read::<T, _>(scores, <[T]>::to_vec)?;
    let mut slopes = view.cap.map(|_| vec![T::zero(); all.len()]);
    let scale = T::of(view.scale);
    let one = |row: usize, scores: &mut [T], slopes: Option<&mut [T]>| {
        let query = block.queries.start + row % block.queries.len();
        let seen = view.first[query] as usize - block.keys.start..query + 1 - block.keys.start;
        let mut largest = T::of(f64::NEG_INFINITY);
        if let (Some(cap), Some(slopes)) = (view.cap, slopes) {
            let cap = T::of(cap);
            for place in seen.clone() {
                let bent = (scores[place] * scale / cap).tanh();
                slopes[place] = T::one() - bent * bent;
                scores[place] = bent * cap;
                largest = largest.larger(scores[place]);
            }
        } else {
            for score in &mut scores[seen.clone()] {
                *score *= scale;
                largest = largest.larger(*score);
            }
        }
        let mut sum = T::zero();
        for score in &mut scores[seen.clone()] {
            *score = (*score - largest).exp();
            sum += *score;
        }
        let share = T::one() / sum;
        for score in &mut scores[seen.clone()] {
            *score *= share;
        }
        scores[..seen.start].fill(T::zero());
        scores[seen.end..].fill(T::zero());
    };
    match &mut slopes {
        Some(slopes) => all
            .par_chunks_mut(width)
            .zip(slopes.par_chunks_mut(width))
            .enumerate()
            .for_each(|(row, (scores, slopes))| one(row, scores, Some(slopes))),
        None => {
            all.par_chunks_mut(width).enumerate().for_each(|(row, scores)| one(row, scores, None));
        }
    }
    Ok((Tensor::from_vec(all, scores.shape(), scores.device())?, slopes))
}

/// `q` \[tokens, heads, width\], `k` \[tokens, key heads, width\], `v` \[tokens, key heads, value width\] in,
/// \[tokens, heads, value width\] out.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, view: &View) -> Result<Tensor> {
    by_type!(q, T => forward::<T>(q, k, v, view))
}

fn forward<T: Real>(q: &Tensor, k: &Tensor, v: &Tensor, view: &View) -> Result<Tensor> {
    let key_heads = k.dim(1)?;
    let mut parts = Vec::new();
    for block in blocks(view) {
        let queries = by_key_head(q, &block.queries, key_heads)?;
        let keys = by_key_head(k, &block.keys, key_heads)?;
        let values = by_key_head(v, &block.keys, key_heads)?;
        let scores = queries.matmul(&keys.t()?)?;
        let (shares, _) = probabilities::<T>(&scores, view, &block)?;
        parts.push(by_token(&shares.matmul(&values)?, block.queries.len())?);
    }
    Tensor::cat(&parts, 0)
}

/// The gradients of q, k and v, in this order.
pub fn attention_back(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    view: &View,
    dy: &Tensor,
) -> Result<(Tensor, Tensor, Tensor)> {
    by_type!(q, T => backward::<T>(q, k, v, view, dy))
}

fn backward<T: Real>(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    view: &View,
    dy: &Tensor,
) -> Result<(Tensor, Tensor, Tensor)> {
    let key_heads = k.dim(1)?;
    let mut dq = Vec::new();
    let mut dk = vec![T::zero(); k.elem_count()];
    let mut dv = vec![T::zero(); v.elem_count()];
    for block in blocks(view) {
        let queries = by_key_head(q, &block.queries, key_heads)?;
        let keys = by_key_head(k, &block.keys, key_heads)?;
        let values = by_key_head(v, &block.keys, key_heads)?;
        let dout = by_key_head(dy, &block.queries, key_heads)?;
        let scores = queries.matmul(&keys.t()?)?;
        let (shares, slopes) = probabilities::<T>(&scores, view, &block)?;
        drop(scores);
        let dshares = dout.matmul(&values.t()?)?;
        let dscores = scores_back::<T>(&shares, dshares, slopes, view.scale)?;
        dq.push(by_token(&dscores.matmul(&keys)?, block.queries.len())?);
        let rows = block.keys.len();
        add::<T>(&mut dk, &by_token(&dscores.t()?.matmul(&queries)?, rows)?, block.keys.start)?;
        add::<T>(&mut dv, &by_token(&shares.t()?.matmul(&dout)?, rows)?, block.keys.start)?;
    }
    let dk = Tensor::from_vec(dk, k.shape(), k.device())?;
    Ok((Tensor::cat(&dq, 0)?, dk, Tensor::from_vec(dv, v.shape(), v.device())?))
}

/// Through softmax, bend and scale: p∘(dp − Σ p∘dp)·slope·scale.
fn scores_back<T: Real>(
    shares: &Tensor,
    dshares: Tensor,
    slopes: Option<Vec<T>>,
    scale: f64,
) -> Result<Tensor> {
    let (_, _, width) = shares.dims3()?;
    let mut all = read::<T, _>(&dshares, <[T]>::to_vec)?;
    drop(dshares);
    read::<T, _>(shares, |shares| {
        all.par_chunks_mut(width).zip(shares.par_chunks(width)).for_each(|(row, shares)| {
            let along: T = row.iter().zip(shares).map(|(d, p)| *d * *p).sum();
            for (d, p) in row.iter_mut().zip(shares) {
                *d = *p * (*d - along) * T::of(scale);
            }
        });
    })?;
    if let Some(slopes) = slopes {
        all.par_iter_mut().zip(&slopes).for_each(|(d, slope)| *d *= *slope);
    }
    Tensor::from_vec(all, shares.shape(), shares.device())
}

/// Adds rows to those from `start` on.
fn add<T: Real>(sum: &mut [T], rows: &Tensor, start: usize) -> Result<()> {
    let width = rows.elem_count() / rows.dim(0)?.max(1);
    read::<T, _>(rows, |rows| {
        for (sum, value) in sum[start * width..].iter_mut().zip(rows) {
            *sum += *value;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::ops::check;

    #[test]
    fn views_end_at_documents_and_windows() {
        let view = View::new(&[3, 4], Some(2), 1.0, None);
        assert_eq!(view.first, [0, 0, 1, 3, 3, 4, 5]);
    }

    #[test]
    fn gradients_are_those_of_the_formula() {
        let (q, k) = (check::noise(1, &[7, 4, 6]), check::noise(2, &[7, 2, 6]));
        let (v, dy) = (check::noise(3, &[7, 2, 5]), check::noise(4, &[7, 4, 5]));
        for (window, cap) in [(None, None), (Some(3), None), (None, Some(0.7))] {
            let view = View::new(&[3, 4], window, 0.9, cap);
            let value = |q: &Tensor, k: &Tensor, v: &Tensor| {
                Ok(check::weighted(&attention(q, k, v, &view)?, &dy))
            };
            let (dq, dk, dv) = attention_back(&q, &k, &v, &view, &dy).unwrap();
            check::gradient("q", &q, &dq, &|q| value(q, &k, &v));
            check::gradient("k", &k, &dk, &|k| value(&q, k, &v));
            check::gradient("v", &v, &dv, &|v| value(&q, &k, v));
        }
    }

    #[test]
    fn blocks_change_nothing() {
        // More tokens than a block, in documents across its border, against each document alone.
        let tokens = BLOCK + 90;
        let (q, k) = (check::noise(5, &[tokens, 2, 4]), check::noise(6, &[tokens, 1, 4]));
        let v = check::noise(7, &[tokens, 1, 4]);
        let dy = check::noise(8, &[tokens, 2, 4]);
        let documents = [100, 200, tokens - 300];
        let view = View::new(&documents, Some(150), 0.5, None);
        let together = attention(&q, &k, &v, &view).unwrap();
        let (dq, dk, dv) = attention_back(&q, &k, &v, &view, &dy).unwrap();
        let mut start = 0;
        for count in documents {
            let part = |x: &Tensor| x.narrow(0, start, count).unwrap().contiguous().unwrap();
            let own = View::new(&[count], Some(150), 0.5, None);
            let alone = attention(&part(&q), &part(&k), &part(&v), &own).unwrap();
            let back = attention_back(&part(&q), &part(&k), &part(&v), &own, &part(&dy)).unwrap();
            for (whole, one) in
                [(&together, &alone), (&dq, &back.0), (&dk, &back.1), (&dv, &back.2)]
            {
                let (whole, one) = (check::values(&part(whole)), check::values(one));
                let worst = whole.iter().zip(&one).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(worst < 1e-12, "{worst}");
            }
            start += count;
        }
    }
}
