//! The choice of tokens against llama.cpp's own, and constrained replies against a validator.

use std::sync::Arc;

use llama_cpp_sys_2 as sys;

use super::tiny::{self, Noise};
use super::{Context, LlamaError, Model, Sampler, Token, Vocabulary};
use crate::engine::grammar::{Grammar, GrammarError, Matcher};
use crate::engine::options::{
    Constraint, Mirostat, SamplerKind, Sampling, Trigger, TriggerPlace, TriggerWhat,
};

fn tiny_model() -> Arc<Model> {
    let folder = tempfile::tempdir().unwrap();
    tiny::load(&tiny::llama_file(folder.path(), 5))
}

/// llama.cpp's chain, put together as its common sampler does, reading the context by itself.
struct Oracle(*mut sys::llama_sampler);

impl Oracle {
    #[expect(clippy::too_many_lines, reason = "one line a sampler")]
    fn new(sampling: &Sampling, seed: u32, vocabulary: &Vocabulary) -> Self {
        let tokens = vocabulary.len() as i32;
        let keep = sampling.keep_min as usize;
        let last = |tokens: Option<u32>| tokens.map_or(256, |tokens| tokens as i32);
        // SAFETY: plain numbers in, owned samplers out, which the chain takes over.
        unsafe {
            let chain = sys::llama_sampler_chain_init(sys::llama_sampler_chain_default_params());
            let add = |sampler| sys::llama_sampler_chain_add(chain, sampler);
            let biases: Vec<sys::llama_logit_bias> = sampling
                .logit_bias
                .iter()
                .map(|&(token, bias)| sys::llama_logit_bias { token, bias })
                .collect();
            if !biases.is_empty() {
                add(sys::llama_sampler_init_logit_bias(
                    tokens,
                    biases.len() as i32,
                    biases.as_ptr(),
                ));
            }
            if sampling.mirostat != Mirostat::Off {
                add(sys::llama_sampler_init_temp(sampling.temperature));
                let (tau, eta) = (sampling.mirostat_tau, sampling.mirostat_eta);
                add(if sampling.mirostat == Mirostat::One {
                    sys::llama_sampler_init_mirostat(tokens, seed, tau, eta, 100)
                } else {
                    sys::llama_sampler_init_mirostat_v2(seed, tau, eta)
                });
                return Self(chain);
            }
            let breakers: Vec<std::ffi::CString> = sampling
                .dry_breakers
                .iter()
                .map(|text| std::ffi::CString::new(text.as_str()).unwrap())
                .collect();
            let mut pointers: Vec<_> = breakers.iter().map(|text| text.as_ptr()).collect();
            for kind in &sampling.samplers {
                match kind {
                    SamplerKind::Penalties => add(sys::llama_sampler_init_penalties(
                        tokens,
                        last(sampling.penalty_tokens),
                        sampling.repeat_penalty,
                        sampling.frequency_penalty,
                        sampling.presence_penalty,
                    )),
                    SamplerKind::Dry => add(sys::llama_sampler_init_dry(
                        vocabulary.as_ptr(),
                        sampling.dry_multiplier,
                        sampling.dry_base,
                        sampling.dry_allowed_tokens as i32,
                        last(sampling.dry_tokens),
                        pointers.as_mut_ptr(),
                        pointers.len(),
                    )),
                    SamplerKind::TopNSigma => {
                        add(sys::llama_sampler_init_top_n_sigma(sampling.top_n_sigma));
                    }
                    SamplerKind::TopK => {
                        add(sys::llama_sampler_init_top_k(sampling.top_k as i32));
                    }
                    SamplerKind::Typical => {
                        add(sys::llama_sampler_init_typical(sampling.typical_p, keep));
                    }
                    SamplerKind::TopP => add(sys::llama_sampler_init_top_p(sampling.top_p, keep)),
                    SamplerKind::MinP => add(sys::llama_sampler_init_min_p(sampling.min_p, keep)),
                    SamplerKind::Xtc => add(sys::llama_sampler_init_xtc(
                        sampling.xtc_probability,
                        sampling.xtc_threshold,
                        keep,
                        seed,
                    )),
                    SamplerKind::Temperature => add(sys::llama_sampler_init_temp_ext(
                        sampling.temperature,
                        sampling.dynamic_temperature_range,
                        sampling.dynamic_temperature_exponent,
                    )),
                    SamplerKind::Infill => {
                        add(sys::llama_sampler_init_infill(vocabulary.as_ptr()));
                    }
                    SamplerKind::AdaptiveP => {}
                }
            }
            add(match sampling.adaptive_target {
                Some(target) if sampling.uses(SamplerKind::AdaptiveP) => {
                    sys::llama_sampler_init_adaptive_p(target, sampling.adaptive_decay, seed)
                }
                _ => sys::llama_sampler_init_dist(seed),
            });
            Self(chain)
        }
    }

