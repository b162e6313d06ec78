//! How fast a file comes, against curl and `hf download`, from the same server on this machine.
//!
//! `cargo bench --bench pull -- [MEGABYTES] [ROUNDS]`: first as fast as this machine goes, then with 50 ms of latency and
//! 20 MB/s a connection. curl alone only writes and `hf` looks at the size; with `sha256sum` (and with `openssl`, whose
//! SHA-256 uses the processor's instructions for it) curl's file is verified, too, as `nfl` always does. The variable `HF`
//! names the program of the Python package `huggingface_hub`, which is left out otherwise. The rounds are taken in turns;
//! the best of each counts, because disturbances only ever cost time.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program for developers")]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nfl::hub::{Hub, Order};
use nfl::store::Digest;

/// The line of the second part.
const LATENCY: Duration = Duration::from_millis(50);
const BYTES_PER_SECOND: f64 = 20e6;

fn main() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", file, latency_ms, rate] => {
            serve(Path::new(file), latency_ms.parse().unwrap(), rate.parse().unwrap());
        }
        ["fetch", url, folder] => fetch(url, Path::new(folder)),
        _ => {
            let number = |index: usize| words.get(index).and_then(|text| text.parse().ok());
            compare(number(0).unwrap_or(1024), number(1).unwrap_or(5) as usize);
        }
    }
}

/// One download with `nfl`, in a process of its own as curl's is.
fn fetch(url: &str, folder: &Path) {
    let hub = Hub::new(false).unwrap();
    let order = Order { url: url.to_owned(), bytes: None, digest: None };
    let target = folder.join("file");
    let digest = hub.download(&order, folder, &target, &Arc::default()).unwrap();
    println!("{digest}");
}

fn compare(megabytes: u64, rounds: usize) {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    let digest = make(&source, megabytes << 20);
    println!("{megabytes} MiB, best of {rounds}");
    let near = Server::start(&source, 0, 0.0);
    let race = Race { folder: folder.path(), megabytes, digest: &digest };
    race.run("next door", &near, rounds);
    drop(near);
    let far = Server::start(&source, LATENCY.as_millis() as u64, BYTES_PER_SECOND);
    // Once, and without those who only add a hash: curl alone takes as long as it must.
    race.run("50 ms, 20 MB/s a connection", &far, 1);
}

/// One file, fetched by each in turn.
struct Race<'a> {
    folder: &'a Path,
    megabytes: u64,
    digest: &'a str,
}

impl Race<'_> {
    fn run(&self, line: &str, server: &Server, rounds: usize) {
        let mut contenders = contenders(&server.url);
        if rounds == 1 {
            contenders.retain(|(name, ..)| ["nfl", "curl", "hf download"].contains(name));
        }
        let mut best = vec![f64::MAX; contenders.len()];
        for _ in 0..rounds {
            for ((name, program, arguments), best) in contenders.iter().zip(&mut best) {
                let target = self.folder.join("target");
                std::fs::create_dir(&target).unwrap();
                let mut command = Command::new(program);
                command.args(arguments).current_dir(&target);
                command.env("HF_ENDPOINT", server.url.trim_end_matches("/file"));
                command.env("HF_HOME", &target).env("HF_HUB_DISABLE_TELEMETRY", "1");
                let start = Instant::now();
                let output = command.output().unwrap();
                let seconds = start.elapsed().as_secs_f64();
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(output.status.success(), "{name}: {output:?}");
                let says_digest = !["curl", "hf download"].contains(name);
                assert_eq!(text.contains(self.digest), says_digest, "{name}: {text}");
                assert_eq!(target.join("file").metadata().unwrap().len(), self.megabytes << 20);
                *best = best.min(seconds);
                std::fs::remove_dir_all(&target).unwrap();
            }
        }
        println!("{line}");
        for ((name, ..), seconds) in contenders.iter().zip(&best) {
            let (speed, ratio) = (self.megabytes as f64 * 1.048_576 / seconds, seconds / best[0]);
            println!(
                "  {name:<24}{seconds:7.2} s {speed:8.0} MB/s   nfl is {ratio:.2} times as fast"
            );
        }
    }
}

