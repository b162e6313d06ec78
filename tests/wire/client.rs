//! A small HTTP client of the tests' own: one request a connection, and bodies as they come.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// How long an answer may stop. A model that is loaded says nothing meanwhile.
const SILENCE: Duration = Duration::from_mins(1);

/// What a server answered, complete.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    /// The value of a header, named in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.text()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The JSON of an answer that is a success.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// The lines of NDJSON.
    pub(crate) fn lines(&self) -> Vec<Value> {
        assert!(self.body.is_empty() || self.body.ends_with(b"\n"), "{}", self.text());
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The server-sent events: name, where there is one, and data.
    pub(crate) fn events(&self) -> Vec<(Option<String>, String)> {
        let event = |block: &str| {
            let field = |name: &str| {
                let values: Vec<&str> =
                    block.lines().filter_map(|line| line.strip_prefix(name)).collect();
                (!values.is_empty()).then(|| values.join("\n"))
            };
            (field("event: "), field("data: ").unwrap_or_default())
        };
        self.text().split("\n\n").filter(|block| !block.is_empty()).map(event).collect()
    }
}

/// An answer whose body is still coming. Dropping it closes the connection.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
    /// Bytes that the body still has; None for a body in chunks or one that ends with the connection.
    left: Option<usize>,
    is_chunked: bool,
    /// What came of the body and was not handed out.
    waiting: Vec<u8>,
}

impl Stream {
    /// Sends a request; `headers` are further ones.
    pub(crate) fn open(
        address: SocketAddr,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SILENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut lines = vec![format!("{method} {target} HTTP/1.1")];
        let has = |name: &str| headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
        if !has("host") {
            lines.push(format!("Host: {address}"));
        }
        if !has("content-length") && !has("transfer-encoding") && !body.is_empty() {
            lines.push(format!("Content-Length: {}", body.len()));
        }
        lines.extend(headers.iter().map(|(key, value)| format!("{key}: {value}")));
        lines.push("Connection: close\r\n\r\n".to_owned());
        stream.write_all(lines.join("\r\n").as_bytes()).unwrap();
        // A server that has refused the head already reads no further.
        let _ = stream.write_all(body);
        Self::read_head(stream, method)
    }

    fn read_head(stream: TcpStream, method: &str) -> Self {
        let mut reader = BufReader::new(stream);
        let line = read_line(&mut reader);
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status in {line:?}"));
        let mut headers = Vec::new();
        loop {
            let line = read_line(&mut reader);
            if line.is_empty() {
                break;
            }
            let (key, value) = line.split_once(':').unwrap();
            headers.push((key.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let find = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let is_chunked = find("transfer-encoding").is_some_and(|value| value == "chunked");
        let length = find("content-length").and_then(|value| value.parse().ok());
        let left = if method == "HEAD" || status == 204 { Some(0) } else { length };
        let waiting = Vec::new();
        Self { status, headers, reader, left, is_chunked, waiting }
    }

    /// What comes next of the body; None at its end.
    pub(crate) fn piece(&mut self) -> Option<Vec<u8>> {
        if !self.waiting.is_empty() {
            return Some(std::mem::take(&mut self.waiting));
        }
        if self.is_chunked {
            let line = read_line(&mut self.reader);
            let length = usize::from_str_radix(line.trim(), 16)
                .unwrap_or_else(|_| panic!("the body ends within: {line:?}"));
            let mut piece = vec![0; length + 2];
            self.reader.read_exact(&mut piece).unwrap();
            piece.truncate(length);
            return (length > 0).then_some(piece);
        }
        let mut piece = vec![0; self.left.unwrap_or(1 << 16).min(1 << 16)];
        let count = self.reader.read(&mut piece).unwrap();
        piece.truncate(count);
        self.left = self.left.map(|left| left - count);
        (count > 0).then_some(piece)
    }

    /// The next line of the body, without its end; None at the end of the body.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        while let Some(piece) = self.piece() {
            if let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
                line.extend_from_slice(&piece[..end]);
                self.waiting = piece[end + 1..].to_vec();
                return Some(String::from_utf8(line).unwrap());
            }
            line.extend(piece);
        }
        (!line.is_empty()).then(|| String::from_utf8(line).unwrap())
    }

    /// The answer, complete.
    pub(crate) fn finish(mut self) -> Reply {
        let mut pieces = Vec::new();
        while let Some(piece) = self.piece() {
            pieces.push(piece);
        }
        let body = pieces.concat();
        Reply { status: self.status, headers: std::mem::take(&mut self.headers), body }
    }
}

fn read_line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    match reader.read_line(&mut line) {
        Ok(_) => line.trim_end_matches(['\r', '\n']).to_owned(),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => String::new(),
        Err(error) => panic!("no answer: {error}"),
    }
}