    fn accept(&self, tokens: &[Token]) {
        for &token in tokens {
            // SAFETY: the chain is alive.
            unsafe { sys::llama_sampler_accept(self.0, token) };
        }
    }

    fn sample(&self, context: &Context) -> Token {
        // SAFETY: chain and context are alive, and the last batch has an output.
        unsafe { sys::llama_sampler_sample(self.0, context.as_ptr(), -1) }
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        // SAFETY: nobody else owns the chain.
        unsafe { sys::llama_sampler_free(self.0) };
    }
}

const PROMPT: [Token; 5] = [1, 262, 300, 262, 270];

fn reply(
    model: &Arc<Model>,
    tokens: usize,
    choose: &mut dyn FnMut(&mut Context) -> Token,
) -> Vec<Token> {
    let mut context = tiny::context(model);
    context.decode(&PROMPT, PROMPT.len() - 1).unwrap();
    let mut reply = Vec::new();
    for _ in 0..tokens {
        let token = choose(&mut context);
        reply.push(token);
        context.decode(&[token], 0).unwrap();
    }
    reply
}

fn settings() -> Vec<Sampling> {
    use SamplerKind as K;
    let hot = || Sampling { temperature: 1.5, ..Sampling::default() };
    vec![
        hot(),
        Sampling::greedy(),
        Sampling { top_k: 0, top_p: 1.0, min_p: 0.0, ..hot() },
        Sampling { top_k: 1, ..hot() },
        Sampling { top_k: 5, top_p: 0.4, keep_min: 3, ..hot() },
        Sampling { min_p: 0.3, top_k: 0, ..hot() },
        Sampling { typical_p: 0.5, ..hot() },
        Sampling { typical_p: 0.5, ..Sampling::greedy() },
        Sampling { top_n_sigma: 1.0, ..hot() },
        Sampling { xtc_probability: 0.7, xtc_threshold: 0.05, ..hot() },
        Sampling { xtc_probability: 1.0, xtc_threshold: 0.01, ..Sampling::greedy() },
        Sampling { dynamic_temperature_range: 0.9, dynamic_temperature_exponent: 1.5, ..hot() },
        Sampling { repeat_penalty: 1.3, frequency_penalty: 0.2, presence_penalty: 0.1, ..hot() },
        Sampling { repeat_penalty: 1.3, penalty_tokens: None, ..Sampling::greedy() },
        Sampling {
            repeat_penalty: 1.3,
            samplers: vec![K::TopK, K::Penalties, K::Temperature],
            ..hot()
        },
        Sampling { dry_multiplier: 2.0, dry_allowed_tokens: 1, ..Sampling::greedy() },
        Sampling { dry_multiplier: 2.0, dry_allowed_tokens: 1, dry_tokens: None, ..hot() },
        Sampling { mirostat: Mirostat::One, mirostat_tau: 3.0, ..hot() },
        Sampling { mirostat: Mirostat::Two, mirostat_tau: 3.0, ..hot() },
        Sampling { adaptive_target: Some(0.3), samplers: vec![K::MinP, K::AdaptiveP], ..hot() },
        Sampling { samplers: vec![K::TopK, K::TopP, K::Infill, K::Temperature], ..hot() },
        Sampling { samplers: vec![K::Temperature, K::TopP, K::TopK], ..hot() },
        Sampling { samplers: Vec::new(), ..hot() },
        Sampling { logit_bias: vec![(262, 5.0), (263, f32::NEG_INFINITY), (270, -2.0)], ..hot() },
        Sampling { logit_bias: vec![(262, 9.0)], repeat_penalty: 1.2, ..Sampling::greedy() },
    ]
}