/// Name, program and arguments of all who fetch `url` as `file` into the folder that they are started in.
fn contenders(url: &str) -> Vec<(&'static str, PathBuf, Vec<String>)> {
    let own = (std::env::current_exe().unwrap(), vec!["fetch", url, "."]);
    let curl = (PathBuf::from("curl"), vec!["-s", "-o", "file", url]);
    let mut all = vec![("nfl", own), ("curl", curl)];
    let shells = [
        ("curl && sha256sum", "curl -s -o file $0 && sha256sum file"),
        ("curl && openssl", "curl -s -o file $0 && openssl dgst -sha256 file"),
        ("curl | tee | sha256sum", "curl -s $0 | tee file | sha256sum"),
        ("curl | tee | openssl", "curl -s $0 | tee file | openssl dgst -sha256"),
    ];
    let shell = |(name, text)| (name, (PathBuf::from("sh"), vec!["-c", text, url]));
    all.extend(shells.map(shell));
    if let Some(hf) = std::env::var_os("HF") {
        let arguments = vec!["download", "bench/file", "file", "--local-dir", "."];
        all.push(("hf download", (PathBuf::from(hf), arguments)));
    }
    let owned = |arguments: Vec<&str>| arguments.into_iter().map(str::to_owned).collect();
    all.into_iter().map(|(name, (path, rest))| (name, path, owned(rest))).collect()
}

/// A file without a pattern; returns its digest.
fn make(path: &Path, bytes: u64) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut file = File::create(path).unwrap();
    let mut block = vec![0; 1 << 20];
    for _ in 0..bytes >> 20 {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all(&block).unwrap();
    }
    Digest::read(File::open(path).unwrap(), &mut |_| true).unwrap().0.hex()
}

/// The server, in a process of its own.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(file: &Path, latency_ms: u64, rate: f64) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("serve").arg(file).arg(latency_ms.to_string()).arg(rate.to_string());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut url).unwrap();
        Self { child, url: url.trim().to_owned() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn serve(file: &Path, latency_ms: u64, rate: f64) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("http://{}/file", listener.local_addr().unwrap());
    for stream in listener.incoming() {
        let (stream, file) = (stream.unwrap(), PathBuf::from(file));
        std::thread::spawn(move || {
            // Whoever hangs up in the middle does no harm.
            let _ = talk(&stream, &file, Duration::from_millis(latency_ms), rate);
        });
    }
}

fn talk(mut stream: &TcpStream, path: &Path, latency: Duration, rate: f64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    // Two round trips of a connection's opening.
    std::thread::sleep(latency);
    loop {
        let (mut range, mut is_head) = (None, false);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            is_head |= line.starts_with("head ");
            if let Some(text) = line.strip_prefix("range: bytes=") {
                let (first, last) = text.split_once('-').unwrap();
                range = Some((first.parse::<u64>().unwrap(), last.parse::<u64>().ok()));
            }
        }
        let mut file = File::open(path)?;
        let total = file.metadata()?.len();
        std::thread::sleep(latency);
        let (start, end) = range.map_or((0, total), |(first, last)| {
            (first, last.map_or(total, |last| (last + 1).min(total)))
        });
        let length = end - start;
        let head = match range {
            None => format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n"),
            Some(_) => format!(
                "HTTP/1.1 206 Partial Content\r\nContent-Length: {length}\r\n\
                 Content-Range: bytes {start}-{}/{total}\r\n",
                end - 1
            ),
        };
        // What a hub says about a file, so that its own client fetches it, too.
        let facts = format!("ETag: \"1\"\r\nX-Repo-Commit: {}\r\n", "0".repeat(40));
        stream.write_all(format!("{head}{facts}Accept-Ranges: bytes\r\n\r\n").as_bytes())?;
        if is_head {
            continue;
        }
        file.seek(SeekFrom::Start(start))?;
        if rate == 0.0 {
            std::io::copy(&mut file.take(length), &mut stream)?;
            continue;
        }
        let (begin, mut sent) = (Instant::now(), 0);
        let mut piece = vec![0; 64 << 10];
        let mut part = file.take(length);
        loop {
            let read = part.read(&mut piece)?;
            if read == 0 {
                break;
            }
            stream.write_all(&piece[..read])?;
            sent += read;
            let due = Duration::from_secs_f64(sent as f64 / rate);
            std::thread::sleep(due.saturating_sub(begin.elapsed()));
        }
    }
}
