//! A file on its way: written beside its final name, checked, then renamed.
//!
//! The layout is known before the first value is, so every thread writes its piece at its place and
//! no order is kept. Until the very end the bytes are in a hidden file
//! `.nfl-NAME-LEVEL.gguf.….partial`. It is removed when the conversion stops for whatever reason,
//! except when the process is killed; what a killed process left is swept away by the next
//! conversion to the same name, which knows it by the lock that only a living process holds.

use crate::error::ConvertError;
use crate::order::Order;
use crate::receipt::{Receipt, ReceiptTensor};
use nfl_models::gguf::{Array, Gguf, Header, Metadata, TensorInfo, TensorPlan, Value, Writer};
use nfl_models::{Level, TensorType};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;
use tempfile::NamedTempFile;

/// Attempts to make a temporary file that no other process sweeps away in the same moment.
const ATTEMPTS_MAX: usize = 8;

/// The end of a temporary file's name.
const SUFFIX: &str = ".partial";

/// A file that is being written.
pub(crate) struct Output {
    level: Level,
    path: PathBuf,
    file: NamedTempFile,
    header: Header,
    bytes: u64,
    /// Type and offset in the file of each tensor of the job.
    places: Vec<Place>,
}

/// Where a tensor goes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) tensor_type: TensorType,
    /// In bytes from the start of the file.
    pub(crate) offset: u64,
}

/// What a file will hold.
pub(crate) struct Layout<'a> {
    pub(crate) level: Level,
    pub(crate) path: PathBuf,
    pub(crate) metadata: &'a Metadata,
    /// The tensors of the job with their types in this file.
    pub(crate) tensors: Vec<TensorPlan>,
    /// The order of the tensors in the file: numbers of the job's.
    pub(crate) order: Vec<usize>,
}

impl Output {
    /// Makes the temporary file and writes its head.
    pub(crate) fn create(layout: Layout<'_>) -> Result<Self, ConvertError> {
        let Layout { level, path, metadata, tensors, order } = layout;
        let mut head = Vec::new();
        let sorted: Vec<TensorPlan> = order.iter().map(|index| tensors[*index].clone()).collect();
        let bytes = Writer::new(&mut head, metadata, sorted)?.total_bytes();
        let header = Header::parse_prefix(&head, bytes)?;
        let mut places: Vec<Place> = tensors
            .iter()
            .map(|tensor| Place { tensor_type: tensor.tensor_type, offset: 0 })
            .collect();
        for (index, info) in order.iter().zip(&header.tensors) {
            places[*index].offset = header.data_offset + info.offset;
        }
        let fail = |source| ConvertError::Write { path: path.clone(), source };
        within_limit(bytes).map_err(fail)?;
        let file = temporary(&path).map_err(fail)?;
        // the whole length at once: what no thread writes is padding, and reads as zero
        file.as_file().set_len(bytes).map_err(fail)?;
        write_at(file.as_file(), &head, 0).map_err(fail)?;
        Ok(Self { level, path, file, header, bytes, places })
    }

    pub(crate) fn level(&self) -> Level {
        self.level
    }

    /// Values in the file.
    pub(crate) fn elements(&self) -> u64 {
        self.header.tensors.iter().map(TensorInfo::elements).sum()
    }

    pub(crate) fn place(&self, tensor: usize) -> Place {
        self.places[tensor]
    }

    /// Writes bytes of a tensor; `position` counts from the tensor's start.
    pub(crate) fn write(
        &self,
        tensor: usize,
        position: u64,
        bytes: &[u8],
    ) -> Result<(), ConvertError> {
        let offset = self.places[tensor].offset + position;
        write_at(self.file.as_file(), bytes, offset)
            .map_err(|source| ConvertError::Write { path: self.path.clone(), source })
    }

    /// Makes the bytes durable, reads the file back, checks it, and gives it its name.
    pub(crate) fn finish(
        self,
        order: &Order,
        started: Instant,
        check: &dyn Fn(&Gguf) -> Result<(), ConvertError>,
    ) -> Result<Receipt, ConvertError> {
        let Self { level, path, file, header, bytes, .. } = self;
        let fail = |source| ConvertError::Write { path: path.clone(), source };
        file.as_file().sync_all().map_err(fail)?;
        let tensors = {
            let written = Gguf::open(file.path())?;
            compare(&written, &header, bytes)
                .map_err(|problem| ConvertError::Check { path: path.clone(), problem })?;
            check(&written)?;
            ReceiptTensor::all(&written, order.checksums)
        };
        rename(file, &path, order.overwrite).map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => ConvertError::Exists { path: path.clone() },
            _ => fail(source),
        })?;
        sync_directory(&path);
        Ok(Receipt { level, path, bytes, seconds: started.elapsed().as_secs_f64(), tensors })
    }
}

