//! Many clients at once: `nfl serve` against `llama-server` with as many slots.
//!
//! usage: `cargo bench --bench clients -- FILE LLAMA_SERVER [CLIENTS [ROUNDS [PROMPT [TOKENS]]]]`
//!
//! Both load the same file, compute with the threads that nfl takes here, and get the same prompts (token numbers, none shared between clients or rounds) at
//! `/completion`, all clients at once, over HTTP on loopback, one request a client and round; replies are streamed. Rounds
//! alternate; compared are the medians of generated tokens by wall time, and of the time to a client's first token.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use nfl::term::Printer;
use tempfile::TempDir;

/// How long a server may take to load the model.
const LOADING: Duration = Duration::from_mins(2);

#[derive(Clone, Copy)]
struct Plan {
    clients: u32,
    rounds: u32,
    prompt: u32,
    tokens: u32,
    threads: u32,
}

impl Plan {
    /// Room for the prompt and the reply of one client.
    fn context_tokens(self) -> u32 {
        (self.prompt + self.tokens).next_multiple_of(256)
    }

    /// A prompt that no other client and no other round has, as JSON.
    fn prompt(self, round: u32, client: u32) -> String {
        let start = (round * self.clients + client) * 131;
        let token = |index: u32| 3 + (start + index * index * 7 + index) % 20_000;
        let tokens: Vec<String> = (0..self.prompt).map(|index| token(index).to_string()).collect();
        tokens.join(",")
    }

    /// One round: tokens a second of all clients together, and the median of seconds to a client's first token.
    fn measure(self, round: u32, server: &Server) -> (f64, f64) {
        let firsts = Mutex::new(Vec::new());
        let start = Instant::now();
        thread::scope(|scope| {
            for client in 0..self.clients {
                let firsts = &firsts;
                scope.spawn(move || {
                    let first = server.ask(&self.prompt(round, client), self.tokens);
                    firsts.lock().expect("no client failed").push(first);
                });
            }
        });
        let speed = f64::from(self.clients * self.tokens) / start.elapsed().as_secs_f64();
        (speed, median(&mut firsts.into_inner().expect("no client failed")))
    }
}

/// A server of either kind, ended when dropped.
struct Server {
    name: &'static str,
    process: Child,
    port: u16,
    _home: Option<TempDir>,
}

impl Server {
    fn nfl(file: &str, plan: Plan) -> Self {
        let home = tempfile::tempdir().expect("there is room for a home");
        let program = env!("CARGO_BIN_EXE_nfl");
        let nfl = |arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments).env("NFL_HOME", home.path()).stderr(Stdio::null());
            command
        };
        let imported = nfl(&["import", file, "--name", "model", "--link", "in-place"]).status();
        assert!(imported.expect("nfl starts").success(), "nfl imports the file");
        let port = free_port();
        let process = nfl(&["serve", "--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["--parallel", &plan.clients.to_string()])
            .args(["--ctx", &plan.context_tokens().to_string()])
            .args(["--spec", "off"])
            .spawn()
            .expect("nfl starts");
        Self { name: "nfl", process, port, _home: Some(home) }.ready()
    }

    fn llama(program: &str, file: &str, plan: Plan) -> Self {
        let port = free_port();
        let slots = plan.clients.to_string();
        let context = (plan.context_tokens() * plan.clients).to_string();
        let threads = plan.threads.to_string();
        let process = Command::new(program)
            .args(["-m", file, "-np", &slots, "-c", &context, "-t", &threads, "-tb", &threads])
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("llama-server starts");
        Self { name: "llama-server", process, port, _home: None }.ready()
    }

    fn ready(self) -> Self {
        let started = Instant::now();
        loop {
            let mut answer = String::new();
            if let Some(mut stream) = self.send("GET /health HTTP/1.1", "") {
                let _ = stream.read_to_string(&mut answer);
            }
            if answer.contains("200 OK") {
                return self;
            }
            assert!(started.elapsed() < LOADING, "{} does not answer", self.name);
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Asks for a reply of so many tokens; returns the seconds until the first one was there.
    fn ask(&self, prompt: &str, tokens: u32) -> f64 {
        let body = format!(
            r#"{{"prompt":[{prompt}],"n_predict":{tokens},"temperature":0,"ignore_eos":true,"cache_prompt":false,"stream":true}}"#
        );
        let started = Instant::now();
        let stream = self.send("POST /completion HTTP/1.1", &body).expect("it listens");
        let mut first = None;
        let mut last = String::new();
        for line in BufReader::new(stream).lines() {
            let line = line.expect("it answers");
            if line.starts_with("data: {") {
                first.get_or_insert_with(|| started.elapsed().as_secs_f64());
                last = line;
            }
        }
        let expected = format!("\"tokens_predicted\":{tokens}");
        assert!(last.contains(&expected), "{}: {last}", self.name);
        first.expect("a reply has a first token")
    }

    /// Sends a request on a connection of its own; None when nobody listens.
    fn send(&self, line: &str, body: &str) -> Option<TcpStream> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
        let head = format!(
            "{line}\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).ok()?;
        Some(stream)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_port() -> u16 {
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    free.local_addr().expect("it is bound").port()
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> ExitCode {
    let printer = Printer::new(false, false);
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let [file, server, numbers @ ..] = arguments.as_slice() else {
        let usage = "FILE LLAMA_SERVER [CLIENTS [ROUNDS [PROMPT [TOKENS]]]]";
        printer.say(&format!("usage: cargo bench --bench clients -- {usage}"));
        return ExitCode::SUCCESS;
    };
    let number = |index: usize, otherwise: u32| {
        numbers.get(index).and_then(|word| word.parse().ok()).unwrap_or(otherwise).max(1)
    };
    let plan = Plan {
        clients: number(0, 8),
        rounds: number(1, 5),
        prompt: number(2, 64),
        tokens: number(3, 64),
        threads: nfl::hardware::default_threads(),
    };
    let (ours, theirs) = (Server::nfl(file, plan), Server::llama(server, file, plan));
    let (mut speeds, mut firsts) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    // The first round warms both up.
    for round in 0..=plan.rounds {
        for (side, server) in [&ours, &theirs].into_iter().enumerate() {
            let (speed, first) = plan.measure(round, server);
            if round > 0 {
                speeds[side].push(speed);
                firsts[side].push(first * 1e3);
            }
        }
    }
    let [us, them] = speeds.each_mut().map(|speeds| median(speeds));
    let [our_first, their_first] = firsts.each_mut().map(|firsts| median(firsts));
    let line = format!(
        "{} clients, {} + {} tokens each, {} threads: nfl {us:.2} tokens/s, llama-server {them:.2}, ratio {:.3}; \
         first token {our_first:.1} ms, {their_first:.1} ms",
        plan.clients,
        plan.prompt,
        plan.tokens,
        plan.threads,
        us / them,
    );
    printer.line(&line).expect("stdout is open");
    ExitCode::SUCCESS
}
