//! A request to end running work in order.

use tokio::sync::watch;

/// A request to stop, from any thread. Clones share the request. The default value is not stopped.
#[derive(Debug, Clone)]
pub struct Stop(watch::Sender<bool>);

impl Default for Stop {
    fn default() -> Self {
        Self(watch::channel(false).0)
    }
}

impl Stop {
    /// Requests the stop. A second call has no effect.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Whether the stop was requested.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until the stop is requested.
    pub async fn stopped(&self) {
        // The wait fails only without a sender, and `self` is one.
        let _ = self.subscribe().wait_for(|stopped| *stopped).await;
    }

    /// The output of `work`. None when the stop is requested before that; `work` is dropped then.
    pub async fn unless<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.stopped() => None,
            outcome = work => Some(outcome),
        }
    }

    /// A receiver for code that reads the request repeatedly.
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_ends_when_the_stop_is_requested() {
        let stop = Stop::default();
        let other = stop.clone();
        let waiting = tokio::spawn(async move { other.stopped().await });
        assert!(!stop.is_stopped());
        stop.stop();
        stop.stop();
        waiting.await.unwrap();
        assert_eq!(stop.unless(std::future::ready(1)).await, None);
        assert_eq!(Stop::default().unless(std::future::ready(1)).await, Some(1));
        stop.stopped().await;
        assert!(stop.clone().is_stopped());
    }
}
