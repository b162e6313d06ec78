//! Registries that want a login: who is shown it, and who never is.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use nfl::store::Digest;
use serde_json::json;

use super::Home;
use super::registry::DockerRegistry;
use super::server::{Answer, Request, Server};
use crate::fixture;

const STORY: &str = "oracle/stories260K-F16.gguf";

/// The user of these tests, and the two as an htpasswd file and as the header have them.
const LOGIN: &str = "me:pass:word@1";
const PASSWORD_LINE: &str = "me:$2y$05$nflnflnflnflnflnflnfleGMAQsUchdMyU/LwWAslIoWTdvE/Kh7u\n";
const BASIC: &str = "Basic bWU6cGFzczp3b3JkQDE=";

/// Writes what `docker login` writes.
fn docker_login(home: &Home, host: &str, entry: &serde_json::Value) {
    let folder = home.folder.path().join(".docker");
    std::fs::create_dir_all(&folder).unwrap();
    let text = json!({"auths": {host: entry}}).to_string();
    std::fs::write(folder.join("config.json"), text).unwrap();
}

/// The registry of Debian with a password: what a login opens, and what is said without one.
#[test]
fn a_real_registry_with_a_password() {
    let Some(file) = fixture::material(STORY) else { return };
    let Some(registry) = DockerRegistry::start(Some(PASSWORD_LINE)) else { return };
    let (host, name) = (&registry.address, format!("{}/tests/stories:f16", registry.address));
    let push = ["push", "--insecure", &name];
    let with = |login: &str| Home::new().with("NFL_REGISTRY_TOKEN", &format!("{login}@{host}"));
    let import = ["import", fixture::text(&file), "--name", &name];
    let stranger = Home::new();
    stranger.nfl(&import).expect_success();
    let ran = stranger.nfl(&push);
    let words = format!("{host} wants a login for tests/stories");
    assert!(ran.status == 1 && ran.stderr.contains(&words), "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("docker login {host}")), "{}", ran.stderr);
    let wrong = with("me:wrong");
    wrong.nfl(&import).expect_success();
    let ran = wrong.nfl(&push);
    assert!(ran.stderr.contains("does not let this login use tests/stories"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("me:wrong"), "{}", ran.stderr);
    // What `docker login` has kept is enough, and so is the environment.
    docker_login(&stranger, host, &json!({"auth": BASIC.strip_prefix("Basic ").unwrap()}));
    stranger.nfl(&push).expect_success();
    let friend = with(LOGIN);
    friend.nfl(&["pull", "--insecure", &name]).expect_success();
    let digest = Digest::of(&std::fs::read(&file).unwrap());
    let blob = friend.folder.path().join("blobs").join(digest.file_name());
    assert!(std::fs::read(blob).unwrap() == std::fs::read(&file).unwrap());
    let ran = Home::new().nfl(&["pull", "--insecure", &name]);
    assert!(ran.stderr.contains("wants a login"), "{}", ran.stderr);
}

/// A registry of one model whose tokens are given at `realm`, and the place that gives them.
struct Guarded {
    server: Server,
    /// How many requests a token is good for.
    good_for: Arc<AtomicUsize>,
}

impl Guarded {
    /// `realm` makes the address of the place of its own.
    fn start(realm: impl Fn(&Request) -> String + Send + Sync + 'static) -> Option<Self> {
        let content = Arc::new(std::fs::read(fixture::material(STORY)?).unwrap());
        let descriptor = |media_type: &str, content: &[u8]| {
            let digest = Digest::of(content).to_string();
            json!({"mediaType": media_type, "digest": digest, "size": content.len()})
        };
        let manifest = json!({"schemaVersion": 2,
            "config": descriptor("application/vnd.docker.container.image.v1+json", b"{}"),
            "layers": [descriptor("application/vnd.ollama.image.model", &content)]})
        .to_string();
        let good_for = Arc::new(AtomicUsize::new(usize::MAX));
        let (limit, issued, used) = (good_for.clone(), AtomicUsize::new(0), AtomicUsize::new(0));
        let server = Server::start(move |request| {
            if request.path() == "/token" {
                let knows = request.header("authorization") == Some(BASIC)
                    || request.body.windows(21).any(|part| part == b"refresh_token=mytoken");
                if !knows {
                    return Answer::new(401, "");
                }
                used.store(0, SeqCst);
                let number = issued.fetch_add(1, SeqCst) + 1;
                return Answer::new(200, json!({"token": format!("t{number}")}).to_string());
            }
            let token = format!("Bearer t{}", issued.load(SeqCst));
            let is_good = request.header("authorization") == Some(&token)
                && used.fetch_add(1, SeqCst) < limit.load(SeqCst);
            if !is_good {
                let challenge = format!("Bearer realm=\"{}\",service=\"test\"", realm(request));
                return Answer::new(401, "").with("WWW-Authenticate", &challenge);
            }
            match request.path() {
                path if path.contains("/manifests/") => Answer::new(200, manifest.clone()),
                path if path.contains(&Digest::of(b"{}").to_string()) => {
                    Answer::file(&Arc::new(b"{}".to_vec()), request, "")
                }
                // Every connection breaks, so that a pull takes many requests.
                _ => Answer { cut_after: Some(50_000), ..Answer::file(&content, request, "\"1\"") },
            }
        });
        Some(Self { server, good_for })
    }

    fn name(&self) -> String {
        format!("{}/me/tiny:1", self.server.address)
    }

    fn own_realm(request: &Request) -> String {
        format!("http://{}/token", request.header("host").unwrap())
    }
}

/// The login goes to the place of tokens, the token to the registry; and a token that runs out in the middle of a pull
/// is replaced.
#[test]
fn a_login_is_exchanged_for_tokens() {
    let Some(guarded) = Guarded::start(Guarded::own_realm) else { return };
    let pull = ["pull", "--insecure", &guarded.name()];
    let identity = Home::new();
    docker_login(
        &identity,
        &guarded.server.address.to_string(),
        &json!({"identitytoken": "mytoken"}),
    );
    identity.nfl(&pull).expect_success();
    guarded.server.log.lock().unwrap().clear();
    guarded.good_for.store(3, SeqCst);
    let login = format!("{LOGIN}@{}", guarded.server.address);
    Home::new().with("NFL_REGISTRY_TOKEN", &login).nfl(&pull).expect_success();
    assert!(guarded.server.count("/token") > 3, "{}", guarded.server.count("/token"));
    for request in guarded.server.log.lock().unwrap().iter() {
        let is_realm = request.path() == "/token";
        assert_eq!(request.header("authorization") == Some(BASIC), is_realm, "{}", request.target);
        let scope = is_realm.then_some("repository%3Ame%2Ftiny%3Apull");
        assert_eq!(request.query("scope"), scope, "{}", request.target);
    }
    let ran = Home::new().nfl(&pull);
    assert!(ran.stderr.contains("wants a login for me/tiny"), "{}", ran.stderr);
}

/// Case 38: a registry on plain http cannot send the login to another host, nor a redirect.
#[test]
fn a_login_stays_with_its_host() {
    let heard: Arc<Mutex<Vec<Request>>> = Arc::default();
    let ears = heard.clone();
    let other = Server::start(move |request| {
        ears.lock().unwrap().push(request.clone());
        Answer::new(200, json!({"token": "x"}).to_string())
    });
    // The same machine under another name: another host.
    let foreign = format!("http://localhost:{}/token", other.address.port());
    let Some(guarded) = Guarded::start(move |_| foreign.clone()) else { return };
    let login = format!("{LOGIN}@{}", guarded.server.address);
    let home = Home::new().with("NFL_REGISTRY_TOKEN", &login);
    let ran = home.nfl(&["pull", "--insecure", &guarded.name()]);
    assert!(ran.stderr.contains("its login is not shown to another host"), "{}", ran.stderr);
    assert_eq!(heard.lock().unwrap().len(), 0);
    // Neither to another host that asks for one.
    let target = other.url("/v2/x");
    let sender = Server::start(move |_| Answer::redirect(&target));
    let login = format!("{LOGIN}@{}", other.address);
    let home = Home::new().with("NFL_REGISTRY_TOKEN", &login);
    home.nfl(&["pull", "--insecure", &format!("{}/me/tiny:1", sender.address)]);
    let heard = heard.lock().unwrap();
    assert!(!heard.is_empty() && heard.iter().all(|each| each.header("authorization").is_none()));
}

/// Docker's helpers keep logins elsewhere.
#[cfg(unix)]
#[test]
fn helpers_are_asked() {
    use std::os::unix::fs::PermissionsExt;
    let Some(guarded) = Guarded::start(Guarded::own_realm) else { return };
    let home = Home::new();
    let helper = home.folder.path().join("docker-credential-tests");
    let script = "#!/bin/sh\nread host\n[ \"$host\" = WHO ] || exit 1\n\
        echo '{\"ServerURL\":\"x\",\"Username\":\"me\",\"Secret\":\"pass:word@1\"}'\n";
    let address = guarded.server.address.to_string();
    std::fs::write(&helper, script.replace("WHO", &address)).unwrap();
    std::fs::set_permissions(&helper, PermissionsExt::from_mode(0o755)).unwrap();
    let folder = home.folder.path().join(".docker");
    std::fs::create_dir(&folder).unwrap();
    let config = |text: &str| std::fs::write(folder.join("config.json"), text).unwrap();
    let path = format!("{}:{}", home.folder.path().display(), std::env::var("PATH").unwrap());
    let home = home.with("PATH", &path);
    config("{\"credsStore\": \"tests\"}");
    home.nfl(&["pull", "--insecure", &guarded.name()]).expect_success();
    config("{\"credsStore\": \"../../bin/sh\"}");
    let ran = home.nfl(&["push", "--insecure", &guarded.name()]);
    assert!(ran.stderr.contains("no program is called that"), "{}", ran.stderr);
    assert!(Path::new(&helper).exists());
}
