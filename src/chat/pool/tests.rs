//! The pool with models that are played: every byte, lease and unload is counted.

mod storm;
mod world;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::chat::event::Event;
use crate::chat::request::{Input, Request};
use crate::engine::frames::Reason;
use crate::engine::options::Sampling;
use crate::engine::process::EngineError;
use world::{MEMORY_BYTES, World};

fn options() -> PoolOptions {
    PoolOptions { keep_alive: KeepAlive::Forever, ..PoolOptions::default() }
}

fn pool_with(options: PoolOptions) -> (Arc<Pool>, World) {
    let world = World::default();
    let home = PathBuf::from("/nowhere/at/all");
    (Arc::new(Pool::new(home, Box::new(world.clone()), options)), world)
}

fn pool() -> (Arc<Pool>, World) {
    pool_with(options())
}

/// A model of so many GiB.
fn ask(name: &str, gib: u64) -> Ask {
    Ask::new(format!("/{name}-{gib}.gguf"))
}

fn say(tokens: u32) -> Request {
    let input = Input::Text("x".to_owned());
    Request::new(input, Sampling::default(), Vec::new(), Some(tokens)).unwrap()
}

/// The names of what is loaded, in order.
fn loaded(pool: &Pool) -> Vec<String> {
    let short = |model: LoadedModel| model.name[1..].split('-').next().unwrap().to_owned();
    let mut names: Vec<String> = pool.loaded().into_iter().map(short).collect();
    names.sort();
    names
}

/// Waits until something is so.
fn eventually(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what} never was");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_model_is_loaded_once_however_many_ask() {
    let (pool, world) = pool();
    world.0.is_held.store(true, SeqCst);
    thread::scope(|scope| {
        let asks: Vec<_> =
            (0..50).map(|_| scope.spawn(|| pool.acquire(&ask("a", 10)).unwrap())).collect();
        eventually("all wait", || pool.shared.lock().waiting() == 50);
        world.0.is_held.store(false, SeqCst);
        let leases: Vec<Lease> = asks.into_iter().map(|ask| ask.join().unwrap()).collect();
        assert_eq!(pool.loaded()[0].busy, 4, "sequences that fit");
        assert_eq!(pool.loaded()[0].waiting, 46);
        drop(leases);
    });
    assert_eq!((world.0.loads.load(SeqCst), pool.loaded()[0].busy), (1, 0));
}

#[test]
fn who_was_unused_for_longest_makes_room_and_who_is_to_stay_goes_last() {
    let (pool, world) = pool_with(PoolOptions {
        keep_alive: KeepAlive::For(Duration::from_hours(1)),
        ..PoolOptions::default()
    });
    let stay = Ask { keep_alive: Some(KeepAlive::Forever), ..ask("pinned", 30) };
    drop(pool.acquire(&stay).unwrap());
    for name in ["a", "b", "a"] {
        drop(pool.acquire(&ask(name, 30)).unwrap());
    }
    assert_eq!(loaded(&pool), ["a", "b", "pinned"]);
    assert_eq!(world.0.loads.load(SeqCst), 3);
    drop(pool.acquire(&ask("c", 30)).unwrap());
    assert_eq!(loaded(&pool), ["a", "c", "pinned"]);
    drop(pool.acquire(&ask("d", 40)).unwrap());
    assert_eq!(loaded(&pool), ["d", "pinned"], "one more had to go than was needed before");
    drop(pool.acquire(&ask("e", 90)).unwrap());
    assert_eq!(loaded(&pool), ["e"]);
    let refused = pool.acquire(&ask("f", 96)).unwrap_err();
    assert!(matches!(refused, PoolError::Plan(_)), "{refused}");
    assert_eq!(loaded(&pool), ["e"], "nothing goes for what fits nowhere");
}