#[test]
fn choices_are_llama_cpps_for_the_same_seed() {
    let model = tiny_model();
    let vocabulary = model.vocabulary();
    for sampling in settings() {
        sampling.check().unwrap();
        for seed in [1, 77] {
            let oracle = Oracle::new(&sampling, seed, &vocabulary);
            oracle.accept(&PROMPT);
            let expected = reply(&model, 100, &mut |context| oracle.sample(context));
            let mut sampler = Sampler::new(&sampling, seed, &vocabulary, 256).unwrap();
            sampler.accept(&PROMPT);
            let found = reply(&model, 100, &mut |context| {
                sampler.sample(context.logits_of_last().unwrap()).unwrap()
            });
            assert_eq!(found, expected, "{sampling:?}");
        }
    }
}

/// Log-probabilities are those of the model, whatever changes the choice.
#[test]
fn log_probabilities_are_the_models_own() {
    let model = tiny_model();
    let sampling = Sampling {
        repeat_penalty: 1.5,
        logit_bias: vec![(262, 4.0)],
        temperature: 1.5,
        ..Sampling::default()
    };
    let mut sampler = Sampler::new(&sampling, 3, &model.vocabulary(), 256).unwrap();
    sampler.accept(&PROMPT);
    reply(&model, 50, &mut |context| {
        let logits = context.logits_of_last().unwrap();
        let raw: Vec<f64> = logits.iter().map(|logit| f64::from(*logit)).collect();
        let sum: f64 = raw.iter().map(|logit| logit.exp()).sum();
        let (token, logprobs) = sampler.sample_with_logprobs(logits, 5).unwrap();
        let expected = |token: Token| raw[token as usize] - sum.ln();
        assert!((f64::from(logprobs.logprob) - expected(token)).abs() < 1e-5);
        assert_eq!(logprobs.top.len(), 5);
        for (token, logprob) in logprobs.top {
            assert!((f64::from(logprob) - expected(token)).abs() < 1e-5);
        }
        token
    });
}

#[test]
fn what_cannot_be_sampled_is_an_error() {
    let model = tiny_model();
    let vocabulary = model.vocabulary();
    let tokens = vocabulary.len() as Token;
    let unknown = Sampling { logit_bias: vec![(tokens, 1.0)], ..Sampling::default() };
    assert!(matches!(Sampler::new(&unknown, 0, &vocabulary, 256), Err(LlamaError::Token { .. })));
    let all = (0..tokens).map(|token| (token, f32::NEG_INFINITY)).collect();
    for sampling in [Sampling::default(), Sampling::greedy()] {
        let banned = Sampling { logit_bias: Vec::clone(&all), ..sampling };
        let mut sampler = Sampler::new(&banned, 0, &vocabulary, 256).unwrap();
        let mut logits = vec![0.0; vocabulary.len()];
        assert_eq!(sampler.sample(&mut logits), Err(LlamaError::NothingToChoose));
    }
    let mut sampler = Sampler::new(&Sampling::default(), 0, &vocabulary, 256).unwrap();
    assert!(sampler.sample(&mut [0.0; 3]).is_err());
}

fn constrained(constraint: Constraint) -> Sampling {
    Sampling {
        constraint: Some(constraint),
        temperature: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        ..Sampling::default()
    }
}

