//! What a measurement came to: a table for people, JSON for programs.

use serde_json::{Value, json};

use super::Asked;
use crate::eval::bench::{Figures, Outcome, Ratio, Side, Workload};
use crate::term::{neutral, table, units};

/// Everything that came of a measurement.
pub(super) struct Report<'a> {
    pub(super) asked: &'a [Asked],
    pub(super) sides: &'a [Side],
    pub(super) workload: &'a Workload,
    /// By side and by test.
    pub(super) outcomes: &'a [Vec<Outcome>],
}

impl Report<'_> {
    /// For people: a row for each test of each side.
    pub(super) fn table(&self) -> String {
        let Self { asked, sides, workload, outcomes } = *self;
        let compares = sides.len() > 1;
        let mut header = vec!["model", "size", "threads", "test", "tokens/s", "least", "most"];
        if compares {
            header.extend(["ratio", "from", "to"]);
        }
        let mut rows = vec![header.into_iter().map(str::to_owned).collect::<Vec<_>>()];
        for (place, side) in sides.iter().enumerate() {
            let info = side.info();
            let named = format!("{} {}", asked[place].name, asked[place].options);
            for (outcome, first) in outcomes[place].iter().zip(&outcomes[0]) {
                for ((test, figures), (_, base)) in
                    tests(outcome, workload).zip(tests(first, workload))
                {
                    let mut row = vec![
                        neutral(named.trim_end()),
                        units::bytes(info.weights_bytes),
                        info.threads.to_string(),
                        test,
                    ];
                    row.extend([figures.median(), figures.min(), figures.max()].map(speed));
                    if compares && place > 0 {
                        let Ratio { of_medians, min, max } = figures.ratio_to(base);
                        row.extend([of_medians, min, max].map(|ratio| format!("{ratio:.3}")));
                    }
                    rows.push(row);
                }
            }
        }
        table::render(&rows, &[1, 2, 4, 5, 6, 7, 8, 9])
    }

    /// For programs: one side's object; of several, a list of them with their ratios.
    pub(super) fn document(&self) -> Value {
        let Self { asked, sides, workload, outcomes } = *self;
        let object =
            |place: usize| side_document(&asked[place], &sides[place], workload, &outcomes[place]);
        if sides.len() == 1 {
            return object(0);
        }
        let ratio = |place: usize, of: fn(&Outcome) -> Option<&Figures>| -> Vec<Value> {
            let pairs = outcomes[place].iter().zip(&outcomes[0]);
            let ratio = |(ours, base): (&Outcome, &Outcome)| {
                let ratio = of(ours)?.ratio_to(of(base)?);
                let Ratio { of_medians, min, max } = ratio;
                Some(json!({
                    "depth": ours.depth,
                    "batch": ours.batch,
                    "of_medians": of_medians,
                    "min": min,
                    "max": max,
                }))
            };
            pairs.filter_map(ratio).collect()
        };
        let ratios = |place: usize| {
            json!({
                "side": place,
                "to": 0,
                "prefill": ratio(place, |outcome| outcome.prefill.as_ref()),
                "decode": ratio(place, |outcome| outcome.decode.as_ref()),
            })
        };
        json!({
            "sides": (0..sides.len()).map(object).collect::<Vec<_>>(),
            "ratios": (1..sides.len()).map(ratios).collect::<Vec<_>>(),
        })
    }
}

fn speed(value: f64) -> String {
    format!("{value:.2}")
}

/// The tests of an outcome: what was done, and how fast.
fn tests<'a>(
    outcome: &'a Outcome,
    workload: &Workload,
) -> impl Iterator<Item = (String, &'a Figures)> {
    let each = if outcome.batch > 1 { format!(" × {}", outcome.batch) } else { String::new() };
    let at = if outcome.depth > 0 { format!(" at {}", outcome.depth) } else { String::new() };
    let prefill = (format!("prefill {}{each}{at}", workload.prompt_tokens), &outcome.prefill);
    let decode = (format!("decode {}{each}{at}", workload.generated_tokens), &outcome.decode);
    [prefill, decode].into_iter().filter_map(|(test, figures)| Some((test, figures.as_ref()?)))
}

fn side_document(asked: &Asked, side: &Side, workload: &Workload, outcomes: &[Outcome]) -> Value {
    let (info, request) = (side.info(), side.request());
    let figures = |figures: &Option<Figures>| {
        figures.as_ref().map(|figures| {
            json!({
                "median": figures.median(),
                "min": figures.min(),
                "max": figures.max(),
                "samples": figures.samples(),
            })
        })
    };
    let speeds = |outcome: &Outcome| {
        json!({
            "depth": outcome.depth,
            "batch": outcome.batch,
            "prefill_tokens_per_second": figures(&outcome.prefill),
            "decode_tokens_per_second": figures(&outcome.decode),
        })
    };
    let mut object = json!({
        "file": asked.file.display().to_string(),
        "options": asked.options,
        "model": info.description,
        "architecture": info.architecture,
        "parameters": info.parameters,
        "weights_bytes": info.weights_bytes,
        "threads": info.threads,
        "micro_batch_tokens": request.context.micro_batch_tokens,
        "gpu_layers": request.model.gpu_layers,
        "devices": info.devices.iter().map(|device| device.description.trim()).collect::<Vec<_>>(),
        "build": { "nfl": env!("CARGO_PKG_VERSION"), "system": std::env::consts::OS, "processor": std::env::consts::ARCH },
        "prompt_tokens": workload.prompt_tokens,
        "generated_tokens": workload.generated_tokens,
        "repeat": workload.repeats,
    });
    // The figures of the first test stand where a script looks for them; all are in the list.
    for (key, value) in speeds(&outcomes[0]).as_object().into_iter().flatten() {
        object[key.as_str()] = value.clone();
    }
    object["tests"] = outcomes.iter().map(speeds).collect();
    object
}
