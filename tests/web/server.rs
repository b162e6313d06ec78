//! A small HTTP server of the tests' own: it answers as a closure says, and breaks as a closure says.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// The value of a header, named in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The path without the query.
    pub(crate) fn path(&self) -> &str {
        self.target.split('?').next().unwrap()
    }

    /// A parameter of the query, as it stands there.
    pub(crate) fn query(&self, name: &str) -> Option<&str> {
        let pairs = self.target.split_once('?')?.1.split('&');
        pairs
            .filter_map(|pair| pair.split_once('='))
            .find(|(key, _)| *key == name)
            .map(|pair| pair.1)
    }

    /// First byte and end (exclusive) that `Range` asks for.
    pub(crate) fn range(&self) -> Option<(usize, Option<usize>)> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse::<usize>().ok().map(|last| last + 1)))
    }
}

/// What the server says, and how badly.
#[derive(Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Arc<Vec<u8>>,
    pub(crate) part: std::ops::Range<usize>,
    /// Close the connection after this many bytes of the body.
    pub(crate) cut_after: Option<usize>,
    /// Bytes a second.
    pub(crate) rate: Option<f64>,
    /// How long the answer takes to begin.
    pub(crate) wait: Duration,
    /// How long the body stops in its middle.
    pub(crate) stall: Duration,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body: Vec<u8> = body.into();
        Self {
            part: 0..body.len(),
            status,
            headers: Vec::new(),
            body: Arc::new(body),
            cut_after: None,
            rate: None,
            wait: Duration::ZERO,
            stall: Duration::ZERO,
        }
    }

    /// An answer that sends to another address.
    pub(crate) fn redirect(target: &str) -> Self {
        Self::new(302, "").with("Location", target)
    }

    /// The file, or the part of it that is asked for (RFC 9110 §14).
    pub(crate) fn file(content: &Arc<Vec<u8>>, request: &Request, etag: &str) -> Self {
        let mut answer = Self { body: content.clone(), ..Self::new(200, "") };
        answer.part = 0..content.len();
        let is_current = request.header("if-range").is_none_or(|known| known == etag);
        if let Some((start, end)) = request.range().filter(|_| is_current) {
            let end = end.unwrap_or(content.len()).min(content.len());
            if start >= end {
                let range = format!("bytes */{}", content.len());
                return Self::new(416, "").with("Content-Range", &range);
            }
            answer.status = 206;
            answer.part = start..end;
            let range = format!("bytes {start}-{}/{}", end - 1, content.len());
            answer = answer.with("Content-Range", &range);
        }
        if etag.is_empty() { answer } else { answer.with("ETag", etag) }
    }

    /// The whole file in chunks (RFC 9112 §7.1): nothing says how long it is.
    pub(crate) fn chunked(content: &[u8]) -> Self {
        let chunk =
            |part: &[u8]| [format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat();
        let mut body: Vec<u8> = content.chunks(60_000).flat_map(chunk).collect();
        body.extend(b"0\r\n\r\n");
        Self::new(200, body).with("Transfer-Encoding", "chunked")
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same with one header replaced.
    pub(crate) fn replacing(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(key, _)| key != name);
        self.with(name, value)
    }
}

type Handler = dyn Fn(&Request) -> Answer + Send + Sync;

/// A server on a port of its own; it stops taking connections when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) log: Arc<Mutex<Vec<Request>>>,
    stopping: Arc<AtomicBool>,
}

impl Server {
    pub(crate) fn start(handler: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0", handler)
    }

    /// The same at an address of one's choice.
    pub(crate) fn start_at(
        address: &str,
        handler: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            log: Arc::default(),
            stopping: Arc::default(),
        };
        let (log, stopping) = (server.log.clone(), server.stopping.clone());
        let handler: Arc<Handler> = Arc::new(handler);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopping.load(Ordering::SeqCst) {
                    return;
                }
                let (handler, log) = (handler.clone(), log.clone());
                std::thread::spawn(move || {
                    // A client that goes away is no failure of the server.
                    let _ = serve(&stream.unwrap(), &*handler, &log);
                });
            }
        });
        server
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many requests came for paths that contain `part`.
    pub(crate) fn count(&self, part: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|request| request.target.contains(part)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: &TcpStream, handler: &Handler, log: &Mutex<Vec<Request>>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader, stream)? {
        log.lock().unwrap().push(request.clone());
        let answer = handler(&request);
        std::thread::sleep(answer.wait);
        if !write(stream, &request, &answer)? {
            break;
        }
    }
    Ok(())
}

fn read(reader: &mut impl BufRead, mut stream: &TcpStream) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request { method, target, headers, body: Vec::new() };
    if request.header("expect").is_some() {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    if request.header("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let length = u64::from_str_radix(line.trim(), 16).unwrap();
            reader.by_ref().take(length).read_to_end(&mut request.body)?;
            reader.read_line(&mut String::new())?;
            if length == 0 {
                break;
            }
        }
    } else if let Some(length) = request.header("content-length") {
        let length = length.parse().unwrap();
        reader.take(length).read_to_end(&mut request.body)?;
    }
    Ok(Some(request))
}

/// Whether the connection can be used again.
fn write(mut stream: &TcpStream, request: &Request, answer: &Answer) -> std::io::Result<bool> {
    let body = &answer.body[answer.part.clone()];
    let mut head = vec![format!("HTTP/1.1 {} Some words", answer.status)];
    head.extend(answer.headers.iter().map(|(name, value)| format!("{name}: {value}")));
    let has = |name: &str| answer.headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
    // A body without a length, whose end is the end of the connection.
    let is_open = has("connection");
    if !has("content-length") && !has("transfer-encoding") && !is_open {
        head.push(format!("Content-Length: {}", body.len()));
    }
    stream.write_all((head.join("\r\n") + "\r\n\r\n").as_bytes())?;
    if request.method == "HEAD" {
        return Ok(true);
    }
    let body = &body[..answer.cut_after.unwrap_or(body.len()).min(body.len())];
    let middle = body.len() / 2;
    match (answer.rate, answer.stall) {
        (None, Duration::ZERO) => stream.write_all(body)?,
        (None, stall) => {
            stream.write_all(&body[..middle])?;
            std::thread::sleep(stall);
            stream.write_all(&body[middle..])?;
        }
        (Some(rate), _) => {
            let (start, piece) = (Instant::now(), ((rate / 50.0) as usize).max(1));
            for (index, piece_bytes) in body.chunks(piece).enumerate() {
                let due = Duration::from_secs_f64((index * piece) as f64 / rate);
                std::thread::sleep(due.saturating_sub(start.elapsed()));
                stream.write_all(piece_bytes)?;
            }
        }
    }
    Ok(answer.cut_after.is_none() && !is_open)
}
