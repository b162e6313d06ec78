//! Says what a run does: to the person, to its log, to TensorBoard.

use std::ops::ControlFlow;
use std::time::Duration;

use super::Arguments;
use super::metrics::Metrics;
use super::recipe::Recipe;
use super::sample;
use crate::cli::failure::Failure;
use crate::engine::process::Engine;
use crate::hardware;
use crate::learn::{Contents, Evaluated, Identity, LearnError, Order, Outcome, Preferred, Report};
use crate::term::{Printer, interrupt, units};
use crate::training::trainer::Step;
use crate::tui::training::{Figures, View};

/// Lines that a run says of its steps where there is no view.
const LINES: u64 = 20;

/// Says what happens, to the person and to the log.
pub(super) struct Teller<'a> {
    arguments: &'a Arguments,
    recipe: &'a Recipe,
    order: &'a Order,
    engine: &'a Engine,
    printer: &'a Printer,
    figures: Figures,
    view: Option<View>,
    metrics: Option<Metrics>,
    identity: Option<Identity>,
    failed: Option<Failure>,
}

impl<'a> Teller<'a> {
    pub(super) fn new(
        arguments: &'a Arguments,
        recipe: &'a Recipe,
        order: &'a Order,
        engine: &'a Engine,
        printer: &'a Printer,
    ) -> Self {
        let figures =
            Figures { steps: order.steps, colours: printer.colour(), ..Figures::default() };
        Self {
            arguments,
            recipe,
            order,
            engine,
            printer,
            figures,
            view: None,
            metrics: None,
            identity: None,
            failed: None,
        }
    }

