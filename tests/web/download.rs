//! Downloading through faults: whatever a server does, the file is right or there is none.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nfl::hub::{DownloadError, Hub, Limits, Meter, Order};
use nfl::store::Digest;

use super::server::{Answer, Request, Server};
use crate::fixture::files_of;

/// Bytes without a period that a part of them could hide in.
fn content(bytes: usize) -> Arc<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let word = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut content: Vec<u8> = (0..bytes.div_ceil(8)).flat_map(word).collect();
    content.truncate(bytes);
    Arc::new(content)
}

/// Limits that make tests quick.
fn limits() -> Limits {
    Limits {
        stall: Duration::from_millis(300),
        pause_first: Duration::from_millis(5),
        window_bytes: 8 << 20,
        ..Limits::default()
    }
}

/// A place to download to.
struct Scene {
    folder: tempfile::TempDir,
    order: Order,
}

impl Scene {
    fn new(server: &Server, content: &[u8]) -> Self {
        let (url, digest) = (server.url("/file"), Some(Digest::of(content)));
        let order = Order { url, bytes: Some(content.len() as u64), digest };
        Self { folder: tempfile::tempdir().unwrap(), order }
    }

    /// The same without knowledge of size and digest.
    fn unannounced(server: &Server) -> Self {
        let order = Order { url: server.url("/file"), bytes: None, digest: None };
        Self { folder: tempfile::tempdir().unwrap(), order }
    }

    fn pull_with(&self, meter: &Arc<Meter>) -> Result<Vec<u8>, DownloadError> {
        let hub = Hub::new(false).unwrap().with_limits(limits());
        let target = self.folder.path().join("target");
        let partial = self.folder.path().join("partial");
        let digest = hub.download(&self.order, &partial, &target, meter)?;
        let got = std::fs::read(&target).unwrap();
        assert_eq!(digest, Digest::of(&got));
        assert_eq!(files_of(&partial), [""; 0], "nothing is left over");
        Ok(got)
    }

    fn pull(&self) -> Result<Vec<u8>, DownloadError> {
        self.pull_with(&Arc::default())
    }

    #[track_caller]
    fn expect(&self, content: &[u8]) {
        assert!(self.pull().unwrap() == content, "the content differs");
    }

    #[track_caller]
    fn refuse(&self, words: &str) {
        let error = self.pull().unwrap_err().to_string();
        assert!(error.contains(words), "{error:?} does not say {words:?}");
        assert!(!self.folder.path().join("target").exists());
    }
}

/// A server of one file that answers each request by `fault(number of the request, the right answer)`.
fn faulty(
    content: &Arc<Vec<u8>>,
    fault: impl Fn(usize, &Request, Answer) -> Answer + Send + Sync + 'static,
) -> Server {
    let (content, count) = (content.clone(), AtomicUsize::new(0));
    Server::start(move |request| {
        let right = Answer::file(&content, request, "\"v1\"");
        fault(count.fetch_add(1, SeqCst), request, right)
    })
}

#[test]
fn a_file_arrives_whole() {
    for bytes in [0, 1, 1000, 5_000_001] {
        let content = content(bytes);
        let server = faulty(&content, |_, _, right| right);
        Scene::new(&server, &content).expect(&content);
        Scene::unannounced(&server).expect(&content);
    }
}

#[test]
fn connections_that_break_anywhere_cost_nothing_but_time() {
    let content = content(3_000_000);
    for cut in [0, 1, 17, 4096, 100_000, 999_999] {
        let server = faulty(&content, move |number, _, mut right| {
            // Cuts without any progress end some time; those with progress may go on for ever.
            right.cut_after = (number % 3 != 2 || cut > 4096).then_some(cut);
            right
        });
        Scene::new(&server, &content).expect(&content);
    }
}

#[test]
fn a_broken_pull_goes_on_where_it_stopped() {
    let (content, is_down) = (content(4_000_000), Arc::new(AtomicBool::new(true)));
    let down = is_down.clone();
    let server = faulty(&content, move |number, _, right| match (number, down.load(SeqCst)) {
        (0, _) => Answer { cut_after: Some(2_500_000), ..right },
        (_, true) => Answer::new(503, ""),
        _ => right,
    });
    let scene = Scene::new(&server, &content);
    scene.refuse("gave up after 8 attempts");
    is_down.store(false, SeqCst);
    server.log.lock().unwrap().clear();
    let meter = Arc::default();
    assert!(scene.pull_with(&meter).unwrap() == *content);
    assert_eq!(meter.kept(), 2_500_000);
    let ranges: Vec<_> = server.log.lock().unwrap().iter().filter_map(Request::range).collect();
    assert_eq!(ranges[0].0, 2_500_000, "nothing that is verified is fetched again");
}

