//! The reader of SentencePiece models: the protobuf wire format, as far as `sentencepiece_model.proto` needs it.
//!
//! A reader of its own rather than a protobuf library: forty lines of wire format keep every limit in sight, and no
//! schema compiler is needed. Fields that do not matter for GGUF are skipped.

use super::limits::{TOKEN_BYTES_MAX, TOKENS_MAX};

/// A SentencePiece model, as far as a GGUF vocabulary needs it.
#[expect(clippy::struct_excessive_bools, reason = "the flags of the file")]
#[derive(Clone, PartialEq, Debug)]
pub(super) struct SentencePiece {
    /// The pieces; a piece's place is its id.
    pub(super) pieces: Vec<Piece>,
    /// How the pieces were chosen and how text is cut into them.
    pub(super) algorithm: Algorithm,
    /// The character map of the normalizer is not empty.
    pub(super) has_character_map: bool,
    /// A space is put before the text.
    pub(super) add_dummy_prefix: bool,
    /// Repeated spaces become one, and spaces at the ends are dropped.
    pub(super) remove_extra_whitespaces: bool,
    /// Spaces become `▁`.
    pub(super) escape_whitespaces: bool,
    /// The space belongs to the end of a word.
    pub(super) whitespace_as_suffix: bool,
}

/// One piece of the vocabulary.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Piece {
    /// Its text.
    pub(super) text: String,
    /// Its score: the higher, the earlier it is merged.
    pub(super) score: f32,
    /// What it is for.
    pub(super) kind: PieceKind,
}

/// What a piece is for (`ModelProto.SentencePiece.Type`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PieceKind {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

/// `TrainerSpec.ModelType`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Algorithm {
    Unigram,
    Bpe,
    Word,
    Character,
}

impl SentencePiece {
    /// Reads a model.
    ///
    /// # Errors
    /// What is wrong, in words, when the bytes are no SentencePiece model.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        // The defaults are those of the schema.
        let mut model = Self {
            pieces: Vec::new(),
            algorithm: Algorithm::Unigram,
            has_character_map: false,
            add_dummy_prefix: true,
            remove_extra_whitespaces: true,
            escape_whitespaces: true,
            whitespace_as_suffix: false,
        };
        let mut wire = Wire::new(bytes);
        while let Some((number, field)) = wire.field()? {
            match (number, field) {
                (1, Field::Bytes(piece)) => {
                    if model.pieces.len() == TOKENS_MAX {
                        return Err(format!("more than {TOKENS_MAX} pieces"));
                    }
                    let id = model.pieces.len();
                    let piece =
                        Piece::parse(piece).map_err(|reason| format!("piece {id}: {reason}"))?;
                    model.pieces.push(piece);
                }
                (2, Field::Bytes(trainer)) => model.read_trainer(trainer)?,
                (3, Field::Bytes(normalizer)) => model.read_normalizer(normalizer)?,
                (1..=3, _) => return Err(format!("field {number} is no message")),
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err("no pieces".to_owned());
        }
        Ok(model)
    }

    fn read_trainer(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut wire = Wire::new(bytes);
        while let Some((number, field)) = wire.field()? {
            match (number, field) {
                (3, Field::Number(number)) => {
                    self.algorithm = match number {
                        1 => Algorithm::Unigram,
                        2 => Algorithm::Bpe,
                        3 => Algorithm::Word,
                        4 => Algorithm::Character,
                        other => return Err(format!("model type {other}")),
                    }
                }
                (24, Field::Number(number)) => self.whitespace_as_suffix = number != 0,
                _ => {}
            }
        }
        Ok(())
    }

    fn read_normalizer(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut wire = Wire::new(bytes);
        while let Some((number, field)) = wire.field()? {
            match (number, field) {
                (2, Field::Bytes(map)) => self.has_character_map = !map.is_empty(),
                (3, Field::Number(number)) => self.add_dummy_prefix = number != 0,
                (4, Field::Number(number)) => self.remove_extra_whitespaces = number != 0,
                (5, Field::Number(number)) => self.escape_whitespaces = number != 0,
                _ => {}
            }
        }
        Ok(())
    }
}

impl Piece {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut piece = Self { text: String::new(), score: 0.0, kind: PieceKind::Normal };
        let mut wire = Wire::new(bytes);
        while let Some((number, field)) = wire.field()? {
            match (number, field) {
                (1, Field::Bytes(text)) => {
                    if text.len() > TOKEN_BYTES_MAX {
                        return Err(format!(
                            "{} bytes, the limit is {TOKEN_BYTES_MAX}",
                            text.len()
                        ));
                    }
                    let text =
                        str::from_utf8(text).map_err(|error| format!("not UTF-8: {error}"))?;
                    text.clone_into(&mut piece.text);
                }
                (2, Field::Fixed32(bits)) => piece.score = f32::from_bits(bits),
                (3, Field::Number(number)) => piece.kind = PieceKind::from_number(number)?,
                (1..=3, _) => return Err(format!("field {number} has a wrong wire type")),
                _ => {}
            }
        }
        if piece.text.is_empty() {
            return Err("no text".to_owned());
        }
        // A score that is no number would break the order in which llama.cpp merges.
        if !piece.score.is_finite() {
            return Err(format!("score {}", piece.score));
        }
        if piece.kind == PieceKind::Byte && byte_of(&piece.text).is_none() {
            return Err(format!("{:?} is no byte piece", piece.text));
        }
        Ok(piece)
    }
}