/// A reply to random logits, in which quotes, commas and brackets are likelier so that it ends.
/// None when it did not end within the limit.
fn random_reply(sampling: &Sampling, vocabulary: &Vocabulary, seed: u64) -> Option<String> {
    let mut noise = Noise(seed);
    let mut sampler = Sampler::new(sampling, seed as u32, vocabulary, 4096).unwrap();
    let mut bytes = Vec::new();
    let closes: Vec<bool> = (0..vocabulary.len() as Token)
        .map(|token| {
            let piece = vocabulary.pieces(&[token], false).unwrap();
            matches!(piece.as_slice(), b"\"" | b"}" | b"]" | b"\"}" | b"}]" | b"]]" | b"0" | b"\",")
        })
        .collect();
    for step in 0..3000 {
        let mut logits = noise.values(vocabulary.len(), 3.0);
        for (logit, closes) in logits.iter_mut().zip(&closes) {
            if *closes {
                *logit += 2.0 + step as f32 / 100.0;
            }
        }
        let token = sampler.sample(&mut logits).unwrap();
        if vocabulary.is_end_of_generation(token) {
            return Some(String::from_utf8(bytes).unwrap());
        }
        vocabulary.append_piece(token, false, &mut bytes).unwrap();
        if sampler.is_complete() {
            return Some(String::from_utf8(bytes).unwrap());
        }
    }
    None
}

#[test]
fn replies_under_a_schema_are_valid() {
    let model = tiny_model();
    let vocabulary = model.vocabulary();
    let schemas = crate::engine::grammar::schema::examples();
    assert!(schemas.len() >= 30, "{}", schemas.len());
    let mut ended = 0;
    for (number, source) in schemas.iter().enumerate() {
        let schema: serde_json::Value = serde_json::from_str(source).unwrap();
        let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
        let sampling = constrained(Constraint::JsonSchema((*source).to_owned()));
        let mut found = 0;
        for seed in 0..12 {
            let Some(text) = random_reply(&sampling, &vocabulary, 1000 * number as u64 + seed)
            else {
                continue;
            };
            let value: serde_json::Value = serde_json::from_str(&text)
                .unwrap_or_else(|error| panic!("{source}\n{text}\n{error}"));
            let problems: Vec<String> =
                validator.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(problems.is_empty(), "{source}\n{text}\n{problems:?}");
            found += 1;
        }
        assert!(found >= 4, "{found} replies ended: {source}");
        ended += found;
    }
    assert!(ended >= 300, "{ended}");
}

#[test]
fn json_mode_is_an_object() {
    let model = tiny_model();
    let vocabulary = model.vocabulary();
    for seed in 0..20 {
        let text = random_reply(&constrained(Constraint::Json), &vocabulary, seed);
        if let Some(text) = text {
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert!(value.is_object(), "{text}");
        }
    }
}

