//! The child process: its pipes, its last words, its end.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child as Process, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::error::{Death, EngineError};
use super::mailbox::Mailbox;
use crate::engine::frames::{
    Call, FrameError, FrameReader, FrameWriter, Reply, Request, WORKER_ARGUMENT,
};
use crate::settings;

/// Lines of standard error that are kept for a report.
const WORDS_MAX: usize = 32;

/// Bytes of one such line.
const WORD_BYTES_MAX: u64 = 2048;

/// How long a worker that closed its pipe may take to die before it is killed.
const DYING: Duration = Duration::from_secs(2);

/// How long its last words may take to arrive after its death.
const WORDS_WAIT: Duration = Duration::from_millis(200);

/// What every holder of a handle may do to the worker, from any thread and across restarts.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The number of the call that was made last.
    calls: AtomicU64,
    input: Mutex<Option<FrameWriter<ChildStdin>>>,
    process: Mutex<Option<Process>>,
    mailbox: Mutex<Arc<Mailbox>>,
}

impl Shared {
    /// A number that no call has had.
    pub(super) fn next_number(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The answers of the worker that runs now.
    pub(super) fn mailbox(&self) -> Arc<Mailbox> {
        Arc::clone(&lock(&self.mailbox))
    }

    /// Sends a call.
    pub(super) fn send(&self, call: &Call) -> Result<(), FrameError> {
        lock(&self.input).as_mut().ok_or(FrameError::Closed)?.write(call)
    }

    /// Cancels a call.
    pub(super) fn cancel(&self, number: u64) {
        // A worker that is gone needs no cancellation.
        let _ = self.send(&Call { number, request: Request::Cancel });
    }

    /// Ends the worker at once.
    pub(super) fn kill(&self) {
        if let Some(process) = lock(&self.process).as_mut() {
            let _ = process.kill();
        }
    }

    /// Whether the worker has ended.
    pub(super) fn is_dead(&self) -> bool {
        self.death().is_some()
    }

    /// Whether the worker has ended, and how.
    fn death(&self) -> Option<Death> {
        match lock(&self.process).as_mut() {
            Some(process) => process.try_wait().ok()?.map(Death::from),
            None => Some(Death::default()),
        }
    }
}

/// The side of the pipes that only the engine uses.
#[derive(Debug)]
pub(super) struct Child {
    shared: Arc<Shared>,
    process_id: u32,
    output: Mutex<FrameReader<ChildStdout>>,
    words: Arc<Words>,
    /// How the worker died, once somebody has waited for it.
    death: Mutex<Option<Death>>,
}

/// What the keeper hands over once the process runs.
struct Parts {
    process: Process,
    input: ChildStdin,
    output: ChildStdout,
}

impl Child {
    /// Starts the program as a worker, in place of the one that `shared` held.
    pub(super) fn spawn(program: &Path, shared: &Arc<Shared>) -> Result<Self, EngineError> {
        let failed =
            |source| EngineError::Start { program: program.to_owned(), source: Arc::new(source) };
        let words = Arc::new(Words::default());
        let (sender, receiver) = mpsc::sync_channel(1);
        let keeper = {
            let (program, words) = (program.to_owned(), Arc::clone(&words));
            move || keep(&program, &words, &sender)
        };
        // On Linux the worker is told to die with the thread that started it, so that thread must
        // last as long as the worker, whatever thread called us: it listens to standard error
        // meanwhile.
        thread::Builder::new().name("worker".to_owned()).spawn(keeper).map_err(failed)?;
        let parts = receiver
            .recv()
            .unwrap_or_else(|_| Err(std::io::Error::other("the thread that starts it ended")))
            .map_err(failed)?;
        let process_id = parts.process.id();
        *lock(&shared.mailbox) = Arc::default();
        *lock(&shared.input) = Some(FrameWriter::new(parts.input));
        *lock(&shared.process) = Some(parts.process);
        let output = Mutex::new(FrameReader::new(parts.output));
        let death = Mutex::new(None);
        Ok(Self { shared: Arc::clone(shared), process_id, output, words, death })
    }

