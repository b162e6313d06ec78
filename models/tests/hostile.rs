//! Hostile files: each ends in a clear error, at once, without a crash and without a large
//! allocation.
//!
//! The first table is that of llama.cpp's `tests/test-gguf.cpp`, case by case, with what it
//! expects; the second has the further cases that a reader must survive.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nfl_models::Hint;
use nfl_models::gguf::{Gguf, GgufError, Header};

use crate::builder::{Bytes, small_llama, write};

/// A file, and what becomes of it: read (`Ok`), or refused with a message that holds a text.
struct Case {
    name: &'static str,
    bytes: Bytes,
    /// Bytes of the file, where it is said to be longer than the bytes at hand.
    file_bytes: Option<u64>,
    outcome: Result<(), &'static str>,
}

fn case(name: &'static str, bytes: Bytes, outcome: Result<(), &'static str>) -> Case {
    Case { name, bytes, file_bytes: None, outcome }
}

/// Time that this thread has spent on a processor, so that a loaded machine fails no test.
fn busy() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    let spent = std::fs::read_to_string("/proc/thread-self/schedstat").ok();
    let spent = spent.and_then(|text| text.split(' ').next()?.parse().ok());
    spent.map_or_else(|| START.get_or_init(Instant::now).elapsed(), Duration::from_nanos)
}

fn check(cases: Vec<Case>) {
    for Case { name, bytes, file_bytes, outcome } in cases {
        let started = busy();
        let file_bytes = file_bytes.unwrap_or(bytes.0.len() as u64);
        let result = Header::parse_prefix(&bytes.0, file_bytes);
        let took = busy().saturating_sub(started);
        assert!(took < Duration::from_secs(1), "{name} took {took:?}");
        match (result, outcome) {
            (Ok(_), Ok(())) => {}
            (Ok(_), Err(expected)) => panic!("{name}: read, but {expected:?} was expected"),
            (Err(error), Ok(())) => panic!("{name}: {error}"),
            (Err(error), Err(expected)) => {
                let message = error.to_string();
                assert!(message.contains(expected), "{name}: {message:?}, not {expected:?}");
                assert!(!message.ends_with('.'), "{name}: {message:?}");
                // A file of version 0 is no GGUF file of any kind; for all others there is a hint.
                let hint = error.hint().is_some() || matches!(error, GgufError::Version(0));
                assert!(hint || matches!(error, GgufError::Magic(_)), "{name}: no hint");
            }
        }
    }
}

const ALIGNMENT: &str = "general.alignment";

/// Ids of types, as in a file.
const F32: u32 = 0;
const Q4_0: u32 = 2;
const I8: u32 = 24;
const I64: u32 = 27;

#[test]
fn header_cases_of_llama_cpp() {
    let header = |version| Bytes::header(version, 0, 0).pad(32);
    let magic = Bytes(b"FUGG".to_vec()).u32(3).u64(0).u64(0).pad(32);
    let other_magic = Bytes(b"GGML".to_vec()).u32(3).u64(0).u64(0).pad(32);
    check(vec![
        case("HEADER_BAD_MAGIC", magic, Err("big-endian")),
        case("HEADER_BAD_MAGIC (another)", other_magic, Err("begins with GGML")),
        case("HEADER_BAD_VERSION_0", header(0), Err("GGUF version: 0")),
        case("HEADER_BAD_VERSION_1", header(1), Err("GGUF version: 1")),
        case("HEADER_BAD_VERSION_FUTURE", header(4), Err("GGUF version: 4")),
        case("HEADER_BAD_N_TENSORS", Bytes::header(3, u64::MAX, 0), Err("number of tensors")),
        case("HEADER_BAD_N_KV", Bytes::header(3, 0, u64::MAX), Err("number of metadata entries")),
        case("HEADER_EMPTY", header(3), Ok(())),
    ]);
}

#[test]
fn metadata_cases_of_llama_cpp() {
    let one = || Bytes::header(3, 0, 1);
    let duplicate = Bytes::header(3, 0, 2).entry_u32("key", 1).entry_u32("key", 2);
    check(vec![
        case("KV_BAD_KEY_SIZE", one().u64(u64::MAX).raw(b"key").u32(4), Err("metadata key: 1844")),
        case("KV_EMPTY_KEY", one().entry_u32("", 1).pad(32), Err("empty key")),
        case(
            "KV_BAD_TYPE",
            one().string("key").u32(13).u32(1),
            Err("type of metadata value key: 13"),
        ),
        case("KV_DUPLICATE_KEY", duplicate, Err("appears twice: key")),
        case("KV_BAD_ALIGN", one().entry_u32(ALIGNMENT, 13), Err("must be a power of two")),
        case(
            "KV_WRONG_TYPE_ALIGN",
            one().string(ALIGNMENT).u32(5).u32(32),
            Err("i32 (must be u32)"),
        ),
        case("KV_SUCCESS", Bytes::header(3, 0, 24).entries_of_every_type(), Ok(())),
    ]);
}