/// llama.cpp's engine on the same grammar, where it can be trusted, is the judge of which tokens may
/// follow.
#[test]
fn grammars_allow_what_llama_cpps_engine_allows() {
    let model = tiny_model();
    let vocabulary = model.vocabulary();
    let pieces = vocabulary.pieces_of_all().unwrap();
    let mut grammars: Vec<String> = vec![
        r#"root ::= "yes" | "no" | "n" [0-9a-e]+"#.to_owned(),
        "root ::= item (\",\" \" \"? item)*\nitem ::= [a-e]{1,4} | \"{\" root \"}\"".to_owned(),
        "root ::= [^\"\\\\]* \"\\\"\"".to_owned(),
        "root ::= ([é日] | \"😀\" | [a-z])+ \".\"".to_owned(),
        "root ::= .{3,5} \"}\"".to_owned(),
        "root ::= (\"a\"? \"b\"?){2,} # a comment\n\n".to_owned(),
        "root ::= \"a\" root \"b\" | \"c\"".to_owned(),
        "root ::= (<[300]> | !<[301]>) \"b\"*".to_owned(),
    ];
    for source in crate::engine::grammar::schema::examples() {
        grammars.push(crate::engine::grammar::schema::to_gbnf(source).unwrap());
    }
    let names = super::constraint::Names(&vocabulary);
    for source in grammars {
        let grammar = Grammar::new(&source, &names).unwrap();
        let mut matcher = Matcher::new(grammar, Arc::clone(&pieces)).unwrap();
        let text = std::ffi::CString::new(source.as_str()).unwrap();
        // SAFETY: the vocabulary is alive and the texts are zero-terminated.
        let oracle = unsafe {
            sys::llama_rs_sampler_init_grammar(vocabulary.as_ptr(), text.as_ptr(), c"root".as_ptr())
        };
        assert!(!oracle.is_null(), "{source}");
        let mut noise = Noise(9);
        for _ in 0..40 {
            let mut all: Vec<sys::llama_token_data> = (0..vocabulary.len() as Token)
                .map(|id| sys::llama_token_data { id, logit: 0.0, p: 0.0 })
                .collect();
            let mut array = sys::llama_token_data_array {
                data: all.as_mut_ptr(),
                size: all.len(),
                selected: -1,
                sorted: false,
            };
            // SAFETY: the array describes the candidates.
            unsafe { sys::llama_sampler_apply(oracle, &raw mut array) };
            let mask = matcher.mask().unwrap();
            let mut allowed = Vec::new();
            for candidate in &all {
                let token = candidate.id as usize;
                let theirs = candidate.logit == 0.0;
                assert_eq!(matcher.allows(token).unwrap(), mask.allows(token));
                // A byte of a character: theirs does not look whether it can be continued.
                let partial = std::str::from_utf8(pieces.of(token)).is_err();
                let special = pieces.of(token).is_empty() && !pieces.is_end(token);
                // Theirs takes a zero byte for the end of a piece.
                let special = special || pieces.of(token).starts_with(&[0]);
                if !partial && !special {
                    let piece = String::from_utf8_lossy(pieces.of(token));
                    assert_eq!(mask.allows(token), theirs, "{source}\n{piece:?}");
                    if theirs && !pieces.is_end(token) {
                        allowed.push(token);
                    }
                }
            }
            let Some(&token) = allowed.get(noise.next() as usize % allowed.len().max(1)) else {
                break;
            };
            assert!(matcher.accept(token).unwrap());
            // SAFETY: the sampler is alive and allows the token.
            let status = unsafe { sys::llama_rs_sampler_accept(oracle, token as Token) };
            assert_eq!(status, sys::LLAMA_RS_STATUS_OK);
        }
        // SAFETY: nobody else owns it.
        unsafe { sys::llama_sampler_free(oracle) };
    }
}

