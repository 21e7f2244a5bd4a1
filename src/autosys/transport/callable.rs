//! A function of the user as a transport.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::OptionFuture;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{Delivery, Gate, SendOutcome, SendResult, Transport};

/// Its name in the attempts table.
pub(crate) const CALLABLE: &str = "callable";
/// How long a call can take, if no other limit is given.
pub const SEND_TIMEOUT: Duration = Duration::from_secs(600);

/// The function. It sends nothing if the gate is closed when the call begins.
pub type SendFunction = dyn Fn(&Delivery, &Gate) -> SendOutcome + Send + Sync;

/// A blocking function as transport, which runs on the runtime's blocking threads. It maps statuses to events itself.
///
/// A refusal is never permanent, because its meaning is unknown here: the row is tried again in every cycle until
/// `max_attempts`, if that is set.
pub struct Callable {
    function: Arc<SendFunction>,
    /// Locked during a call, for functions that must not be called from two threads at once.
    serial: Option<Arc<Mutex<()>>>,
    time_limit: Duration,
}

impl Callable {
    /// Wraps `function`, which is called one at a time unless `thread_safe`. A call that takes longer than `time_limit` goes on, and
    /// leaves its row in doubt.
    pub fn new(function: Arc<SendFunction>, thread_safe: bool, time_limit: Duration) -> Self {
        Self { function, serial: (!thread_safe).then(Arc::default), time_limit }
    }
}

#[async_trait]
impl Transport for Callable {
    fn name(&self) -> &str {
        CALLABLE
    }

    fn time_limit(&self) -> Option<Duration> {
        Some(self.time_limit)
    }

    fn max_batches(&self) -> usize {
        if self.serial.is_some() { 1 } else { usize::MAX }
    }

    async fn send(&self, delivery: &Delivery, gate: &Gate) -> SendResult {
        let turn = self.serial.clone().map(|serial| timeout(self.time_limit, serial.lock_owned()));
        // Else the call before does not return.
        let Ok(guard) = OptionFuture::from(turn).await.transpose() else { return SendOutcome::NotTried.into() };
        let (function, delivery, gate) = (Arc::clone(&self.function), delivery.clone(), gate.clone());
        let is_over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&is_over);
        let gate = Gate::new(move || gate.is_open() && !ended.load(Ordering::SeqCst));
        let mut call = spawn_blocking(move || {
            // Moved in, so that the next call waits for this one also when the caller stops waiting.
            let _guard = guard;
            function(&delivery, &gate)
        });
        match timeout(self.time_limit, &mut call).await {
            Ok(answer) => answer.unwrap_or_else(|_| SendOutcome::unknown("the callable panicked")).into(),
            Err(_) => {
                // A call that has not begun never does.
                is_over.store(true, Ordering::SeqCst);
                call.abort();
                let seconds = self.time_limit.as_secs_f64();
                SendOutcome::unknown(format!("the callable did not return within {seconds} s (send_timeout)")).into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    impl Callable {
        /// A callable that AutoSys answers with `function`.
        pub(crate) fn answering(
            function: impl Fn(&str, &str, &str) -> Result<bool, String> + Send + Sync + 'static,
            thread_safe: bool,
        ) -> Self {
            let outcome = move |sent: &Delivery, _: &Gate| match function(&sent.file_name, &sent.job_id, &sent.status) {
                Ok(true) => SendOutcome::Delivered { detail: None },
                Ok(false) => SendOutcome::transient("refused"),
                Err(reason) => SendOutcome::transient(reason),
            };
            Self::new(Arc::new(outcome), thread_safe, SEND_TIMEOUT)
        }
    }

    fn delivery(job: &str) -> Delivery {
        Delivery { file_name: "f $(x)".into(), job_id: job.into(), status: "SUCCESS".into() }
    }

    #[tokio::test]
    async fn the_answer_is_the_outcome() {
        let callable = Callable::answering(
            |file, job, status| {
                assert_eq!((file, status), ("f $(x)", "SUCCESS"));
                match job {
                    "yes" => Ok(true),
                    "no" => Ok(false),
                    "panic" => panic!("on purpose"),
                    _ => Err("ValueError: down".to_owned()),
                }
            },
            false,
        );
        assert_eq!(
            callable.send(&delivery("yes"), &Gate::open()).await.outcome,
            SendOutcome::Delivered { detail: None }
        );
        assert!(matches!(
            callable.send(&delivery("no"), &Gate::open()).await.outcome,
            SendOutcome::Failed { permanent: false, .. }
        ));
        assert_eq!(
            callable.send(&delivery("raise"), &Gate::open()).await.outcome,
            SendOutcome::transient("ValueError: down")
        );
        assert!(matches!(callable.send(&delivery("panic"), &Gate::open()).await.outcome, SendOutcome::Unknown { .. }));
        // A call that panicked does not block the next one.
        assert_eq!(
            callable.send(&delivery("yes"), &Gate::open()).await.outcome,
            SendOutcome::Delivered { detail: None }
        );
    }

    #[tokio::test]
    async fn called_one_at_a_time_unless_thread_safe() {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (running_now, most_seen) = (Arc::clone(&running), Arc::clone(&most));
        let callable = Callable::answering(
            move |_, _, _| {
                most_seen.fetch_max(running_now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::yield_now();
                running_now.fetch_sub(1, Ordering::SeqCst);
                Ok(true)
            },
            false,
        );
        let deliveries: Vec<_> = (0..32).map(|i| delivery(&format!("j{i}"))).collect();
        let gate = Gate::open();
        futures::future::join_all(deliveries.iter().map(|d| callable.send(d, &gate))).await;
        assert_eq!(most.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_call_that_does_not_return_is_in_doubt_and_the_next_one_is_not_made() {
        let (release, held) = std::sync::mpsc::channel::<()>();
        let (held, calls) = (std::sync::Mutex::new(held), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&calls);
        let hang = move |_: &Delivery, _: &Gate| {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = held.lock().unwrap().recv();
            SendOutcome::Delivered { detail: None }
        };
        let callable = Callable::new(Arc::new(hang), false, Duration::from_millis(20));
        let first = callable.send(&delivery("a"), &Gate::open()).await.outcome;
        assert!(matches!(&first, SendOutcome::Unknown { detail } if detail.contains("send_timeout")), "{first:?}");
        assert_eq!(callable.send(&delivery("b"), &Gate::open()).await.outcome, SendOutcome::NotTried);
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        drop(release);
    }

    #[tokio::test]
    async fn a_thread_safe_callable_is_called_at_the_same_time() {
        // Ends only when two calls are inside at once.
        let both = Barrier::new(2);
        let callable = Callable::answering(
            move |_, _, _| {
                both.wait();
                Ok(true)
            },
            true,
        );
        let (a, b) = (delivery("a"), delivery("b"));
        let gate = Gate::open();
        let answers = tokio::join!(callable.send(&a, &gate), callable.send(&b, &gate));
        assert_eq!(answers.0, answers.1);
    }
}