/// Two tensors whose infos differ from good ones in one way; the files hold no data, as in
/// llama.cpp's cases, which read only the head.
#[test]
fn tensor_cases_of_llama_cpp() {
    let long =
        "my_tensor_with_a_very_long_name_which_is_longer_than_what_is_allowed_for_ggml_tensors";
    let two = || Bytes::header(3, 2, 0);
    let head = |bytes: Bytes| bytes.tensor("b", &[32], F32, 32).pad(32);
    let after = |first: Bytes, offset| first.tensor("b", &[32], F32, offset).pad(32);
    let aligned = |alignment| Bytes::header(3, 2, 1).entry_u32(ALIGNMENT, alignment);
    let root = 1_518_500_250; // The least whose square has more than i64::MAX / 4 … bytes as I64.
    let cases = vec![
        case(
            "TENSORS_BAD_NAME_SIZE",
            head(two().tensor(long, &[8], F32, 0)),
            Err("tensor name: 85"),
        ),
        case(
            "TENSORS_BAD_N_DIMS",
            head(two().tensor("a", &[1; 5], F32, 0)),
            Err("dimensions of a tensor: 5"),
        ),
        case(
            "TENSORS_BAD_SHAPE",
            head(two().tensor("a", &[u64::MAX], F32, 0)),
            Err("size of tensor a"),
        ),
        case("TENSORS_ZERO_DIM", after(two().tensor("a", &[8, 0], F32, 0), 0), Ok(())),
        case(
            "TENSORS_NE_TOO_BIG",
            head(two().tensor("a", &[4 << 31; 2], F32, 0)),
            Err("size of tensor a"),
        ),
        case(
            "TENSORS_NBYTES_TOO_BIG",
            head(two().tensor("a", &[root; 2], I64, 0)),
            Err("size of tensor a"),
        ),
        // Its bytes fit in 64 bits, its padding does not.
        case(
            "TENSORS_NBYTES_PAD_WRAP",
            head(two().tensor("a", &[4, (1 << 30) - 1, (1 << 30) + 1], F32, 0)),
            Err("size of tensor a"),
        ),
        case(
            "TENSORS_BAD_TYPE",
            head(two().tensor("a", &[8], 43, 0)),
            Err("type of tensor a: 43 (unknown)"),
        ),
        case(
            "TENSORS_BAD_OFFSET",
            head(two().tensor("a", &[8], F32, u64::MAX)),
            Err("offset of tensor a"),
        ),
        case(
            "TENSORS_DUPLICATE_NAME",
            head(two().tensor("b", &[8], F32, 0)),
            Err("appears twice: b"),
        ),
        case("TENSORS_BAD_ALIGN", head(aligned(13).tensor("a", &[8], F32, 0)), Err("power of two")),
        case(
            "TENSORS_INCONSISTENT_ALIGN",
            after(two().tensor("a", &[1], F32, 0), 4),
            Err("not aligned"),
        ),
        case("TENSORS_SUCCESS", head(two().tensor("a", &[8], F32, 0)), Ok(())),
        case("TENSORS_CUSTOM_ALIGN", after(aligned(1).tensor("a", &[1], F32, 0), 4), Ok(())),
    ];
    let mut long_enough = cases;
    for each in &mut long_enough {
        each.file_bytes = Some(1 << 20);
    }
    check(long_enough);
}

#[test]
fn data_cases_of_llama_cpp() {
    let huge = 0x7FFF_FFFF_FFFF_FFC0;
    let two = |first: &[u64], offset| {
        Bytes::header(3, 2, 0).tensor("a", first, I8, 0).tensor("b", &[32], I8, offset).pad(32)
    };
    let aligned = |alignment| {
        let head = Bytes::header(3, 2, 1).entry_u32(ALIGNMENT, alignment);
        head.tensor("a", &[33], I8, 0).tensor("b", &[1], I8, 33)
    };
    check(vec![
        case("DATA_NOT_ENOUGH_DATA", two(&[32], 32).data(63), Err("data of tensor b ends at")),
        case("DATA_BAD_ALIGN", aligned(13).data(64), Err("power of two")),
        case("DATA_INCONSISTENT_ALIGN", two(&[33], 33).data(65), Err("not aligned")),
        case(
            "DATA_MEM_SIZE_OVERFLOW",
            two(&[huge], huge).data(32),
            Err("data of tensor a ends at"),
        ),
        case("DATA_SUCCESS", two(&[32], 32).data(64), Ok(())),
        case("DATA_CUSTOM_ALIGN", aligned(1).data(34), Ok(())),
    ]);
}

