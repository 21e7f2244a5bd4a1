//! The process's one tokio runtime, rebuilt in a forked child, where the parent's threads do not exist.

use std::cell::Cell;
use std::sync::Mutex;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::error::{Error, ErrorKind, Result};

struct Owned {
    pid: u32,
    runtime: &'static Runtime,
}

static RUNTIME: Mutex<Option<Owned>> = Mutex::new(None);

/// A handle on the process's runtime, which is started at the first call and again in each forked child.
///
/// # Errors
/// [`ErrorKind::Internal`], retryable, when the operating system refuses threads.
pub fn handle() -> Result<Handle> {
    Ok(runtime()?.handle().clone())
}

/// The process's runtime itself, for those who keep it for the life of the process.
///
/// # Errors
/// Those of [`handle`].
pub fn runtime() -> Result<&'static Runtime> {
    let mut owned = RUNTIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let pid = std::process::id();
    if let Some(owned) = owned.as_ref().filter(|owned| owned.pid == pid) {
        return Ok(owned.runtime);
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(worker_threads())
        .enable_all()
        .thread_name("jobrota")
        .build()
        .map_err(|e| {
            Error::new(ErrorKind::Internal, "the threads that jobrota works with could not be started")
                .with_retryable(true)
                .with_source(e)
        })?;
    // Leaked on purpose: a runtime inherited over fork() must not be dropped, as joining its threads would hang.
    let runtime: &'static Runtime = Box::leak(Box::new(runtime));
    *owned = Some(Owned { pid, runtime });
    Ok(runtime)
}

/// Runs `future` to its end on the process's runtime. Must not be called from one of the runtime's own threads.
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
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::new(ErrorKind::Internal, "a background task of jobrota broke off").with_source(e))?
}

thread_local! {
    /// The process that seeded this thread's random numbers; 0 before.
    static SEEDED_IN: Cell<u32> = const { Cell::new(0) };
}

/// Makes sure that this thread's random numbers are this process's own. Over fork() a thread's generator is copied, and
/// `rand` does not notice: parent and children would name their data files alike and overwrite each other's rows.
///
/// # Errors
/// [`ErrorKind::Internal`], retryable, when the operating system has no randomness to give.
pub fn own_randomness() -> Result<()> {
    let pid = std::process::id();
    if SEEDED_IN.get() == pid {
        return Ok(());
    }
    rand::rng().reseed().map_err(|e| {
        Error::new(ErrorKind::Internal, "the operating system gave no random numbers")
            .with_retryable(true)
            .with_source(e)
    })?;
    SEEDED_IN.set(pid);
    Ok(())
}

fn worker_threads() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8)
}
