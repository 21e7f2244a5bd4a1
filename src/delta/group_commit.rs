//! Group commit: everyone who appends to a table at the same moment shares one data file and one commit.
//!
//! There is no thread of its own. Whoever finds nobody gathering becomes the leader: takes all rows that wait, writes
//! them to one file and commits it. As soon as it is this file's turn to commit, the next one who waits gathers the next
//! group, so that one group's data file is written while the group before is committed. A caller returns when its own
//! rows are durable or known to have failed, so that nothing is left behind when a process ends.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::schema;
use super::shared::Inner;
use crate::error::{Error, ErrorKind, Result};

/// Rows that wait to be committed, in KiB; who brings more waits until there is room.
const QUEUE_KIB: usize = 64 << 10;

/// A group is closed when it has this many rows or KiB, whichever comes first.
const GROUP_ROWS: usize = 100_000;
const GROUP_KIB: usize = 32 << 10;

/// Who waits longest for company: this part of the time that the last commit took, and never longer than the second
/// figure. The callers whom a commit has just released come back within this time.
const GATHER_PART: f64 = 0.15;
const LONGEST_GATHER: Duration = Duration::from_millis(10);

/// The rows that wait, and who is gathering them.
pub(super) struct Group {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct Waiting {
    entries: VecDeque<Entry>,
    /// Somebody is gathering or writing a data file.
    led: bool,
    /// Callers in the group that was committed last, and how long its commit took.
    last_size: usize,
    last_took: Duration,
}

/// The rows of one caller.
struct Entry {
    rows: RecordBatch,
    since: Instant,
    caller: Caller,
    _room: OwnedSemaphorePermit,
}

enum Caller {
    Thread(SyncSender<Told>),
    Task(oneshot::Sender<Result<u64>>),
}

/// What a waiting thread is told.
enum Told {
    /// Gather and commit the next group; your rows are the first in it.
    Lead,
    Ended(Result<u64>),
}

impl Default for Group {
    fn default() -> Self {
        Self { waiting: Mutex::default(), arrived: Condvar::new(), room: Arc::new(Semaphore::new(QUEUE_KIB)) }
    }
}

/// Appends `rows` together with whatever else is waiting; returns the version in which they are.
pub(super) fn append(table: &Arc<Inner>, rows: &RecordBatch) -> Result<u64> {
    // Refused here in a forked child, whose parent's leader would never come.
    table.storage.engine()?;
    let rows = fitting(table, rows)?;
    let permits = kib(&rows);
    let room = match Arc::clone(&table.group.room).try_acquire_many_owned(permits) {
        Ok(room) => room,
        Err(_) => {
            let room = Arc::clone(&table.group.room);
            table.storage.block_on(async move { room.acquire_many_owned(permits).await })?.map_err(closed)?
        }
    };
    let (sender, told) = sync_channel(2);
    let lead = table.group.enter(Entry { rows, since: Instant::now(), caller: Caller::Thread(sender), _room: room });
    if lead {
        lead_next(table);
    }
    wait_for(table, &told)
}

fn wait_for(table: &Arc<Inner>, told: &Receiver<Told>) -> Result<u64> {
    loop {
        match told.recv() {
            Ok(Told::Lead) => lead_next(table),
            Ok(Told::Ended(outcome)) => return outcome,
            Err(_) => return Err(broke_off()),
        }
    }
}

/// Like [`append`], for tasks: no thread waits.
pub(super) async fn append_async(table: &Arc<Inner>, rows: &RecordBatch) -> Result<u64> {
    table.storage.engine()?;
    let rows = fitting(table, rows)?;
    let room = Arc::clone(&table.group.room).acquire_many_owned(kib(&rows)).await.map_err(closed)?;
    let (sender, told) = oneshot::channel();
    let under_way = UnderWay::one();
    if table.group.enter(Entry { rows, since: Instant::now(), caller: Caller::Task(sender), _room: room }) {
        lead_in_background(table);
    }
    let outcome = told.await.unwrap_or_else(|_| Err(broke_off()));
    drop(under_way);
    outcome
}

/// The rows in the table's present shape: what does not fit is refused here, before it shares a commit with others.
fn fitting(table: &Inner, rows: &RecordBatch) -> Result<RecordBatch> {
    schema::align(rows, &table.schema()?)
}

fn kib(rows: &RecordBatch) -> u32 {
    let kib = (rows.get_array_memory_size() >> 10).clamp(1, QUEUE_KIB);
    u32::try_from(kib).unwrap_or(u32::MAX)
}

fn closed(e: tokio::sync::AcquireError) -> Error {
    Error::new(ErrorKind::Internal, "the queue of rows to be written is closed").with_source(e)
}

fn broke_off() -> Error {
    Error::new(
        ErrorKind::Internal,
        "the commit that these rows were part of broke off; look whether they are in the table before trying again",
    )
}

impl Group {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `entry` in the queue. Whether the caller is to lead.
    fn enter(&self, entry: Entry) -> bool {
        let mut waiting = self.lock();
        waiting.entries.push_back(entry);
        let lead = !std::mem::replace(&mut waiting.led, true);
        if !lead && waiting.entries.len() >= waiting.last_size {
            self.arrived.notify_one();
        }
        lead
    }