/// Case 1: at every byte of a file with every kind of value, and at many of a whole model.
#[test]
fn a_file_cut_at_any_byte_is_refused() {
    let tiny = Bytes::header(3, 2, 24).entries_of_every_type();
    let tiny = tiny.tensor("a", &[8], F32, 0).tensor("b", &[32], Q4_0, 32).pad(32).data(50);
    let (metadata, tensors) = small_llama(0);
    for (whole, step) in [(tiny.0, 1), (write(&metadata, &tensors), 101)] {
        assert!(Header::parse(&whole).is_ok());
        for length in (0..whole.len()).step_by(step) {
            let started = busy();
            let error = Header::parse(&whole[..length]).unwrap_err();
            let cut = matches!(error, GgufError::Truncated { .. } | GgufError::OutOfFile { .. });
            assert!(cut, "cut at {length}: {error}");
            assert!(busy().saturating_sub(started) < Duration::from_secs(1));
        }
    }
}

/// Only the padding after the last tensor may be missing: llama.cpp loads such files.
#[test]
fn the_last_padding_may_be_missing() {
    let file = |bytes| Bytes::header(3, 1, 0).tensor("a", &[3], I8, 0).pad(32).data(bytes);
    assert!(Header::parse(&file(3).0).is_ok());
    assert!(Header::parse(&file(2).0).is_err());
}

/// Cases 2 to 6: where tensors lie.
#[test]
fn cases_of_places() {
    let one = || Bytes::header(3, 1, 0);
    let two = |dimensions: &[u64], offset| {
        Bytes::header(3, 2, 0)
            .tensor("a", dimensions, F32, 0)
            .tensor("b", &[8], F32, offset)
            .pad(32)
    };
    let aligned =
        |alignment| Bytes::header(3, 0, 1).entry_u32(ALIGNMENT, alignment).pad(32).data(64);
    check(vec![
        case(
            "2 past the end by one",
            one().tensor("a", &[8], F32, 0).pad(32).data(31),
            Err("data of tensor a ends"),
        ),
        case("3 overlap", two(&[16], 32).data(96), Err("overlaps")),
        case("3 gap", two(&[8], 64).data(96), Err("leaves a gap")),
        case("4 unaligned", two(&[8], 36).data(96), Err("not aligned")),
        case(
            "5 product",
            one().tensor("a", &[1 << 32, 1 << 31], F32, 0).pad(32),
            Err("size of tensor a"),
        ),
        case("5 dimension", one().tensor("a", &[1 << 63], F32, 0).pad(32), Err("size of tensor a")),
        case("5 zero hides it", one().tensor("a", &[0, 1 << 62, 1 << 62], F32, 0).pad(32), Ok(())),
        case("6 alignment 0", aligned(0), Err("general.alignment: 0")),
        case("6 alignment 3", aligned(3), Err("general.alignment: 3")),
        case("6 alignment 2^31", aligned(1 << 31), Err("general.alignment: 2147483648 (at most")),
    ]);
}

/// Cases 7 to 10, 15 and 23: lengths and types.
#[test]
fn cases_of_lengths() {
    let one = || Bytes::header(3, 1, 0);
    let entry = || Bytes::header(3, 0, 1);
    let mut nested = entry().string("key").u32(9);
    for _ in 0..10_000 {
        nested = nested.u32(9).u64(1);
    }
    check(vec![
        case(
            "7 string",
            entry().string("key").u32(8).u64(1 << 63),
            Err("string: 9223372036854775808"),
        ),
        case("7 key", entry().u64(1 << 63).data(32), Err("metadata key: 9223372036854775808")),
        case(
            "8 long array",
            entry().string("key").u32(9).u32(0).u64(1 << 40),
            Err("array: 1099511627776"),
        ),
        case(
            "8 array beyond the file",
            entry().string("key").u32(9).u32(0).u64(1 << 20),
            Err("file ends"),
        ),
        case(
            "8 strings beyond the file",
            entry().string("key").u32(9).u32(8).u64(1 << 20),
            Err("file ends"),
        ),
        case("8 nested arrays", nested, Err("array of arrays: key")),
        case("9 entries", Bytes::header(3, 0, 1 << 63), Err("number of metadata entries")),
        case("9 entries within the limit", Bytes::header(3, 0, 1 << 16), Err("file ends")),
        case("9 tensors within the limit", Bytes::header(3, 1 << 18, 0), Err("file ends")),
        case(
            "15 Q4_2",
            one().tensor("a", &[32], 4, 0).pad(32),
            Err("4 (Q4_2, which ggml has removed)"),
        ),
        case("15 unknown", one().tensor("a", &[32], 255, 0).pad(32), Err("255 (unknown)")),
        case(
            "row",
            one().tensor("a", &[33], Q4_0, 0).pad(32),
            Err("33 elements (Q4_0 needs a multiple of 32)"),
        ),
        case(
            "23 big-endian",
            Bytes(b"GGUF".to_vec()).raw(&[0, 0, 0, 3]).raw(&[0; 16]),
            Err("big-endian"),
        ),
        case("name", one().tensor("a\0b", &[8], F32, 0).pad(32).data(32), Err("not text: a\\x00b")),
    ]);
}

