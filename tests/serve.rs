//! `nfl serve` as a command: where it listens, what it says, what it refuses.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Stdio};

use crate::fixture;

fn start(arguments: &[&str], variables: &[(&str, &str)]) -> Child {
    let home = tempfile::tempdir().unwrap();
    let mut command = fixture::command(&[&["serve"], arguments].concat());
    command.env("NFL_HOME", home.path()).envs(variables.iter().copied());
    command.stderr(Stdio::piped()).spawn().unwrap()
}

/// What it says until it is ready, and where it listens.
fn ready(server: &mut Child) -> (Vec<String>, String) {
    let mut said = Vec::new();
    for line in BufReader::new(server.stderr.as_mut().unwrap()).lines() {
        let line = line.unwrap();
        if let Some((_, place)) = line.split_once("http://") {
            return (said, place.split_whitespace().next().unwrap().to_owned());
        }
        said.push(line);
    }
    panic!("it ended: {said:?}");
}

#[cfg(unix)]
#[test]
fn it_listens_where_the_environment_says_and_ends_when_asked() {
    let variables = [("OLLAMA_HOST", "http://127.0.0.1:0/"), ("OLLAMA_KEEP_ALIVE", "soon")];
    let mut server = start(&[], &variables);
    let (said, place) = ready(&mut server);
    assert!(said.join("\n").contains("OLLAMA_KEEP_ALIVE is passed over"), "{said:?}");
    let mut stream = TcpStream::connect(&place).unwrap();
    stream.write_all(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    let number = server.id().to_string();
    let stopped = std::process::Command::new("kill").args(["-INT", &number]).status();
    assert!(stopped.unwrap().success());
    assert!(server.wait().unwrap().success());
}

#[test]
fn a_port_that_is_taken_is_told_with_its_holder() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let output = start(&["--port", &port.to_string()], &[]).wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(&format!("port {port} is taken")), "{said}");
    if cfg!(target_os = "linux") {
        assert!(said.contains(&format!("(process {})", std::process::id())), "{said}");
    }
    assert!(said.contains("nfl serve --port"), "{said}");
}

#[test]
fn settings_that_make_no_sense_are_refused_by_name() {
    for (variable, value) in [
        ("NFL_KEEP_ALIVE", "soon"),
        ("NFL_NUM_PARALLEL", "-1"),
        ("NFL_KV_CACHE_TYPE", "q3_9"),
        ("NFL_HOST", "127.0.0.1:99999"),
        ("NFL_FLASH_ATTENTION", "maybe"),
    ] {
        let output = start(&["--port", "0"], &[(variable, value)]).wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(variable), "{said}");
    }
}
