//! Threads that read slices of experts: what is needed now before what will probably be needed.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::engine::llama::{Overlay, Span, Staging};

/// A slice to read.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) expert: usize,
    pub(super) part: usize,
    pub(super) span: Span,
    pub(super) room: Staging,
    /// Pages at the slice's ends that it shares with its neighbours: they stay the file's.
    pub(super) ends: Option<[Span; 2]>,
}

/// A slice that was read, or not.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) expert: usize,
    pub(super) part: usize,
    pub(super) result: io::Result<()>,
}

#[derive(Debug, Default)]
struct Queue {
    now: VecDeque<Job>,
    soon: VecDeque<Job>,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    arrived: Condvar,
}

/// The threads and what they wait for.
#[derive(Debug)]
pub(super) struct Pool {
    shared: Arc<Shared>,
    done: Receiver<Done>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts threads that read for an overlay.
    pub(super) fn start(overlay: &Arc<Overlay>, threads: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (sender, done) = channel();
        let mut pool = Self { shared, done, threads: Vec::new() };
        for _ in 0..threads {
            let (shared, overlay) = (Arc::clone(&pool.shared), Arc::clone(overlay));
            let sender = sender.clone();
            let body = move || read_all(&shared, &overlay, &sender);
            pool.threads.push(thread::Builder::new().name("experts".to_owned()).spawn(body)?);
        }
        Ok(pool)
    }

    /// Adds slices: needed now, or soon.
    pub(super) fn add(&self, jobs: impl IntoIterator<Item = Job>, is_needed_now: bool) {
        let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let side = if is_needed_now { &mut queue.now } else { &mut queue.soon };
        side.extend(jobs);
        drop(queue);
        self.shared.arrived.notify_all();
    }

    /// What was guessed is needed now.
    pub(super) fn hurry(&self, expert: usize) {
        let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = std::mem::take(&mut queue.soon);
        for job in waiting {
            if job.expert == expert { queue.now.push_back(job) } else { queue.soon.push_back(job) }
        }
    }

    /// Takes back the slices of experts that were guessed wrong, when none of an expert's `parts`
    /// slices has been begun.
    pub(super) fn cancel(
        &self,
        is_wrong: impl Fn(usize) -> bool,
        parts: impl Fn(usize) -> usize,
    ) -> Vec<Job> {
        let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.soon.is_empty() {
            return Vec::new();
        }
        let waiting = std::mem::take(&mut queue.soon);
        let of = |expert: usize| waiting.iter().filter(|job| job.expert == expert).count();
        let taken: Vec<bool> = waiting
            .iter()
            .map(|job| is_wrong(job.expert) && of(job.expert) == parts(job.expert))
            .collect();
        let (mut cancelled, mut kept) = (Vec::new(), VecDeque::new());
        for (job, is_taken) in waiting.into_iter().zip(taken) {
            if is_taken { cancelled.push(job) } else { kept.push_back(job) }
        }
        queue.soon = kept;
        cancelled
    }

    /// The next slice that was read, if one is there.
    pub(super) fn poll(&self) -> Option<Done> {
        self.done.try_recv().ok()
    }

    /// Waits for the next slice. None when no thread is left.
    pub(super) fn wait(&self) -> Option<Done> {
        self.done.recv().ok()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.is_closed = true;
        queue.now.clear();
        queue.soon.clear();
        drop(queue);
        self.shared.arrived.notify_all();
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to clean up.
            let _ = thread.join();
        }
    }
}

fn read_all(shared: &Shared, overlay: &Overlay, sender: &Sender<Done>) {
    loop {
        let mut queue = shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let job = loop {
            if queue.is_closed {
                return;
            }
            if let Some(job) = queue.now.pop_front() {
                break job;
            }
            if let Some(job) = queue.soon.pop_front() {
                break job;
            }
            queue = shared.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        };
        drop(queue);
        let Job { expert, part, span, mut room, ends } = job;
        let result = overlay.load(span, &mut room);
        overlay.leave(room);
        for end in ends.into_iter().flatten() {
            // Without the right to lock, these few pages come and go as the kernel likes.
            let _ = overlay.lock(end);
        }
        if sender.send(Done { expert, part, result }).is_err() {
            return;
        }
    }
}