/// Compares what the reader sees with what was planned.
fn compare(written: &Gguf, planned: &Header, bytes: u64) -> Result<(), String> {
    if written.file_bytes() != bytes {
        return Err(format!("{} bytes, not {bytes}", written.file_bytes()));
    }
    if !same_metadata(written.metadata(), &planned.metadata) {
        return Err("metadata differ".to_owned());
    }
    if written.tensors() != planned.tensors {
        return Err("tensors differ".to_owned());
    }
    Ok(())
}

/// Same entries in the same order, bit by bit: a NaN, which equals nothing, is the same here.
fn same_metadata(left: &Metadata, right: &Metadata) -> bool {
    left.len() == right.len()
        && left.iter().zip(right.iter()).all(|((left_key, left), (right_key, right))| {
            left_key == right_key && same_value(left, right)
        })
}

fn same_value(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::F32(left), Value::F32(right)) => left.to_bits() == right.to_bits(),
        (Value::F64(left), Value::F64(right)) => left.to_bits() == right.to_bits(),
        (Value::Array(Array::F32(left)), Value::Array(Array::F32(right))) => {
            left.iter().map(|value| value.to_bits()).eq(right.iter().map(|value| value.to_bits()))
        }
        (Value::Array(Array::F64(left)), Value::Array(Array::F64(right))) => {
            left.iter().map(|value| value.to_bits()).eq(right.iter().map(|value| value.to_bits()))
        }
        _ => left == right,
    }
}

/// Gives a file its final name, replacing what has it only when `overwrite` says so.
fn rename(file: NamedTempFile, path: &Path, overwrite: bool) -> io::Result<()> {
    if overwrite {
        return Ok(file.persist(path).map(drop)?);
    }
    match file.persist_noclobber(path) {
        Ok(_) => Ok(()),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Err(error.error),
        // some file systems can neither rename without replacing nor link
        Err(error) if path.symlink_metadata().is_err() => Ok(error.file.persist(path).map(drop)?),
        Err(error) => Err(error.error),
    }
}

/// Refuses a file beyond what the system lets this process write (`ulimit -f`): trying would be
/// answered with a signal that ends the process, and the half-written file would stay.
#[cfg(unix)]
pub(crate) fn within_limit(bytes: u64) -> io::Result<()> {
    match rustix::process::getrlimit(rustix::process::Resource::Fsize).current {
        Some(limit) if bytes > limit => {
            let message = format!("{bytes} bytes, but files may have {limit} at most");
            Err(io::Error::new(io::ErrorKind::FileTooLarge, message))
        }
        _ => Ok(()),
    }
}

/// Nothing is known of such a limit elsewhere.
#[cfg(not(unix))]
pub(crate) fn within_limit(_: u64) -> io::Result<()> {
    Ok(())
}

/// A new file beside `path`, locked for as long as it is open, after sweeping away what killed
/// processes left.
fn temporary(path: &Path) -> io::Result<NamedTempFile> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let prefix = format!(".nfl-{name}.");
    sweep(directory, &prefix);
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).suffix(SUFFIX);
    // by default the file would be readable by its owner only, and keep that under its final name
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    for _ in 0..ATTEMPTS_MAX {
        let file = builder.tempfile_in(directory)?;
        // a file system without locks is no obstacle: nothing is swept there
        let _ = file.as_file().lock();
        if file.path().exists() {
            return Ok(file);
        }
    }
    Err(io::Error::other("temporary files vanish as they are made"))
}

/// Removes temporary files of the same name that no living process holds.
fn sweep(directory: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !(is_file && name.starts_with(prefix) && name.ends_with(SUFFIX)) {
            continue;
        }
        if let Ok(file) = File::options().write(true).open(entry.path())
            && file.try_lock().is_ok()
        {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Makes the rename durable where directories can be synced; the file itself is already.
fn sync_directory(path: &Path) {
    if let Some(directory) = path.parent().and_then(|parent| File::open(parent).ok()) {
        let _ = directory.sync_all();
    }
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                bytes = &bytes[written..];
                offset += written as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_are_compared_by_bits() {
        let with = |value: Value| -> Metadata { [("a", value)].into_iter().collect() };
        let values = [
            Value::from(f32::NAN),
            Value::from(-f32::NAN),
            Value::from(f64::NAN),
            Value::from(0.0_f32),
            Value::from(-0.0_f32),
            Value::from(0.0_f64),
            Value::from(-0.0_f64),
            Value::from(vec![1.0_f32, f32::NAN]),
            Value::from(vec![f32::NAN, 1.0_f32]),
            Value::from(vec![1.0_f64, f64::NAN]),
            Value::from(vec![0.0_f64, f64::NAN]),
            Value::from(vec![0.0_f64]),
            Value::from(0_u32),
            Value::from("a"),
        ];
        for (row, left) in values.iter().enumerate() {
            for (column, right) in values.iter().enumerate() {
                let same = same_metadata(&with(left.clone()), &with(right.clone()));
                assert_eq!(same, row == column, "{left:?} and {right:?}");
            }
        }
        let one = with(Value::from(f32::NAN));
        let other: Metadata = [("b", f32::NAN)].into_iter().collect();
        assert!(!same_metadata(&one, &other) && !same_metadata(&one, &Metadata::new()));
    }
}
