//! Strings: lengths, patterns, formats.

use serde_json::{Map, Value};

use super::{Compiler, Place, SchemaError, count, pattern};
use crate::engine::grammar::REPETITIONS_MAX;

/// Formats that are enforced, as GBNF between the quotes. Each allows only what every validator
/// accepts: a day that every February has, a name of plain letters.
const FORMATS: &[(&str, &str)] = &[
    ("date", DATE),
    ("time", TIME),
    ("date-time", ""),
    ("uuid", r#"hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12}"#),
    ("ipv4", r#"OCTET "." OCTET "." OCTET "." OCTET"#),
    ("ipv6", r#"hex{1,4} (":" hex{1,4}){7}"#),
    (
        "email",
        r#"[a-z0-9] [a-z0-9]{0,20} ("." [a-z0-9]{1,20}){0,2} "@" [a-z] [a-z0-9]{0,30} ("." [a-z] [a-z0-9]{1,20}){1,3}"#,
    ),
    ("hostname", r#"[a-z] [a-z0-9]{0,30} ("." [a-z] [a-z0-9]{0,20}){0,4}"#),
    (
        "uri",
        r#""http" "s"? "://" [a-z] [a-z0-9]{0,30} ("." [a-z] [a-z0-9]{1,20}){1,3} ("/" [a-zA-Z0-9._~-]{0,60}){0,10}"#,
    ),
];

const DATE: &str = r#"[0-9]{4} "-" (("0" [13578] | "1" [02]) "-" ("0" [1-9] | [12] [0-9] | "3" [01]) | ("0" [469] | "11") "-" ("0" [1-9] | [12] [0-9] | "30") | "02-" ("0" [1-9] | "1" [0-9] | "2" [0-8]))"#;

const TIME: &str = r#"([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{1,6})? ("Z" | [+-] ([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9])"#;

const OCTET: &str = r#"([0-9] | [1-9] [0-9] | "1" [0-9]{2} | "2" [0-4] [0-9] | "25" [0-5])"#;

impl Compiler<'_> {
    pub(super) fn string(
        &mut self,
        schema: &Map<String, Value>,
        place: &Place,
    ) -> Result<String, SchemaError> {
        let least = count(schema, "minLength", place)?.unwrap_or(0);
        let most = count(schema, "maxLength", place)?;
        let bounded = least > 0 || most.is_some();
        let (written, format) = (schema.get("pattern"), schema.get("format"));
        if let Some(keyword) = ["pattern", "format"].into_iter().find(|k| schema.contains_key(*k))
            && (bounded || (written.is_some() && format.is_some()))
        {
            return Err(place.unsupported(format!("{keyword} together with other bounds")));
        }
        if let Some(written) = written {
            let Some(text) = written.as_str() else {
                return Err(place.invalid("pattern is no text"));
            };
            let inside = pattern::to_gbnf(text)
                .map_err(|problem| place.unsupported(format!("pattern {text:?} ({problem})")))?;
            return self.rule(format!("\"\\\"\" {inside} \"\\\"\""));
        }
        if let Some(format) = format {
            let Some((name, inside)) = FORMATS.iter().find(|(name, _)| format == name) else {
                return Err(place.unsupported(format!("format {format}")));
            };
            let inside = match *name {
                "date-time" => format!("{DATE} \"T\" {TIME}"),
                _ => inside.replace("OCTET", OCTET),
            };
            return self.rule(format!("\"\\\"\" {inside} \"\\\"\""));
        }
        if !bounded {
            return Ok("string".to_owned());
        }
        if least > u64::from(REPETITIONS_MAX) {
            return Err(SchemaError::TooLarge);
        }
        let most = most.map(|most| most.min(u64::from(REPETITIONS_MAX)));
        if most.is_some_and(|most| most < least) {
            return Err(place.impossible("maxLength is less than minLength"));
        }
        let most = most.map_or(String::new(), |most| most.to_string());
        self.rule(format!("\"\\\"\" char{{{least},{most}}} \"\\\"\""))
    }
}
