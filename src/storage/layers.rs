//! The layers around a store, and their order. From the table down:
//!
//! | layer | purpose |
//! | --- | --- |
//! | [`EncodedListing`] | lists paths in the form that the kernel reads back; only for the kernel |
//! | [`DataFileCache`] | reads a small data file in one request; a local disk answers faster without |
//! | [`CountingStore`] | counts the requests, and delays them, if the option `request_delay` is set |
//! | [`FsyncStore`] | on a local disk with `durability="fsync"`: a row survives a power cut |
//! | [`LocalStore`] | on a local disk: lists a long log quickly |
//! | [`RenewingStore`](super::renewing::RenewingStore) | in a cloud, with a provider of options: renews what expires |
//! | [`ErrorMappingStore`](super::error_mapping::ErrorMappingStore) | in a cloud: explains errors |

use std::sync::Arc;
use std::time::Duration;

use object_store::DynObjectStore;
use object_store::local::LocalFileSystem;

use super::counting::{CountingStore, RequestCounter};
use super::data_file_cache::DataFileCache;
use super::engine::EncodedListing;
use super::fsync::{FsyncStore, RealDisk};
use super::local::LocalStore;

/// What a row survives once the call that wrote it has returned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// The store has acknowledged the row. On a local disk it survives the end of every process (SIGKILL), but a power
    /// cut can remove what the operating system has not written yet. In an object store it survives both.
    #[default]
    Store,
    /// The row is on the local disk with everything that a reader needs, so that it survives a power cut too. In an
    /// object store, the same as [`Durability::Store`].
    Fsync,
}

/// A store with its layers.
#[derive(Debug)]
pub(super) struct Layers {
    /// For this crate.
    pub(super) store: Arc<DynObjectStore>,
    /// The same store for the kernel's engine.
    pub(super) for_kernel: Arc<DynObjectStore>,
    /// Counts the requests to the store.
    pub(super) counter: RequestCounter,
    /// Whether the store answers immediately, as a local disk does. The calling thread then waits for the answer
    /// itself.
    pub(super) is_immediate: bool,
}

/// The file system of this machine, from its root.
pub(super) fn local(durability: Durability) -> Arc<DynObjectStore> {
    let files = Arc::new(LocalFileSystem::new());
    let local = Arc::new(LocalStore::new(Arc::clone(&files)));
    match durability {
        Durability::Store => local,
        Durability::Fsync => Arc::new(FsyncStore::with_disk(local, files, Arc::new(RealDisk))),
    }
}

/// Puts the layers around `store`. `is_local` says whether it is a local disk. Each request waits for `delay`.
pub(super) fn around(store: Arc<DynObjectStore>, delay: Duration, is_local: bool) -> Layers {
    let counter = RequestCounter::new(delay);
    let counting = Arc::new(CountingStore::new(store, counter.clone()));
    let is_immediate = is_local && delay.is_zero();
    let store: Arc<DynObjectStore> = match is_immediate {
        true => counting,
        false => Arc::new(DataFileCache::new(counting)),
    };
    let for_kernel = Arc::new(EncodedListing { inner: Arc::clone(&store) });
    Layers { store, for_kernel, counter, is_immediate }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::storage::counting::take_delay;

    #[test]
    fn only_the_layers_that_are_wanted_are_there() {
        let shape = |durability, delay: &str| {
            let options = HashMap::from([("request_delay".to_owned(), delay.to_owned())]);
            let (delay, _) = take_delay(&options).unwrap();
            format!("{:?}", around(local(durability), delay, true).for_kernel)
        };
        let bare = shape(Durability::Store, "0");
        for layer in ["DataFileCache", "delay: 1s", "FsyncStore"] {
            assert!(!bare.contains(layer), "{bare}");
        }
        for layer in ["EncodedListing", "CountingStore", "LocalStore", "LocalFileSystem"] {
            assert!(bare.contains(layer), "{bare}");
        }
        let all = shape(Durability::Fsync, "1");
        for layer in ["DataFileCache", "delay: 1s", "FsyncStore"] {
            assert!(all.contains(layer), "{all}");
        }
    }
}
