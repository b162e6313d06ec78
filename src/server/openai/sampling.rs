//! How tokens are chosen: OpenAI's fields and llama-server's further ones.

use serde_json::{Map, Value};

use super::fields::Fields;
use super::refusal::{Answer, Refusal};
use crate::chat::Responder;
use crate::engine::options::{Mirostat, SamplerKind, Sampling};
use crate::engine::sampling::LOGIT_BIASES_MAX;
use crate::server::problem::Problem;

type Place<T> = fn(&mut Sampling) -> &mut T;

/// Numbers that go where they belong as they are.
const FLOATS: &[(&str, Place<f32>)] = &[
    ("temperature", |sampling| &mut sampling.temperature),
    ("dynatemp_range", |sampling| &mut sampling.dynamic_temperature_range),
    ("dynatemp_exponent", |sampling| &mut sampling.dynamic_temperature_exponent),
    ("top_p", |sampling| &mut sampling.top_p),
    ("min_p", |sampling| &mut sampling.min_p),
    ("typical_p", |sampling| &mut sampling.typical_p),
    ("top_n_sigma", |sampling| &mut sampling.top_n_sigma),
    ("xtc_probability", |sampling| &mut sampling.xtc_probability),
    ("xtc_threshold", |sampling| &mut sampling.xtc_threshold),
    ("repeat_penalty", |sampling| &mut sampling.repeat_penalty),
    ("frequency_penalty", |sampling| &mut sampling.frequency_penalty),
    ("presence_penalty", |sampling| &mut sampling.presence_penalty),
    ("dry_multiplier", |sampling| &mut sampling.dry_multiplier),
    ("dry_base", |sampling| &mut sampling.dry_base),
    ("mirostat_tau", |sampling| &mut sampling.mirostat_tau),
    ("mirostat_eta", |sampling| &mut sampling.mirostat_eta),
    ("adaptive_decay", |sampling| &mut sampling.adaptive_decay),
];

const COUNTS: &[(&str, Place<u32>)] = &[
    ("min_keep", |sampling| &mut sampling.keep_min),
    ("dry_allowed_length", |sampling| &mut sampling.dry_allowed_tokens),
];

/// Windows in tokens; -1 is the whole context.
const WINDOWS: &[(&str, Place<Option<u32>>)] = &[
    ("repeat_last_n", |sampling| &mut sampling.penalty_tokens),
    ("dry_penalty_last_n", |sampling| &mut sampling.dry_tokens),
];

/// What a request wants changed of a model's own sampling.
#[derive(Debug, Clone, Default)]
pub(super) struct Tuning {
    floats: Vec<(Place<f32>, f32)>,
    counts: Vec<(Place<u32>, u32)>,
    windows: Vec<(Place<Option<u32>>, Option<u32>)>,
    top_k: Option<u32>,
    mirostat: Option<Mirostat>,
    adaptive_target: Option<f32>,
    breakers: Option<Vec<String>>,
    samplers: Option<Vec<SamplerKind>>,
    seed: Option<u32>,
    biases: Vec<(Biased, f32)>,
}

/// What a bias is for.
#[derive(Debug, Clone, PartialEq)]
enum Biased {
    Token(i32),
    /// All tokens of a text.
    Text(String),
}

impl Tuning {
    /// Takes the fields of sampling.
    pub(super) fn read(fields: &mut Fields) -> Answer<Self> {
        let mut tuning = Self::default();
        for (name, place) in FLOATS {
            tuning.floats.extend(fields.take(name)?.map(|value| (*place, value)));
        }
        for (name, place) in COUNTS {
            tuning.counts.extend(fields.take(name)?.map(|value| (*place, value)));
        }
        for (name, place) in WINDOWS {
            let window =
                fields.take::<i64>(name)?.map(|tokens| window(name, tokens)).transpose()?;
            tuning.windows.extend(window.map(|window| (*place, window)));
        }
        tuning.top_k = fields.take::<i64>("top_k")?.map(|count| count.clamp(0, 1 << 30) as u32);
        tuning.mirostat = match fields.take("mirostat")? {
            None => None,
            Some(0) => Some(Mirostat::Off),
            Some(1) => Some(Mirostat::One),
            Some(2) => Some(Mirostat::Two),
            Some(other) => {
                return Err(Refusal::invalid(
                    Some("mirostat"),
                    format!("mirostat: {other} is none of 0, 1, 2"),
                ));
            }
        };
        // Below 0 it is switched off, as it is from the start.
        tuning.adaptive_target = fields.take("adaptive_target")?.filter(|target| *target >= 0.0);
        tuning.breakers = fields.take("dry_sequence_breakers")?;
        tuning.samplers = fields.take("samplers")?.map(|value| samplers(&value)).transpose()?;
        // Below 0 the seed is another one each time.
        tuning.seed = fields.take::<i64>("seed")?.filter(|seed| *seed >= 0).map(|seed| seed as u32);
        tuning.biases =
            fields.take("logit_bias")?.map_or(Ok(Vec::new()), |value| biases(&value))?;
        Ok(tuning)
    }