/// Case 40: parts that are not the parts that were asked for, and servers that know no parts.
#[test]
fn ranges_that_lie_are_not_believed() {
    let content = content(2_000_000);
    let wrong = content.clone();
    let server = faulty(&content, move |number, _, right| match number {
        0 => Answer { cut_after: Some(900_000), ..right },
        1 => Answer::new(206, &wrong[..1000]).with("Content-Range", "bytes 0-999/2000000"),
        2 => Answer::new(206, &wrong[..1000]),
        3 => right.replacing("Content-Range", "bytes 900000-1999999/1999999"),
        _ => right,
    });
    Scene::new(&server, &content).expect(&content);
    let whole = content.clone();
    let server = Server::start(move |_| Answer {
        cut_after: None,
        ..Answer::new(200, whole.to_vec()).with("ETag", "\"v1\"")
    });
    Scene::new(&server, &content).expect(&content);
    Scene::unannounced(&server).expect(&content);
}

/// Case 40: a server without parts whose connection breaks starts again, and what is known already is skipped.
#[test]
fn a_server_without_parts_can_still_be_resumed() {
    let (content, count) = (content(2_000_000), AtomicUsize::new(0));
    let whole = content.clone();
    let server = Server::start(move |_| {
        let cut_after = (count.fetch_add(1, SeqCst) < 3).then_some(700_000);
        Answer { cut_after, ..Answer::new(200, whole.to_vec()) }
    });
    Scene::new(&server, &content).expect(&content);
}

/// Case 40.
#[test]
fn compressed_answers_are_refused() {
    let content = content(1000);
    let server = faulty(&content, |_, _, right| right.with("Content-Encoding", "gzip"));
    Scene::new(&server, &content).refuse("compresses");
}

/// Case 35: sizes that are not those that were announced.
#[test]
fn sizes_that_lie_are_refused() {
    let content = content(10_000);
    let server = faulty(&content, |_, _, right| right);
    for bytes in [9_999, 10_001, 1 << 40] {
        let mut scene = Scene::new(&server, &content);
        scene.order.bytes = Some(bytes);
        scene.refuse("not the");
    }
}

/// Files whose length nobody says end with their last chunk, or are refused.
#[test]
fn files_without_a_length_end_where_they_say() {
    let content = content(1_500_000);
    let chunked = |cuts: usize, etag: &'static str| {
        let (content, count) = (content.clone(), AtomicUsize::new(0));
        Server::start(move |_| Answer {
            cut_after: (count.fetch_add(1, SeqCst) < cuts).then_some(800_000),
            ..Answer::chunked(&content).with("ETag", etag)
        })
    };
    for (cuts, etag) in [(0, "W/\"x\""), (1, "W/\"x\""), (5, "\"x\"")] {
        let server = chunked(cuts, etag);
        Scene::unannounced(&server).expect(&content);
        Scene::new(&server, &content).expect(&content);
    }
    // Without a name for this state of the file, the half of it may be that of another.
    Scene::unannounced(&chunked(9, "W/\"x\"")).refuse("keeps changing");
    let part = content.clone();
    let server =
        Server::start(move |_| Answer::new(200, &part[..9000]).with("Connection", "close"));
    Scene::unannounced(&server).refuse("does not say where the file ends");
}

/// Case 36: wrong bytes are deleted, and not asked for without end.
#[test]
fn wrong_bytes_are_deleted() {
    let (content, other) = (content(100_000), Arc::new(vec![1; 100_000]));
    let server = faulty(&other, |_, _, right| right);
    let scene = Scene::new(&server, &content);
    scene.refuse("wrong content");
    assert_eq!(server.count("/file"), 1);
    assert_eq!(files_of(&scene.folder.path().join("partial")).len(), 1, "only the lock");
}

