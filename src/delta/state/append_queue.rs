//! The appends that wait for a group commit, and who commits the next group.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::error::Result;
use crate::runtime::{environment, lock};

/// Limit on the rows that wait, in KiB. Further callers wait until there is room.
const CAPACITY_KIB: usize = 64 << 10;

/// A group has at most this many rows, and this many KiB.
const GROUP_ROWS: usize = 100_000;
const GROUP_KIB: usize = 32 << 10;

/// How long a leader waits for the callers of the group before to come back, as a part of the time that the last commit took.
const GATHER_PART: f64 = 0.15;
/// Limit on this wait.
const LONGEST_GATHER: Duration = Duration::from_millis(10);

/// The appends that wait.
pub(in crate::delta) struct AppendQueue {
    waiting: Mutex<QueueState>,
    arrived: Condvar,
    pub(in crate::delta) room: Arc<Semaphore>,
}

#[derive(Default)]
struct QueueState {
    appends: VecDeque<QueuedAppend>,
    /// A leader gathers a group or writes its data file.
    has_leader: bool,
    /// The number of callers in the group committed last, and how long its commit took.
    last_size: usize,
    last_took: Duration,
}

/// The rows of one caller.
pub(in crate::delta) struct QueuedAppend {
    pub(in crate::delta) rows: RecordBatch,
    pub(in crate::delta) since: Instant,
    caller: Caller,
    _room: OwnedSemaphorePermit,
}

/// How a caller waits.
pub(in crate::delta) enum Caller {
    Thread(mpsc::Sender<Signal>),
    Task(oneshot::Sender<Result<u64>>),
}

/// What a waiting thread receives.
pub(in crate::delta) enum Signal {
    /// Gather and commit the next group. The thread's own rows are the first in it.
    Lead,
    Committed(Result<u64>),
}

impl Default for AppendQueue {
    fn default() -> Self {
        Self { waiting: Mutex::default(), arrived: Condvar::new(), room: Arc::new(Semaphore::new(CAPACITY_KIB)) }
    }
}

/// The room that `rows` need in the queue.
pub(in crate::delta) fn kib(rows: &RecordBatch) -> u32 {
    let kib = (rows.get_array_memory_size() >> 10).clamp(1, CAPACITY_KIB);
    u32::try_from(kib).unwrap_or(u32::MAX)
}

impl AppendQueue {
    /// Adds `append`. Returns whether the caller has to lead.
    pub(in crate::delta) fn enter(&self, append: QueuedAppend) -> bool {
        let mut waiting = lock(&self.waiting);
        waiting.appends.push_back(append);
        let lead = !std::mem::replace(&mut waiting.has_leader, true);
        if !lead && waiting.appends.len() >= waiting.last_size {
            self.arrived.notify_one();
        }
        lead
    }

    /// Takes the next group, as many appends as fit in one commit. First waits a moment for the callers of the group
    /// before, who were just released and are likely to come back.
    pub(in crate::delta) fn gather(&self) -> Vec<QueuedAppend> {
        let mut waiting = lock(&self.waiting);
        if waiting.appends.len() < waiting.last_size {
            let longest = waiting.last_took.mul_f64(GATHER_PART).min(LONGEST_GATHER);
            let incomplete = |waiting: &mut QueueState| waiting.appends.len() < waiting.last_size;
            waiting =
                self.arrived.wait_timeout_while(waiting, longest, incomplete).unwrap_or_else(PoisonError::into_inner).0;
        }
        let (mut rows, mut size, mut count) = (0, 0, 0);
        for append in &waiting.appends {
            rows += append.rows.num_rows();
            size += kib(&append.rows) as usize;
            if count > 0 && (rows > GROUP_ROWS || size > GROUP_KIB) {
                break;
            }
            count += 1;
        }
        waiting.appends.drain(..count).collect()
    }

    /// Records the size of the group committed last and how long its commit took.
    pub(in crate::delta) fn record(&self, size: usize, took: Duration) {
        let mut waiting = lock(&self.waiting);
        waiting.last_size = size;
        waiting.last_took = took;
    }

