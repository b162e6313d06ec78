//! `nfl run`: a model answers once, continues a text, or converses with the person at the terminal.

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::constraint::ConstraintArguments;
use super::failure::Failure;
use super::fit;
use super::guessing::GuessingArguments;
use super::loading;
use super::model;
use super::placement::PlacementArguments;
use super::reply::{self, Thoughts};
use super::sampling::SamplingArguments;
use super::steering::SteeringArguments;
use crate::chat::{ChatError, Event, Input, Message, Request, Responder, Role, carried};
use crate::engine::frames::{Done, MemoryUse, Reason};
use crate::engine::options::{LoadRequest, Sampling, StateOptions};
use crate::engine::plan::Planned;
use crate::engine::runner::Cancel;
use crate::engine::worker::cage::CageInfo;
use crate::settings;
use crate::store::{Resolved, is_for_go};
use crate::term::editor::{Editor, Typed};
use crate::term::progress::Progress;
use crate::term::{self, Printer, interrupt, units};

/// Bytes of a prompt that is read from a pipe.
const PIPED_BYTES_MAX: u64 = 64 << 20;

/// Bytes of saved states.
const STATES_BYTES_MAX: u64 = 4 << 30;

/// Let a model talk.
///
/// With PROMPT it answers once; without, a person at the terminal gets a conversation, and a pipe is read to its end. A
/// model with a chat template answers; any other continues the text. Only the reply goes to stdout.
#[derive(Debug, Args)]
#[command(
    after_help = "In a conversation: a line is sent at once, \\ at its end or \"\"\" around it make it longer;\n\
    /clear forgets the conversation, /bye or Ctrl-D leaves, Ctrl-C stops a reply."
)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub(super) struct Arguments {
    /// A stored model's name, or a GGUF file; of a split model, any of its files.
    #[arg(value_name = "MODEL")]
    file: PathBuf,
    /// What to answer or to continue.
    prompt: Option<String>,
    /// Continue the text as it stands, without the model's chat template.
    #[arg(long)]
    raw: bool,
    /// Instructions that stand above the conversation.
    #[arg(long, value_name = "TEXT", conflicts_with = "raw")]
    system: Option<String>,
    /// Tokens to generate at most; until the model ends or the context is full unless given.
    #[arg(short = 'n', long, value_name = "N")]
    tokens: Option<u32>,
    /// End before any of these texts; may be given several times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Go on when the model wants to end, up to --tokens or the end of the context: for measurements.
    #[arg(long)]
    ignore_eos: bool,
    /// When the context is full, forget its older half and go on, instead of ending the reply.
    #[arg(long)]
    context_shift: bool,
    /// Save what was computed of the conversation, up to 4 GiB in all, and begin with what was saved: a prompt that
    /// continues an earlier one is not read again.
    #[arg(long)]
    keep_state: bool,
    /// Say load time, speeds and memory on stderr.
    #[arg(short, long)]
    verbose: bool,
    /// Say with each token its probability and those of the N likeliest ones: the model's own, before any sampler. A table
    /// follows the reply; with --json they are in the object.
    #[arg(long, value_name = "N")]
    logprobs: Option<u32>,
    /// Print the reply, why it ended, tokens and times as one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pub(super) guessing: GuessingArguments,
    /// Fill a gap: PROMPT stands before it, this text behind it.
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["raw", "system"])]
    suffix: Option<String>,
    #[command(flatten)]
    constraint: ConstraintArguments,
    #[command(flatten)]
    steering: SteeringArguments,
    #[command(flatten)]
    sampling: SamplingArguments,
    #[command(flatten)]
    placement: PlacementArguments,
    /// The model's files, and what a stored model brings besides.
    #[arg(skip)]
    carried: Resolved,
}

impl Arguments {
    /// What a stored model brings holds where nothing else was asked for.
    fn carry(&mut self, carried: Resolved) {
        let parameters = &carried.parameters;
        self.placement.complete(parameters);
        self.steering.add(&carried.adapters);
        if self.stop.is_empty() {
            self.stop = carried::stop(parameters);
        }
        self.tokens = self.tokens.or(carried::tokens_max(parameters));
        self.carried = carried;
    }
}

