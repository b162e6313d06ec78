//! Numbers over steps as TensorBoard reads them: event files.
//!
//! An event file is a sequence of records: the length (8 bytes, little-endian), a checksum of it, the content, a
//! checksum of that. The content is an `Event` in protobuf's wire format; only the few fields that scalars need are
//! written. The checksum is CRC-32C, turned and shifted so that one of a checksum differs from it. Formats:
//! `tensorflow/core/lib/io/ record_writer.h`, `tensorboard/compat/proto/event.proto` and `summary.proto`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Castagnoli's polynomial, its bits in reverse order.
const POLYNOMIAL: u32 = 0x82F6_3B78;

/// What is added to a turned checksum.
const MASK: u32 = 0xA282_EAD8;

/// The version of the format, as the first event says it.
const VERSION: &str = "brain.Event:2";

/// A file of events that grows.
#[derive(Debug)]
pub struct Events {
    file: File,
}

impl Events {
    /// A new file in a folder, which is made where it does not exist. Behind step `resumed` what other files of the
    /// folder have is forgotten.
    pub fn create(folder: &Path, resumed: Option<u64>) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let now = now();
        let name = format!("events.out.tfevents.{:010}.nfl.{}", now as u64, std::process::id());
        let mut file = File::create(folder.join(name))?;
        file.write_all(&record(&version_event(now)))?;
        if let Some(step) = resumed {
            file.write_all(&record(&start_event(now, step + 1)))?;
        }
        Ok(Self { file })
    }

    /// Writes numbers of a step.
    pub fn write(&mut self, step: u64, scalars: &[(&str, f32)]) -> io::Result<()> {
        self.file.write_all(&record(&scalar_event(now(), step, scalars)))
    }
}

/// Seconds since 1970.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// The event that begins a file, at a time in seconds.
fn version_event(time: f64) -> Vec<u8> {
    let mut event = Message::default();
    event.double(1, time).bytes(3, VERSION.as_bytes());
    event.0
}

/// The event that says that a run began anew at a step.
fn start_event(time: f64, step: u64) -> Vec<u8> {
    const START: u64 = 1;
    let (mut event, mut session) = (Message::default(), Message::default());
    session.number(1, START);
    event.double(1, time).number(2, step).bytes(7, &session.0);
    event.0
}

/// The event of a step's numbers.
fn scalar_event(time: f64, step: u64, scalars: &[(&str, f32)]) -> Vec<u8> {
    let (mut event, mut summary) = (Message::default(), Message::default());
    for (tag, value) in scalars {
        let mut one = Message::default();
        one.bytes(1, tag.as_bytes()).float(2, *value);
        summary.bytes(1, &one.0);
    }
    event.double(1, time).number(2, step).bytes(5, &summary.0);
    event.0
}

/// A record of a file.
fn record(content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u64).to_le_bytes();
    let mut all = length.to_vec();
    all.extend(masked_checksum(&length).to_le_bytes());
    all.extend(content);
    all.extend(masked_checksum(content).to_le_bytes());
    all
}

fn masked_checksum(bytes: &[u8]) -> u32 {
    checksum(bytes).rotate_right(15).wrapping_add(MASK)
}

/// CRC-32C, bit by bit: a step has a hundred bytes.
fn checksum(bytes: &[u8]) -> u32 {
    let mut rest = u32::MAX;
    for byte in bytes {
        rest ^= u32::from(*byte);
        for _ in 0..8 {
            let carry = if rest & 1 == 1 { POLYNOMIAL } else { 0 };
            rest = (rest >> 1) ^ carry;
        }
    }
    !rest
}

/// A message in protobuf's wire format; what is zero is left out, as proto3 does.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u64, kind: u64) -> &mut Self {
        self.varint(field << 3 | kind)
    }

    fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    fn number(&mut self, field: u64, value: u64) -> &mut Self {
        if value == 0 { self } else { self.key(field, 0).varint(value) }
    }

    fn double(&mut self, field: u64, value: f64) -> &mut Self {
        self.key(field, 1).0.extend(value.to_le_bytes());
        self
    }

    fn bytes(&mut self, field: u64, value: &[u8]) -> &mut Self {
        self.key(field, 2).varint(value.len() as u64).0.extend(value);
        self
    }

    fn float(&mut self, field: u64, value: f32) -> &mut Self {
        self.key(field, 5).0.extend(value.to_le_bytes());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, B.4.
        assert_eq!(checksum(&[0; 32]), 0x8A91_36AA);
        assert_eq!(checksum(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(checksum(b"123456789"), 0xE306_9283);
    }
    #[test]
    fn events_are_those_that_tensorboard_writes() {
        // tests/golden/events.py
        let judge = include_bytes!("../../tests/golden/events.tfevents");
        let time = 1_700_000_000.5;
        let ours = [
            version_event(time),
            start_event(time, 12),
            scalar_event(time, 1, &[("loss", 2.5)]),
            scalar_event(time, 300, &[("loss", -0.125), ("tokens_per_second", 1e6)]),
        ];
        let ours = ours.map(|event| record(&event)).concat();
        assert!(ours == judge, "{ours:?}\n{judge:?}");
    }
}