#[test]
fn a_constraint_may_wait_for_its_trigger() {
    let model = tiny_model();
    let vocabulary = model.vocabulary();
    let token = |text: &str| {
        (0..vocabulary.len() as Token)
            .find(|token| vocabulary.pieces(&[*token], false).unwrap() == text.as_bytes())
            .unwrap()
    };
    let only = |wanted: Token| {
        let mut logits = vec![0.0; vocabulary.len()];
        logits[wanted as usize] = 50.0;
        logits
    };
    let (word, bracket, one, cat) = (token("word"), token("[["), token("1"), token("cat"));
    for (place, grammar) in [
        (TriggerPlace::With, r#"root ::= "[[" [0-9]+ "]""#),
        (TriggerPlace::After, r#"root ::= [0-9]+ "]""#),
    ] {
        for what in [TriggerWhat::Word("d[[".to_owned()), TriggerWhat::Token(bracket)] {
            // With a word, what belongs to the constraint begins with all of it.
            let grammar = match &what {
                TriggerWhat::Word(_) => grammar.replace("\"[[\"", "\"d[[\""),
                TriggerWhat::Token(_) => grammar.to_owned(),
            };
            let sampling = Sampling {
                triggers: vec![Trigger { what, place }],
                ..constrained(Constraint::Grammar(grammar))
            };
            let mut sampler = Sampler::new(&sampling, 1, &vocabulary, 256).unwrap();
            for free in [cat, one, word, bracket] {
                assert!(sampler.may_end() && !sampler.is_complete());
                assert_eq!(sampler.sample(&mut only(free)), Ok(free));
            }
            assert!(!sampler.may_end());
            assert_ne!(sampler.sample(&mut only(cat)), Ok(cat));
            assert_eq!(sampler.sample(&mut only(one)), Ok(one));
            assert_eq!(sampler.sample(&mut only(token("]"))), Ok(token("]")));
            assert!(sampler.is_complete());
        }
    }
}

/// Grammars that would abort, hang or exhaust another engine end in an error, at once or when their
/// cost shows.
#[test]
fn hostile_constraints_end_in_an_error() {
    let model = tiny_model();
    let vocabulary = model.vocabulary();
    let started = std::time::Instant::now();
    let refused = |source: &str| {
        let sampling = constrained(Constraint::Grammar(source.to_owned()));
        match Sampler::new(&sampling, 0, &vocabulary, 256) {
            Err(LlamaError::Grammar(error)) => error,
            other => panic!("{source:.100}: {other:?}"),
        }
    };
    assert!(matches!(refused("root ::= root \"a\" | \"b\""), GrammarError::LeftRecursion(_)));
    assert!(matches!(
        refused("root ::= \"a\" | b\nb ::= root \"c\" | \"d\""),
        GrammarError::LeftRecursion(_)
    ));
    assert!(matches!(
        refused("root ::= b root \"c\" | \"d\"\nb ::= \"x\"?"),
        GrammarError::LeftRecursion(_)
    ));
    assert!(matches!(refused("root ::= \"a\" root"), GrammarError::Endless(_)));
    assert!(matches!(refused("root ::= []"), GrammarError::Endless(_)));
    assert!(matches!(refused("root ::= \"\""), GrammarError::Empty));
    assert!(matches!(refused("start ::= \"a\""), GrammarError::NoRoot));
    assert!(matches!(refused(""), GrammarError::NoRoot));
    assert!(matches!(refused(&"(".repeat(100_000)), GrammarError::Syntax { .. }));
    let nested = format!("root ::= {}\"a\"{}", "(".repeat(100_000), ")".repeat(100_000));
    assert!(matches!(refused(&nested), GrammarError::Syntax { .. }));
    assert!(matches!(refused("root ::= \"a\"{4000000000}"), GrammarError::Syntax { .. }));
    let bomb = format!("root ::= \"a\"{}", "{100000}".repeat(20));
    assert!(matches!(refused(&bomb), GrammarError::TooLarge), "{bomb}");
    let large = "root ::= \"a\"\n".repeat(100_000);
    assert!(matches!(refused(&large), GrammarError::TooLong(_)));
    // Twice as many readings with every letter, and with every rule before the first one.
    for source in [
        "root ::= \"a\" root \"b\" | \"a\" root \"c\" | \"d\"".to_owned(),
        (0..40).fold("root ::= r0\n".to_owned(), |text, n| {
            text + &format!("r{n} ::= r{} \"x\" | r{} \"y\"\n", n + 1, n + 1)
        }) + "r40 ::= \"z\"",
    ] {
        let sampling = constrained(Constraint::Grammar(source.clone()));
        let mut error = None;
        match Sampler::new(&sampling, 0, &vocabulary, 256) {
            Err(refused) => error = Some(refused),
            Ok(mut sampler) => {
                for _ in 0..200 {
                    let mut logits = vec![0.0; vocabulary.len()];
                    logits[260] = 20.0;
                    if let Err(failed) = sampler.sample(&mut logits) {
                        error = Some(failed);
                        break;
                    }
                }
            }
        }
        let expected = matches!(
            error,
            Some(LlamaError::Grammar(GrammarError::Ambiguous | GrammarError::TooComplex))
        );
        assert!(expected, "{source:.60}: {error:?}");
    }
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}
