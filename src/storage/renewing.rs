//! Makes the store anew whenever the provider of its options gives other ones, before those in use expire.
//!
//! One caller asks the provider. The others go on with the present store, or wait if there is none that is good. A store that
//! refuses the options before they expire, as after a key was rotated, gets the request once more with new ones.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{DynObjectStore, Error as StoreError, ObjectMeta, ObjectStore, Result};
use tokio::sync::Mutex as AsyncMutex;

use super::forward::forward;
use super::provider::OptionsProvider;
use crate::error::{Error, ErrorKind, Result as CrateResult, chain};
use crate::runtime::environment::timeout;
use crate::runtime::{environment, lock};

/// How long options are used that do not say when they expire. If the provider fails then, they are used further.
const WITHOUT_EXPIRY: Duration = Duration::from_secs(15 * 60);
/// The provider is asked when a tenth of the life of its answer is left, but within these limits. Of a very short life it is half.
const SHORTEST_MARGIN: Duration = Duration::from_secs(5);
const LONGEST_MARGIN: Duration = Duration::from_secs(5 * 60);
/// How long the provider may take.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// A provider that fails while its answer is still good is asked again after a quarter of the time that is left, within these limits.
const SHORTEST_RETRY: Duration = Duration::from_secs(1);
const LONGEST_RETRY: Duration = Duration::from_secs(30);
/// How long a store is believed that refused new options as well.
const BELIEVED: Duration = Duration::from_secs(30);
/// Deletions that one store gets together: as many as one request to S3 can have.
const DELETIONS: usize = 1000;

type Store = Arc<DynObjectStore>;
type Connect = dyn Fn(HashMap<String, String>) -> CrateResult<Store> + Send + Sync;

/// A store whose options expire. An upload in parts keeps the options with which it began.
#[derive(Clone)]
pub(super) struct RenewingStore(Arc<Inner>);

struct Inner {
    provider: Arc<OptionsProvider>,
    /// Makes a store of the options of an answer.
    connect: Box<Connect>,
    /// Locked while the provider is asked.
    asking: AsyncMutex<()>,
    state: Mutex<State>,
    /// The time since a moment that does not change.
    clock: Box<dyn Fn() -> Duration + Send + Sync>,
}

#[derive(Default)]
struct State {
    /// The present store, and when its options expire.
    store: Option<(Store, Duration)>,
    ask_at: Duration,
    /// The error of the last answer, if it was one.
    failure: Option<Error>,
    /// Until then, refusals of the store are not a reason to ask.
    believed_until: Duration,
}

/// Waits until a stream has its first item. An error there is that of the whole stream.
async fn begun<T: Send + 'static>(items: BoxStream<'static, Result<T>>) -> Result<BoxStream<'static, Result<T>>> {
    let mut items = items.peekable();
    std::pin::Pin::new(&mut items).next_if(Result::is_err).await.transpose()?;
    Ok(items.boxed())
}

fn is_refusal(error: &StoreError) -> bool {
    chain(error).filter_map(|part| part.downcast_ref::<Error>()).any(|error| error.kind() == ErrorKind::Authentication)
}

fn is_repeated(error: &StoreError) -> bool {
    chain(error).filter_map(|part| part.downcast_ref::<Error>()).any(Error::is_outcome_unknown)
}

impl RenewingStore {
    pub(super) fn new(provider: Arc<OptionsProvider>, connect: Box<Connect>) -> Self {
        let (asking, state, clock) = (AsyncMutex::default(), Mutex::default(), || environment().since_boot());
        Self(Arc::new(Inner { provider, connect, asking, state, clock: Box::new(clock) }))
    }

    /// The present store and when its options expire, unless they have expired or it is the one that `refused` them. Whether it is
    /// time to ask.
    fn present(&self, refused: Option<&Store>) -> (Option<(Store, Duration)>, bool) {
        let (now, state) = ((self.0.clock)(), lock(&self.0.state));
        let is_good = |(store, expires): &(Store, Duration)| {
            now < *expires && !refused.is_some_and(|refused| Arc::ptr_eq(refused, store))
        };
        (state.store.clone().filter(is_good), now >= state.ask_at)
    }

    /// A store with options that are good now, other than the one that `refused` them. A provider that fails while there is one is
    /// logged.
    async fn store(&self, refused: Option<&Store>) -> CrateResult<Store> {
        let Inner { provider, asking, state, clock, .. } = &*self.0;
        let _asking = match (self.present(refused), asking.try_lock()) {
            ((Some((store, _)), false), _) | ((Some((store, _)), _), Err(_)) => return Ok(store),
            (_, Ok(asking)) => asking,
            _ => asking.lock().await,
        };
        // Another caller may have asked meanwhile.
        let (present, is_due) = self.present(refused);
        match (&present, lock(state).failure.clone()) {
            (Some((store, _)), _) if !is_due => return Ok(Arc::clone(store)),
            (None, Some(failure)) if !is_due => return Err(failure),
            _ => {}
        }
        let asked = self.ask().await;
        let (now, mut state) = (clock(), lock(state));
        let cause = match asked {
            Ok((store, expires, ask_at)) => {
                (state.store, state.ask_at, state.failure) = (Some((Arc::clone(&store), expires)), ask_at, None);
                return Ok(store);
            }
            Err(cause) => cause,
        };
        let (name, why) = (&provider.name, cause.full_message());
        let text = format!("the provider '{name}' of storage_options gave no options that can be used: {why}");
        let error = Error::new(cause.kind(), text).with_retryable(cause.is_retryable()).with_source(cause);
        let left = present.as_ref().map_or(now, |(_, expires)| *expires).saturating_sub(now);
        (state.ask_at, state.failure) = (now + (left / 4).clamp(SHORTEST_RETRY, LONGEST_RETRY), Some(error.clone()));
        let Some((store, _)) = present else { return Err(error) };
        tracing::warn!(error = %error.full_message(), "the present options of the store are used until they expire");
        Ok(store)
    }

