//! Who may ask: foreign names and pages, keys, limits, and what is written down; case by case as attackers try it.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nfl::server::{Config, KeyRule, Keyring, Limits, Scope, Security, Tls, last_actions};
use serde_json::{Value, json};

use super::{Reply, Served, config};
use crate::fixture;

/// What no test waits for in vain.
const PATIENCE: Duration = Duration::from_secs(30);

fn secured(change: impl FnOnce(&mut Security)) -> Served {
    let mut config = config();
    change(&mut config.security);
    Served::configured(config)
}

fn status(served: &Served, method: &str, target: &str, headers: &[(&str, &str)]) -> u16 {
    served.request(method, target, headers, b"").status
}

/// Sends bytes as they are and returns all that comes back until the server closes.
fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(bytes).unwrap();
    read(&mut stream)
}

fn read(stream: &mut impl Read) -> String {
    let mut answer = Vec::new();
    // A reset is an end too: the server read no further.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn r47_a_foreign_host_is_refused_on_loopback_and_everywhere() {
    let everywhere = Config { address: ([0, 0, 0, 0], 0).into(), ..config() };
    let mut everywhere = Served::configured(Config {
        security: Security { keys: KeyRule::Never, ..everywhere.security.clone() },
        ..everywhere
    });
    for served in [&mut Served::fake(), &mut everywhere] {
        for host in ["evil.com", "evil.com:11434", "localhost.evil.com", "127.0.0.1.evil.com", ""] {
            for target in ["/", "/health", "/status", "/openapi.json"] {
                let status = status(served, "GET", target, &[("Host", host)]);
                assert_eq!(status, 403, "{host} {target}");
            }
        }
        for host in ["localhost", "LOCALHOST:1", "localhost.", "127.0.0.1", "[::1]:11434"] {
            assert_eq!(status(served, "GET", "/health", &[("Host", host)]), 200, "{host}");
        }
    }
    assert_eq!(status(&everywhere, "GET", "/health", &[("Host", "192.168.1.5:1")]), 200);
    let local = Served::fake();
    assert_eq!(status(&local, "GET", "/health", &[("Host", "192.168.1.5:1")]), 403);
    let refusal = local.request("GET", "/status", &[("Host", "evil.com")], b"");
    let text = refusal.json()["error"].as_str().unwrap().to_owned();
    assert!(text.contains("evil.com") && text.contains("--allow-host"), "{text}");
}

#[test]
fn r47_a_request_names_one_host() {
    let served = Served::fake();
    let address = served.running().address();
    for (head, status) in [
        ("GET /health HTTP/1.1\r\nConnection: close\r\n\r\n", "400"),
        (
            "GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.com\r\nConnection: close\r\n\r\n",
            "400",
        ),
        (
            "GET http://evil.com/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            "403",
        ),
        (
            "GET http://localhost/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            "200",
        ),
    ] {
        let answer = raw(address, head.as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{head}\n{answer}");
    }
}

#[test]
fn r47_users_allow_names() {
    let served = secured(|security| security.hosts = vec!["box.lan".to_owned()]);
    assert_eq!(status(&served, "GET", "/health", &[("Host", "BOX.lan:80")]), 200);
    assert_eq!(status(&served, "GET", "/health", &[("Host", "evil.com")]), 403);
}

#[test]
fn r48_foreign_pages_are_refused_and_learn_nothing() {
    let served = Served::fake();
    for origin in [
        "https://evil.com",
        "http://localhost.evil.com",
        "http://localhost.evil.com:11434",
        "null",
        "http://evil.com:11434",
        "",
    ] {
        for (method, target) in [("GET", "/health"), ("GET", "/status"), ("POST", "/api/pull")] {
            let answer = served.request(method, target, &[("Origin", origin)], b"");
            assert_eq!(answer.status, 403, "{origin} {target}");
            assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
        }
        let headers = [("Origin", origin), ("Access-Control-Request-Method", "POST")];
        let preflight = served.request("OPTIONS", "/api/pull", &headers, b"");
        assert_eq!(preflight.status, 403, "{origin}");
        assert_eq!(preflight.header("access-control-allow-origin"), None, "{origin}");
        assert_eq!(preflight.header("access-control-allow-methods"), None, "{origin}");
    }
    // Pictures and scripts come without an origin, and say where they come from all the same.
    let fetched = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")];
    assert_eq!(status(&served, "GET", "/status", &fetched), 403);
    let followed = [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")];
    assert_eq!(status(&served, "GET", "/", &followed), 200);
}

#[test]
fn r48_pages_of_this_machine_are_answered() {
    let served = secured(|security| security.origins = vec!["https://*.example.com".to_owned()]);
    let own = format!("http://{}", served.running().address());
    for origin in ["http://localhost:3000", &own, "tauri://localhost", "https://a.example.com"] {
        let answer = served.request("GET", "/health", &[("Origin", origin)], b"");
        assert_eq!(answer.status, 200, "{origin}");
        assert_eq!(answer.header("access-control-allow-origin"), Some(origin));
        assert_eq!(answer.header("vary"), Some("Origin"));
        let headers = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "authorization, x-stainless-os"),
        ];
        let preflight = served.request("OPTIONS", "/api/chat", &headers, b"");
        assert_eq!(preflight.status, 204);
        assert_eq!(preflight.header("access-control-allow-origin"), Some(origin));
        let allowed = preflight.header("access-control-allow-headers");
        assert_eq!(allowed, Some("authorization, x-stainless-os"));
        assert!(preflight.header("access-control-allow-methods").unwrap().contains("DELETE"));
        assert_eq!(preflight.header("access-control-allow-credentials"), None);
    }
}

