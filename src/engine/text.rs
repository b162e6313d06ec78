//! Text from tokens: characters come out whole, although tokens may end in the middle of one.

/// Bytes of one token after the other in, text out. What has come out, together with
/// [`TextStream::finish`], equals `String::from_utf8_lossy` of all bytes, wherever they were cut.
#[derive(Debug, Default)]
pub struct TextStream {
    /// The beginning of a character whose end has not come yet: three bytes at the most.
    pending: Vec<u8>,
}

impl TextStream {
    /// Adds bytes and appends to `target` the text that is certain now.
    pub fn push(&mut self, bytes: &[u8], target: &mut String) {
        if self.pending.is_empty()
            && let Ok(text) = str::from_utf8(bytes)
        {
            target.push_str(text);
            return;
        }
        self.pending.extend_from_slice(bytes);
        let mut start = 0;
        while let Err(error) = str::from_utf8(&self.pending[start..]) {
            let valid = start + error.valid_up_to();
            target.push_str(&String::from_utf8_lossy(&self.pending[start..valid]));
            let Some(broken) = error.error_len() else {
                self.pending.drain(..valid);
                return;
            };
            target.push(char::REPLACEMENT_CHARACTER);
            start = valid + broken;
        }
        target.push_str(&String::from_utf8_lossy(&self.pending[start..]));
        self.pending.clear();
    }

    /// Ends the text: a character that was never finished becomes U+FFFD.
    pub fn finish(&mut self, target: &mut String) {
        if !self.pending.is_empty() {
            self.pending.clear();
            target.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: &[&[u8]] = &[
        "naïve 日本 🦀!".as_bytes(),
        b"plain",
        b"",
        b"\xff\xfe broken \xe6\x97",
        b"\xf0\x9f\xa6",
        b"a\xe6b\xe6\x97c\xe6\x97\xa5d",
        b"\xed\xa0\x80 surrogate \xc0\xaf overlong",
        b"\xf4\x90\x80\x80",
    ];

    #[test]
    fn any_two_cuts_give_the_same_text() {
        for bytes in SAMPLES {
            for first in 0..=bytes.len() {
                for second in first..=bytes.len() {
                    let mut stream = TextStream::default();
                    let mut text = String::new();
                    for part in [&bytes[..first], &bytes[first..second], &bytes[second..]] {
                        stream.push(part, &mut text);
                        assert!(stream.pending.len() <= 3);
                    }
                    stream.finish(&mut text);
                    assert_eq!(text, String::from_utf8_lossy(bytes));
                }
            }
        }
    }

    #[test]
    fn half_a_character_is_held_back() {
        let mut stream = TextStream::default();
        let mut text = String::new();
        stream.push(&"é".as_bytes()[..1], &mut text);
        assert_eq!(text, "");
        stream.push(&"é".as_bytes()[1..], &mut text);
        assert_eq!(text, "é");
    }
}