    /// The sampling of one of several replies to one prompt, without what needs the model.
    pub(super) fn apply(&self, own: &Sampling, choice: usize) -> Sampling {
        let mut sampling = own.clone();
        for (place, value) in &self.floats {
            *place(&mut sampling) = *value;
        }
        for (place, value) in &self.counts {
            *place(&mut sampling) = *value;
        }
        for (place, value) in &self.windows {
            *place(&mut sampling) = *value;
        }
        sampling.top_k = self.top_k.unwrap_or(sampling.top_k);
        sampling.mirostat = self.mirostat.unwrap_or(sampling.mirostat);
        sampling.adaptive_target = self.adaptive_target.or(sampling.adaptive_target);
        if let Some(breakers) = &self.breakers {
            sampling.dry_breakers.clone_from(breakers);
        }
        if let Some(samplers) = &self.samplers {
            sampling.samplers.clone_from(samplers);
        }
        // Replies of one seed would all be the same.
        let seed = self.seed.or(sampling.seed);
        sampling.seed = seed.map(|seed| seed.wrapping_add(choice as u32));
        sampling
    }

    /// The biases, with texts as the model's tokens.
    pub(super) fn biases(&self, model: &Responder) -> Result<Vec<(i32, f32)>, Problem> {
        let mut found = Vec::new();
        let vocabulary = model.info().vocabulary_tokens;
        for (biased, bias) in &self.biases {
            match biased {
                Biased::Token(token)
                    if !(0..i64::from(vocabulary)).contains(&i64::from(*token)) =>
                {
                    let message = format!("logit_bias: the model has no token {token}");
                    return Err(Problem::invalid(message));
                }
                Biased::Token(token) => found.push((*token, *bias)),
                Biased::Text(text) => {
                    let tokens = model.runner().tokenize(text, false, false)?;
                    found.extend(tokens.into_iter().map(|token| (token, *bias)));
                }
            }
        }
        Ok(found)
    }
}

fn window(name: &str, tokens: i64) -> Answer<Option<u32>> {
    match u32::try_from(tokens) {
        Ok(tokens) => Ok(Some(tokens)),
        Err(_) if tokens == -1 => Ok(None),
        Err(_) => Err(Refusal::invalid(Some(name), format!("{name}: {tokens} is below -1"))),
    }
}

/// Names of samplers in a list, or in one string llama.cpp's letters for them.
fn samplers(value: &Value) -> Answer<Vec<SamplerKind>> {
    let refuse = |what: &str| {
        let message = format!("samplers: {what} is not known");
        Refusal::invalid(Some("samplers"), message)
    };
    match value {
        Value::String(letters) => letters
            .chars()
            .map(|each| letter(each).ok_or_else(|| refuse(&each.to_string())))
            .collect(),
        Value::Array(names) => names
            .iter()
            .map(|name| {
                let kind = name.as_str().and_then(SamplerKind::from_name);
                kind.ok_or_else(|| refuse(&name.to_string()))
            })
            .collect(),
        other => Err(refuse(&other.to_string())),
    }
}

/// llama.cpp's letters for samplers.
fn letter(letter: char) -> Option<SamplerKind> {
    Some(match letter {
        'd' => SamplerKind::Dry,
        'k' => SamplerKind::TopK,
        'y' => SamplerKind::Typical,
        'p' => SamplerKind::TopP,
        's' => SamplerKind::TopNSigma,
        'm' => SamplerKind::MinP,
        't' => SamplerKind::Temperature,
        'x' => SamplerKind::Xtc,
        'i' => SamplerKind::Infill,
        'e' => SamplerKind::Penalties,
        'a' => SamplerKind::AdaptiveP,
        _ => return None,
    })
}