    /// The rows that wait, as many as one commit takes. Waits a moment for callers who are likely to come: those of the
    /// group before, who have just been released.
    fn gather(&self) -> Vec<Entry> {
        let mut waiting = self.lock();
        if waiting.entries.len() < waiting.last_size {
            let longest = waiting.last_took.mul_f64(GATHER_PART).min(LONGEST_GATHER);
            let company = |waiting: &mut Waiting| waiting.entries.len() < waiting.last_size;
            waiting =
                self.arrived.wait_timeout_while(waiting, longest, company).unwrap_or_else(PoisonError::into_inner).0;
        }
        let (mut rows, mut size, mut count) = (0, 0, 0);
        for entry in &waiting.entries {
            rows += entry.rows.num_rows();
            size += kib(&entry.rows) as usize;
            if count > 0 && (rows > GROUP_ROWS || size > GROUP_KIB) {
                break;
            }
            count += 1;
        }
        waiting.entries.drain(..count).collect()
    }

    fn remember(&self, size: usize, took: Duration) {
        let mut waiting = self.lock();
        waiting.last_size = size;
        waiting.last_took = took;
    }
}

/// Leadership. Given to the next one who waits when it is no longer needed, whatever happens.
struct Lead<'a> {
    table: &'a Arc<Inner>,
    held: bool,
}

impl Lead<'_> {
    fn pass_on(&mut self) {
        if !std::mem::replace(&mut self.held, false) {
            return;
        }
        let mut waiting = self.table.group.lock();
        loop {
            match waiting.entries.front().map(|entry| &entry.caller) {
                None => waiting.led = false,
                Some(Caller::Thread(caller)) => {
                    // The receiver is in a thread that waits for it: it cannot be gone.
                    if caller.try_send(Told::Lead).is_err() {
                        waiting.entries.pop_front();
                        continue;
                    }
                }
                Some(Caller::Task(_)) => {
                    drop(waiting);
                    lead_in_background(self.table);
                    return;
                }
            }
            return;
        }
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        self.pass_on();
    }
}

/// In a thread that is none of a runtime's: there, requests to a local disk would be handed around between threads.
fn lead_in_background(table: &Arc<Inner>) {
    let leader = Arc::clone(table);
    let started = thread::Builder::new().name("jobrota-commit".to_owned()).spawn(move || lead_next(&leader));
    if let Err(e) = started {
        let mut waiting = table.group.lock();
        waiting.led = false;
        let left: Vec<Entry> = waiting.entries.drain(..).collect();
        drop(waiting);
        let error = Error::new(
            ErrorKind::Internal,
            "the operating system gave no thread to commit in; nothing was written, try again",
        );
        let error = error.with_retryable(true).with_source(e);
        for entry in left {
            tell(entry, Err(error.clone()));
        }
    }
}