#[test]
fn r49_pages_do_not_post_what_browsers_do_not_ask_about() {
    let served = Served::fake();
    let local = ("Origin", "http://localhost:3000");
    for kind in
        [Some("text/plain"), Some("TEXT/PLAIN; a=b"), Some("multipart/form-data"), Some(""), None]
    {
        let mut headers = vec![local];
        headers.extend(kind.map(|kind| ("Content-Type", kind)));
        for target in ["/api/pull", "/api/chat"] {
            let answer = served.request("POST", target, &headers, br#"{"model": "chat"}"#);
            assert_eq!(answer.status, 415, "{kind:?} {target}");
        }
    }
    // Programs that are no page are not asked.
    let answer = served.request("POST", "/api/show", &[], br#"{"model": "chat"}"#);
    assert_ne!(answer.status, 415);
}

#[test]
fn r50_keys_count_from_the_moment_they_are_made() {
    let served = Served::fake();
    assert_eq!(served.get("/status").status, 200);
    let keyring = Keyring::new(served.home());
    let key = keyring.add("laptop", Scope::Infer).unwrap();
    let bearer = format!("Bearer {key}");
    let almost = format!("{}0", &bearer[..bearer.len() - 1]);
    let wrong = if almost == bearer { format!("{}1", &bearer[..bearer.len() - 1]) } else { almost };
    for target in ["/status", "/metrics", "/debug/anything", "/no/such/place", "/api/tags"] {
        let refusal = served.get(target);
        assert_eq!(refusal.status, 401, "{target}");
        assert_eq!(refusal.header("www-authenticate"), Some("Bearer"));
        assert_eq!(status(&served, "GET", target, &[("Authorization", &wrong)]), 401, "{target}");
        assert_ne!(status(&served, "GET", target, &[("Authorization", &bearer)]), 401, "{target}");
        assert_ne!(status(&served, "GET", target, &[("X-Api-Key", &key)]), 401, "{target}");
    }
    for open in ["/", "/health", "/openapi.json"] {
        assert_eq!(served.get(open).status, 200, "{open}");
    }
    // A page of this machine asks what it may ask before it has a key.
    let headers = [("Origin", "http://localhost:3000"), ("Access-Control-Request-Method", "POST")];
    assert_eq!(status(&served, "OPTIONS", "/api/chat", &headers), 204);
    keyring.remove("laptop").unwrap();
    assert_eq!(served.get("/status").status, 200);
}

#[test]
fn r50_without_keys_a_server_that_wants_them_lets_nobody_in() {
    let served = secured(|security| security.keys = KeyRule::Always);
    assert_eq!(served.get("/status").status, 401);
    let key = Keyring::new(served.home()).add("a", Scope::Infer).unwrap();
    assert_eq!(status(&served, "GET", "/status", &[("X-Api-Key", &key)]), 200);
    std::fs::write(Keyring::new(served.home()).path(), "no keys").unwrap();
    assert_eq!(status(&served, "GET", "/status", &[("X-Api-Key", &key)]), 500);
    assert_eq!(served.get("/health").status, 200);
}

#[test]
fn keys_that_infer_do_not_manage_and_the_audit_says_who_tried() {
    let served = Served::fake();
    let keyring = Keyring::new(served.home());
    let infer = keyring.add("reader", Scope::Infer).unwrap();
    let manage = keyring.add("keeper", Scope::Manage).unwrap();
    let delete = |key: &str| {
        let headers = [("X-Api-Key", key), ("X-Request-Id", "r-1")];
        served.request("DELETE", "/api/delete", &headers, br#"{"model": "plain"}"#).status
    };
    assert_eq!(delete("nobody"), 401);
    assert_eq!(delete(&infer), 403);
    let unload = |key: &str| {
        let headers = [("X-Api-Key", key)];
        let body = br#"{"model": "chat", "keep_alive": 0}"#;
        served.request("POST", "/api/generate", &headers, body).status
    };
    assert_eq!((unload(&infer), unload(&manage)), (403, 200));
    assert_eq!(delete(&manage), 200);
    let home = served.home().to_owned();
    let actions = wait_for(|| {
        let actions = last_actions(&home, 10).unwrap();
        (actions.len() == 4 && actions.iter().all(|action| action.ended.is_some()))
            .then_some(actions)
    });
    let told: Vec<_> =
        actions.iter().map(|each| (each.who.as_str(), each.outcome.as_deref())).collect();
    let (done, refused) = (Some("200"), Some("403"));
    assert_eq!(
        told,
        [("keeper", done), ("keeper", done), ("reader", refused), ("reader", refused)]
    );
    assert_eq!(actions[1].action, "POST /api/generate");
    assert!(actions[1].target.as_deref().unwrap().starts_with("chat"));
    assert_eq!(actions[0].action, "DELETE /api/delete");
    assert_eq!(actions[0].target.as_deref(), Some("plain"));
    assert_eq!(actions[0].request.as_deref(), Some("r-1"));
    assert_eq!(actions[0].address.as_deref(), Some("127.0.0.1"));
}

/// What `look` finds, which another thread is about to make.
fn wait_for<T>(look: impl Fn() -> Option<T>) -> T {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(std::time::Instant::now() < deadline, "it does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn r51_bodies_have_limits() {
    let served = Served::configured(Config { body_bytes_max: 1 << 20, ..config() });
    let address = served.running().address();
    // What says that it is too long is not read.
    let head = "POST /api/show HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n";
    let answer = raw(address, format!("{head}Content-Length: 10737418240\r\n\r\n{{").as_bytes());
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // What does not say so is read as far as it may go.
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(format!("{head}Transfer-Encoding: chunked\r\n\r\n").as_bytes()).unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", 1 << 16, " ".repeat(1 << 16));
    let mut sent = 0;
    while sent < 256 && stream.write_all(chunk.as_bytes()).is_ok() {
        sent += 1;
    }
    // The answer may be lost with the connection; that it ended is what counts.
    let answer = read(&mut stream);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(served.get("/health").status, 200);
}

#[test]
fn r51_bodies_that_are_no_json_are_refused() {
    let served = Served::fake();
    let deep = |open: &str| open.repeat(100_000).into_bytes();
    let bodies: [(&str, Vec<u8>); 8] = [
        ("nothing", Vec::new()),
        ("no JSON", b"model=chat".to_vec()),
        ("depth of lists", deep("[")),
        ("depth of objects", deep("{\"a\":")),
        ("depth inside", [br#"{"model":"chat","options":"#.to_vec(), deep("[")].concat()),
        ("invalid UTF-8", b"{\"model\": \"\xff\xfe\"}".to_vec()),
        ("a lone surrogate", br#"{"model": "\ud800"}"#.to_vec()),
        ("a number", b"1e999".to_vec()),
    ];
    for (name, body) in bodies {
        for target in ["/api/show", "/api/chat", "/api/embed"] {
            let answer =
                served.request("POST", target, &[("Content-Type", "application/json")], &body);
            assert_eq!(answer.status, 400, "{name} {target}: {}", answer.text());
            assert!(answer.json()["error"].is_string(), "{name} {target}");
        }
    }
}

#[test]
fn heads_have_limits() {
    let limits = Limits { header_bytes_max: 8 << 10, headers_max: 20, ..Limits::default() };
    let served = secured(|security| security.limits = limits);
    let address = served.running().address();
    let long = "x".repeat(16 << 10);
    let many: String =
        (0..100).map(|count| format!("x-{count}: y\r\n")).collect::<Vec<_>>().concat();
    for head in [
        format!("GET /health HTTP/1.1\r\nHost: localhost\r\nx: {long}\r\n\r\n"),
        format!("GET /health?{long} HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        format!("GET /health HTTP/1.1\r\nHost: localhost\r\n{many}\r\n"),
    ] {
        let answer = raw(address, head.as_bytes());
        // The answer may be lost with what was not read.
        let is_refusal =
            ["HTTP/1.1 431", "HTTP/1.1 414"].iter().any(|line| answer.starts_with(line));
        assert!(answer.is_empty() || is_refusal, "{answer}");
    }
    for head in
        ["GARBAGE\r\n\r\n", "\0\0\0\0\0\0\0\0\r\n\r\n", "\x16\x03\x01\x02\0\x01\0\x01\r\n\r\n"]
    {
        let answer = raw(address, head.as_bytes());
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    assert_eq!(served.get("/health").status, 200);
}

#[test]
fn clients_that_dawdle_lose_their_connection() {
    let short = Duration::from_millis(200);
    let limits = Limits { header_time: short, body_pause_max: short, ..Limits::default() };
    let served = secured(|security| security.limits = limits);
    let address = served.running().address();
    assert_eq!(raw(address, b""), "", "a connection that says nothing");
    let answer = raw(address, b"GET /health HTTP/1.1\r\nHost: loc");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    let body =
        "POST /api/show HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{\"model\"";
    let answer = raw(address, body.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
}

#[test]
fn more_connections_than_may_be_wait_for_their_turn() {
    let limits = Limits { connections_max: 2, ..Limits::default() };
    let served = secured(|security| security.limits = limits);
    let address = served.running().address();
    let held: Vec<TcpStream> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
    let asking = std::thread::spawn(move || {
        raw(address, b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    });
    drop(held);
    assert!(asking.join().unwrap().starts_with("HTTP/1.1 200"));
}

#[test]
fn r55_who_asks_too_often_is_told_when_to_come_back() {
    let served = secured(|security| security.requests_per_minute = Some(3));
    let statuses: Vec<u16> = (0..5).map(|_| served.get("/status").status).collect();
    assert_eq!(statuses, [200, 200, 200, 429, 429]);
    let refusal = served.get("/status");
    let seconds: u32 = refusal.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&seconds), "{seconds}");
    assert_eq!(served.get("/health").status, 200, "whether it lives may always be asked");
    let key = Keyring::new(served.home()).add("other", Scope::Infer).unwrap();
    assert_eq!(status(&served, "GET", "/status", &[("X-Api-Key", &key)]), 200, "each its own");
}

#[test]
fn requests_have_names() {
    let served = Served::fake();
    let name = |given: &[(&str, &str)]| {
        let answer = served.request("GET", "/health", given, b"");
        answer.header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(name(&[("X-Request-Id", "my-request.1")]), "my-request.1");
    let long = "x".repeat(200);
    for forged in ["", "a b", "a\tb", "<script>", &long] {
        let made = name(&[("X-Request-Id", forged)]);
        assert!(made.len() == 24 && made != forged, "{made}");
    }
    assert_ne!(name(&[]), name(&[]));
}

#[test]
fn the_page_is_for_browsers_and_a_word_for_others() {
    let served = Served::fake();
    for method in ["GET", "HEAD"] {
        let answer = served.request(method, "/", &[], b"");
        assert_eq!((answer.status, answer.header("content-length")), (200, Some("17")));
    }
    assert_eq!(served.get("/").text(), "Ollama is running");
    let headers = [("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")];
    let page = served.request("GET", "/", &headers, b"");
    assert!(page.text().starts_with("<!doctype html>"));
    let policy = page.header("content-security-policy").unwrap();
    for part in ["default-src 'none'", "script-src 'sha256-", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert!(!policy.contains("unsafe") && !policy.contains("http"), "{policy}");
}

#[test]
fn every_route_is_in_the_document_and_answers() {
    let served = Served::fake();
    let document = served.get("/openapi.json").ok();
    assert_eq!(document["openapi"], "3.1.1");
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 4);
    for (path, methods) in paths {
        let target = path.replace(['{', '}'], "");
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_uppercase();
            let answer = served.request(&method, &target, &[], b"{}");
            assert_ne!(answer.status, 405, "{method} {path}");
            assert!(answer.status < 500 || answer.status == 501, "{method} {path}: {answer:?}");
        }
    }
    assert_references(&document, &document);
}

/// Everything that a document refers to is in it.
fn assert_references(value: &Value, document: &Value) {
    match value {
        Value::Object(object) => {
            if let Some(Value::String(reference)) = object.get("$ref") {
                let pointer = reference.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
            object.values().for_each(|value| assert_references(value, document));
        }
        Value::Array(values) => values.iter().for_each(|value| assert_references(value, document)),
        _ => {}
    }
}

#[test]
fn tls_is_spoken_where_it_is_asked_for() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/tls");
    let certificate = folder.join("certificate.pem");
    let served = secured(|security| {
        let (certificate, key) = (certificate.clone(), folder.join("key.pem"));
        security.tls = Some(Tls { certificate, key });
    });
    let mut stream = encrypted(served.running().address(), &certificate);
    stream
        .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    let answer = read(&mut stream);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"ok\""), "{answer}");
    let clear = raw(served.running().address(), b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(!clear.contains("HTTP/1.1"), "{clear}");
}

fn encrypted(
    address: SocketAddr,
    certificate: &Path,
) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().unwrap();
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    rustls::StreamOwned::new(connection, stream)
}

#[test]
fn every_dialect_is_told_of_refusals_in_json() {
    let served = Served::fake();
    Keyring::new(served.home()).add("a", Scope::Infer).unwrap();
    for target in ["/api/tags", "/v1/models", "/v1/messages", "/status", "/nowhere"] {
        let refusal: Reply = served.get(target);
        assert_eq!(refusal.status, 401, "{target}");
        assert!(!refusal.json()["error"].is_null(), "{target}: {}", refusal.text());
    }
}

#[test]
fn r60_nothing_secret_is_logged_and_a_server_off_loopback_wants_a_key() {
    let home = tempfile::tempdir().unwrap();
    let nfl = |arguments: &[&str]| {
        let mut command = fixture::command(arguments);
        command.env("NFL_HOME", home.path());
        command
    };
    let refusal = fixture::Ran::of(nfl(&["serve", "--host", "0.0.0.0", "--port", "0"]));
    assert_eq!(refusal.status, 1);
    assert!(refusal.stderr.contains("nfl keys add"), "{}", refusal.stderr);
    let made = fixture::Ran::of(nfl(&["keys", "add", "laptop", "--scope", "manage"]));
    let key = made.expect_success().trim().to_owned();
    let listed = fixture::Ran::of(nfl(&["keys", "list", "--json"])).expect_success();
    assert!(listed.contains("laptop") && !listed.contains(&key[4..]), "{listed}");

    let mut serve = nfl(&["serve", "--port", "0", "--log-format", "json", "--log-level", "debug"]);
    let mut process = serve.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut log = std::io::BufReader::new(process.stderr.take().unwrap());
    let first = line(&mut log);
    let address = first["address"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
    let address: SocketAddr = address.parse().unwrap();
    let prompt = "a very private prompt";
    let body =
        json!({"model": "none", "messages": [{"role": "user", "content": prompt}]}).to_string();
    for key in [key.as_str(), "nfl-wrong-key"] {
        let request = format!(
            "POST /api/chat?key={key} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {key}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let answer = raw(address, request.as_bytes());
        assert!(!answer.contains(key), "{answer}");
    }
    let (one, two) = (line(&mut log), line(&mut log));
    assert_eq!((&one["key"], &one["path"]), (&json!("laptop"), &json!("/api/chat")));
    assert_eq!((&two["key"], &two["status"]), (&Value::Null, &json!(401)));
    for line in [&first, &one, &two] {
        let text = line.to_string();
        for secret in [key.as_str(), "nfl-wrong-key", prompt] {
            assert!(!text.contains(secret), "{text}");
        }
    }
    process.kill().unwrap();
    process.wait().unwrap();
    let audit = fixture::Ran::of(nfl(&["audit", "--json"])).expect_success();
    assert!(audit.contains("keys add") && audit.contains("laptop") && !audit.contains(&key[4..]));
    let address: IpAddr = address.ip();
    assert!(address.is_loopback());
}

fn line(log: &mut impl std::io::BufRead) -> Value {
    let mut text = String::new();
    log.read_line(&mut text).unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
