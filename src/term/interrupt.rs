//! Ctrl-C (and SIGTERM, SIGHUP): the first asks the running work to stop cleanly, the second ends the process.
//!
//! Work either polls [`requested`] or registers what to do with [`on_request`] (a reply being generated, whose worker has
//! to be told at once even when no token is arriving).

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Exit status of an interrupted command (128 + SIGINT), as shells expect.
pub const EXIT_STATUS: u8 = 130;

type Action = Box<dyn Fn() + Send>;

static REQUESTED: AtomicBool = AtomicBool::new(false);
static ACTION: Mutex<Option<Action>> = Mutex::new(None);

/// Installs the handler; called once by the command line.
pub fn install() {
    // It fails only when a handler is already there; then that one stays in charge.
    let _ = ctrlc::set_handler(|| {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            #[expect(
                clippy::exit,
                reason = "the person asked twice: end now, whatever is running"
            )]
            std::process::exit(i32::from(EXIT_STATUS));
        }
        if let Ok(action) = ACTION.lock()
            && let Some(action) = action.as_ref()
        {
            action();
        }
    });
}

/// Whether somebody has asked to stop since the last [`clear`].
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}

/// Forgets a request that has been honoured: an interactive session goes on after a reply was stopped.
pub fn clear() {
    REQUESTED.store(false, Ordering::SeqCst);
}

/// Runs `action` when the person asks to stop, until the returned guard is dropped.
pub fn on_request(action: impl Fn() + Send + 'static) -> Guard {
    if let Ok(mut slot) = ACTION.lock() {
        *slot = Some(Box::new(action));
    }
    Guard
}

/// Waits until the person asks to stop.
pub fn wait() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let guard = on_request(move || {
        let _ = sender.send(());
    });
    // Asked for before the action was in place: there is nothing to wait for.
    if !requested() {
        let _ = receiver.recv();
    }
    drop(guard);
}

/// Keeps an action of [`on_request`] in place.
#[derive(Debug)]
pub struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        if let Ok(mut slot) = ACTION.lock() {
            *slot = None;
        }
    }
}