    pub(super) fn process_id(&self) -> u32 {
        self.process_id
    }

    /// The next reply, waiting for it.
    pub(super) fn read(&self) -> Result<Reply, FrameError> {
        lock(&self.output).read()
    }

    /// The next reply, waiting for it, and those that arrived with it.
    pub(super) fn read_all(&self, replies: &mut Vec<Reply>) -> Result<(), FrameError> {
        let mut output = lock(&self.output);
        replies.push(output.read()?);
        while let Some(reply) = output.take()? {
            replies.push(reply);
        }
        Ok(())
    }

    /// Waits for the end of a worker that has closed its pipe or was killed.
    pub(super) fn reap(&self) -> Death {
        let mut known = lock(&self.death);
        *known.get_or_insert_with(|| self.wait())
    }

    fn wait(&self) -> Death {
        let started = Instant::now();
        let mut pause = Duration::from_micros(100);
        loop {
            if let Some(death) = self.shared.death() {
                *lock(&self.shared.input) = None;
                *lock(&self.shared.process) = None;
                return death;
            }
            if started.elapsed() > DYING {
                self.shared.kill();
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    /// The last lines of its standard error.
    pub(super) fn last_words(&self) -> Vec<String> {
        self.words.wait()
    }
}

/// Starts the process, hands it over, and listens to its standard error until it ends.
fn keep(program: &Path, words: &Words, sender: &SyncSender<std::io::Result<Parts>>) {
    let mut command = Command::new(program);
    command
        .arg(WORKER_ARGUMENT)
        .env_clear()
        .envs(settings::worker_environment())
        // ggml would start a debugger for a backtrace.
        .env("GGML_NO_BACKTRACE", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // A process group of its own: Ctrl-C at the terminal reaches the program, which decides what it
    // means.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut process = match command.spawn() {
        Ok(process) => process,
        Err(error) => {
            let _ = sender.send(Err(error));
            return;
        }
    };
    let pipes = (process.stdin.take(), process.stdout.take(), process.stderr.take());
    let (Some(input), Some(output), Some(error)) = pipes else {
        let _ = process.kill();
        let _ = sender.send(Err(std::io::Error::other("no pipes")));
        return;
    };
    if let Err(mpsc::SendError(Ok(mut parts))) = sender.send(Ok(Parts { process, input, output })) {
        let _ = parts.process.kill();
        let _ = parts.process.wait();
    }
    words.listen(error);
}

/// The last lines of a standard error.
#[derive(Debug, Default)]
struct Words {
    heard: Mutex<Heard>,
    closed: Condvar,
}

#[derive(Debug, Default)]
struct Heard {
    lines: VecDeque<String>,
    is_closed: bool,
}

impl Words {
    fn listen(&self, error: ChildStderr) {
        let mut reader = BufReader::new(error);
        let mut line = Vec::new();
        loop {
            line.clear();
            // A line without end is cut into several.
            match reader.by_ref().take(WORD_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => self.hear(&line),
            }
        }
        lock(&self.heard).is_closed = true;
        self.closed.notify_all();
    }

    fn hear(&self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        if text.is_empty() {
            return;
        }
        let mut heard = lock(&self.heard);
        if heard.lines.len() == WORDS_MAX {
            heard.lines.pop_front();
        }
        heard.lines.push_back(text.to_owned());
    }

    /// The lines, once the pipe is closed or the wait is over.
    fn wait(&self) -> Vec<String> {
        let heard = lock(&self.heard);
        let (heard, _) = self
            .closed
            .wait_timeout_while(heard, WORDS_WAIT, |heard| !heard.is_closed)
            .unwrap_or_else(PoisonError::into_inner);
        heard.lines.iter().cloned().collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