    /// Ends the present leader's role and tells the next caller that waits to lead. Returns true if that is a task, which
    /// cannot lead.
    pub(in crate::delta) fn pass_lead(&self) -> bool {
        let mut waiting = lock(&self.waiting);
        loop {
            match waiting.appends.front().map(|append| &append.caller) {
                None => waiting.has_leader = false,
                Some(Caller::Thread(caller)) => {
                    // The receiver is in a thread that waits for it, so this cannot fail.
                    if caller.try_send(Signal::Lead).is_err() {
                        waiting.appends.pop_front();
                        continue;
                    }
                }
                Some(Caller::Task(_)) => return true,
            }
            return false;
        }
    }

    /// Takes all appends that wait, for lack of a leader.
    pub(in crate::delta) fn clear(&self) -> Vec<QueuedAppend> {
        let mut waiting = lock(&self.waiting);
        waiting.has_leader = false;
        waiting.appends.drain(..).collect()
    }
}

impl QueuedAppend {
    pub(in crate::delta) fn new(rows: RecordBatch, caller: Caller, room: OwnedSemaphorePermit) -> Self {
        Self { rows, since: environment().instant(), caller, _room: room }
    }

    /// Tells the caller how the append ended.
    pub(in crate::delta) fn notify(self, outcome: Result<u64>) {
        match self.caller {
            // A task that was cancelled does not listen; its rows stay as they are.
            Caller::Thread(caller) => drop(caller.try_send(Signal::Committed(outcome))),
            Caller::Task(caller) => drop(caller.send(outcome)),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, BinaryArray};
    use arrow::buffer::OffsetBuffer;

    use super::*;

    /// Adds so many rows, which take so many KiB. Returns whether the caller leads.
    fn enter(queue: &AppendQueue, count: usize, size: usize) -> bool {
        let lengths = (0..count).map(|row| if row == 0 { size << 10 } else { 0 });
        let values = BinaryArray::new(OffsetBuffer::from_lengths(lengths), vec![0_u8; size << 10].into(), None);
        let rows = RecordBatch::try_from_iter([("value", Arc::new(values) as ArrayRef)]).unwrap();
        let room = Arc::clone(&queue.room).try_acquire_many_owned(0).unwrap();
        assert!((size..=size + 400).contains(&(kib(&rows) as usize)), "{} for {size}", kib(&rows));
        queue.enter(QueuedAppend::new(rows, Caller::Task(oneshot::channel().0), room))
    }

    /// How many appends share each commit, of appends with so many rows and KiB. The first one leads.
    fn groups(appends: &[(usize, usize)]) -> Vec<usize> {
        let queue = AppendQueue::default();
        let leads: Vec<bool> = appends.iter().map(|(count, size)| enter(&queue, *count, *size)).collect();
        assert!(leads[0] && !leads[1..].contains(&true));
        std::iter::repeat_with(|| queue.gather().len()).take_while(|size| *size > 0).collect()
    }

    #[test]
    fn a_group_has_as_many_appends_as_fit() {
        assert_eq!(groups(&[(GROUP_ROWS / 2, 0); 3]), [2, 1]);
        assert_eq!(groups(&[(1, GROUP_KIB / 2); 3]), [2, 1]);
        // One that does not fit goes alone.
        assert_eq!(groups(&[(1, GROUP_KIB + 1), (1, 1), (GROUP_ROWS + 1, 0), (1, 1), (1, 1)]), [1, 1, 1, 2]);
    }

    #[test]
    fn a_leader_waits_a_moment_for_the_callers_of_the_group_before() {
        let queue = AppendQueue::default();
        queue.record(2, Duration::from_secs(1));
        enter(&queue, 1, 1);
        let started = environment().instant();
        assert_eq!(queue.gather().len(), 1);
        assert!(environment().instant() - started >= LONGEST_GATHER);
    }

    #[test]
    fn appends_that_found_no_leader_are_taken_and_the_next_caller_leads() {
        let queue = AppendQueue::default();
        assert_eq!([enter(&queue, 1, 1), enter(&queue, 1, 1)], [true, false]);
        assert_eq!(queue.clear().len(), 2);
        assert!(enter(&queue, 1, 1));
        assert_eq!(queue.gather().len(), 1);
    }
}
