//! Case 37 from end to end: servers at public, private and own addresses, in a network name space where this machine has
//! all of them, and a file of names that changes while it is read.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use super::Home;
use super::server::{Answer, Server};
use crate::fixture;

const PUBLIC: &str = "8.8.8.8";
const PRIVATE: &str = "10.1.2.3";
const OWN: &str = "127.0.0.1";

/// The variable that names the file of names; set only inside.
const HOSTS: &str = "NFL_TEST_HOSTS";

/// Runs the test below inside.
#[test]
fn redirects_end_to_end() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, "127.0.0.1 localhost\n").unwrap();
    let script = format!(
        "ip link set lo up && ip address add {PUBLIC}/32 dev lo && ip address add {PRIVATE}/32 dev lo \
         && mount --bind \"${HOSTS}\" /etc/hosts || exit 77\n\
         exec \"$0\" --exact web::reach::inside --ignored --nocapture"
    );
    let mut command =
        fixture::isolated(&["--net", "--mount"], &script, &std::process::Command::new("sh"));
    command.arg(std::env::current_exe().unwrap()).env(HOSTS, &hosts);
    let Some(ran) = fixture::ran_isolated(command) else { return };
    assert!(ran.status == 0 && ran.stdout.contains("1 passed"), "{}\n{}", ran.stdout, ran.stderr);
}

/// A server of one model at an address, under the same port as the others.
fn serve(address: &str, port: u16, content: &Arc<Vec<u8>>) -> Server {
    let content = content.clone();
    Server::start_at(&format!("{address}:{port}"), move |request| {
        match request.path().strip_prefix("/to/") {
            Some(target) => Answer::redirect(&format!("http://{target}/model.gguf")),
            None => Answer::file(&content, request, "\"1\""),
        }
    })
}

fn asked(server: &Server) -> usize {
    server.log.lock().unwrap().len()
}

#[test]
#[ignore = "needs the network of the test above"]
fn inside() {
    let Some(hosts) = std::env::var_os(HOSTS).map(PathBuf::from) else { return };
    let Some(file) = fixture::material("oracle/stories260K-F16.gguf") else { return };
    let content = Arc::new(std::fs::read(file).unwrap());
    let port = TcpListener::bind((OWN, 0)).unwrap().local_addr().unwrap().port();
    let [public, private, own] =
        [PUBLIC, PRIVATE, OWN].map(|address| serve(address, port, &content));
    let names = |swap: &str| {
        let text = format!("{PUBLIC} public.test\n{PRIVATE} private.test\n{OWN} own.test\n{swap}");
        std::fs::write(&hosts, text).unwrap();
    };
    names("");
    let pull = |url: &str| Home::new().nfl(&["pull", url, "--name", "x"]);
    // From where to where: by numbers, by names, and by addresses inside of addresses.
    for (from, to, is_allowed) in [
        (PUBLIC, PRIVATE, false),
        (PUBLIC, OWN, false),
        (PUBLIC, "private.test", false),
        (PUBLIC, "own.test", false),
        (PUBLIC, "[::ffff:127.0.0.1]", false),
        (PRIVATE, OWN, false),
        (PRIVATE, "own.test", false),
        ("public.test", "own.test", false),
        (PUBLIC, "public.test", true),
        (PRIVATE, PUBLIC, true),
        ("private.test", "public.test", true),
        (OWN, "private.test", true),
        (OWN, PUBLIC, true),
    ] {
        let before = [asked(&private), asked(&own)];
        let ran = pull(&format!("http://{from}:{port}/to/{to}:{port}"));
        assert_eq!(ran.status == 0, is_allowed, "{from} to {to}: {}", ran.stderr);
        if !is_allowed {
            assert!(ran.stderr.contains("private network"), "{from} to {to}: {}", ran.stderr);
            // The private one may be the one that sends; and a rule is no trouble that may pass.
            let news = [asked(&private) - before[0], asked(&own) - before[1]];
            assert_eq!(news, [usize::from(from == PRIVATE), 0], "{from} to {to}");
        }
    }
    rebinding(&content, &names, &own);
    drop(public);
}

/// A name that leads to another machine once it has been looked up: in a redirect, and between two requests.
fn rebinding(content: &Arc<Vec<u8>>, names: &(impl Fn(&str) + Sync), own: &Server) {
    let before = asked(own);
    let port = own.address.port();
    let swap = |address: &str| names(&format!("{address} swap.test\n"));
    let home = Home::new();
    let did_swap = Arc::new(AtomicBool::new(false));
    let hosts = PathBuf::from(std::env::var_os(HOSTS).unwrap());
    // Another public address, so that this server can have the same port.
    let (served, swapped) = (content.clone(), did_swap.clone());
    let rebinder = Server::start_at(&format!("{PUBLIC}:0"), move |request| {
        std::fs::write(&hosts, format!("{OWN} swap.test\n")).unwrap();
        swapped.store(true, SeqCst);
        if request.path().starts_with("/redirect") {
            return Answer::redirect(&format!("http://swap.test:{port}/model.gguf"));
        }
        // The connection ends, so that the name must be looked up again.
        Answer { cut_after: Some(200_000), ..Answer::file(&served, request, "\"1\"") }
    });
    let theirs = rebinder.address.port();
    swap(PUBLIC);
    let ran = home.nfl(&["pull", &format!("http://swap.test:{theirs}/redirect"), "--name", "x"]);
    assert!(ran.status == 1 && did_swap.load(SeqCst), "{}", ran.stderr);
    assert!(ran.stderr.contains("private network"), "{}", ran.stderr);
    // The same name and port at this machine's own address.
    let ours = serve(OWN, theirs, content);
    swap(PUBLIC);
    let ran = home.nfl(&["pull", &format!("http://swap.test:{theirs}/model.gguf"), "--name", "x"]);
    assert!(ran.status == 1 && ran.stderr.contains("private network"), "{}", ran.stderr);
    assert_eq!((asked(own) - before, asked(&ours), home.models()), (0, 0, 0));
}
