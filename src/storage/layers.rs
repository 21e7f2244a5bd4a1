//! The layers around a store, and their order. From the table down:
//!
//! | layer | purpose |
//! | --- | --- |
//! | [`EncodedListing`] | lists paths in the form that the kernel reads back; only for the kernel |
//! | [`DataFileCache`] | reads a small data file in one request; a local disk answers faster without |
//! | [`CountingStore`] | counts the requests |
//! | [`Throttled`] | delays the requests, if the option `request_delay` is set |
//! | [`FsyncStore`] | on a local disk with `durability="fsync"`: a row survives a power cut |
//! | [`LocalStore`] | on a local disk: lists a long log quickly |
//! | [`ErrorMappingStore`](super::error_mapping::ErrorMappingStore) | in a cloud: explains errors |

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use object_store::DynObjectStore;
use object_store::local::LocalFileSystem;

use super::counting::{CountingStore, RequestCounter};
use super::data_file_cache::DataFileCache;
use super::encoded_listing::EncodedListing;
use super::fsync::FsyncStore;
use super::local::LocalStore;
use super::throttled::{self, Throttled};
use crate::error::Result;

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

/// The layers that the caller wants.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LayerOptions {
    durability: Durability,
    request_delay: Duration,
}

impl LayerOptions {
    /// Splits `options` into the settings of the layers and the options of the store.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for an option with an invalid value.
    pub(super) fn take(
        options: &HashMap<String, String>,
        durability: Durability,
    ) -> Result<(Self, HashMap<String, String>)> {
        let mut rest = options.clone();
        let request_delay = rest.remove(throttled::OPTION).map(|text| throttled::parse(&text)).transpose()?;
        Ok((Self { durability, request_delay: request_delay.unwrap_or_default() }, rest))
    }
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
pub(super) fn local(settings: &LayerOptions) -> Arc<DynObjectStore> {
    let files = Arc::new(LocalFileSystem::new());
    let local = Arc::new(LocalStore::new(Arc::clone(&files)));
    match settings.durability {
        Durability::Store => local,
        Durability::Fsync => Arc::new(FsyncStore::new(local, files)),
    }
}

/// Puts the layers around `store`. `is_local` says whether it is a local disk.
pub(super) fn around(store: Arc<DynObjectStore>, settings: &LayerOptions, is_local: bool) -> Layers {
    let counter = RequestCounter::default();
    let throttled: Arc<DynObjectStore> = match settings.request_delay {
        Duration::ZERO => store,
        delay => Arc::new(Throttled::new(store, delay)),
    };
    let counting = Arc::new(CountingStore::new(throttled, counter.clone()));
    let is_immediate = is_local && settings.request_delay.is_zero();
    let store: Arc<DynObjectStore> = match is_immediate {
        true => counting,
        false => Arc::new(DataFileCache::new(counting)),
    };
    let for_kernel = Arc::new(EncodedListing { inner: Arc::clone(&store) });
    Layers { store, for_kernel, counter, is_immediate }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_of_the_layers_are_taken_out_of_the_options() {
        let options =
            HashMap::from([("request_delay".to_owned(), "0.05".to_owned()), ("key".to_owned(), "1".to_owned())]);
        let (settings, rest) = LayerOptions::take(&options, Durability::Fsync).unwrap();
        assert_eq!((settings.durability, settings.request_delay), (Durability::Fsync, Duration::from_millis(50)));
        assert_eq!(rest, HashMap::from([("key".to_owned(), "1".to_owned())]));
        let bad = HashMap::from([("request_delay".to_owned(), "soon".to_owned())]);
        assert_eq!(LayerOptions::take(&bad, Durability::Store).unwrap_err().kind(), crate::ErrorKind::InvalidInput);
    }

    #[test]
    fn only_the_layers_that_are_wanted_are_there() {
        let shape = |durability, delay: &str| {
            let options = HashMap::from([("request_delay".to_owned(), delay.to_owned())]);
            let (settings, _) = LayerOptions::take(&options, durability).unwrap();
            format!("{:?}", around(local(&settings), &settings, true).for_kernel)
        };
        let bare = shape(Durability::Store, "0");
        for layer in ["DataFileCache", "Throttled", "FsyncStore"] {
            assert!(!bare.contains(layer), "{bare}");
        }
        for layer in ["EncodedListing", "CountingStore", "LocalStore", "LocalFileSystem"] {
            assert!(bare.contains(layer), "{bare}");
        }
        let all = shape(Durability::Fsync, "1");
        for layer in ["DataFileCache", "Throttled", "FsyncStore"] {
            assert!(all.contains(layer), "{all}");
        }
    }
}
