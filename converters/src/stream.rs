//! The stream: pieces of whole rows, read, encoded for every level, and written at their place, on
//! all cores.
//!
//! Each thread takes the next piece, turns it into `f32` once, and encodes and writes it for one
//! file after the other: its memory is one piece in `f32` and one encoded, whatever the model's
//! size. Threads never wait for each other, so writing overlaps with encoding by itself. Encoders
//! work row by row, so the size of a piece never shows in the bytes.

use crate::error::ConvertError;
use crate::order::Step;
use crate::output::Output;
use crate::quantize::{self, BlockEncoder, EncodeError, validate};
use nfl_models::TensorType;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};

/// Values of a piece, when rows are not longer: 1 MiB of `f32`.
const PIECE_ELEMENTS: u64 = 256 * 1024;

/// Values of a row; the longest known are vocabularies and feed-forward widths below a million.
const ROW_ELEMENTS_MAX: u64 = 1 << 26;

/// Where values come from.
pub(crate) trait Source: Sync {
    /// Reads values of a tensor from `start` on.
    fn read(&self, tensor: usize, start: u64, target: &mut [f32]) -> Result<(), ConvertError>;

    /// The tensor as it is stored, when it may be copied; asked anew for every piece.
    fn stored(&self, tensor: usize) -> Result<Option<(TensorType, &[u8])>, ConvertError>;

    /// The tensor is done with.
    fn release(&self, tensor: usize);
}

/// A tensor of the job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobTensor {
    pub(crate) name: String,
    pub(crate) dimensions: Vec<u64>,
}

impl JobTensor {
    pub(crate) fn elements(&self) -> u64 {
        self.dimensions.iter().product()
    }

    fn row(&self) -> u64 {
        self.dimensions.first().copied().unwrap_or(1)
    }
}

/// A job: the tensors, in the order they are read, and the files they go to.
pub(crate) struct Job<'a> {
    pub(crate) source: &'a dyn Source,
    pub(crate) tensors: &'a [JobTensor],
    pub(crate) outputs: &'a [Output],
    pub(crate) blocks: &'a dyn BlockEncoder,
    pub(crate) threads: usize,
}

/// A stretch of values of one tensor: whole rows, unless every file stores the tensor value by
/// value.
#[derive(Debug, Clone, Copy)]
struct Piece {
    tensor: usize,
    start: u64,
    length: u64,
}

type OnStep<'a> = dyn FnMut(Step<'_>) -> ControlFlow<()> + 'a;

