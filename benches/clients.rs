//! Many clients at once: the total speed of nfl's worker against that of `llama-server` with as many slots.
//!
//! usage: `cargo bench --bench clients -- FILE LLAMA_SERVER [CLIENTS [ROUNDS [PROMPT [TOKENS [THREADS]]]]]`
//!
//! Both load the same file and get the same prompts (token numbers, none shared between clients or rounds), all clients
//! at once; rounds alternate, and the medians of generated tokens by wall time are compared. The server is reached over
//! HTTP on loopback, one request a client and round; its replies are not streamed, which costs it less.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nfl::engine::frames::{Generation, Prompt};
use nfl::engine::options::{ContextOptions, LoadRequest, ModelOptions};
use nfl::engine::process::Engine;
use nfl::term::Printer;

/// How long the server may take to load the model.
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

    /// A prompt that no other client and no other round has.
    fn prompt(self, round: u32, client: u32) -> Vec<i32> {
        let start = (round * self.clients + client) * 131;
        (0..self.prompt)
            .map(|index| 3 + ((start + index * index * 7 + index) % 20_000) as i32)
            .collect()
    }

    /// Tokens a second of all clients together, each of which runs `ask` in a thread of its own.
    fn measure(self, round: u32, ask: &(dyn Fn(Vec<i32>) + Sync)) -> f64 {
        let start = Instant::now();
        thread::scope(|scope| {
            for client in 0..self.clients {
                scope.spawn(move || ask(self.prompt(round, client)));
            }
        });
        f64::from(self.clients * self.tokens) / start.elapsed().as_secs_f64()
    }
}

/// The peer, ended when dropped.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start(program: &str, file: &str, plan: Plan) -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let port = free.local_addr().expect("it is bound").port();
        drop(free);
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
        let server = Self { process, port };
        let started = Instant::now();
        while !server.request("GET /health HTTP/1.1", "").contains("200 OK") {
            assert!(started.elapsed() < LOADING, "llama-server does not answer");
            thread::sleep(Duration::from_millis(100));
        }
        server
    }

    fn ask(&self, prompt: &[i32], tokens: u32) {
        let prompt: Vec<String> = prompt.iter().map(ToString::to_string).collect();
        let body = format!(
            r#"{{"prompt":[{}],"n_predict":{tokens},"temperature":0,"ignore_eos":true,"cache_prompt":false}}"#,
            prompt.join(",")
        );
        let answer = self.request("POST /completion HTTP/1.1", &body);
        let expected = format!("\"tokens_predicted\":{tokens}");
        assert!(answer.contains(&expected), "llama-server: {answer}");
    }

    /// A request on a connection of its own; empty when there is no answer.
    fn request(&self, line: &str, body: &str) -> String {
        let mut answer = String::new();
        if let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)) {
            let head = format!(
                "{line}\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let sent = stream.write_all(format!("{head}{body}").as_bytes());
            let _ = sent.and_then(|()| stream.read_to_string(&mut answer));
        }
        answer
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn worker(file: &str, plan: Plan) -> Engine {
    let options = ContextOptions {
        context_tokens: Some(plan.context_tokens()),
        sequences: plan.clients,
        ..ContextOptions::with_threads(plan.threads)
    };
    let load = LoadRequest::new(file, ModelOptions::default(), options);
    let program = PathBuf::from(env!("CARGO_BIN_EXE_nfl"));
    Engine::start(Path::new(&program), &load, &mut |_| ControlFlow::Continue(()))
        .expect("the worker starts")
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
        let usage = "FILE LLAMA_SERVER [CLIENTS [ROUNDS [PROMPT [TOKENS [THREADS]]]]]";
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
        threads: number(4, nfl::hardware::default_threads()),
    };
    let (engine, server) = (worker(file, plan), Server::start(server, file, plan));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // The first round warms both up.
    for round in 0..=plan.rounds {
        let us = plan.measure(round, &|prompt| {
            let request = Generation::greedy(Prompt::Tokens(prompt), plan.tokens);
            let request = Generation { ignore_end: true, ..request };
            engine.generate(&request, &mut |_| ControlFlow::Continue(())).expect("it generates");
        });
        let them = plan.measure(round, &|prompt| server.ask(&prompt, plan.tokens));
        if round > 0 {
            ours.push(us);
            theirs.push(them);
        }
    }
    let (us, them) = (median(&mut ours), median(&mut theirs));
    let line = format!(
        "{} clients, {} + {} tokens each, {} threads: nfl {us:.2} tokens/s, llama-server {them:.2} tokens/s, ratio {:.4}",
        plan.clients,
        plan.prompt,
        plan.tokens,
        plan.threads,
        us / them
    );
    printer.line(&line).expect("stdout is open");
    ExitCode::SUCCESS
}
