//! Numbers with bounds: ranges of whole numbers as digits, and decimals between them.
//!
//! A bound is a decimal number; both are scaled by the same power of ten to whole numbers, between
//! which digits are counted out. `[m, m + 1)` lies within the bounds for each scaled m from the least
//! to the most, less one; so m may be followed by any further digits.

use serde_json::{Map, Value, json};

use super::{Compiler, Place, SchemaError};

/// The largest whole number that is written where nothing bounds it: 15 digits, which every reader
/// keeps exactly.
const UNBOUNDED: i128 = 999_999_999_999_999;

/// Bounds beyond it cannot be counted out.
const BOUND_MAX: i128 = 1_000_000_000_000_000_000;

/// Digits behind the point of a bound.
const DECIMALS_MAX: u32 = 9;

/// Digits of a written number that every reader tells apart.
const DIGITS_MAX: usize = 15;

impl Compiler<'_> {
    pub(super) fn number(
        &mut self,
        schema: &Map<String, Value>,
        whole: bool,
        place: &Place,
    ) -> Result<String, SchemaError> {
        if let Some(step) = schema.get("multipleOf")
            && !(whole && step.as_f64() == Some(1.0))
        {
            return Err(place.unsupported(format!("multipleOf {step}")));
        }
        let bounds = Bounds::of(schema, whole, place)?;
        let Some(bounds) = bounds else {
            return Ok(if whole { "integer" } else { "number" }.to_owned());
        };
        let alternatives = if whole { bounds.whole() } else { bounds.decimal() };
        if alternatives.is_empty() {
            return Err(place.impossible("no number is within the bounds"));
        }
        self.rule(alternatives.join(" | "))
    }
}

/// OpenAPI's widths of numbers, written as `format`: the schema without it and, where it narrows,
/// its bounds. None for a schema that has no such format.
pub(super) fn without_width(schema: &Map<String, Value>, types: &[String]) -> Option<Vec<Value>> {
    let format = schema.get("format")?.as_str()?;
    let numeric = types.iter().all(|name| name == "integer" || name == "number");
    if !numeric || !["int32", "int64", "float", "double"].contains(&format) {
        return None;
    }
    let mut plain = schema.clone();
    plain.remove("format");
    let mut schemas = vec![Value::Object(plain)];
    if format == "int32" {
        schemas.push(json!({ "minimum": i32::MIN, "maximum": i32::MAX }));
    }
    Some(schemas)
}

/// Scaled bounds.
struct Bounds {
    /// 10 to this power is 1.
    decimals: u32,
    least: i128,
    most: i128,
    least_excluded: bool,
    most_excluded: bool,
}

/// A bound as it was written: digits and how many of them stand behind the point.
#[derive(Clone, Copy)]
struct Decimal {
    digits: i128,
    decimals: u32,
}

impl Decimal {
    fn scaled(self, decimals: u32) -> i128 {
        self.digits * 10_i128.pow(decimals - self.decimals)
    }
}

impl Bounds {
    fn of(
        schema: &Map<String, Value>,
        whole: bool,
        place: &Place,
    ) -> Result<Option<Self>, SchemaError> {
        let bound = |keyword: &str| match schema.get(keyword) {
            None => Ok(None),
            Some(Value::Number(number)) => match decimal(&number.to_string()) {
                Some(bound) if !whole && bound.digits.abs() > UNBOUNDED => {
                    Err(place.unsupported(format!("{keyword} {number}")))
                }
                Some(bound) => Ok(Some(bound)),
                None => Err(place.unsupported(format!("{keyword} {number}"))),
            },
            Some(other) => Err(place.invalid(format!("{keyword} is no number: {other}"))),
        };
        let (minimum, above) = (bound("minimum")?, bound("exclusiveMinimum")?);
        let (maximum, below) = (bound("maximum")?, bound("exclusiveMaximum")?);
        let given = [minimum, above, maximum, below];
        if given.iter().all(Option::is_none) {
            return Ok(None);
        }
        let finest = given.iter().flatten().map(|bound| bound.decimals).max().unwrap_or(0);
        // Two more, so that there is something between close bounds that are excluded.
        let decimals = finest + 2;
        let scale = |bound: Option<Decimal>| bound.map(|bound| bound.scaled(decimals));
        let (minimum, above) = (scale(minimum), scale(above));
        let (maximum, below) = (scale(maximum), scale(below));
        let least_excluded = above.is_some_and(|above| minimum.is_none_or(|least| above >= least));
        let most_excluded = below.is_some_and(|below| maximum.is_none_or(|most| below <= most));
        let unbounded = UNBOUNDED * 10_i128.pow(decimals);
        let least = minimum.into_iter().chain(above).max();
        let most = maximum.into_iter().chain(below).min();
        let far = |other: Option<i128>| unbounded.max(other.map_or(0, |other| other.abs() * 10));
        let bounds = Self {
            decimals,
            least: least.unwrap_or_else(|| -far(most)),
            most: most.unwrap_or_else(|| far(least)),
            least_excluded,
            most_excluded,
        };
        Ok(Some(bounds))
    }

    /// Whole numbers.
    fn whole(&self) -> Vec<String> {
        let unit = 10_i128.pow(self.decimals);
        let mut least = self.least.div_euclid(unit);
        if least * unit < self.least || (least * unit == self.least && self.least_excluded) {
            least += 1;
        }
        let mut most = self.most.div_euclid(unit);
        if most * unit == self.most && self.most_excluded {
            most -= 1;
        }
        let mut alternatives = Vec::new();
        if least < 0 && least <= most {
            let range = digit_ranges((-most).max(1), -least);
            alternatives.push(format!("\"-\" ({})", range.join(" | ")));
        }
        if most >= 0 && least <= most {
            alternatives.extend(digit_ranges(least.max(0), most));
        }
        alternatives
    }

