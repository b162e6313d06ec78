//! Requests that wait for a slot: in turn by client, in order within a client.

use std::collections::VecDeque;

use super::slot::Task;
use crate::engine::frames::Failure;

/// A bounded queue in which a client with many requests does not hold up one with few.
#[derive(Debug)]
pub(super) struct Queue {
    /// Clients in the order of their turns; none without requests.
    clients: VecDeque<(u64, VecDeque<Task>)>,
    limit: usize,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        Self { clients: VecDeque::new(), limit }
    }

    pub(super) fn len(&self) -> usize {
        self.clients.iter().map(|(_, tasks)| tasks.len()).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }

    pub(super) fn calls(&self) -> impl Iterator<Item = u64> + '_ {
        self.clients.iter().flat_map(|(_, tasks)| tasks).map(|task| task.call)
    }

    /// Adds a request behind the others of its client.
    pub(super) fn push(&mut self, client: u64, task: Task) -> Result<(), Failure> {
        let waiting = self.len();
        if waiting >= self.limit {
            return Err(Failure::Busy { waiting });
        }
        match self.clients.iter_mut().find(|(known, _)| *known == client) {
            Some((_, tasks)) => tasks.push_back(task),
            None => self.clients.push_back((client, VecDeque::from([task]))),
        }
        Ok(())
    }

    /// The next request; its client goes to the end of the line.
    pub(super) fn pop(&mut self) -> Option<Task> {
        let (client, mut tasks) = self.clients.pop_front()?;
        let task = tasks.pop_front();
        if !tasks.is_empty() {
            self.clients.push_back((client, tasks));
        }
        task
    }

    /// Marks a request as cancelled.
    pub(super) fn cancel(&mut self, call: u64) {
        for task in self.clients.iter_mut().flat_map(|(_, tasks)| tasks) {
            task.cancelled |= task.call == call;
        }
    }

    /// Takes out the requests that were cancelled while they waited.
    pub(super) fn take_cancelled(&mut self) -> Vec<Task> {
        let mut taken = Vec::new();
        for (_, tasks) in &mut self.clients {
            let (cancelled, kept) = tasks.drain(..).partition(|task| task.cancelled);
            *tasks = kept;
            taken.extend::<VecDeque<Task>>(cancelled);
        }
        self.clients.retain(|(_, tasks)| !tasks.is_empty());
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::measure::Measure;
    use super::super::slot::Work;
    use super::*;

    fn task(call: u64) -> Task {
        let work = Work::Measure(Box::new(Measure::scores(1)));
        Task::new(call, Vec::new(), Instant::now(), work)
    }

    fn drain(queue: &mut Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop()).map(|task| task.call).collect()
    }

    #[test]
    fn clients_take_turns() {
        let mut queue = Queue::new(10);
        for (client, call) in [(7, 1), (7, 2), (7, 3), (8, 4), (9, 5), (8, 6)] {
            queue.push(client, task(call)).unwrap();
        }
        assert_eq!(drain(&mut queue), [1, 4, 5, 2, 6, 3]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_full_queue_refuses_and_loses_nothing() {
        let mut queue = Queue::new(2);
        queue.push(1, task(1)).unwrap();
        queue.push(2, task(2)).unwrap();
        assert_eq!(queue.push(3, task(3)), Err(Failure::Busy { waiting: 2 }));
        assert_eq!(drain(&mut queue), [1, 2]);
    }

    #[test]
    fn what_was_cancelled_leaves() {
        let mut queue = Queue::new(10);
        for call in 1..=4 {
            queue.push(call % 2, task(call)).unwrap();
        }
        queue.cancel(2);
        queue.cancel(3);
        queue.cancel(99);
        let mut taken: Vec<u64> = queue.take_cancelled().iter().map(|task| task.call).collect();
        taken.sort_unstable();
        assert_eq!(taken, [2, 3]);
        assert_eq!((queue.len(), drain(&mut queue)), (2, vec![1, 4]));
    }
}
