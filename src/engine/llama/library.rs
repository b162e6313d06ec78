//! Whether a file is a whole shared library of this system, before the system's loader maps it.
//!
//! The loader maps a library by its own tables and trusts them: a file that was cut (a full disk, an
//! interrupted copy) ends the process with a bus error. So the ELF header is read here first: the
//! machine, the kind, and whether the tables that it names lie within the file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use thiserror::Error;

/// Bytes of an ELF header for 64-bit machines.
const HEADER_BYTES: usize = 64;

/// `e_type` of a shared library.
const SHARED: u16 = 3;

/// `e_machine` of this build; 0 where we do not check it.
const MACHINE: u16 = if cfg!(target_arch = "x86_64") {
    62
} else if cfg!(target_arch = "aarch64") {
    183
} else {
    0
};

/// Why a file is no library.
#[derive(Debug, Error)]
pub enum LibraryError {
    /// The system says no.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Something else than a library.
    #[error("not a shared library")]
    NotALibrary,
    /// A library for another processor.
    #[error("a library for another processor")]
    OtherProcessor,
    /// A library of which the end is missing.
    #[error("the file is cut: {bytes} bytes, its tables end at {expected}")]
    Cut {
        /// What is there.
        bytes: u64,
        /// Where the tables say it ends.
        expected: u64,
    },
}

/// Checks a file by its header; on systems without ELF the loader alone decides.
pub(super) fn check(path: &Path) -> Result<(), LibraryError> {
    if !cfg!(any(target_os = "linux", target_os = "freebsd", target_os = "android")) {
        return Ok(());
    }
    let mut file = File::open(path)?;
    let bytes = file.seek(SeekFrom::End(0))?;
    file.rewind()?;
    let mut header = [0_u8; HEADER_BYTES];
    match file.read_exact(&mut header) {
        Ok(()) => check_header(&header, bytes),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            Err(LibraryError::NotALibrary)
        }
        Err(error) => Err(error.into()),
    }
}

fn check_header(header: &[u8; HEADER_BYTES], bytes: u64) -> Result<(), LibraryError> {
    let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let u64_at = |at: usize| u64::from_le_bytes(std::array::from_fn(|index| header[at + index]));
    // Magic, 64-bit, little-endian.
    if !header.starts_with(b"\x7fELF\x02\x01") || u16_at(16) != SHARED {
        return Err(LibraryError::NotALibrary);
    }
    if MACHINE != 0 && u16_at(18) != MACHINE {
        return Err(LibraryError::OtherProcessor);
    }
    // The table of sections is written last: a file that holds it whole was not cut.
    let end_of = |offset: u64, size: u16, count: u16| {
        offset.saturating_add(u64::from(size) * u64::from(count))
    };
    let programs = end_of(u64_at(32), u16_at(54), u16_at(56));
    let sections = end_of(u64_at(40), u16_at(58), u16_at(60));
    let expected = programs.max(sections);
    if expected > bytes {
        return Err(LibraryError::Cut { bytes, expected });
    }
    Ok(())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::fs;

    use super::*;

    /// A library that every Linux process of this build has mapped: the C library.
    fn c_library() -> Vec<u8> {
        let maps = fs::read_to_string("/proc/self/maps").unwrap();
        let line = maps.lines().find(|line| line.contains("/libc.so") || line.contains("/libc-"));
        fs::read(line.unwrap().split_whitespace().last().unwrap()).unwrap()
    }

    fn checked(bytes: &[u8]) -> Result<(), LibraryError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        check(file.path())
    }

    #[test]
    fn a_whole_library_passes_and_a_cut_one_does_not() {
        let library = c_library();
        checked(&library).unwrap();
        for bytes in [library.len() - 1, library.len() / 2, 4096, HEADER_BYTES] {
            let error = checked(&library[..bytes]).unwrap_err();
            assert!(matches!(error, LibraryError::Cut { .. }), "{bytes}: {error}");
        }
    }

    #[test]
    fn other_files_are_no_libraries() {
        let mut foreign = c_library();
        foreign[18] = 8;
        assert!(matches!(checked(&foreign), Err(LibraryError::OtherProcessor)));
        for bytes in [&b""[..], b"GGUF", &[0; 100], b"\x7fELF"] {
            assert!(matches!(checked(bytes), Err(LibraryError::NotALibrary)));
        }
        assert!(matches!(check(Path::new("/nowhere.so")), Err(LibraryError::Io(_))));
    }
}
