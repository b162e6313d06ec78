//! llama-server's sampling fields as our sampling, and back.

use serde_json::{Map, Value, json};

use crate::engine::options::{Constraint, Mirostat, SamplerKind, Sampling};
use crate::engine::runner::Runner;
use crate::engine::sampling::LOGIT_BIASES_MAX;
use crate::server::native::wire;
use crate::server::problem::Problem;

/// The sampling that is asked for, over the model's.
pub(super) fn sampling(
    asked: &wire::Sampling,
    base: &Sampling,
    runner: &dyn Runner,
) -> Result<Sampling, Problem> {
    let float = |asked: Option<f32>, base: f32| asked.unwrap_or(base);
    let mut sampling = Sampling {
        temperature: float(asked.temperature, base.temperature).max(0.0),
        dynamic_temperature_range: float(asked.dynatemp_range, base.dynamic_temperature_range),
        dynamic_temperature_exponent: float(
            asked.dynatemp_exponent,
            base.dynamic_temperature_exponent,
        ),
        // 0 and less keep all.
        top_k: asked.top_k.map_or(base.top_k, |count| u32::try_from(count).unwrap_or(0)),
        top_p: float(asked.top_p, base.top_p),
        min_p: float(asked.min_p, base.min_p),
        typical_p: float(asked.typical_p, base.typical_p),
        top_n_sigma: float(asked.top_n_sigma, base.top_n_sigma),
        xtc_probability: float(asked.xtc_probability, base.xtc_probability),
        xtc_threshold: float(asked.xtc_threshold, base.xtc_threshold),
        keep_min: asked.min_keep.unwrap_or(base.keep_min),
        repeat_penalty: float(asked.repeat_penalty, base.repeat_penalty),
        frequency_penalty: float(asked.frequency_penalty, base.frequency_penalty),
        presence_penalty: float(asked.presence_penalty, base.presence_penalty),
        penalty_tokens: reach(asked.repeat_last_n, base.penalty_tokens, "repeat_last_n")?,
        dry_multiplier: float(asked.dry_multiplier, base.dry_multiplier),
        dry_base: float(asked.dry_base, base.dry_base),
        dry_allowed_tokens: asked.dry_allowed_length.unwrap_or(base.dry_allowed_tokens),
        dry_tokens: reach(asked.dry_penalty_last_n, base.dry_tokens, "dry_penalty_last_n")?,
        dry_breakers: asked
            .dry_sequence_breakers
            .clone()
            .unwrap_or_else(|| base.dry_breakers.clone()),
        mirostat: match asked.mirostat {
            None => base.mirostat,
            Some(0) => Mirostat::Off,
            Some(1) => Mirostat::One,
            Some(2) => Mirostat::Two,
            Some(other) => {
                return Err(Problem::invalid(format!("mirostat: {other} is not 0 to 2")));
            }
        },
        mirostat_tau: float(asked.mirostat_tau, base.mirostat_tau),
        mirostat_eta: float(asked.mirostat_eta, base.mirostat_eta),
        adaptive_target: asked
            .adaptive_target
            .map_or(base.adaptive_target, |target| (target >= 0.0).then_some(target)),
        adaptive_decay: float(asked.adaptive_decay, base.adaptive_decay),
        samplers: samplers(asked, base)?,
        logit_bias: match &asked.logit_bias {
            Some(value) => biases(value, runner)?,
            None => base.logit_bias.clone(),
        },
        constraint: constraint(asked)?,
        triggers: Vec::new(),
        // Negative, and the largest number too: another start each time.
        seed: match asked.seed {
            None => base.seed,
            Some(seed) => u32::try_from(seed).ok().filter(|seed| *seed != u32::MAX),
        },
    };
    if asked.samplers.is_none()
        && sampling.adaptive_target.is_some()
        && !sampling.uses(SamplerKind::AdaptiveP)
    {
        // It draws the token, so that it stands last.
        sampling.samplers.push(SamplerKind::AdaptiveP);
    }
    Ok(sampling)
}

/// How many tokens back something reaches; -1 is the whole context.
fn reach(asked: Option<i64>, base: Option<u32>, what: &str) -> Result<Option<u32>, Problem> {
    match asked {
        None => Ok(base),
        Some(-1) => Ok(None),
        Some(count) => match u32::try_from(count) {
            Ok(count) => Ok(Some(count)),
            Err(_) => Err(Problem::invalid(format!("{what}: {count} is less than -1"))),
        },
    }
}

fn samplers(asked: &wire::Sampling, base: &Sampling) -> Result<Vec<SamplerKind>, Problem> {
    let Some(names) = &asked.samplers else { return Ok(base.samplers.clone()) };
    let kind = |name: &String| {
        SamplerKind::from_name(name).ok_or_else(|| {
            let known: Vec<&str> = SamplerKind::ALL.iter().map(|(_, name)| *name).collect();
            Problem::invalid(format!("samplers: no {name}; there are {}", known.join(", ")))
        })
    };
    names.iter().map(kind).collect()
}