/// What an earlier run left may be wrong: then once from the beginning.
#[test]
fn a_wrong_beginning_is_given_up() {
    let (content, other) = (content(2_000_000), Arc::new(vec![1; 2_000_000]));
    let right = content.clone();
    let (other_first, count) = (other.clone(), AtomicUsize::new(0));
    let server = Server::start(move |request| match count.fetch_add(1, SeqCst) {
        0 => Answer { cut_after: Some(1_000_000), ..Answer::file(&other_first, request, "") },
        1..=10 => Answer::new(500, ""),
        _ => Answer::file(&right, request, ""),
    });
    let scene = Scene::new(&server, &content);
    scene.refuse("gave up");
    let _ = scene.pull();
    scene.expect(&content);
}

/// Case 42.
#[test]
fn a_file_that_changes_is_begun_again() {
    let (old, new) = (content(2_000_000), Arc::new(vec![9; 2_000_000]));
    let (before, after, count) = (old.clone(), new.clone(), AtomicUsize::new(0));
    let server = Server::start(move |request| match count.fetch_add(1, SeqCst) {
        0 => Answer { cut_after: Some(1_200_000), ..Answer::file(&before, request, "\"old\"") },
        _ => Answer::file(&after, request, "\"new\""),
    });
    Scene::unannounced(&server).expect(&new);
    let count = AtomicUsize::new(0);
    let server = Server::start(move |request| {
        let number = count.fetch_add(1, SeqCst);
        let answer = Answer::file(&old, request, &format!("\"v{number}\""));
        Answer { cut_after: Some(1000), ..answer }
    });
    Scene::unannounced(&server).refuse("keeps changing");
}

/// Case 40: a file that shrinks between two parts.
#[test]
fn a_file_that_shrinks_is_begun_again() {
    let (long, short) = (content(2_000_000), content(1_000_000));
    let (first, then, count) = (long, short.clone(), AtomicUsize::new(0));
    let server = Server::start(move |request| match count.fetch_add(1, SeqCst) {
        0 => Answer { cut_after: Some(1_500_000), ..Answer::file(&first, request, "") },
        _ => Answer::file(&then, request, ""),
    });
    Scene::unannounced(&server).expect(&short);
}

#[test]
fn a_server_that_is_busy_is_given_time() {
    let content = content(500_000);
    let start = std::time::Instant::now();
    let server = faulty(&content, |number, _, right| match number {
        0 => Answer::new(429, "").with("Retry-After", "1"),
        1 => Answer::new(503, ""),
        2 => Answer::new(502, ""),
        _ => right,
    });
    Scene::new(&server, &content).expect(&content);
    assert!(start.elapsed() >= Duration::from_secs(1), "Retry-After is kept");
    let server = faulty(&content, |_, _, _| Answer::new(429, "").with("Retry-After", "86400"));
    Scene::new(&server, &content).refuse("429");
    assert_eq!(server.count("/file"), 1);
}

#[test]
fn answers_that_are_final_are_believed() {
    let content = content(1000);
    for status in [400, 401, 403, 404, 410, 451] {
        let server = faulty(&content, move |_, _, _| Answer::new(status, ""));
        Scene::new(&server, &content).refuse(&format!("HTTP status {status}"));
        assert_eq!(server.count("/file"), 1);
    }
}

/// Case 41: connections that say nothing, and those that say a byte now and then.
#[test]
fn stalls_are_noticed() {
    let content = content(1_000_000);
    let server = faulty(&content, |number, _, mut right| {
        if number % 2 == 0 {
            right.stall = Duration::from_secs(3);
        }
        right
    });
    Scene::new(&server, &content).expect(&content);
    let server = faulty(&content, |_, _, right| Answer { rate: Some(50.0), ..right });
    let hub = Hub::new(false).unwrap().with_limits(Limits { attempts: 1, ..limits() });
    let scene = Scene::new(&server, &content);
    let target = scene.folder.path().join("target");
    let error = hub.download(&scene.order, scene.folder.path(), &target, &Arc::default());
    assert!(error.unwrap_err().to_string().contains("less than 1024 bytes came"));
}

/// Many connections, each held back and some broken, bring one file in order.
#[test]
fn parallel_parts_come_together() {
    let content = content(24_000_000);
    let server = faulty(&content, |number, _, mut right| {
        right.rate = Some(6e6);
        right.cut_after = (number % 5 == 4).then_some(300_000);
        right
    });
    let meter: Arc<Meter> = Arc::default();
    let scene = Scene::new(&server, &content);
    assert!(scene.pull_with(&meter).unwrap() == *content);
    assert!(server.count("/file") > 4, "{}", server.count("/file"));
}