    /// Whether the run goes on.
    pub(super) fn tell(&mut self, report: Report) -> ControlFlow<()> {
        let told = match report {
            Report::Data { learned, evaluated } => {
                self.data(&learned, &evaluated);
                Ok(())
            }
            Report::Made(identity) => self.made(identity),
            Report::Resumed(step) => self.resumed(step),
            Report::Evaluated(evaluated) => self.evaluated(evaluated),
            Report::Sample { step, adapter } => self.sample(step, &adapter),
            Report::Stepped { step, preferred, took } => self.stepped(&step, preferred, took),
        };
        if let Err(failure) = told {
            self.failed.get_or_insert(failure);
        }
        if interrupt::requested() || self.failed.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn say(&mut self, text: &str) {
        match &mut self.view {
            Some(view) => view.above(text),
            None => self.printer.say(text),
        }
    }

    fn data(&mut self, learned: &Contents, evaluated: &Contents) {
        let forms = learned.forms.iter().map(|(form, count)| format!("{count} {}", form.name()));
        self.say(&format!("data     {}", forms.collect::<Vec<_>>().join(", ")));
        for contents in [learned, evaluated].into_iter().filter(|contents| contents.examples > 0) {
            self.contents(
                contents,
                if std::ptr::eq(contents, learned) { "learn" } else { "look at" },
            );
        }
    }

    fn contents(&mut self, contents: &Contents, purpose: &str) {
        let Contents { examples, tokens, learned, batches, lengths, .. } = contents;
        let share = 100.0 * *learned as f64 / (*tokens).max(1) as f64;
        self.say(&format!(
            "{purpose:8} {examples} examples, {tokens} tokens, {share:.0} % of them learned, in {batches} micro-batches"
        ));
        self.say(&format!(
            "         of {} to {} tokens, half of them up to {}, 95 % up to {}",
            lengths.least, lengths.longest, lengths.median, lengths.most
        ));
        let length = self.order.length;
        for (count, what) in [
            (contents.duplicates, "that are there already were left out".to_owned()),
            (contents.long, format!("are longer than {length} tokens: see --too-long, --length")),
            (
                contents.rewritten,
                "are learned turn by turn, as the chat template rewrites earlier turns".to_owned(),
            ),
        ] {
            if count > 0 {
                self.say(&format!("         {count} {what}"));
            }
        }
        if contents.bad.count > 0 {
            let bad = &contents.bad;
            self.say(&format!("         {} that make no sense were left out:{bad}", bad.count));
        }
    }

    fn made(&mut self, identity: Identity) -> Result<(), Failure> {
        for what in self.recipe.changes(&identity) {
            self.printer.warn(&format!("the {what} are not those that the recipe was made with"));
        }
        if self.order.resume {
            // What a run is made of may still be refused by its checkpoint.
            self.identity = Some(identity);
            return Ok(());
        }
        self.recipe.write(&self.order.output, &identity)?;
        self.open(None)
    }

    fn resumed(&mut self, step: u64) -> Result<(), Failure> {
        if let Some(identity) = self.identity.take() {
            self.recipe.write(&self.order.output, &identity)?;
        }
        self.open(Some(step).filter(|step| *step > 0))?;
        match step {
            0 => self.say("resumed  there is no checkpoint: from the beginning"),
            step => self.say(&format!("resumed  behind step {step}")),
        }
        Ok(())
    }

    /// Begins to write numbers and to draw them.
    fn open(&mut self, resumed: Option<u64>) -> Result<(), Failure> {
        let (log, tensorboard) = (&self.arguments.log, &self.arguments.tensorboard);
        let output = &self.order.output;
        let metrics = Metrics::open(output, log.as_deref(), tensorboard.as_deref(), resumed)?;
        if !self.printer.quiet() && crate::term::is_terminal() {
            let wide = |(step, loss): &(u64, f64)| (*step as f64, *loss);
            let mut figures = std::mem::take(&mut self.figures);
            figures.step = resumed.unwrap_or(0);
            figures.losses = metrics.learned.iter().map(wide).collect();
            figures.evaluations = metrics.evaluated.iter().map(wide).collect();
            // A terminal that does not answer gets lines.
            self.view = View::open(figures).ok();
        }
        self.metrics = Some(metrics);
        Ok(())
    }

    fn evaluated(&mut self, evaluated: Evaluated) -> Result<(), Failure> {
        let Evaluated { step, loss, preferred } = evaluated;
        let mut numbers = vec![("eval_loss", loss)];
        match preferred {
            None => {
                self.say(&format!(
                    "eval     step {step}: loss {loss:.4}, perplexity {:.3}",
                    loss.exp()
                ));
            }
            Some(Preferred { accuracy, margin }) => {
                numbers.extend([("eval_accuracy", accuracy), ("eval_margin", margin)]);
                let share = 100.0 * accuracy;
                self.say(&format!(
                    "eval     step {step}: loss {loss:.4}, {share:.0} % right, margin {margin:.3}"
                ));
            }
        }
        if let Some(view) = &mut self.view {
            view.figures.evaluations.push((step as f64, loss));
            view.draw();
        }
        self.write(step, &numbers)
    }

    fn stepped(
        &mut self,
        step: &Step,
        preferred: Option<Preferred>,
        took: Duration,
    ) -> Result<(), Failure> {
        let seconds = took.as_secs_f64().max(1e-9);
        let pace = step.tokens as f64 / seconds;
        let mut numbers = vec![
            ("loss", step.loss),
            ("tokens_per_second", pace),
            ("learning_rate", step.rate),
            ("gradient_norm", step.gradient_norm),
            ("tokens", step.tokens as f64),
            ("learned_tokens", step.learned as f64),
            ("seconds", seconds),
        ];
        if let Some(Preferred { accuracy, margin }) = preferred {
            numbers.extend([("accuracy", accuracy), ("margin", margin)]);
        }
        if let Some(view) = &mut self.view {
            view.figures.step(step.number, step.loss, step.tokens, took);
            view.figures.memory_bytes = hardware::resident_bytes();
            view.draw();
        } else {
            self.figures.step(step.number, step.loss, step.tokens, took);
            let steps = self.order.steps;
            if step.number == 1
                || step.number == steps
                || step.number.is_multiple_of(steps.div_ceil(LINES))
            {
                let left = self.figures.left().map(units::duration).unwrap_or_default();
                let (number, loss) = (step.number, step.loss);
                self.say(&format!(
                    "step     {number} of {steps}: loss {loss:.4}, {pace:.0} tokens/s, {left} left"
                ));
            }
        }
        self.write(step.number, &numbers)
    }

    fn sample(&mut self, step: u64, adapter: &[u8]) -> Result<(), Failure> {
        let Some(text) = &self.arguments.sample else { return Ok(()) };
        let said = sample::hear(self.engine, &self.order.output, text, adapter)?;
        self.say(&format!("sample   step {step}: {text}{said}"));
        Ok(())
    }

    fn write(&mut self, step: u64, numbers: &[(&str, f64)]) -> Result<(), Failure> {
        self.metrics.as_mut().map_or(Ok(()), |metrics| metrics.write(step, numbers))
    }

    /// The last words.
    pub(super) fn finish(mut self, outcome: Result<Outcome, LearnError>) -> Result<(), Failure> {
        if let Some(mut view) = self.view.take() {
            view.close();
        }
        let outcome = outcome?;
        if let Some(failure) = self.failed {
            return Err(failure);
        }
        if outcome.stopped {
            let message = format!("stopped behind step {}; a checkpoint is written", outcome.steps);
            let hint = Some("add --resume to the same command to go on".to_owned());
            return Err(Failure { message, hint, status: interrupt::EXIT_STATUS });
        }
        let (printer, folder) = (self.printer, &self.order.output);
        let output = folder.display();
        printer.say(&format!(
            "adapter  {} numbers trained in {} steps: {output}/adapter.gguf, and PEFT's two files beside it",
            units::count(outcome.trained as u64),
            outcome.steps
        ));
        if let Some((step, loss)) = outcome.best {
            printer.say(&format!(
                "best     that of step {step}, with an evaluation loss of {loss:.4}"
            ));
        }
        if let Some(metrics) = &self.metrics {
            if let [(_, first), .., (_, last)] = metrics.evaluated[..] {
                printer.say(&format!("eval     loss {first:.4} before, {last:.4} after"));
            }
            metrics.plot(folder, &format!("Losses of {}", self.order.model_name))?;
        }
        Ok(())
    }
}
