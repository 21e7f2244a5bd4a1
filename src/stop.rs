//! Asking what is under way to come to an orderly end.

use tokio::sync::watch;

/// A request to stop, which may come from any thread. Clones are the same request. The default has not been made yet.
#[derive(Debug, Clone)]
pub struct Stop(watch::Sender<bool>);

impl Default for Stop {
    fn default() -> Self {
        Self(watch::channel(false).0)
    }
}

impl Stop {
    /// Asks to stop. Doing it again does nothing.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was asked.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }

    /// Ends once it is asked.
    pub async fn stopped(&self) {
        // An error would mean that no sender is left, but this is one.
        let _ = self.subscribe().wait_for(|stopped| *stopped).await;
    }

    /// What `work` gives; none, and `work` is dropped, once it is asked to stop.
    pub async fn unless<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.stopped() => None,
            outcome = work => Some(outcome),
        }
    }

    /// For those who look at the request again and again.
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_told_once_it_is_asked() {
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
