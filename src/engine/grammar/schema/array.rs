//! Arrays.

use serde_json::{Map, Value};

use super::{Compiler, Place, SchemaError, count};
use crate::engine::grammar::REPETITIONS_MAX;

impl Compiler<'_> {
    pub(super) fn array(
        &mut self,
        schema: &Map<String, Value>,
        place: &Place,
    ) -> Result<String, SchemaError> {
        // Drafts before 2020-12 wrote tuples as a list under `items`.
        let (tuple, rest) = match (schema.get("prefixItems"), schema.get("items")) {
            (Some(Value::Array(tuple)), rest) => (tuple.as_slice(), rest),
            (None, Some(Value::Array(tuple))) => (tuple.as_slice(), schema.get("additionalItems")),
            (None, rest) => (&[][..], rest),
            _ => return Err(place.invalid("prefixItems is no list")),
        };
        let least = count(schema, "minItems", place)?.unwrap_or(0);
        let most = count(schema, "maxItems", place)?;
        if most.is_some_and(|most| most < least) {
            return Err(place.impossible("maxItems is less than minItems"));
        }
        if least > u64::from(REPETITIONS_MAX) {
            return Err(SchemaError::TooLarge);
        }
        let fixed = most.map_or(tuple.len(), |most| tuple.len().min(most as usize));
        let mut items = Vec::new();
        for (number, item) in tuple[..fixed].iter().enumerate() {
            items.push(self.schema(item, &place.at("prefixItems").at(&number.to_string()))?);
        }
        let wants_more = least > fixed as u64;
        let may_more = most.is_none_or(|most| most > fixed as u64);
        let more = match rest {
            Some(Value::Bool(false)) if wants_more => {
                return Err(place.impossible("minItems asks for more than there may be"));
            }
            Some(Value::Bool(false)) => None,
            // Behind a tuple nobody expects more unless it is said.
            None if fixed > 0 && !wants_more => None,
            None => Some("value".to_owned()),
            Some(_) if !may_more => None,
            Some(item) => match self.schema(item, &place.at("items")) {
                Ok(item) => Some(item),
                Err(SchemaError::Impossible { .. }) if !wants_more => None,
                Err(error) => return Err(error),
            },
        };
        let fixed = fixed as u64;
        let least = least.saturating_sub(fixed);
        let most = most.map(|most| (most - fixed).min(u64::from(REPETITIONS_MAX)));
        let body = list(&items, more.as_deref(), least, most);
        self.rule(format!("\"[\" ws {body} \"]\""))
    }
}

/// The inside of an array: fixed items and between `least` and `most` more.
fn list(items: &[String], more: Option<&str>, least: u64, most: Option<u64>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for item in items {
        let comma = if parts.is_empty() { "" } else { "\",\" ws " };
        parts.push(format!("{comma}{item} ws"));
    }
    let Some(more) = more.filter(|_| most != Some(0)) else { return parts.join(" ") };
    let times = |least: u64, most: Option<u64>| match most {
        Some(most) => format!("{{{least},{most}}}"),
        None => format!("{{{least},}}"),
    };
    if items.is_empty() {
        let following = times(least.saturating_sub(1), most.map(|most| most - 1));
        let list = format!("{more} ws (\",\" ws {more} ws){following}");
        return if least == 0 { format!("({list})?") } else { list };
    }
    parts.push(format!("(\",\" ws {more} ws){}", times(least, most)));
    parts.join(" ")
}
