//! Time, random numbers, threads and waiting: what makes two runs differ. The storage, the tables, the ledger and the delivery have
//! them from here only (`tools/check_modules.py` refuses other ways), so that a simulation can decide all of it by a seed.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use uuid::Uuid;

use super::handle;
use crate::error::{Error, ErrorKind, Result};

/// What makes two runs differ. The defaults are those of the machine.
pub(crate) trait Environment: Sync {
    /// The wall clock. Those of two machines differ, and can be set.
    fn utc(&self) -> DateTime<Utc> {
        Utc::now()
    }

    /// The clock that is never set.
    fn instant(&self) -> Instant {
        Instant::now()
    }

    /// The time since the machine started, sleep included.
    fn since_boot(&self) -> Duration {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or_default())
    }

    /// A random name.
    fn uuid(&self) -> Uuid {
        Uuid::new_v4()
    }

    /// A random number from 0 to below 1.
    fn fraction(&self) -> f64 {
        rand::random_range(0.0..1.0)
    }

    /// Ends after `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }

    /// Blocks this thread.
    fn block(&self, duration: Duration) {
        thread::sleep(duration);
    }

    /// Starts a thread with this name, or `work` on the runtime's threads for blocking work.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`], retryable, when the operating system gives no thread.
    fn start(&self, name: Option<&str>, work: Box<dyn FnOnce() + Send>) -> Result<()> {
        let Some(name) = name else { return handle().map(|runtime| drop(runtime.spawn_blocking(work))) };
        let started = thread::Builder::new().name(name.to_owned()).spawn(work);
        let text = "the operating system gave no thread, so this commit did not begin; try again";
        let refused = |e| Error::new(ErrorKind::Internal, text).with_retryable(true).with_source(e);
        started.map(drop).map_err(refused)
    }

    /// Starts a task on the runtime.
    ///
    /// # Errors
    /// Those of [`handle`].
    fn start_task(&self, task: BoxFuture<'static, ()>) -> Result<()> {
        handle().map(|runtime| drop(runtime.spawn(task)))
    }

    /// Runs `work` in `count` threads, of which this is one, and waits for them. It is in fewer when the operating system gives fewer.
    fn run_threads(&self, count: usize, work: &(dyn Fn() + Sync)) {
        thread::scope(|threads| {
            (1..count).for_each(|_| drop(thread::Builder::new().spawn_scoped(threads, work)));
            work();
        });
    }

    /// Blocks this thread until [`Environment::unpark`].
    fn park(&self) {
        thread::park();
    }

    /// Ends [`Environment::park`] of `thread`.
    fn unpark(&self, thread: &Thread) {
        thread.unpark();
    }

    /// In a simulation, lets other threads go on until `is_ready`. Otherwise the caller blocks.
    fn wait_until(&self, _is_ready: &dyn Fn() -> bool) {}
}

struct Machine;

impl Environment for Machine {}

/// What a process that simulates has instead of the machine.
pub(crate) static SIMULATION: OnceLock<&dyn Environment> = OnceLock::new();

/// The environment of this process.
pub(crate) fn environment() -> &'static dyn Environment {
    *SIMULATION.get().unwrap_or(&(&Machine as _))
}

/// Ends at `until`.
pub(crate) fn sleep_until(until: Instant) -> BoxFuture<'static, ()> {
    environment().sleep(until - environment().instant())
}

/// The output of `work`. None after `limit`; `work` is dropped then.
pub(crate) async fn timeout<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        output = work => Some(output),
        () = environment().sleep(limit) => None,
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        environment().unpark(&self.0);
    }
}

/// Runs `task` on this thread, which blocks meanwhile.
pub(crate) fn wait_for<T: Future>(task: T) -> T::Output {
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut context = Context::from_waker(&waker);
    let mut task = pin!(task);
    loop {
        match task.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => environment().park(),
        }
    }
}
