//! How fast a file comes, against curl (and `hf download` where it is installed), from the same server on this machine.
//!
//! `cargo bench --bench pull -- [MEGABYTES] [ROUNDS]`: first as fast as this machine goes, then with 50 ms of latency and
//! 20 MB/s a connection. curl alone only writes; `curl | sha256sum` verifies, too, as `nfl` always does. The rounds are
//! taken in turns; the best of each counts, because disturbances only ever cost time.

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
    let target = folder.join("nfl");
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
    race.run("50 ms, 20 MB/s a connection", &far, rounds.min(2));
}

/// One file, fetched by each in turn.
struct Race<'a> {
    folder: &'a Path,
    megabytes: u64,
    digest: &'a str,
}

impl Race<'_> {
    fn run(&self, line: &str, server: &Server, rounds: usize) {
        let Self { folder, megabytes, digest } = *self;
        let url = server.url.clone();
        let target = folder.join("curl");
        let own = std::env::current_exe().unwrap();
        let mut best = [f64::MAX; 3];
        for _ in 0..rounds {
            let shell = format!("curl -s {url} | tee {} | sha256sum", target.display());
            let mut contenders = [Command::new(&own), Command::new("curl"), Command::new("sh")];
            contenders[0].args(["fetch", &url]).arg(folder);
            contenders[1].args(["-s", "-o"]).arg(&target).arg(&url);
            contenders[2].args(["-c", &shell]);
            for (command, best) in contenders.iter_mut().zip(&mut best) {
                let start = Instant::now();
                let output = command.output().unwrap();
                let seconds = start.elapsed().as_secs_f64();
                assert!(output.status.success());
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                assert!(text.is_empty() || text.contains(digest), "{text}");
                *best = best.min(seconds);
                let _ = std::fs::remove_file(&target);
                let _ = std::fs::remove_file(folder.join("nfl"));
            }
        }
        println!("{line}");
        for (name, seconds) in ["nfl", "curl", "curl | tee | sha256sum"].iter().zip(best) {
            let (speed, ratio) = (megabytes as f64 * 1.048_576 / seconds, seconds / best[0]);
            println!(
                "  {name:<24}{seconds:7.2} s {speed:8.0} MB/s   nfl is {ratio:.2} times as fast"
            );
        }
    }
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
        let mut range = None;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let line = line.trim_end().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
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
        stream
            .write_all(format!("{head}ETag: \"1\"\r\nAccept-Ranges: bytes\r\n\r\n").as_bytes())?;
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
