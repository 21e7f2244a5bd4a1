//! What is put around a store before tables work on it, and in which order.
//!
//! From the table down: [`Encoded`](super::encoded::EncodedListing) for the kernel alone, [`Written`] and, far away,
//! [`Whole`] so that less is asked, [`Metered`] which counts what is still asked, [`Delayed`] where a slow store is wanted, and on a local disk
//! [`Synced`] where rows shall survive a power cut, and [`QuickListing`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use object_store::DynObjectStore;
use object_store::local::LocalFileSystem;

use super::delayed::{self, Delayed};
use super::encoded::EncodedListing;
use super::listing::QuickListing;
use super::metered::{Meter, Metered};
use super::synced::Synced;
use super::whole::Whole;
use super::written::Written;
use crate::error::Result;

/// What a row has to survive once the call that wrote it has returned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Durability {
    /// The store has acknowledged it. On a local disk the row then survives the end of every process (SIGKILL), but a
    /// power cut may take what the operating system has not written yet. An object store's acknowledgement stands for
    /// everything.
    #[default]
    Store,
    /// It is on the local disk itself, with all that it takes to read it: it survives a power cut too. The same as
    /// [`Durability::Store`] on an object store.
    Fsync,
}

/// What the caller wants around the store.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Settings {
    durability: Durability,
    request_delay: Duration,
}

impl Settings {
    /// Takes the options that are meant for the layers out of `options`; the rest is for the store itself.
    ///
    /// # Errors
    /// [`crate::ErrorKind::InvalidInput`] for an option whose value it cannot have.
    pub(super) fn take(
        options: &HashMap<String, String>,
        durability: Durability,
    ) -> Result<(Self, HashMap<String, String>)> {
        let mut rest = options.clone();
        let request_delay = rest.remove(delayed::OPTION).map(|text| delayed::parse(&text)).transpose()?;
        Ok((Self { durability, request_delay: request_delay.unwrap_or_default() }, rest))
    }
}

/// A store with its layers.
#[derive(Debug)]
pub(super) struct Layers {
    /// For this crate.
    pub(super) store: Arc<DynObjectStore>,
    /// For the kernel's engine: the same store.
    pub(super) for_kernel: Arc<DynObjectStore>,
    /// Counts what is asked of the store.
    pub(super) meter: Meter,
    /// It answers at once, like a local disk: nobody needs to be free for other work meanwhile.
    pub(super) at_once: bool,
}

/// The file system of this machine, from its root.
pub(super) fn local(settings: &Settings) -> Arc<DynObjectStore> {
    let files = Arc::new(LocalFileSystem::new());
    let quick = QuickListing::new(Arc::clone(&files));
    match settings.durability {
        Durability::Store => Arc::new(quick),
        Durability::Fsync => Arc::new(Synced::new(Arc::new(quick), files)),
    }
}

/// Puts the layers around `store`, which is a local disk or not.
pub(super) fn around(store: Arc<DynObjectStore>, settings: &Settings, local: bool) -> Layers {
    let meter = Meter::default();
    let delayed: Arc<DynObjectStore> = match settings.request_delay {
        Duration::ZERO => store,
        delay => Arc::new(Delayed::new(store, delay)),
    };
    let metered = Arc::new(Metered::new(delayed, meter.clone()));
    let at_once = local && settings.request_delay.is_zero();
    let read: Arc<DynObjectStore> = if at_once { metered } else { Arc::new(Whole::new(metered)) };
    let store: Arc<DynObjectStore> = Arc::new(Written::new(read));
    let for_kernel = Arc::new(EncodedListing(Arc::clone(&store)));
    Layers { store, for_kernel, meter, at_once }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_for_the_layers_is_taken_out_of_the_options() {
        let options =
            HashMap::from([("request_delay".to_owned(), "0.05".to_owned()), ("key".to_owned(), "1".to_owned())]);
        let (settings, rest) = Settings::take(&options, Durability::Fsync).unwrap();
        assert_eq!((settings.durability, settings.request_delay), (Durability::Fsync, Duration::from_millis(50)));
        assert_eq!(rest, HashMap::from([("key".to_owned(), "1".to_owned())]));
        let bad = HashMap::from([("request_delay".to_owned(), "soon".to_owned())]);
        assert_eq!(Settings::take(&bad, Durability::Store).unwrap_err().kind(), crate::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_layer_that_nobody_wants_is_not_there() {
        let shape = |durability, delay: &str| {
            let options = HashMap::from([("request_delay".to_owned(), delay.to_owned())]);
            let (settings, _) = Settings::take(&options, durability).unwrap();
            format!("{:?}", around(local(&settings), &settings, true).for_kernel)
        };
        let bare = shape(Durability::Store, "0");
        assert!(!bare.contains("Delayed") && !bare.contains("Synced"), "{bare}");
        for layer in ["EncodedListing", "Written", "Metered", "QuickListing", "LocalFileSystem"] {
            assert!(bare.contains(layer), "{bare}");
        }
        let all = shape(Durability::Fsync, "1");
        assert!(all.contains("Delayed") && all.contains("Synced"), "{all}");
    }
}