/// Gathers one group, commits it and tells its callers.
fn lead_next(table: &Arc<Inner>) {
    let mut lead = Lead { table, held: true };
    let group = table.group.gather();
    if group.is_empty() {
        return;
    }
    let started = Instant::now();
    let outcome = commit(table, &group, &mut lead);
    table.group.remember(group.len(), started.elapsed());
    drop(lead);
    match outcome {
        // One caller's rows may be what is wrong: each is tried alone, so that the error reaches exactly its caller.
        Err(error) if group.len() > 1 && error.kind() == ErrorKind::InvalidInput => {
            for entry in group {
                let alone = table.append_now(&entry.rows, entry.since, &mut || {});
                tell(entry, alone);
            }
        }
        outcome => {
            for entry in group {
                tell(entry, outcome.clone());
            }
        }
    }
}

fn commit(table: &Arc<Inner>, group: &[Entry], lead: &mut Lead<'_>) -> Result<u64> {
    let Some(first) = group.first() else { return Ok(table.known().version()) };
    let since = group.iter().map(|entry| entry.since).min().unwrap_or(first.since);
    let together: Vec<RecordBatch> = group.iter().map(|entry| entry.rows.clone()).collect();
    // The table's columns may have changed between two callers.
    let rows = match together.iter().all(|rows| rows.schema_ref() == first.rows.schema_ref()) {
        true => schema::concat(first.rows.schema_ref(), &together)?,
        false => return Err(Error::invalid("the table's columns changed while these rows waited; log them again")),
    };
    table.append_now(&rows, since, &mut || lead.pass_on())
}

fn tell(entry: Entry, outcome: Result<u64>) {
    match entry.caller {
        // Nobody listens any more only when a task was cancelled: its rows are as they are.
        Caller::Thread(caller) => drop(caller.try_send(Told::Ended(outcome))),
        Caller::Task(caller) => drop(caller.send(outcome)),
    }
}

/// What is under way in this process.
static UNDER_WAY: Mutex<usize> = Mutex::new(0);
static NOTHING_UNDER_WAY: Condvar = Condvar::new();
/// The process that the count is about; 0 while nothing was ever under way. In a forked child the count is its parent's,
/// and the lock may be held by a thread that does not exist.
static COUNTED_IN: AtomicU32 = AtomicU32::new(0);

/// Counts as work that a process should not leave behind, while it lives.
pub struct UnderWay;

impl UnderWay {
    /// One piece of work; it is over when this is dropped.
    pub fn one() -> Self {
        if COUNTED_IN.load(Ordering::Acquire) == 0 {
            COUNTED_IN.store(std::process::id(), Ordering::Release);
        }
        if COUNTED_IN.load(Ordering::Acquire) == std::process::id() {
            *UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        }
        Self
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if COUNTED_IN.load(Ordering::Acquire) != std::process::id() {
            return;
        }
        let mut count = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
        *count = count.saturating_sub(1);
        if *count == 0 {
            NOTHING_UNDER_WAY.notify_all();
        }
    }
}

/// The process is about to end: nobody rests any more.
static LEAVING: AtomicBool = AtomicBool::new(false);

/// Rests for so long, or until the process is about to end.
pub(super) fn pause(longest: Duration) {
    const LOOK: Duration = Duration::from_millis(5);
    let until = Instant::now() + longest;
    while !LEAVING.load(Ordering::Acquire) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::sleep(left.min(LOOK));
    }
}

/// Waits until nothing that counts as [`UnderWay`] is (rows of asynchronous calls, checkpoints, renewals of tokens), but not
/// longer than `longest`. To be called when the process is about to end. Whether all was done. A process that was forked
/// from one that had used a table does not wait.
pub fn drain(longest: Duration) -> bool {
    if COUNTED_IN.load(Ordering::Acquire) != std::process::id() {
        return true;
    }
    LEAVING.store(true, Ordering::Release);
    let count = UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = NOTHING_UNDER_WAY.wait_timeout_while(count, longest, |count| *count > 0);
    !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
}
