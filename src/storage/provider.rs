//! The options of a store: fixed ones, and those that a provider gives for a time, such as credentials that expire.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use futures::future::BoxFuture;

use crate::error::Result;

/// Options by the names that the store has for them, and when they stop to be valid, where that is known.
pub type Provided = (HashMap<String, String>, Option<DateTime<Utc>>);

/// Gives options of a store for a time.
pub struct OptionsProvider {
    /// The name of the provider, for errors and log records.
    pub name: String,
    /// Gives the options from now on. A store makes one call at a time. An error has no secrets, and says whether a later call can
    /// succeed.
    pub provide: Box<dyn Fn() -> BoxFuture<'static, Result<Provided>> + Send + Sync>,
}

/// The options of a store. The provider's ones override the fixed ones. They can hold credentials: never show a value.
#[derive(Clone, Default)]
pub struct StorageOptions {
    /// Options by name.
    pub fixed: HashMap<String, String>,
    /// Gives further options, and gives them again before they expire.
    pub provider: Option<Arc<OptionsProvider>>,
}

impl From<&HashMap<String, String>> for StorageOptions {
    fn from(fixed: &HashMap<String, String>) -> Self {
        Self { fixed: fixed.clone(), provider: None }
    }
}

impl fmt::Debug for StorageOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.fixed.keys()).finish_non_exhaustive()
    }
}