impl PieceKind {
    fn from_number(number: u64) -> Result<Self, String> {
        Ok(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            other => return Err(format!("type {other}")),
        })
    }
}

/// The byte that a piece like `<0x0A>` stands for.
pub(super) fn byte_of(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_byte = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    if is_byte { u8::from_str_radix(digits, 16).ok() } else { None }
}

/// A position in a protobuf message.
struct Wire<'a> {
    bytes: &'a [u8],
}

/// The value of a field, by its wire type.
enum Field<'a> {
    Number(u64),
    Fixed32(u32),
    Fixed64,
    Bytes(&'a [u8]),
}

impl<'a> Wire<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The next field's number and value; `None` at the end of the message.
    fn field(&mut self) -> Result<Option<(u64, Field<'a>)>, String> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let tag = self.number()?;
        let field = match tag & 7 {
            0 => Field::Number(self.number()?),
            1 => {
                self.take(8)?;
                Field::Fixed64
            }
            2 => {
                let length = self.number()?;
                Field::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Field::Fixed32(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
            }
            other => return Err(format!("wire type {other}")),
        };
        match tag >> 3 {
            0 => Err("field number 0".to_owned()),
            number => Ok(Some((number, field))),
        }
    }

    /// A number in groups of seven bits, the lowest first.
    fn number(&mut self) -> Result<u64, String> {
        let mut number = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("a number of more than 64 bits".to_owned())
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        let taken =
            usize::try_from(length).ok().and_then(|length| self.bytes.split_at_checked(length));
        let Some((taken, rest)) = taken else {
            return Err(format!("{length} bytes wanted, {} remain", self.bytes.len()));
        };
        self.bytes = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message field of wire type 2.
    fn message(number: u8, bytes: &[u8]) -> Vec<u8> {
        assert!(bytes.len() < 128, "one length byte");
        [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
    }

    fn piece(text: &[u8], score: f32, kind: u8) -> Vec<u8> {
        let body = [&message(1, text)[..], &[0x15], &score.to_le_bytes(), &[0x18, kind]].concat();
        message(1, &body)
    }

    #[test]
    fn pieces_and_flags_are_read() {
        let bytes = [
            piece(b"<unk>", 0.0, 2),
            piece("▁a".as_bytes(), -1.5, 1),
            piece(b"<0x0A>", 0.0, 6),
            message(2, &[0x18, 2]),
            message(3, &[0x18, 0, 0x20, 0]),
        ]
        .concat();
        let model = SentencePiece::parse(&bytes).unwrap();
        assert_eq!(model.pieces.len(), 3);
        assert_eq!(
            model.pieces[1],
            Piece { text: "▁a".to_owned(), score: -1.5, kind: PieceKind::Normal }
        );
        assert_eq!(model.pieces[2].kind, PieceKind::Byte);
        assert_eq!(model.algorithm, Algorithm::Bpe);
        assert!(!model.add_dummy_prefix && !model.remove_extra_whitespaces);
        assert!(model.escape_whitespaces);
    }

    #[test]
    fn damaged_models_are_refused() {
        let cases: [(&[u8], &str); 8] = [
            (b"", "no pieces"),
            (&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], "remain"),
            (&[0xff; 11], "64 bits"),
            (&[0x0b], "wire type 3"),
            (&[0x02, 0x00], "field number 0"),
            (&piece(b"", 0.0, 1), "no text"),
            (&piece(b"a\xff", 0.0, 1), "not UTF-8"),
            (&piece(b"a", f32::NAN, 1), "score NaN"),
        ];
        for (bytes, reason) in cases {
            let error = SentencePiece::parse(bytes).unwrap_err();
            assert!(error.contains(reason), "{error} should contain {reason}");
        }
        assert!(
            SentencePiece::parse(&piece(b"<0xZZ>", 0.0, 6)).unwrap_err().contains("byte piece")
        );
        assert!(SentencePiece::parse(&piece(b"a", 0.0, 9)).unwrap_err().contains("type 9"));
    }

    #[test]
    fn every_prefix_of_a_model_ends_in_an_answer() {
        let bytes =
            [piece(b"<unk>", 0.0, 2), piece(b"a", -1.0, 1), message(2, &[0x18, 2])].concat();
        for length in 0..bytes.len() {
            let _ = SentencePiece::parse(&bytes[..length]);
        }
    }
}
