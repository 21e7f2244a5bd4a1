//! The current token: fetched once for all callers, and again before it expires.

use std::sync::Arc;

use chrono::Utc;
use tokio::sync::Mutex;

use super::credential::AccessToken;
use super::token_fetcher::TokenFetcher;
use crate::error::Result;

/// Holds the current token.
#[derive(Debug)]
pub(super) struct TokenCache {
    fetcher: TokenFetcher,
    current: Mutex<Option<Arc<AccessToken>>>,
}

impl TokenCache {
    pub(super) fn new(fetcher: TokenFetcher) -> Self {
        Self { fetcher, current: Mutex::new(None) }
    }

    /// A token for the next request, other than the one that Resource Manager `refused`. When an early renewal fails, the
    /// old token is used until it expires.
    pub(super) async fn token(&self, refused: Option<&AccessToken>) -> Result<Arc<AccessToken>> {
        let mut current = self.current.lock().await;
        let now = Utc::now();
        let usable = current.clone().filter(|token| refused.is_none_or(|refused| refused.text() != token.text()));
        let is_fresh = |token: &AccessToken| refused.is_some() || token.renew_at().is_none_or(|at| now < at);
        if let Some(token) = usable.clone().filter(|token| is_fresh(token)) {
            return Ok(token);
        }
        let fetched = self.fetcher.fetch().await.map(Arc::new);
        match (fetched, usable) {
            (Ok(token), _) => {
                *current = Some(Arc::clone(&token));
                Ok(token)
            }
            (Err(error), Some(token)) if token.expires().is_some_and(|at| now < at) => {
                tracing::warn!(error = error.full_message(), "the Azure token could not be renewed yet");
                Ok(token)
            }
            (Err(error), _) => Err(error),
        }
    }
}