    /// Asks the provider. Returns the store, when its options expire, and when to ask again.
    async fn ask(&self) -> CrateResult<(Store, Duration, Duration)> {
        let failed = |text| Error::new(ErrorKind::Authentication, text).with_retryable(true);
        let asked = timeout(TIME_LIMIT, (self.0.provider.provide)()).await;
        let (options, at) = asked.ok_or_else(|| failed(format!("it took longer than {TIME_LIMIT:?}")))??;
        let (store, now) = ((self.0.connect)(options)?, (self.0.clock)());
        let Some(at) = at else { return Ok((store, Duration::MAX, now + WITHOUT_EXPIRY)) };
        let life = (at - environment().utc()).to_std().unwrap_or_default();
        if life.is_zero() {
            return Err(failed(format!("what it gave has expired already: its expires_at is {at}")));
        }
        let margin = (life / 10).clamp(SHORTEST_MARGIN.min(life / 2), LONGEST_MARGIN);
        Ok((store, now + life, now + life - margin))
    }

    /// The outcome of `request`. If the store refuses the options, the request is sent once more with new ones.
    async fn send<T, F: Future<Output = Result<T>>>(&self, request: impl Fn(Store) -> F) -> Result<T> {
        // Says that nothing was sent. No layer below returns this error.
        let unsent = |error: Error| StoreError::Unauthenticated { path: String::new(), source: error.into() };
        let store = self.store(None).await.map_err(unsent)?;
        let outcome = request(Arc::clone(&store)).await;
        if !outcome.as_ref().is_err_and(is_refusal) {
            return outcome;
        }
        let repeated = outcome.as_ref().is_err_and(is_repeated);
        if (self.0.clock)() < lock(&self.0.state).believed_until {
            return outcome.map_err(|error| self.refused(&error, repeated));
        }
        let failed = |error: Error| StoreError::Generic { store: "object store", source: error.into() };
        let outcome = request(self.store(Some(&store)).await.map_err(failed)?).await;
        if outcome.as_ref().is_err_and(is_refusal) {
            lock(&self.0.state).believed_until = (self.0.clock)() + BELIEVED;
            return outcome.map_err(|error| self.refused(&error, repeated || is_repeated(&error)));
        }
        outcome
    }

    /// The error of a store that refuses what the provider gives. If the request was `repeated`, its outcome is unknown.
    fn refused(&self, error: &StoreError, repeated: bool) -> StoreError {
        let why = chain(error).find_map(|part| part.downcast_ref::<Error>()).map(ToString::to_string);
        let text = format!(
            "{}; the provider '{}' of storage_options gave these, and is asked again within {BELIEVED:?}",
            why.unwrap_or_default(),
            self.0.provider.name
        );
        let refused = Error::new(ErrorKind::Authentication, text);
        let source = if repeated { refused.with_unknown_outcome() } else { refused };
        StoreError::Generic { store: "object store", source: source.into() }
    }

    /// The stream that `request` begins.
    fn stream<T: Send + 'static>(
        &self,
        request: impl Fn(Store) -> BoxStream<'static, Result<T>> + Send + Sync + 'static,
    ) -> BoxStream<'static, Result<T>> {
        let this = self.clone();
        stream::once(async move { this.send(|store| begun(request(store))).await }).try_flatten().boxed()
    }
}

impl fmt::Debug for RenewingStore {
    /// Without the store, whose output contains its credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RenewingStore({})", self.0.provider.name)
    }
}

impl fmt::Display for RenewingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl ObjectStore for RenewingStore {
    forward!(send: put_opts, put_multipart_opts, get_opts, list_with_delimiter, copy_opts);

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let deleted = move |chunk: Vec<Path>| {
            this.stream(move |store| store.delete_stream(stream::iter(chunk.clone()).map(Ok).boxed()))
        };
        locations.try_ready_chunks(DELETIONS).map_err(|refused| refused.1).map_ok(deleted).try_flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let prefix = prefix.cloned();
        self.stream(move |store| store.list(prefix.as_ref()))
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        let (prefix, offset) = (prefix.cloned(), offset.clone());
        self.stream(move |store| store.list_with_offset(prefix.as_ref(), &offset))
    }
}

#[cfg(test)]
mod tests;
