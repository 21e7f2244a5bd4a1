//! The token that is used now: fetched once for all who wait, and again before it ends.

use std::sync::Arc;

use chrono::Utc;
use tokio::sync::Mutex;

use super::credential::AccessToken;
use super::fetcher::Fetcher;
use crate::error::Result;

/// Keeps the current token.
#[derive(Debug)]
pub(super) struct Tokens {
    fetcher: Fetcher,
    current: Mutex<Option<Arc<AccessToken>>>,
}

impl Tokens {
    pub(super) fn new(fetcher: Fetcher) -> Self {
        Self { fetcher, current: Mutex::new(None) }
    }

    /// A token that is good for the next request. When renewing fails early, the old one is used while it lasts.
    pub(super) async fn bearer(&self) -> Result<Arc<AccessToken>> {
        let mut current = self.current.lock().await;
        let Some(token) = current.clone() else { return self.fetch(&mut current).await };
        let now = Utc::now();
        if token.renew_at().is_none_or(|at| now < at) {
            return Ok(token);
        }
        match self.fetch(&mut current).await {
            Err(error) if token.expires().is_some_and(|at| now < at) => {
                tracing::warn!(error = error.full_message(), "the Azure token could not be renewed yet");
                Ok(token)
            }
            outcome => outcome,
        }
    }

    /// Another token than `refused`, which Resource Manager did not accept.
    pub(super) async fn renewed(&self, refused: &AccessToken) -> Result<Arc<AccessToken>> {
        let mut current = self.current.lock().await;
        match current.clone() {
            Some(token) if token.text() != refused.text() => Ok(token),
            _ => self.fetch(&mut current).await,
        }
    }

    async fn fetch(&self, current: &mut Option<Arc<AccessToken>>) -> Result<Arc<AccessToken>> {
        let token = Arc::new(self.fetcher.fetch().await?);
        *current = Some(Arc::clone(&token));
        Ok(token)
    }
}
