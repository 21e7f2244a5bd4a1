//! What belongs to the whole process: its tokio runtime, its random numbers, and the work that its end waits for.

use std::cell::Cell;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;

pub(crate) use self::environment::environment;
use crate::error::{Error, ErrorKind, Result};

pub(crate) mod environment;

/// How many threads there are at least beside the workers: one that commits, and those of blocking work, which waits for other blocking work.
const MORE_THREADS: usize = 4;

/// The runtime, and the process that started it. A forked child starts its own, as the parent's threads do not exist there.
static RUNTIME: Mutex<Option<(u32, &'static Runtime)>> = Mutex::new(None);

/// A handle on the process's runtime. The first call in a process starts the runtime.
///
/// # Errors
/// [`ErrorKind::Internal`], retryable, when the operating system refuses threads.
pub fn handle() -> Result<Handle> {
    Ok(runtime()?.handle().clone())
}

/// The process's runtime itself, for callers that need it as long as the process lives.
///
/// # Errors
/// Those of [`handle`].
pub fn runtime() -> Result<&'static Runtime> {
    let mut started = lock(&RUNTIME);
    let pid = std::process::id();
    if let Some((_, runtime)) = started.filter(|(process, _)| *process == pid) {
        return Ok(runtime);
    }
    let build =
        || Builder::new_multi_thread().worker_threads(worker_threads()).enable_all().thread_name("jobrota").build();
    let runtime = try_threads(worker_threads() + MORE_THREADS).and_then(|()| build()).map_err(|e| {
        Error::new(ErrorKind::Internal, "the operating system refused the threads that jobrota needs; try again")
            .with_retryable(true)
            .with_source(e)
    })?;
    // Leaked on purpose: a runtime inherited over fork() must not be dropped, as joining its threads would hang.
    let runtime: &'static Runtime = Box::leak(Box::new(runtime));
    *started = Some((pid, runtime));
    Ok(runtime)
}

/// Runs `future` to completion on the process's runtime. Do not call it from one of the runtime's own threads.
///
/// # Errors
/// Those of [`handle`] and of `future` itself.
pub fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    handle()?.block_on(future)
}

/// Runs blocking `work` (Delta commits and scans) on the runtime's blocking pool.
///
/// # Errors
/// Those of `work`; [`ErrorKind::Internal`] when it panicked.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    in_thread(None, work).await
}

/// As [`blocking`]. With a `name`, the work gets a thread of its own, so that it does not wait for other blocking work.
///
/// # Errors
/// Those of [`blocking`].
pub async fn in_thread<T: Send + 'static>(
    name: Option<&str>,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, outcome) = oneshot::channel();
    environment().start(name, Box::new(move || drop(sender.send(work()))))?;
    outcome
        .await
        .map_err(|e| Error::new(ErrorKind::Internal, "a background task of jobrota ended early").with_source(e))?
}

thread_local! {
    /// The process that seeded this thread's random number generator, or 0.
    static SEEDED_IN: Cell<u32> = const { Cell::new(0) };
}

/// Reseeds this thread's random number generator after a fork. fork() copies the generator, which `rand` does not detect:
/// parent and child would give the same names to different data files and overwrite each other's rows.
///
/// # Errors
/// [`ErrorKind::Internal`], retryable, when the operating system has no randomness to give.
pub fn own_randomness() -> Result<()> {
    let pid = std::process::id();
    if SEEDED_IN.get() == pid {
        return Ok(());
    }
    rand::rng().reseed().map_err(|e| {
        Error::new(ErrorKind::Internal, "the operating system gave no random numbers; try again")
            .with_retryable(true)
            .with_source(e)
    })?;
    SEEDED_IN.set(pid);
    Ok(())
}

/// How much work is in flight in this process.
static IN_FLIGHT: Mutex<usize> = Mutex::new(0);
static NOTHING_IN_FLIGHT: Condvar = Condvar::new();
/// The process that [`IN_FLIGHT`] counts for, or 0 before the first count. A forked child inherits its parent's count, and
/// a thread that does not exist in the child may hold the lock.
static COUNTED_IN: AtomicU32 = AtomicU32::new(0);
/// The process is about to end.
static EXITING: AtomicBool = AtomicBool::new(false);

/// Work that [`drain`] waits for. The work is in flight until this guard is dropped.
pub struct InFlight;

impl InFlight {
    /// Counts one more piece of work.
    pub fn begin() -> Self {
        if COUNTED_IN.load(Ordering::Acquire) == 0 {
            COUNTED_IN.store(std::process::id(), Ordering::Release);
        }
        if COUNTED_IN.load(Ordering::Acquire) == std::process::id() {
            *lock(&IN_FLIGHT) += 1;
        }
        Self
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if COUNTED_IN.load(Ordering::Acquire) != std::process::id() {
            return;
        }
        let mut count = lock(&IN_FLIGHT);
        *count = count.saturating_sub(1);
        if *count == 0 {
            NOTHING_IN_FLIGHT.notify_all();
        }
    }
}

/// Blocks the thread for `duration`, or until the process is about to end.
pub fn sleep_unless_exiting(duration: Duration) {
    const INTERVAL: Duration = Duration::from_millis(5);
    let until = environment().instant() + duration;
    while !EXITING.load(Ordering::Acquire) {
        let left = until.saturating_duration_since(environment().instant());
        if left.is_zero() {
            return;
        }
        environment().block(left.min(INTERVAL));
    }
}

/// Waits until nothing is [`InFlight`] (rows of asynchronous calls, checkpoints, renewals of tokens), at most for `timeout`.
/// Returns whether all work ended. Call it when the process is about to end. A forked child does not wait for the work of
/// its parent.
pub fn drain(timeout: Duration) -> bool {
    if COUNTED_IN.load(Ordering::Acquire) != std::process::id() {
        return true;
    }
    EXITING.store(true, Ordering::Release);
    let count = lock(&IN_FLIGHT);
    let waited = NOTHING_IN_FLIGHT.wait_timeout_while(count, timeout, |count| *count > 0);
    !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
}

/// Locks `mutex`, also after a thread panicked while it held the lock. Use it where no panic leaves the value half-changed.
pub fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    environment().wait_until(&|| !matches!(mutex.try_lock(), Err(TryLockError::WouldBlock)));
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// host:pid of this process.
pub(crate) fn this_process() -> String {
    static HOST: LazyLock<String> = LazyLock::new(|| gethostname::gethostname().to_string_lossy().into_owned());
    format!("{}:{}", *HOST, std::process::id())
}

/// The home directory of the user. An empty `HOME` counts as none: paths below it would be in the working directory.
pub fn home_directory() -> Option<PathBuf> {
    not_empty(std::env::home_dir())
}

fn not_empty(path: Option<PathBuf>) -> Option<PathBuf> {
    path.filter(|path| !path.as_os_str().is_empty())
}

/// Starts `count` threads at the same time, and ends them. Without enough threads, tokio panics, or waits forever.
fn try_threads(count: usize) -> std::io::Result<()> {
    let gate = Mutex::new(());
    let closed = gate.lock();
    std::thread::scope(|threads| {
        let start = |_| std::thread::Builder::new().spawn_scoped(threads, || drop(gate.lock())).map(drop);
        let started = (0..count).try_for_each(start);
        drop(closed);
        started
    })
}

fn worker_threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_home_is_none() {
        assert_eq!(not_empty(Some(PathBuf::new())), None);
        assert_eq!(not_empty(Some(PathBuf::from("/root"))), Some(PathBuf::from("/root")));
        assert_eq!(not_empty(None), None);
    }
}