pub(super) fn run(arguments: &mut Arguments, printer: &Printer) -> Result<(), Failure> {
    let (held, carried) = model::resolve(&arguments.file)?;
    if let (Some(held), Some(manifest)) = (&held, &carried.manifest) {
        held.note_use(&manifest.name);
    }
    arguments.carry(carried);
    let prompt = match &arguments.prompt {
        Some(prompt) => Some(prompt.clone()),
        None if term::stdin_is_terminal() && arguments.json => {
            let hint =
                "give a prompt: nfl run FILE \"Once upon a time\" --json, or pipe a text into it";
            return Err(Failure::usage("--json: there is no prompt", hint));
        }
        None if term::stdin_is_terminal() => None,
        None => Some(piped_prompt()?),
    };
    let mut responder = load(arguments, printer)?;
    let chats = responder.has_template() && !arguments.raw && arguments.suffix.is_none();
    if arguments.system.is_some() && !chats {
        return Err(ChatError::NoTemplate.into());
    }
    let mut session = Session { arguments, printer, messages: opening(arguments), chats };
    let result = match prompt {
        Some(prompt) => {
            let done = session.answer(&mut responder, prompt)?;
            if done.reason == Reason::Cancelled { Err(Failure::interrupted()) } else { Ok(()) }
        }
        None => session.converse(&mut responder),
    };
    if arguments.keep_state {
        responder.unload()?;
    }
    result
}

/// Where states are kept, and how much of them.
fn states() -> Result<StateOptions, Failure> {
    let home = settings::home().ok_or_else(|| {
        let hint = "set NFL_HOME to a folder of yours";
        Failure::new("--keep-state: there is no home folder".to_owned(), Some(hint))
    })?;
    Ok(StateOptions { directory: home.join("states"), bytes_max: STATES_BYTES_MAX })
}

fn piped_prompt() -> Result<String, Failure> {
    let text = term::read_stdin(PIPED_BYTES_MAX)
        .map_err(|error| Failure::new(format!("standard input: {error}"), None))?;
    if text.is_empty() {
        let hint = "give a prompt: nfl run FILE \"Once upon a time\", or pipe a text into it";
        return Err(Failure::usage("there is no prompt: standard input is empty", hint));
    }
    Ok(text)
}

fn load(arguments: &Arguments, printer: &Printer) -> Result<Responder, Failure> {
    let program = loading::program()?;
    let file = &arguments.carried.model;
    let guessers = arguments.guessing.guessers(file)?;
    let (request, planned) = arguments.placement.request(file, guessers, &program)?;
    let states = if arguments.keep_state { Some(states()?) } else { None };
    let request = LoadRequest { states, readable: arguments.steering.files(), ..request };
    let mut responder = loading::load(printer, |told| Responder::start(&program, &request, told))?;
    use_template(&mut responder, arguments, printer)?;
    loading::warn(printer, responder.info(), planned.as_ref());
    if arguments.verbose {
        report_plan(planned.as_ref(), printer);
        report_load(&responder, printer);
    }
    Ok(responder)
}

/// Puts the stored model's own chat template in the place of the file's, where we can read it.
fn use_template(
    responder: &mut Responder,
    arguments: &Arguments,
    printer: &Printer,
) -> Result<(), Failure> {
    let Some(template) = &arguments.carried.template else { return Ok(()) };
    if !is_for_go(template) {
        return Ok(responder.set_template(template)?);
    }
    let text = "the stored template is written for Go, which nfl does not run";
    if !responder.has_template() {
        printer.warn(&format!("{text}, and the file has none: the model continues texts"));
    } else if arguments.verbose {
        printer.say(&format!("{text}: the file's own is used"));
    }
    Ok(())
}

/// How a conversation begins.
fn opening(arguments: &Arguments) -> Vec<Message> {
    carried::opening(&arguments.carried, arguments.system.as_deref())
}

/// One command's worth of questions and replies.
struct Session<'a> {
    arguments: &'a Arguments,
    printer: &'a Printer,
    /// The conversation so far; of a model that does not chat, nothing.
    messages: Vec<Message>,
    chats: bool,
}