#[test]
fn the_busy_are_waited_for_and_cannot_keep_others_waiting() {
    let (pool, _) = pool();
    let first = pool.acquire(&ask("a", 60)).unwrap();
    thread::scope(|scope| {
        let other = scope.spawn(|| pool.acquire(&ask("b", 60)).unwrap());
        eventually("a has to go", || pool.shared.lock().entries.iter().any(|each| each.drains));
        let again = scope.spawn(|| pool.acquire(&ask("a", 60)).unwrap());
        eventually("a waits behind it", || pool.shared.lock().waiting() == 2);
        // A model that is loaded and need not go is not held up by that.
        assert_eq!(loaded(&pool), ["a"]);
        drop(first);
        let other = other.join().unwrap();
        assert_eq!(loaded(&pool), ["b"]);
        assert!(!again.is_finished());
        drop(other);
        let again = again.join().unwrap();
        assert_eq!(loaded(&pool), ["a"]);
        drop(again);
    });
}

#[test]
fn models_go_when_their_time_is_over() {
    let (pool, world) = pool();
    let keep = |keep| Ask { keep_alive: Some(keep), ..ask("a", 10) };
    let lease = pool.acquire(&keep(KeepAlive::For(Duration::ZERO))).unwrap();
    assert_eq!(pool.loaded()[0].busy, 1);
    let second = pool.acquire(&ask("a", 10)).unwrap();
    drop(lease);
    assert_eq!(loaded(&pool), ["a"], "somebody asks it still");
    drop(second);
    assert!(pool.loaded().is_empty());
    eventually("memory is back", || world.0.taken_bytes.load(SeqCst) == 0);
    drop(pool.acquire(&keep(KeepAlive::For(Duration::from_millis(30)))).unwrap());
    assert!(pool.loaded()[0].expires.is_some());
    eventually("it goes by itself", || pool.loaded().is_empty());
    drop(pool.acquire(&ask("a", 10)).unwrap());
    assert_eq!(pool.loaded()[0].expires, None);
    assert!(pool.unload("/a-10.gguf") && !pool.unload("/b-10.gguf"));
    assert!(pool.loaded().is_empty());
    let lease = pool.acquire(&ask("a", 10)).unwrap();
    assert!(pool.unload("/a-10.gguf"));
    assert_eq!(loaded(&pool), ["a"], "its reply is not over");
    drop(lease);
    assert!(pool.loaded().is_empty());
}

#[test]
fn other_wishes_load_anew_when_the_replies_are_over() {
    let (pool, world) = pool();
    let with = |tokens| {
        let mut ask = ask("a", 10);
        ask.wishes.context_tokens = Some(tokens);
        ask
    };
    let lease = pool.acquire(&with(1000)).unwrap();
    assert_eq!(pool.acquire(&with(500)).unwrap().info().context_tokens, 1000);
    thread::scope(|scope| {
        let larger = scope.spawn(|| pool.acquire(&with(2000)).unwrap());
        eventually("the larger waits", || pool.shared.lock().waiting() == 1);
        assert_eq!(world.0.loads.load(SeqCst), 1);
        drop(lease);
        assert_eq!(larger.join().unwrap().info().context_tokens, 2000);
    });
    assert_eq!((world.0.loads.load(SeqCst), loaded(&pool).len()), (2, 1));
}

#[test]
fn as_many_models_as_may_be() {
    let (pool, _) = pool_with(PoolOptions { models_max: Some(2), ..options() });
    for name in ["a", "b", "c", "b", "d"] {
        drop(pool.acquire(&ask(name, 1)).unwrap());
        assert!(pool.loaded().len() <= 2);
    }
    assert_eq!(loaded(&pool), ["b", "d"]);
}

#[test]
fn a_full_line_refuses_and_who_goes_away_leaves_it() {
    let (pool, world) = pool_with(PoolOptions { queue_max: 2, ..options() });
    world.0.is_held.store(true, SeqCst);
    let asks = [ask("a", 1), ask("b", 1)];
    thread::scope(|scope| {
        let waiting: Vec<_> =
            asks.iter().map(|ask| scope.spawn(|| pool.acquire(ask).unwrap_err())).collect();
        eventually("both wait", || pool.shared.lock().waiting() == 2);
        let refused = pool.acquire(&ask("c", 1)).unwrap_err();
        assert!(matches!(refused, PoolError::Busy { waiting: 2 }), "{refused}");
        for ask in &asks {
            ask.cancel.cancel();
        }
        for ask in waiting {
            assert!(matches!(ask.join().unwrap(), PoolError::Cancelled));
        }
    });
    // The load that nobody waits for was stopped, though it would not have moved.
    eventually("nothing loads", || !pool.shared.lock().loads);
    world.0.is_held.store(false, SeqCst);
    drop(pool.acquire(&ask("c", 1)).unwrap());
    assert_eq!(loaded(&pool), ["c"]);
}

