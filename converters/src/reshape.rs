//! How the rows of a GGUF tensor are taken from those of a checkpoint: as they are, or reordered
//! for rotary embedding.
//!
//! Hugging Face rotates the two halves of a head against each other, llama.cpp rotates neighbouring
//! pairs. The query and key projections are therefore stored with their rows interleaved: output
//! row `2j + i` of a head is row `i·d/2 + j` of the checkpoint (`d` rows a head, `i` 0 or 1). Rows
//! only change places, so values are never touched.

/// The order in which a tensor's rows are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RowOrder {
    /// As in the checkpoint.
    #[default]
    Stored,
    /// Interleaved within each of `heads` heads.
    Rotary {
        /// Number of heads; divides the rows into an even number each.
        heads: u64,
    },
}

/// A stretch of values that lie side by side in the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// First value, counted from the tensor's start.
    pub start: u64,
    /// Number of values.
    pub length: u64,
}

impl RowOrder {
    /// Whether a tensor of `rows` rows can be read in this order.
    pub fn fits(self, rows: u64) -> bool {
        match self {
            Self::Stored => true,
            Self::Rotary { heads } => {
                heads > 0 && rows.is_multiple_of(heads) && (rows / heads).is_multiple_of(2)
            }
        }
    }

    /// The row of the checkpoint that becomes output row `row`.
    fn source_row(self, row: u64, rows: u64) -> u64 {
        match self {
            Self::Stored => row,
            Self::Rotary { heads } => {
                let head_rows = rows / heads;
                let (head, within) = (row / head_rows, row % head_rows);
                head * head_rows + (within % 2) * (head_rows / 2) + within / 2
            }
        }
    }

    /// The stretches of the checkpoint's tensor (`rows` × `columns`) that make up `length` output
    /// values from `start`.
    pub fn runs(
        self,
        rows: u64,
        columns: u64,
        start: u64,
        length: u64,
    ) -> impl Iterator<Item = Run> {
        let end = start + length;
        let mut at = start;
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let run = match self {
                Self::Stored => Run { start: at, length: end - at },
                Self::Rotary { .. } => {
                    let (row, column) = (at / columns, at % columns);
                    let length = (columns - column).min(end - at);
                    Run { start: self.source_row(row, rows) * columns + column, length }
                }
            };
            at += run.length;
            Some(run)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, by shape: reshape(heads, 2, half, columns) → swap axes 1 and 2 → flatten.
    fn swapped(heads: usize, half: usize, columns: usize) -> Vec<u64> {
        let mut target = vec![0; heads * 2 * half * columns];
        let mut source = 0;
        for head in 0..heads {
            for i in 0..2 {
                for j in 0..half {
                    for column in 0..columns {
                        target[((head * half + j) * 2 + i) * columns + column] = source;
                        source += 1;
                    }
                }
            }
        }
        target
    }

    #[test]
    fn rotary_rows_follow_the_definition() {
        for (heads, half, columns) in [(1, 1, 1), (4, 3, 5), (8, 4, 1), (2, 8, 7)] {
            let rows = (heads * 2 * half) as u64;
            let order = RowOrder::Rotary { heads: heads as u64 };
            let expected = swapped(heads, half, columns);
            let total = expected.len() as u64;
            for (start, length) in [(0, total), (total / 3, total / 2), (total - 1, 1)] {
                let read: Vec<u64> = order
                    .runs(rows, columns as u64, start, length)
                    .flat_map(|run| run.start..run.start + run.length)
                    .collect();
                assert_eq!(read, expected[start as usize..(start + length) as usize]);
            }
        }
    }

    #[test]
    fn stored_rows_are_one_run() {
        let runs: Vec<Run> = RowOrder::Stored.runs(10, 10, 25, 50).collect();
        assert_eq!(runs, [Run { start: 25, length: 50 }]);
    }

    #[test]
    fn heads_must_divide_the_rows_evenly() {
        assert!(RowOrder::Rotary { heads: 4 }.fits(8));
        assert!(!RowOrder::Rotary { heads: 4 }.fits(12));
        assert!(!RowOrder::Rotary { heads: 3 }.fits(8));
        assert!(!RowOrder::Rotary { heads: 0 }.fits(8));
    }
}
