//! The numbers of a run's steps as lines of JSON, as TensorBoard's events, and as a picture at the end.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cli::failure::Failure;
use crate::learn::events::Events;
use crate::learn::outputs;
use crate::learn::plot::Curves;

/// The picture's name in a run's folder.
const PLOT: &str = "loss.svg";

/// The lines' name in a run's folder, where no other is given.
const LINES: &str = "metrics.jsonl";

/// Where numbers go.
#[derive(Debug)]
pub(super) struct Metrics {
    path: PathBuf,
    file: File,
    events: Option<(PathBuf, Events)>,
    /// Losses by steps.
    pub(super) learned: Vec<(u64, f64)>,
    /// Losses of the evaluation examples by steps.
    pub(super) evaluated: Vec<(u64, f64)>,
}

impl Metrics {
    /// Begins to write, or goes on behind step `resumed`: what is there of later steps is taken out, as it comes again.
    pub(super) fn open(
        output: &Path,
        log: Option<&Path>,
        tensorboard: Option<&Path>,
        resumed: Option<u64>,
    ) -> Result<Self, Failure> {
        let path = log.map_or_else(|| output.join(LINES), Path::to_owned);
        let (mut learned, mut evaluated, mut kept) = (Vec::new(), Vec::new(), String::new());
        if let Some(resumed) = resumed
            && let Ok(text) = fs::read_to_string(&path)
        {
            for line in text.lines() {
                let Ok(value) = serde_json::from_str::<Value>(line) else { continue };
                let Some(step) = value["step"].as_u64().filter(|step| *step <= resumed) else {
                    continue;
                };
                learned.extend(value["loss"].as_f64().map(|loss| (step, loss)));
                evaluated.extend(value["eval_loss"].as_f64().map(|loss| (step, loss)));
                kept += line;
                kept.push('\n');
            }
        }
        let mut file = File::create(&path).map_err(|error| failure(&path, &error))?;
        file.write_all(kept.as_bytes()).map_err(|error| failure(&path, &error))?;
        let events = tensorboard.map(|folder| {
            let events =
                Events::create(folder, resumed).map_err(|error| failure(folder, &error))?;
            Ok::<_, Failure>((folder.to_owned(), events))
        });
        let events = events.transpose()?;
        Ok(Self { path, file, events, learned, evaluated })
    }

    /// Numbers of a step, the loss first; what is no number is null in JSON.
    pub(super) fn write(&mut self, step: u64, numbers: &[(&str, f64)]) -> Result<(), Failure> {
        let mut line = json!({ "step": step });
        for (name, value) in numbers {
            let is_count = name.ends_with("tokens");
            line[*name] = if is_count { json!(*value as u64) } else { json!(value) };
        }
        writeln!(self.file, "{line}").map_err(|error| failure(&self.path, &error))?;
        match numbers {
            [("loss", loss), ..] => self.learned.push((step, *loss)),
            [("eval_loss", loss), ..] => self.evaluated.push((step, *loss)),
            _ => {}
        }
        if let Some((folder, events)) = &mut self.events {
            let scalars: Vec<(&str, f32)> =
                numbers.iter().map(|(name, value)| (*name, *value as f32)).collect();
            events.write(step, &scalars).map_err(|error| failure(folder, &error))?;
        }
        Ok(())
    }

    /// Draws the losses into a run's folder.
    pub(super) fn plot(&self, output: &Path, title: &str) -> Result<(), Failure> {
        let curves = Curves { title, learned: &self.learned, evaluated: &self.evaluated };
        Ok(outputs::write(&output.join(PLOT), curves.svg().as_bytes())?)
    }
}

fn failure(path: &Path, error: &io::Error) -> Failure {
    let hint = (error.kind() == io::ErrorKind::StorageFull)
        .then_some("free some space: the last checkpoint is whole, and --resume goes on from it");
    Failure::new(format!("{}: {error}", path.display()), hint)
}
