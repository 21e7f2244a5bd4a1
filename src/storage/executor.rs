//! Runs the futures of a store.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use delta_kernel::{KernelError, KernelResult};
use delta_kernel_default_engine::executor::TaskExecutor;
use delta_kernel_default_engine::executor::tokio::TokioMultiThreadExecutor;
use futures::future::BoxFuture;
use tokio::runtime::{EnterGuard, Handle};

/// Runs futures on the runtime of the process, or on the thread that waits for them.
///
/// A local disk answers immediately. To hand each request to another thread costs several times more than the request.
#[derive(Debug)]
pub(crate) struct Executor {
    runtime: TokioMultiThreadExecutor,
    handle: Handle,
    in_place: bool,
}

impl Executor {
    pub(super) fn new(handle: Handle, in_place: bool) -> Self {
        Self { runtime: TokioMultiThreadExecutor::new(handle.clone()), handle, in_place }
    }

    /// Whether the thread that waits for a request also runs it.
    pub(super) fn is_in_place(&self) -> bool {
        self.in_place
    }
}

impl TaskExecutor for Executor {
    type Guard<'a> = EnterGuard<'a>;

    fn block_on<T>(&self, task: T) -> T::Output
    where
        T: Future + Send + 'static,
        T::Output: Send + 'static,
    {
        if self.in_place { wait_for(task) } else { self.runtime.block_on(task) }
    }

    fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.runtime.spawn(task);
    }

    fn spawn_blocking<T, R>(&self, task: T) -> BoxFuture<'_, KernelResult<R>>
    where
        T: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let task = self.handle.spawn_blocking(task);
        Box::pin(async move { task.await.map_err(KernelError::join_failure) })
    }

    fn enter(&self) -> Self::Guard<'_> {
        self.handle.enter()
    }
}

/// Runs blocking `work` of a store: on a thread for blocking work if the current thread belongs to a runtime, else on the
/// current thread.
///
/// # Errors
/// The errors of `work`, and an error if it panics.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> object_store::Result<T> + Send + 'static,
) -> object_store::Result<T> {
    match Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await?,
        Err(_) => work(),
    }
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait_for<T: Future>(task: T) -> T::Output {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut task = pin!(task);
    loop {
        match task.as_mut().poll(&mut context) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
