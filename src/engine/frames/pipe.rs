//! Frames on a pipe: a length, then that many bytes.

use std::io::{self, ErrorKind, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

use super::FRAME_BYTES_MAX;

/// Bytes that a buffer keeps between frames; a rare large one is given back.
const BUFFER_BYTES_KEPT: usize = 1 << 20;

/// Bytes that are taken from a pipe at once: as many as it holds on Linux.
const PIECE_BYTES: usize = 1 << 16;

/// Why a frame could not be read or written.
#[derive(Debug, Error)]
pub enum FrameError {
    /// The pipe failed.
    #[error("pipe: {0}")]
    Pipe(#[from] io::Error),
    /// The other side closed the pipe, at the end of a frame or within one.
    #[error("the pipe was closed")]
    Closed,
    /// A length beyond the limit: the other side does not speak this protocol.
    #[error("a frame of {0} bytes, {FRAME_BYTES_MAX} are the most")]
    TooLong(usize),
    /// Bytes that are no message.
    #[error("frame: {0}")]
    Malformed(#[from] postcard::Error),
}

/// Writes frames: each with one call of the operating system, or several together.
#[derive(Debug)]
pub struct FrameWriter<W> {
    pipe: W,
    /// Frames that were added and not yet written.
    buffer: Vec<u8>,
}

impl<W: Write> FrameWriter<W> {
    /// Writes to a pipe that has no buffer of its own.
    pub fn new(pipe: W) -> Self {
        Self { pipe, buffer: Vec::new() }
    }

    /// Writes one message, behind those that were added.
    pub fn write(&mut self, message: &impl Serialize) -> Result<(), FrameError> {
        self.add(message)?;
        self.flush()
    }

    /// Keeps one message for the next [`FrameWriter::flush`]: whoever reads is woken once for all of them.
    pub fn add(&mut self, message: &impl Serialize) -> Result<(), FrameError> {
        let start = self.buffer.len();
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.extend_from_slice(&[0; 4]);
        self.buffer = postcard::to_extend(message, buffer)?;
        let length = self.buffer.len() - start - 4;
        if length > FRAME_BYTES_MAX {
            self.buffer.truncate(start);
            return Err(FrameError::TooLong(length));
        }
        self.buffer[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
        Ok(())
    }

    /// Writes what was added.
    pub fn flush(&mut self) -> Result<(), FrameError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let written = self.pipe.write_all(&self.buffer).and_then(|()| self.pipe.flush());
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_BYTES_KEPT);
        written.map_err(|error| match error.kind() {
            ErrorKind::BrokenPipe => FrameError::Closed,
            _ => FrameError::Pipe(error),
        })
    }
}

/// Frames out of bytes that arrive in pieces of any length.
#[derive(Debug, Default)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    /// Where the next frame begins.
    start: usize,
}

impl FrameBuffer {
    /// Adds what has arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
            self.bytes.shrink_to(BUFFER_BYTES_KEPT);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message that is complete.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        let Some((length, rest)) = self.bytes[self.start..].split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            return Err(FrameError::TooLong(length));
        }
        let Some(frame) = rest.get(..length) else {
            // The beginning of a long frame is moved once, to grow in place from there.
            self.bytes.drain(..self.start);
            self.start = 0;
            return Ok(None);
        };
        let message = postcard::from_bytes(frame)?;
        self.start += 4 + length;
        Ok(Some(message))
    }
}

/// Reads frames from a pipe, waiting for them.
#[derive(Debug)]
pub struct FrameReader<R> {
    pipe: R,
    frames: FrameBuffer,
    piece: Box<[u8]>,
}

impl<R: Read> FrameReader<R> {
    /// Reads from a pipe, which needs no buffer of its own.
    pub fn new(pipe: R) -> Self {
        let piece = vec![0; PIECE_BYTES].into_boxed_slice();
        Self { pipe, frames: FrameBuffer::default(), piece }
    }

    /// The next message that has arrived whole, without waiting.
    pub fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, FrameError> {
        self.frames.take()
    }

    /// Reads one message, waiting for it.
    pub fn read<T: DeserializeOwned>(&mut self) -> Result<T, FrameError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(message);
            }
            match self.pipe.read(&mut self.piece) {
                Ok(0) => return Err(FrameError::Closed),
                Ok(length) => self.frames.push(&self.piece[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(FrameError::Pipe(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::frames::{Call, Event, Generation, Prompt, Reply, Request};

    fn token(text: &str) -> Reply {
        let event = Event::Token { id: Some(7), text: text.to_owned(), logprobs: None };
        Reply { number: 3, event }
    }

    /// Counts writes: a frame must be one.
    #[derive(Default)]
    struct Counted(Vec<u8>, usize);

    impl Write for Counted {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.1 += 1;
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn messages_come_back_as_they_went() {
        let calls = [
            Request::Generate(Box::new(Generation::greedy(
                Prompt::Tokens(vec![1, -1, i32::MAX]),
                60,
            ))),
            Request::Cancel,
            Request::Score { tokens: vec![5; 1000], from: 1 },
        ];
        let mut pipe = Counted::default();
        let mut writer = FrameWriter::new(&mut pipe);
        let call = |number: usize| Call { number: number as u64, request: calls[number].clone() };
        writer.write(&call(0)).unwrap();
        writer.add(&call(1)).unwrap();
        writer.add(&call(2)).unwrap();
        writer.flush().unwrap();
        writer.flush().unwrap();
        assert_eq!(pipe.1, 2);
        let mut reader = FrameReader::new(pipe.0.as_slice());
        for (number, request) in calls.into_iter().enumerate() {
            assert_eq!(reader.read::<Call>().unwrap(), Call { number: number as u64, request });
        }
        assert!(matches!(reader.read::<Call>(), Err(FrameError::Closed)));
    }

    #[test]
    fn a_token_is_a_few_bytes() {
        let mut bytes = Vec::new();
        FrameWriter::new(&mut bytes).write(&token(" Lily")).unwrap();
        assert!(bytes.len() <= 16, "{} bytes", bytes.len());
    }

    #[test]
    fn every_cut_is_an_error_and_none_allocates_what_a_length_promises() {
        let mut bytes = Vec::new();
        FrameWriter::new(&mut bytes).write(&token("日本")).unwrap();
        for end in 0..bytes.len() {
            let result = FrameReader::new(&bytes[..end]).read::<Reply>();
            assert!(matches!(result, Err(FrameError::Closed)), "{end}: {result:?}");
        }
        let mut promise = (FRAME_BYTES_MAX as u32).to_le_bytes().to_vec();
        promise.push(0);
        let mut reader = FrameReader::new(promise.as_slice());
        assert!(matches!(reader.read::<Reply>(), Err(FrameError::Closed)));
        assert!(reader.frames.bytes.capacity() < 1 << 16);
        let result = FrameReader::new(&b"<!DOCTYPE html>"[..]).read::<Reply>();
        assert!(matches!(result, Err(FrameError::TooLong(_))), "{result:?}");
    }

    #[test]
    fn bytes_that_are_no_message_are_an_error() {
        let mut bytes = 3_u32.to_le_bytes().to_vec();
        bytes.extend_from_slice(&[0xff; 3]);
        let result = FrameReader::new(bytes.as_slice()).read::<Reply>();
        assert!(matches!(result, Err(FrameError::Malformed(_))), "{result:?}");
    }
}