/// Case 37: where redirects may lead, seen from this machine.
#[test]
fn redirects_are_followed_under_rules() {
    let content = content(3_000_000);
    let behind = faulty(&content, |_, _, right| right);
    let there = behind.url("/signed?secret=1");
    let hops = Arc::new(Mutex::new(0));
    let target = there.clone();
    let server = Server::start(move |request| {
        let mut hops = hops.lock().unwrap();
        *hops += 1;
        match (request.target.as_str(), *hops) {
            (_, hop) if hop < 10 => Answer::redirect(&format!("/hop{hop}")),
            _ => Answer::redirect(&target),
        }
    });
    Scene::new(&server, &content).expect(&content);
    for (target, words) in [
        ("http://169.254.169.254/latest/meta-data", "private network"),
        ("http://[::ffff:169.254.169.254]/", "private network"),
        ("http://0.0.0.0:1/", "private network"),
        ("file:///etc/passwd", "only http and https"),
        ("/loop", "without end"),
        ("http://", "names no address"),
    ] {
        let server = Server::start(move |_| Answer::redirect(target));
        let scene = Scene::new(&server, &content);
        scene.refuse(words);
        assert!(server.log.lock().unwrap().len() <= 11);
    }
}

/// Signed addresses stop working after a while: then the first one is asked again.
#[test]
fn an_expired_address_is_asked_for_again() {
    let content = content(2_000_000);
    let count = AtomicUsize::new(0);
    let behind = faulty(&content, move |_, request, mut right| {
        let is_first = request.target.ends_with("=0");
        match (is_first, count.fetch_add(1, SeqCst)) {
            (true, 0) => right.cut_after = Some(1_000_000),
            (true, _) => right = Answer::new(403, "expired"),
            _ => {}
        }
        right
    });
    let (there, count) = (behind.url("/signed"), AtomicUsize::new(0));
    let server = Server::start(move |_| {
        Answer::redirect(&format!("{there}?number={}", count.fetch_add(1, SeqCst)))
    });
    Scene::new(&server, &content).expect(&content);
    assert_eq!((server.log.lock().unwrap().len(), behind.count("signed")), (2, 3));
}

/// Case 43: two at once fetch once.
#[test]
fn two_pulls_of_one_file_share_it() {
    let content = content(2_000_000);
    let server = faulty(&content, |_, _, right| Answer { rate: Some(4e6), ..right });
    let scene = Scene::new(&server, &content);
    let asked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let pull = || {
            let hub = Hub::new(false).unwrap().with_limits(limits());
            let number = asked.fetch_add(1, SeqCst);
            let target = scene.folder.path().join(format!("target{number}"));
            let partial = scene.folder.path().join("partial");
            hub.download(&scene.order, &partial, &target, &Arc::default()).unwrap();
            assert!(std::fs::read(target).unwrap() == *content);
        };
        for _ in 0..3 {
            scope.spawn(pull);
        }
    });
}

#[test]
fn a_stop_keeps_what_is_there() {
    let content = content(2_000_000);
    let server = faulty(&content, |_, _, right| Answer { rate: Some(2e6), ..right });
    let scene = Scene::new(&server, &content);
    let meter: Arc<Meter> = Arc::default();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while meter.done() < 300_000 {
                std::thread::sleep(Duration::from_millis(5));
            }
            meter.stop();
        });
        assert!(matches!(scene.pull_with(&meter), Err(DownloadError::Stopped)));
    });
    let meter = Arc::default();
    assert!(scene.pull_with(&meter).unwrap() == *content);
    assert!(meter.kept() >= 300_000);
}

#[test]
fn offline_means_offline() {
    let server = Server::start(|_| Answer::new(200, "hello"));
    let hub = Hub::new(true).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let order = Order { url: server.url("/file"), bytes: None, digest: None };
    let error = hub.download(&order, folder.path(), &folder.path().join("x"), &Arc::default());
    assert!(error.unwrap_err().to_string().contains("offline"));
    assert_eq!(server.log.lock().unwrap().len(), 0);
}
