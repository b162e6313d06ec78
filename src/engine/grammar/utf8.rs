//! Ranges of characters as ranges of the bytes that spell them.

/// One range of bytes a place, both ends in.
pub(super) type ByteRanges = Vec<(u8, u8)>;

/// The largest character.
const LAST: u32 = 0x0010_FFFF;

/// Sorted ranges without overlap of what the given ranges hold, or of what they do not hold, among
/// the characters that there are (surrogates are none).
pub(super) fn normalize(ranges: &[(u32, u32)], negated: bool) -> Vec<(u32, u32)> {
    let mut sorted = ranges.to_vec();
    sorted.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::new();
    for (first, last) in sorted {
        match merged.last_mut() {
            Some(previous) if first <= previous.1.saturating_add(1) => {
                previous.1 = previous.1.max(last);
            }
            _ => merged.push((first, last)),
        }
    }
    if negated {
        let mut gaps = Vec::new();
        let mut next = 0;
        for &(first, last) in &merged {
            if next < first {
                gaps.push((next, first - 1));
            }
            next = last + 1;
        }
        if next <= LAST {
            gaps.push((next, LAST));
        }
        merged = gaps;
    }
    // Surrogates have no place in UTF-8.
    let around = |(first, last): (u32, u32)| {
        let below = (first < 0xD800).then(|| (first, last.min(0xD7FF)));
        let above = (last > 0xDFFF).then(|| (first.max(0xE000), last));
        below.into_iter().chain(above)
    };
    merged.into_iter().flat_map(around).collect()
}

/// The byte sequences of a range of characters without surrogates.
pub(super) fn sequences(first: u32, last: u32, found: &mut Vec<ByteRanges>) {
    // Characters of different length have different sequences.
    for limit in [0x7F, 0x7FF, 0xFFFF] {
        if first <= limit && limit < last {
            sequences(first, limit, found);
            sequences(limit + 1, last, found);
            return;
        }
    }
    let (Some(low), Some(high)) = (char::from_u32(first), char::from_u32(last)) else { return };
    if last <= 0x7F {
        found.push(vec![(first as u8, last as u8)]);
        return;
    }
    // Split until every byte but the leading ones of a sequence runs through its whole range.
    for bits in [6, 12, 18] {
        let mask = (1_u32 << bits) - 1;
        if (first & !mask) != (last & !mask) {
            if first & mask != 0 {
                sequences(first, first | mask, found);
                sequences((first | mask) + 1, last, found);
                return;
            }
            if last & mask != mask {
                sequences(first, (last & !mask) - 1, found);
                sequences(last & !mask, last, found);
                return;
            }
        }
    }
    let (mut low_bytes, mut high_bytes) = ([0; 4], [0; 4]);
    let low = low.encode_utf8(&mut low_bytes).as_bytes();
    let high = high.encode_utf8(&mut high_bytes).as_bytes();
    found.push(low.iter().copied().zip(high.iter().copied()).collect());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every character is in exactly the sequences of the ranges that hold it.
    #[test]
    fn sequences_spell_just_the_characters_of_their_range() {
        for (first, last) in [
            (0, 0x7F),
            (0x20, 0x800),
            (0x7FF, 0x0010_FFFF),
            (0, 0x0010_FFFF),
            (0x1234, 0xABCD),
            (0xFFFF, 0x10000),
            (0x0001_F600, 0x0001_F64F),
        ] {
            let mut found = Vec::new();
            let ranges = normalize(&[(first, last)], false);
            for &(first, last) in &ranges {
                sequences(first, last, &mut found);
            }
            for value in 0..=LAST {
                let Some(letter) = char::from_u32(value) else { continue };
                let mut buffer = [0; 4];
                let bytes = letter.encode_utf8(&mut buffer).as_bytes();
                let matches = |sequence: &&ByteRanges| {
                    sequence.len() == bytes.len()
                        && sequence
                            .iter()
                            .zip(bytes)
                            .all(|(range, byte)| (range.0..=range.1).contains(byte))
                };
                let count = found.iter().filter(matches).count();
                assert_eq!(count, usize::from((first..=last).contains(&value)), "{value:x}");
            }
        }
    }

    #[test]
    fn a_negated_class_is_the_rest() {
        assert_eq!(
            normalize(&[(0x41, 0x5A), (0x50, 0x60)], true),
            [(0, 0x40), (0x61, 0xD7FF), (0xE000, LAST)]
        );
        assert_eq!(normalize(&[], true), [(0, 0xD7FF), (0xE000, LAST)]);
        assert_eq!(normalize(&[(0, LAST)], true), []);
    }
}
