//! Where tables live: a path or URI becomes an object store and a kernel engine.

use std::collections::HashMap;
use std::sync::Arc;

use object_store::DynObjectStore;
use url::Url;

use crate::error::Result;

/// A root directory or URI with the object store behind it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Storage {
    root: Url,
    store: Arc<DynObjectStore>,
}

impl Storage {
    /// Checks `root` and connects to the store behind it. Creates nothing.
    pub fn open(_root: &str, _options: &HashMap<String, String>) -> Result<Self> {
        todo!()
    }
    /// The root, ending in `/`.
    pub fn root(&self) -> &Url {
        &self.root
    }
    /// The store; its paths count from the file system's root.
    pub fn store(&self) -> &Arc<DynObjectStore> {
        &self.store
    }
}