/// An object from tokens to biases, or llama-server's list of pairs; `false` forbids a token.
fn biases(value: &Value) -> Answer<Vec<(Biased, f32)>> {
    let refuse = |what: &Value| {
        let message = format!("logit_bias: {what} is no token with a bias");
        Refusal::invalid(Some("logit_bias"), message)
    };
    let bias = |value: &Value| match value {
        Value::Bool(false) => Some(f32::NEG_INFINITY),
        value => value.as_f64().map(|bias| bias as f32),
    };
    let count = value.as_array().map(Vec::len).or(value.as_object().map(Map::len)).unwrap_or(0);
    if count > LOGIT_BIASES_MAX {
        let message = format!("logit_bias: {count} tokens, {LOGIT_BIASES_MAX} are the most");
        return Err(Refusal::invalid(Some("logit_bias"), message));
    }
    match value {
        Value::Object(map) => object_biases(map, &bias).ok_or_else(|| refuse(value)),
        Value::Array(pairs) => pairs
            .iter()
            .map(|pair| match pair.as_array().map(Vec::as_slice) {
                Some([Value::String(text), number]) => {
                    Some((Biased::Text(text.clone()), bias(number)?))
                }
                Some([token, number]) => {
                    let token = i32::try_from(token.as_i64()?).ok()?;
                    Some((Biased::Token(token), bias(number)?))
                }
                _ => None,
            })
            .collect::<Option<_>>()
            .ok_or_else(|| refuse(value)),
        other => Err(refuse(other)),
    }
}

fn object_biases(
    map: &Map<String, Value>,
    bias: &dyn Fn(&Value) -> Option<f32>,
) -> Option<Vec<(Biased, f32)>> {
    map.iter()
        .map(|(key, number)| {
            let biased = key.parse().map_or_else(|_| Biased::Text(key.clone()), Biased::Token);
            Some((biased, bias(number)?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Answer<Tuning> {
        let mut fields = Fields::of(value.as_object().unwrap().clone());
        let tuning = Tuning::read(&mut fields)?;
        fields.finish()?;
        Ok(tuning)
    }

    #[test]
    fn fields_change_what_they_name_and_nothing_else() {
        let own = Sampling { temperature: 0.3, seed: Some(1), ..Sampling::default() };
        assert_eq!(read(&json!({})).unwrap().apply(&own, 0), own);
        let asked = json!({
            "temperature": 0, "top_k": -1, "repeat_last_n": -1, "dry_penalty_last_n": 7, "seed": 41,
            "mirostat": 2, "adaptive_target": -1.0, "samplers": "kpt", "dry_sequence_breakers": ["!"],
            "min_keep": 3, "presence_penalty": null,
        });
        let expected = Sampling {
            temperature: 0.0,
            top_k: 0,
            penalty_tokens: None,
            dry_tokens: Some(7),
            seed: Some(43),
            mirostat: Mirostat::Two,
            samplers: vec![SamplerKind::TopK, SamplerKind::TopP, SamplerKind::Temperature],
            dry_breakers: vec!["!".to_owned()],
            keep_min: 3,
            ..Sampling::default()
        };
        assert_eq!(read(&asked).unwrap().apply(&own, 2), expected);
    }

    #[test]
    fn biases_come_as_object_or_pairs() {
        let token = |token, bias| (Biased::Token(token), bias);
        let both = read(&json!({"logit_bias": {"5": -100, " x": 1.5}})).unwrap().biases;
        assert_eq!(both, [token(5, -100.0), (Biased::Text(" x".to_owned()), 1.5)]);
        let pairs = read(&json!({"logit_bias": [[5, false], ["x", 2]]})).unwrap().biases;
        assert_eq!(pairs, [token(5, f32::NEG_INFINITY), (Biased::Text("x".to_owned()), 2.0)]);
    }

    #[test]
    fn nonsense_names_its_field() {
        for (asked, param) in [
            (json!({"temperature": "hot"}), "temperature"),
            (json!({"mirostat": 3}), "mirostat"),
            (json!({"samplers": ["nucleus"]}), "samplers"),
            (json!({"samplers": "k?"}), "samplers"),
            (json!({"logit_bias": {"5": "no"}}), "logit_bias"),
            (json!({"logit_bias": [5]}), "logit_bias"),
            (json!({"repeat_last_n": -2}), "repeat_last_n"),
            (json!({"min_keep": -1}), "min_keep"),
        ] {
            assert_eq!(read(&asked).unwrap_err().param.as_deref(), Some(param));
        }
    }
}