fn constraint(asked: &wire::Sampling) -> Result<Option<Constraint>, Problem> {
    if asked.grammar_lazy == Some(true) {
        return Err(Problem::invalid("grammar_lazy: a grammar holds from the beginning here"));
    }
    let grammar = asked.grammar.as_ref().filter(|grammar| !grammar.is_empty());
    match (grammar, asked.json_schema.as_ref().filter(|schema| !schema.is_null())) {
        (Some(_), Some(_)) => Err(Problem::invalid("grammar and json_schema: give one of them")),
        (Some(grammar), None) => Ok(Some(Constraint::Grammar(grammar.clone()))),
        (None, Some(schema)) => Ok(Some(Constraint::JsonSchema(schema.to_string()))),
        (None, None) => Ok(None),
    }
}

/// Biases: pairs of a token or a text and a number, or an object of them; `false` forbids.
fn biases(value: &Value, runner: &dyn Runner) -> Result<Vec<(i32, f32)>, Problem> {
    let refused = |what: &Value| Problem::invalid(format!("logit_bias: {what}"));
    // Refused before anything is made of it: a request may have millions.
    let count = value.as_array().map(Vec::len).or(value.as_object().map(Map::len)).unwrap_or(0);
    if count > LOGIT_BIASES_MAX {
        let most = LOGIT_BIASES_MAX;
        return Err(Problem::invalid(format!("logit_bias: {count} tokens, {most} are the most")));
    }
    let pairs: Vec<(Value, Value)> = match value {
        Value::Null => Vec::new(),
        Value::Array(pairs) => pairs
            .iter()
            .map(|pair| match pair.as_array().map(Vec::as_slice) {
                Some([what, bias]) => Ok((what.clone(), bias.clone())),
                _ => Err(refused(pair)),
            })
            .collect::<Result<_, _>>()?,
        Value::Object(object) => object
            .iter()
            .map(|(what, bias)| match what.parse::<i32>() {
                Ok(token) => (token.into(), bias.clone()),
                Err(_) => (what.as_str().into(), bias.clone()),
            })
            .collect(),
        other => return Err(refused(other)),
    };
    let mut biases = Vec::new();
    for (what, bias) in pairs {
        let number = match &bias {
            Value::Bool(false) => f32::NEG_INFINITY,
            bias => bias.as_f64().ok_or_else(|| refused(bias))? as f32,
        };
        let tokens = match &what {
            Value::String(text) => runner.tokenize(text, false, false)?,
            what => {
                let token = what.as_i64().and_then(|token| i32::try_from(token).ok());
                vec![token.ok_or_else(|| refused(what))?]
            }
        };
        biases.extend(tokens.into_iter().map(|token| (token, number)));
    }
    Ok(biases)
}

/// The sampling as llama-server writes it.
pub(in crate::server::native) fn written(sampling: &Sampling) -> Map<String, Value> {
    let reach = |tokens: Option<u32>| tokens.map_or(-1, i64::from);
    let bias = |(token, bias): &(i32, f32)| {
        // JSON has no infinity: null forbids.
        json!({"bias": bias.is_finite().then_some(bias), "token": token})
    };
    let samplers: Vec<&str> = sampling.samplers.iter().map(|kind| kind.name()).collect();
    let grammar = match &sampling.constraint {
        Some(Constraint::Grammar(text)) => json!(text),
        Some(Constraint::JsonSchema(schema)) => json!({"type": "json_schema", "value": schema}),
        Some(Constraint::Json) => json!({"type": "json_object"}),
        None => json!(""),
    };
    let value = json!({
        "seed": sampling.seed.unwrap_or(u32::MAX),
        "temperature": sampling.temperature,
        "dynatemp_range": sampling.dynamic_temperature_range,
        "dynatemp_exponent": sampling.dynamic_temperature_exponent,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "top_n_sigma": sampling.top_n_sigma,
        "xtc_probability": sampling.xtc_probability,
        "xtc_threshold": sampling.xtc_threshold,
        "typical_p": sampling.typical_p,
        "repeat_last_n": reach(sampling.penalty_tokens),
        "repeat_penalty": sampling.repeat_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "dry_multiplier": sampling.dry_multiplier,
        "dry_base": sampling.dry_base,
        "dry_allowed_length": sampling.dry_allowed_tokens,
        "dry_penalty_last_n": reach(sampling.dry_tokens),
        "dry_sequence_breakers": sampling.dry_breakers,
        "mirostat": match sampling.mirostat {
            Mirostat::Off => 0,
            Mirostat::One => 1,
            Mirostat::Two => 2,
        },
        "mirostat_tau": sampling.mirostat_tau,
        "mirostat_eta": sampling.mirostat_eta,
        "adaptive_target": sampling.adaptive_target.unwrap_or(-1.0),
        "adaptive_decay": sampling.adaptive_decay,
        "min_keep": sampling.keep_min,
        "samplers": samplers,
        "logit_bias": sampling.logit_bias.iter().map(bias).collect::<Vec<_>>(),
        "grammar": grammar,
    });
    match value {
        Value::Object(object) => object,
        _ => Map::new(),
    }
}