    /// Whole numbers, and decimals strictly between the bounds.
    fn decimal(&self) -> Vec<String> {
        let mut alternatives = self.whole();
        let (least_edge, most_edge) =
            (i128::from(self.least_excluded), i128::from(self.most_excluded));
        // From `least` up: [m, m + 1) for least ≤ m < most, and for m = least only with a step when
        // the least itself is excluded.
        let (first, last) =
            (self.least.max(0) + least_edge * i128::from(self.least >= 0), self.most - 1);
        alternatives.extend(self.magnitudes(first, last));
        // Below zero: (−m − 1, −m], so that the roles of the bounds change.
        let (first, last) =
            ((-self.most).max(0) + most_edge * i128::from(self.most <= 0), -self.least - 1);
        if let negative @ [_, ..] = self.magnitudes(first, last).as_slice() {
            alternatives.push(format!("\"-\" ({})", negative.join(" | ")));
        }
        alternatives
    }

    /// Numbers of the scaled magnitudes from `first` to `last`, each with further digits.
    fn magnitudes(&self, first: i128, last: i128) -> Vec<String> {
        if first > last {
            return Vec::new();
        }
        let unit = 10_i128.pow(self.decimals);
        let width = self.decimals as usize;
        let whole_digits = (last / unit).to_string().len();
        let spare = DIGITS_MAX.saturating_sub(whole_digits + width).min(6);
        let more = format!("[0-9]{{0,{spare}}}");
        let part = |whole: i128, low: i128, high: i128| {
            let digits = fixed_ranges(&padded(low, width), &padded(high, width)).join(" | ");
            format!("\"{whole}.\" ({digits}) {more}")
        };
        let (low, high) = ((first / unit, first % unit), (last / unit, last % unit));
        if low.0 == high.0 {
            return vec![part(low.0, low.1, high.1)];
        }
        let mut found = vec![part(low.0, low.1, unit - 1)];
        if low.0 + 1 < high.0 {
            let between = digit_ranges(low.0 + 1, high.0 - 1).join(" | ");
            found.push(format!("({between}) \".\" [0-9]{{1,{width}}}"));
        }
        found.push(part(high.0, 0, high.1));
        found
    }
}

/// A JSON number without an exponent that matters; None when it is too large or too fine.
fn decimal(text: &str) -> Option<Decimal> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let mut digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let mut decimals = i32::try_from(fraction.len()).ok()?.checked_sub(exponent)?;
    while decimals < 0 {
        digits = digits.checked_mul(10).filter(|digits| digits.abs() <= BOUND_MAX)?;
        decimals += 1;
    }
    let decimals = u32::try_from(decimals).ok().filter(|decimals| *decimals <= DECIMALS_MAX)?;
    (digits.abs() <= BOUND_MAX).then_some(Decimal { digits, decimals })
}

fn padded(number: i128, width: usize) -> String {
    format!("{number:0width$}")
}

/// Whole numbers from `first` to `last`, neither below 0, without leading zeros.
fn digit_ranges(first: i128, last: i128) -> Vec<String> {
    let mut found = Vec::new();
    let (mut low, last_text) = (first, last.to_string());
    while low <= last {
        let text = low.to_string();
        let same_length = text.len() == last_text.len();
        let high = if same_length { last_text.clone() } else { "9".repeat(text.len()) };
        found.extend(fixed_ranges(&text, &high));
        if same_length {
            break;
        }
        low = 10_i128.pow(text.len() as u32);
    }
    found
}

/// Numbers of as many digits as both texts have.
fn fixed_ranges(low: &str, high: &str) -> Vec<String> {
    let common = low.bytes().zip(high.bytes()).take_while(|(a, b)| a == b).count();
    let prefix = if common > 0 { format!("\"{}\" ", &low[..common]) } else { String::new() };
    if common == low.len() {
        return vec![prefix.trim_end().to_owned()];
    }
    let (low, high) = (&low[common..], &high[common..]);
    let (first, last) = (low.as_bytes()[0], high.as_bytes()[0]);
    let rest = low.len() - 1;
    let any = match rest {
        0 => String::new(),
        1 => " [0-9]".to_owned(),
        rest => format!(" [0-9]{{{rest}}}"),
    };
    let digit = |from: u8, to: u8| format!("[{}-{}]", char::from(from), char::from(to));
    let low_is_full = low[1..].bytes().all(|digit| digit == b'0');
    let high_is_full = high[1..].bytes().all(|digit| digit == b'9');
    let mut found = Vec::new();
    let (mut from, mut to) = (first, last);
    if !low_is_full {
        let nines = "9".repeat(rest);
        let inside = fixed_ranges(&low[1..], &nines).join(" | ");
        found.push(format!("{prefix}\"{}\" ({inside})", char::from(first)));
        from += 1;
    }
    if !high_is_full {
        let zeros = "0".repeat(rest);
        let inside = fixed_ranges(&zeros, &high[1..]).join(" | ");
        found.push(format!("{prefix}\"{}\" ({inside})", char::from(last)));
        to -= 1;
    }
    if from <= to {
        found.push(format!("{prefix}{}{any}", digit(from, to)));
    }
    found
}
