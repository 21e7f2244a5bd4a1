//! Alerts on their way to a webhook.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use pyo3::prelude::*;

use super::convert::arguments;
use super::errors::PyOutcome;
use crate::error::Result;
use crate::http::webhook;
use crate::runtime;

/// The host of a webhook's URL, which is checked. An error shows no part of the URL.
#[pyfunction]
pub(super) fn webhook_host(url: &str) -> PyOutcome<String> {
    Ok(webhook::address(url)?.host_str().unwrap_or_default().to_owned())
}

/// An alert that is being posted. The work goes on in the background, and no thread of Python waits for it in the core: a daemon
/// thread that comes back from there while the interpreter shuts down would crash the process.
#[pyclass(module = "jobrota", frozen)]
pub(super) struct WebhookPost(Arc<OnceLock<Result<()>>>);

#[pymethods]
impl WebhookPost {
    /// Starts to post.
    #[new]
    fn new(
        url: &str,
        body: String,
        secrets: Vec<String>,
        #[pyo3(from_py_with = arguments::duration)] timeout: Duration,
    ) -> PyOutcome<Self> {
        let (url, outcome) = (webhook::address(url)?, Arc::new(OnceLock::new()));
        let settled = Arc::clone(&outcome);
        runtime::handle()?.spawn(async move { settled.set(webhook::post(url, body, secrets, timeout).await) });
        Ok(Self(outcome))
    }

    /// Whether the receiver took it. False: it is still under way.
    fn is_taken(&self) -> PyOutcome<bool> {
        match self.0.get() {
            None => Ok(false),
            Some(outcome) => Ok(outcome.clone().map(|()| true)?),
        }
    }
}
