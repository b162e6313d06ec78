//! Everything at once, thousands of times: asks of all kinds, departures, deaths.

use super::*;

/// Threads that ask.
const THREADS: u32 = 8;

/// Asks of each.
const TURNS: u32 = 300;

/// Models and their GiB: all together take three times the memory.
const MODELS: [(&str, u64); 7] =
    [("a", 60), ("b", 50), ("c", 50), ("d", 40), ("e", 30), ("f", 30), ("g", 20)];

/// One of a row of numbers that look like chance.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// One turn of one who asks: waits, maybe goes away, maybe has something said, maybe kills the worker.
fn act(pool: &Pool, world: &World, random: &mut dyn FnMut() -> u64) {
    let (name, gib) = MODELS[(random() % 7) as usize];
    let mut ask = ask(name, gib);
    ask.wishes.context_tokens = [None, None, Some(1000), Some(2000)][(random() % 4) as usize];
    ask.keep_alive = match random() % 5 {
        0 => Some(KeepAlive::For(Duration::ZERO)),
        1 => Some(KeepAlive::For(Duration::from_millis(3))),
        2 => Some(KeepAlive::Forever),
        _ => None,
    };
    let patience = (random().is_multiple_of(4)).then(|| Duration::from_millis(random() % 5));
    thread::scope(|scope| {
        if let Some(patience) = patience {
            scope.spawn(move || thread::sleep(patience));
            let cancel = ask.cancel.clone();
            scope.spawn(move || {
                thread::sleep(patience);
                cancel.cancel();
            });
        }
        match pool.acquire(&ask) {
            Ok(lease) => {
                let wish = ask.wishes.context_tokens.unwrap_or(0);
                assert!(lease.info().context_tokens >= wish);
                if random().is_multiple_of(20) {
                    lease.runner().kill();
                }
                let said = lease.reply(&say((random() % 4 + 1) as u32), &ask.cancel, &mut |_| {
                    ControlFlow::Continue(())
                });
                let is_dead =
                    matches!(said, Err(ChatError::Engine(EngineError::WorkerDied { .. })));
                assert!(said.is_ok() || is_dead, "{said:?}");
            }
            Err(PoolError::Cancelled) => assert!(patience.is_some()),
            Err(error) => panic!("{error}"),
        }
        if random().is_multiple_of(50) {
            pool.unload(&ask.name);
        }
    });
    assert!(world.0.taken_bytes.load(SeqCst) <= MEMORY_BYTES);
}

#[test]
fn nothing_is_lost_in_thousands_of_asks() {
    let (pool, world) = pool();
    thread::scope(|scope| {
        for index in 0..THREADS {
            let (pool, world) = (&pool, &world);
            scope.spawn(move || {
                let mut state = u64::from(index) + 7;
                for _ in 0..TURNS {
                    act(pool, world, &mut || random(&mut state));
                }
            });
        }
    });
    {
        let state = pool.shared.lock();
        assert_eq!(state.waiting(), 0);
        assert!(state.entries.iter().all(|entry| entry.leases == 0));
    }
    assert!(world.0.loads.load(SeqCst) > 100, "models had to make room");
    pool.close(Instant::now() + Duration::from_secs(5));
    assert_eq!(world.0.taken_bytes.load(SeqCst), 0);
}