/// Case 21: a file of 4 TB that is nothing but holes.
#[test]
fn sparse_files_of_terabytes_take_no_time() {
    const TERABYTES: u64 = 4 << 40;
    let folder = tempfile::tempdir().unwrap();
    let open = |name: &str, head: &Bytes| {
        let path = folder.path().join(name);
        std::fs::write(&path, &head.0).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        if let Err(error) = file.set_len(TERABYTES) {
            eprintln!("skipped: no sparse file of 4 TB here: {error}");
            return None;
        }
        let started = busy();
        let result = Gguf::open(&path);
        assert!(busy().saturating_sub(started) < Duration::from_secs(1), "{name}");
        Some(result)
    };
    let Some(zeros) = open("zeros", &Bytes::default()) else { return };
    assert!(zeros.unwrap_err().to_string().contains("begins with"));
    // The file could hold this array, memory could not.
    let array = Bytes::header(3, 0, 1).string("key").u32(9).u32(0).u64(1 << 40);
    let error = open("array", &array).unwrap().unwrap_err().to_string();
    assert!(error.contains("array: 1099511627776 (at most"), "{error}");
    let many = Bytes::header(3, 0, 1 << 16);
    let error = open("many", &many).unwrap().unwrap_err().to_string();
    assert!(error.contains("empty key"), "{error}");
    let tensor = Bytes::header(3, 1, 0).tensor("a", &[3 << 40], I8, 0);
    let model = open("tensor", &tensor).unwrap().unwrap();
    assert_eq!(model.data(&model.tensors()[0]).len() as u64, 3 << 40);
    assert_eq!(model.file_bytes(), TERABYTES);
}

/// Strings within their own limit do not get past that of the whole section.
#[test]
fn many_strings_meet_a_limit() {
    let text = " ".repeat(60 << 20);
    let mut long = Bytes::header(3, 0, 3);
    for entry in 0..3 {
        long = long.string(&format!("key.{entry}")).u32(8).string(&text);
    }
    let array = Bytes::default().u64(1).raw(b"x").0.repeat(1 << 23);
    let mut short = Bytes::header(3, 0, 2);
    for entry in 0..2 {
        short = short.string(&format!("key.{entry}")).u32(9).u32(8).u64(1 << 23).raw(&array);
    }
    check(vec![
        case("long strings", long, Err("bytes of metadata")),
        case("short strings", short, Err("bytes of metadata")),
    ]);
}

#[test]
fn what_is_no_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let error = Gguf::open(folder.path()).unwrap_err();
    assert!(error.to_string().contains("not a regular file"), "{error}");
    assert!(error.hint().unwrap().contains("nfl convert"));
    let error = Gguf::open(&folder.path().join("absent.gguf")).unwrap_err();
    assert!(error.to_string().contains("cannot read"), "{error}");
    let empty = folder.path().join("empty.gguf");
    std::fs::write(&empty, []).unwrap();
    let error = Gguf::open(&empty).unwrap_err();
    assert!(error.to_string().contains("file ends inside magic"), "{error}");
    for (magic, hint) in
        [("version https://git-lfs", "git lfs pull"), ("PK\x03\x04", "safetensors")]
    {
        std::fs::write(&empty, magic).unwrap();
        assert!(Gguf::open(&empty).unwrap_err().hint().unwrap().contains(hint));
    }
    #[cfg(unix)]
    {
        let error = Gguf::open(std::path::Path::new("/dev/zero")).unwrap_err();
        assert!(error.to_string().contains("not a regular file"), "{error}");
    }
}

/// All of the above again in a process that may not have much memory: an allocation that believes a
/// length ends it.
#[cfg(target_os = "linux")]
#[test]
fn no_case_needs_much_memory() {
    const LIMIT_KIBIBYTES: u64 = 768 << 10;
    let mut command = std::process::Command::new("sh");
    let script = format!("ulimit -v {LIMIT_KIBIBYTES}; exec \"$0\" \"$@\"");
    command.arg("-c").arg(script).arg(std::env::current_exe().unwrap());
    command.args(["--test-threads=1", "cases", "cut_at_any_byte"]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("7 passed"), "{text}");
}