impl Session<'_> {
    /// Answers until the person leaves.
    fn converse(&mut self, responder: &mut Responder) -> Result<(), Failure> {
        let terminal = |error: io::Error| Failure::new(format!("terminal: {error}"), None);
        let mut editor = Editor::new().map_err(terminal)?;
        let what = if self.chats { "Chatting" } else { "Continuing texts" };
        self.printer.say(&format!("{what} with {}. Ctrl-D leaves.", self.arguments.file.display()));
        loop {
            let text = match editor.read(">>> ").map_err(terminal)? {
                Typed::End => return Ok(()),
                Typed::Cancelled => continue,
                Typed::Text(text) => text,
            };
            match text.trim() {
                "" => continue,
                "/bye" | "/exit" | "/quit" => return Ok(()),
                "/clear" => self.messages = opening(self.arguments),
                _ => self.take_turn(responder, text)?,
            }
            interrupt::clear();
        }
    }

    /// One turn of a conversation: a failure costs this reply and no more.
    fn take_turn(&mut self, responder: &mut Responder, text: String) -> Result<(), Failure> {
        let Err(failure) = self.answer(responder, text) else { return Ok(()) };
        if failure.status == 0 || self.arguments.prompt.is_some() {
            return Err(failure);
        }
        self.printer.error(&failure.message, failure.hint.as_deref());
        if responder.runner().is_alive() {
            return Ok(());
        }
        self.printer.say("starting the engine again");
        responder.restart()?;
        Ok(())
    }

    /// Answers one text and prints the reply as it comes.
    fn answer(&mut self, responder: &mut Responder, text: String) -> Result<Done, Failure> {
        let input = if let Some(suffix) = &self.arguments.suffix {
            Input::Infill { prefix: text.clone(), suffix: suffix.clone() }
        } else if self.chats {
            let mut messages = self.messages.clone();
            messages.push(Message::new(Role::User, text.clone()));
            Input::Conversation(messages)
        } else {
            Input::Text(text.clone())
        };
        let constraint = self.arguments.constraint.read()?;
        let carried = carried::sampling(&self.arguments.carried.parameters, responder.sampling());
        let sampling = Sampling { constraint, ..self.arguments.sampling.over(&carried)? };
        let request =
            Request::new(input, sampling, self.arguments.stop.clone(), self.arguments.tokens)
                .map_err(|error| Failure { status: 2, ..Failure::from(error) })?
                .ignore_end(self.arguments.ignore_eos)
                .shift(self.arguments.context_shift)
                .speculation(self.arguments.guessing.speculation())
                .steering(self.arguments.steering.read())
                .and_then(|request| request.logprobs(self.arguments.logprobs))
                .map_err(|error| Failure { status: 2, ..Failure::from(ChatError::from(error)) })?;
        let cancel = Cancel::default();
        let stop = cancel.clone();
        let guard = interrupt::on_request(move || stop.cancel());
        let mut thoughts = Thoughts::default();
        let (done, reply) = self.print_reply(responder, &request, &cancel, &mut thoughts)?;
        drop(guard);
        let thoughts = self.arguments.logprobs.map(|_| thoughts);
        if self.arguments.json {
            let document = reply::document(&reply, &done, thoughts.as_ref());
            let text = serde_json::to_string_pretty(&document).expect("keys are strings");
            self.printer.line(&text)?;
        } else if let Some(thoughts) = &thoughts {
            self.printer.line(&format!("\n{}", thoughts.table().trim_end()))?;
        }
        if self.chats {
            self.messages.push(Message::new(Role::User, text));
            self.messages.push(Message::new(Role::Assistant, reply));
        }
        self.account(responder, &done);
        Ok(done)
    }

    fn print_reply(
        &self,
        responder: &Responder,
        request: &Request,
        cancel: &Cancel,
        thoughts: &mut Thoughts,
    ) -> Result<(Done, String), Failure> {
        let (mut reply, mut thinking) = (String::new(), String::new());
        let mut printed = Ok(());
        let mut progress = Progress::permille(self.printer);
        progress.message("reading the prompt");
        let is_terminal = term::stdout_is_terminal();
        let result = responder.reply(request, cancel, &mut |event| {
            match event {
                Event::Reading(share) => progress.set((share * 1000.0) as u64),
                Event::Thinking(text) => {
                    progress.finish();
                    thinking.push_str(&text);
                    if !self.arguments.json {
                        let shown = if is_terminal { term::neutral(&text) } else { text };
                        printed = self.printer.stream(&shown);
                    }
                }
                Event::Text(text) => {
                    if reply.is_empty() {
                        progress.finish();
                    }
                    if reply.is_empty() && !thinking.is_empty() && !self.arguments.json {
                        printed = self.printer.stream("\n\n");
                    }
                    reply.push_str(&text);
                    if !self.arguments.json && printed.is_ok() {
                        let shown = if is_terminal { term::neutral(&text) } else { text };
                        printed = self.printer.stream(&shown);
                    }
                }
                Event::Token(chances) => thoughts.push(*chances),
                Event::Read { .. } | Event::ToolCall(_) | Event::Done(_) => {}
            }
            if printed.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        drop(progress);
        if !reply.is_empty() && !self.arguments.json {
            printed = printed.and_then(|()| self.printer.stream("\n"));
        }
        printed?;
        Ok((result?, reply))
    }

    /// Says what the person should know of how the reply ended, and with `--verbose` how fast it was.
    fn account(&self, responder: &mut Responder, done: &Done) {
        if done.reason == Reason::ContextFull {
            let room = responder.info().context_tokens;
            self.printer.warn(&format!(
                "the reply was cut: the context of {room} tokens is full (--ctx makes it larger)"
            ));
        }
        if self.arguments.verbose {
            report_reply(done, self.printer);
            if let Ok(memory) = responder.runner().memory() {
                report_memory(&memory, self.printer);
            }
        }
    }
}

fn report_plan(planned: Option<&Planned>, printer: &Printer) {
    let Some(Planned { plan, tuned, draft }) = planned else {
        printer.say("plan     none: the tensors of this architecture are not known to nfl");
        return;
    };
    if let Some(tuned) = tuned {
        printer.say(&format!("tuned    {} (nfl tune measured it)", tuned.describe()));
    }
    for line in fit::decisions(plan).lines() {
        printer.say(&format!("plan     {line}"));
    }
    for line in draft
        .iter()
        .flat_map(|draft| fit::decisions(draft).lines().map(str::to_owned).collect::<Vec<_>>())
    {
        printer.say(&format!("draft    {line}"));
    }
}

fn report_load(responder: &Responder, printer: &Printer) {
    let info = responder.info();
    printer.say(&format!(
        "model    {}, {} weights",
        info.description,
        units::count(info.parameters)
    ));
    let devices: Vec<&str> = info.devices.iter().map(|device| device.description.trim()).collect();
    printer.say(&format!("devices  {}; {} threads", devices.join(", "), info.threads));
    for line in &info.placement {
        printer.say(&format!("         {line}"));
    }
    report_cage(&info.cage, printer);
    printer
        .say(&format!("load     {:.1} ms, context {} tokens", info.load_ms, info.context_tokens));
    report_memory(&info.memory, printer);
}

fn report_cage(cage: &CageInfo, printer: &Printer) {
    let lacks = cage.lacks.iter().map(|what| format!("not kept: {what}"));
    for (index, line) in cage.holds.iter().cloned().chain(lacks).enumerate() {
        printer.say(&format!("{:<8} {line}", if index == 0 { "cage" } else { "" }));
    }
}

fn report_reply(done: &Done, printer: &Printer) {
    let rate =
        |rate: Option<f64>| rate.map_or("-".to_owned(), |rate| format!("{rate:.2} tokens/s"));
    printer.say(&format!(
        "prompt   {} tokens ({} cached) in {:.1} ms: {}",
        done.prompt_tokens,
        done.cached_tokens,
        done.prompt_ms,
        rate(done.prompt_rate())
    ));
    if let Some(first) = done.first_token_ms {
        printer.say(&format!("first    token after {first:.2} ms"));
    }
    if done.drafted_tokens > 0 {
        printer
            .say(&format!("guesses  {} made, {} held", done.drafted_tokens, done.accepted_tokens));
    }
    let decode = Duration::from_secs_f64(done.decode_ms.max(0.0) / 1000.0);
    printer.say(&format!(
        "decode   {} tokens in {}: {}; seed {}",
        done.generated_tokens,
        units::duration(decode),
        rate(done.decode_rate()),
        done.seed
    ));
}

fn report_memory(memory: &MemoryUse, printer: &Printer) {
    let bytes = |bytes: Option<u64>| bytes.map_or("unknown".to_owned(), units::bytes);
    printer.say(&format!(
        "memory   {} mapped ({} of it resident), {} resident in all, {} of that anonymous",
        bytes(memory.mapped_bytes),
        bytes(memory.mapped_resident_bytes),
        bytes(memory.resident_bytes),
        bytes(memory.anonymous_bytes)
    ));
    if let Some(faults) = memory.major_faults.filter(|faults| *faults > 0) {
        printer.say(&format!("         {faults} page faults waited for a disk"));
    }
    if let Some(experts) = memory.experts.filter(|experts| experts.tokens > 0) {
        let share = |part: u64, of: u64| 100.0 * part as f64 / of.max(1) as f64;
        printer.say(&format!(
            "experts  {} of at most {} in memory; {:.1} % of those chosen were there, {:.1} % on the way",
            units::bytes(experts.held_bytes),
            units::bytes(experts.budget_bytes),
            share(experts.present, experts.needed),
            share(experts.guessed, experts.needed)
        ));
        printer.say(&format!(
            "         {} read a token, {:.2} ms waited a token",
            units::bytes(experts.read_bytes / experts.tokens),
            experts.waited_us as f64 / 1000.0 / experts.tokens as f64
        ));
    }
}