#[test]
fn what_failed_is_told_to_all_and_not_tried_again_at_once() {
    let (pool, world) = pool();
    world.0.fails.store(true, SeqCst);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let error = pool.acquire(&ask("a", 1)).unwrap_err();
                    assert!(matches!(error, PoolError::Load(_)), "{error}");
                    assert_eq!(error.to_string(), "it is broken");
                }
            });
        }
    });
    assert_eq!(world.0.loads.load(SeqCst), 1, "400 asks");
    world.0.fails.store(false, SeqCst);
    drop(pool.acquire(&ask("b", 1)).unwrap());
    let again = || pool.acquire(&ask("a", 1)).is_ok();
    eventually("it is tried again", again);
}

#[test]
fn a_load_that_stands_still_is_given_up() {
    let load_timeout = Some(Duration::from_millis(30));
    let (pool, world) = pool_with(PoolOptions { load_timeout, ..options() });
    world.0.is_held.store(true, SeqCst);
    let error = pool.acquire(&ask("a", 1)).unwrap_err();
    assert!(matches!(error, PoolError::Stalled { .. }), "{error}");
}

#[test]
fn a_dead_worker_costs_its_replies_and_is_replaced() {
    let (pool, world) = pool();
    let kill = || world.0.lives.lock().unwrap()["/a-60.gguf"].end();
    let lease = pool.acquire(&ask("a", 60)).unwrap();
    let mut heard = 0;
    // A reply that has begun is lost.
    let lost = lease.reply(&say(1000), &Cancel::default(), &mut |_| {
        heard += 1;
        if heard == 3 {
            kill();
        }
        ControlFlow::Continue(())
    });
    assert!(matches!(lost, Err(ChatError::Engine(EngineError::WorkerDied { .. }))));
    assert!(pool.loaded().is_empty());
    // One that has not is made by a fresh worker, though the old one has a lease still.
    let mut text = String::new();
    let done = lease.reply(&say(5), &Cancel::default(), &mut |event| {
        if let Event::Text(new) = event {
            text.push_str(&new);
        }
        ControlFlow::Continue(())
    });
    assert_eq!((done.unwrap().reason, text.as_str()), (Reason::Length, "aaaaa"));
    assert_eq!((world.0.loads.load(SeqCst), loaded(&pool).len()), (2, 1));
    drop(lease);
    kill();
    drop(pool.acquire(&ask("a", 60)).unwrap());
    assert_eq!(world.0.loads.load(SeqCst), 3);
}

#[test]
fn an_end_waits_for_replies_no_longer_than_it_may() {
    let (pool, world) = pool();
    let lease = pool.acquire(&ask("a", 60)).unwrap();
    drop(pool.acquire(&ask("b", 30)).unwrap());
    thread::scope(|scope| {
        let endless = scope.spawn(move || {
            lease.reply(&say(u32::MAX), &Cancel::default(), &mut |_| ControlFlow::Continue(()))
        });
        let waiting = scope.spawn(|| pool.acquire(&ask("c", 90)).unwrap_err());
        eventually("c waits", || pool.shared.lock().waiting() == 1);
        let started = Instant::now();
        let closing = scope.spawn(|| pool.close(Instant::now() + Duration::from_millis(50)));
        assert!(matches!(waiting.join().unwrap(), PoolError::Closed));
        assert!(endless.join().unwrap().is_err());
        closing.join().unwrap();
        assert!(started.elapsed() < DYING_TIME);
    });
    assert_eq!(world.0.taken_bytes.load(SeqCst), 0);
    assert!(matches!(pool.acquire(&ask("a", 60)).unwrap_err(), PoolError::Closed));
}