impl Job<'_> {
    /// Reads, encodes and writes every tensor; reports on the calling thread.
    pub(crate) fn run(&self, on_step: &mut OnStep<'_>) -> Result<(), ConvertError> {
        let pieces = Mutex::new(self.pieces()?);
        let stop = AtomicBool::new(false);
        let (sender, receiver) = mpsc::channel();
        std::thread::scope(|scope| {
            for _ in 0..self.threads {
                let sender = sender.clone();
                let (pieces, stop) = (&pieces, &stop);
                scope.spawn(move || self.work(pieces, stop, &sender));
            }
            drop(sender);
            let result = self.report(&receiver, on_step);
            stop.store(true, Ordering::Relaxed);
            result
        })
    }

    /// All pieces, in order.
    fn pieces(&self) -> Result<impl Iterator<Item = Piece> + Send, ConvertError> {
        for tensor in self.tensors {
            if tensor.row() > ROW_ELEMENTS_MAX {
                let (name, elements) = (tensor.name.clone(), tensor.row());
                return Err(ConvertError::Row { name, elements });
            }
        }
        let sizes: Vec<(u64, u64)> = (0..self.tensors.len())
            .map(|index| (self.tensors[index].elements(), self.piece_length(index)))
            .collect();
        let pieces = sizes.into_iter().enumerate().flat_map(|(tensor, (elements, step))| {
            let starts = (0..elements.div_ceil(step)).map(move |number| number * step);
            starts.map(move |start| Piece { tensor, start, length: step.min(elements - start) })
        });
        Ok(pieces)
    }

    fn piece_length(&self, tensor: usize) -> u64 {
        let by_value = |output: &Output| output.place(tensor).tensor_type.block_elements() == 1;
        let row = self.tensors[tensor].row().max(1);
        if self.outputs.iter().all(by_value) {
            return PIECE_ELEMENTS;
        }
        (PIECE_ELEMENTS / row).max(1) * row
    }

    /// What a thread does: takes pieces until there are none, or one fails.
    fn work(
        &self,
        pieces: &Mutex<impl Iterator<Item = Piece>>,
        stop: &AtomicBool,
        sender: &mpsc::Sender<Result<Piece, ConvertError>>,
    ) {
        let mut values = Vec::new();
        let mut bytes = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let next = pieces.lock().ok().and_then(|mut pieces| pieces.next());
            let Some(piece) = next else { return };
            let result = self.convert(piece, &mut values, &mut bytes).map(|()| piece);
            let failed = result.is_err();
            if sender.send(result).is_err() || failed {
                return;
            }
        }
    }

    fn convert(
        &self,
        piece: Piece,
        values: &mut Vec<f32>,
        bytes: &mut Vec<u8>,
    ) -> Result<(), ConvertError> {
        let tensor = piece.tensor;
        let stored = self.source.stored(tensor)?;
        let mut is_read = false;
        for output in self.outputs {
            let target = output.place(tensor).tensor_type;
            let range = byte_range(target, piece);
            if let Some((tensor_type, stored)) = stored
                && tensor_type == target
            {
                let part = &stored[range.start as usize..range.end as usize];
                if !validate::is_finite(target, part) {
                    let tensor = self.tensors[tensor].name.clone();
                    return Err(ConvertError::Damaged { tensor, tensor_type });
                }
                output.write(tensor, range.start, part)?;
                continue;
            }
            if !is_read {
                self.read(piece, values)?;
                is_read = true;
            }
            bytes.resize((range.end - range.start) as usize, 0);
            self.encode(tensor, target, values, bytes)?;
            output.write(tensor, range.start, bytes)?;
        }
        Ok(())
    }

    fn read(&self, piece: Piece, values: &mut Vec<f32>) -> Result<(), ConvertError> {
        values.resize(piece.length as usize, 0.0);
        self.source.read(piece.tensor, piece.start, values)?;
        match validate::first_non_finite(values) {
            None => Ok(()),
            Some(index) => Err(ConvertError::NotFinite {
                tensor: self.tensors[piece.tensor].name.clone(),
                index: piece.start + index as u64,
                value: values[index],
            }),
        }
    }

    fn encode(
        &self,
        tensor: usize,
        target: TensorType,
        values: &[f32],
        bytes: &mut [u8],
    ) -> Result<(), ConvertError> {
        let row = self.tensors[tensor].row() as usize;
        let name = || self.tensors[tensor].name.clone();
        quantize::encode(self.blocks, target, values, row, bytes)
            .map_err(|source: EncodeError| ConvertError::Encode { tensor: name(), source })?;
        if validate::is_finite(target, bytes) {
            Ok(())
        } else {
            Err(ConvertError::TooLarge { tensor: name(), tensor_type: target })
        }
    }

    /// Passes on what the threads have done, tensors in order, until all are done or one failed.
    fn report(
        &self,
        receiver: &mpsc::Receiver<Result<Piece, ConvertError>>,
        on_step: &mut OnStep<'_>,
    ) -> Result<(), ConvertError> {
        let total = self.tensors.iter().map(JobTensor::elements).sum();
        let mut missing: Vec<u64> = self.tensors.iter().map(JobTensor::elements).collect();
        let mut done = 0;
        let mut next = 0;
        loop {
            while missing.get(next) == Some(&0) {
                self.source.release(next);
                self.tell_tensor(next, on_step)?;
                next += 1;
            }
            // no sender is left only when every piece was taken and done
            let Ok(piece) = receiver.recv() else { return Ok(()) };
            let piece = piece?;
            missing[piece.tensor] -= piece.length;
            done += piece.length;
            tell(on_step, Step::Progress { done, total })?;
        }
    }

    fn tell_tensor(&self, index: usize, on_step: &mut OnStep<'_>) -> Result<(), ConvertError> {
        let place = |output: &Output| output.place(index).tensor_type;
        let types: Vec<TensorType> = self.outputs.iter().map(place).collect();
        let JobTensor { name, dimensions } = &self.tensors[index];
        tell(on_step, Step::Tensor { index, name, dimensions, types: &types })
    }
}

/// Reports a step; a `Break` in answer is an error.
pub(crate) fn tell(on_step: &mut OnStep<'_>, step: Step<'_>) -> Result<(), ConvertError> {
    match on_step(step) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(ConvertError::Interrupted),
    }
}

/// Where a piece's bytes are within its tensor, stored as `tensor_type`.
fn byte_range(tensor_type: TensorType, piece: Piece) -> std::ops::Range<u64> {
    let block = tensor_type.block_elements();
    let position = |elements: u64| elements / block * tensor_type.block_bytes();
    position(piece.start)..position(piece.start + piece.length)
}
