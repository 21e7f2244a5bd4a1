//! A store whose requests wait at the gate. Each process has its own, over the same objects.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt as _, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::Bug;
use super::threads::Actor;
use super::world::{Kind, Reply, World};
use crate::ledger::tables::DELIVERIES;
use crate::storage::file_names::entry_version;

/// The store as one process sees it.
#[derive(Clone)]
pub(super) struct SimulatedStore {
    pub(super) world: Arc<World>,
    pub(super) memory: Arc<InMemory>,
    pub(super) actor: Actor,
}

impl fmt::Debug for SimulatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedStore")
    }
}

impl fmt::Display for SimulatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SimulatedStore")
    }
}

/// What the objects in memory answer is there at once.
fn at_once<T>(answer: impl Future<Output = Result<T>>) -> Result<T> {
    answer.now_or_never().expect("the memory answers at once")
}

impl SimulatedStore {
    async fn request<T: Send + 'static>(
        &self,
        kind: Kind,
        what: &str,
        path: &Path,
        effect: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (store, label) = (self.clone(), format!("{what} {path}"));
        match self.world.request(self.actor, kind, label, move || effect(&store)).await {
            Reply::Done(done) => done,
            Reply::Lost => Err(Error::Generic { store: "simulated", source: "no answer".into() }),
            Reply::Exists => Err(Error::AlreadyExists { path: path.to_string(), source: "it is there".into() }),
        }
    }

    /// Tells the time of the world instead of the machine's.
    fn dated(&self, mut meta: ObjectMeta) -> ObjectMeta {
        let at = self.world.state().modified.get(&meta.location).copied().unwrap_or_default();
        meta.last_modified = self.world.time(at);
        meta
    }

    fn put(&self, location: &Path, payload: PutPayload, mut opts: PutOptions) -> Result<PutResult> {
        if self.world.bug == Some(Bug::OverwritesEntries) && opts.mode == PutMode::Create {
            opts.mode = PutMode::Overwrite;
        }
        let put = at_once(self.memory.put_opts(location, payload, opts))?;
        let now = self.world.now();
        let mut state = self.world.state();
        state.modified.insert(location.clone(), now);
        if location.as_ref().contains(DELIVERIES.name)
            && let Some(version) = location.filename().and_then(entry_version)
        {
            state.truth.attempts_version = state.truth.attempts_version.max(version);
        }
        Ok(put)
    }

    fn listed(&self, prefix: Option<&Path>, offset: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (store, prefix, offset) = (self.clone(), prefix.cloned().unwrap_or_default(), offset.cloned());
        let shown = offset.clone().unwrap_or_else(|| prefix.clone());
        let listing = async move {
            let all = store.request(Kind::Read, "list", &shown, move |store| {
                let listed = match &offset {
                    Some(offset) => store.memory.list_with_offset(Some(&prefix), offset),
                    None => store.memory.list(Some(&prefix)),
                };
                let mut all = at_once(listed.map_ok(|meta| store.dated(meta)).try_collect::<Vec<_>>())?;
                all.sort_by(|one, other| one.location.cmp(&other.location));
                Ok(all)
            });
            Ok::<_, Error>(stream::iter(all.await?.into_iter().map(Ok)))
        };
        stream::once(listing).try_flatten().boxed()
    }
}

#[async_trait]
impl ObjectStore for SimulatedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let kind = if opts.mode == PutMode::Create { Kind::Create } else { Kind::Write };
        let (what, path) = (format!("put {:?}", opts.mode), location.clone());
        self.request(kind, &what, location, move |store| store.put(&path, payload, opts)).await
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(Error::NotImplemented { operation: "put_multipart_opts".into(), implementer: self.to_string() })
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let path = location.clone();
        let what = if options.head { "head" } else { "get" };
        self.request(Kind::Read, what, location, move |store| {
            let mut found = at_once(store.memory.get_opts(&path, options))?;
            found.meta = store.dated(found.meta);
            Ok(found)
        })
        .await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        let delete = move |location: Result<Path>| {
            let store = store.clone();
            async move {
                let location = location?;
                let path = location.clone();
                let deleted = store.request(Kind::Write, "delete", &location, move |store| {
                    let deleted = at_once(async { store.memory.get(&path).await?.bytes().await });
                    store.world.state().truth.deleted.extend(deleted.ok().map(|bytes| (path.clone(), bytes)));
                    at_once(store.memory.delete(&path)).map(|()| path)
                });
                deleted.await
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(prefix, None)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listed(prefix, Some(offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let (path, shown) = (prefix.cloned(), prefix.cloned().unwrap_or_default());
        self.request(Kind::Read, "list", &shown, move |store| {
            let mut listed = at_once(store.memory.list_with_delimiter(path.as_ref()))?;
            listed.objects = listed.objects.into_iter().map(|meta| store.dated(meta)).collect();
            Ok(listed)
        })
        .await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented { operation: "copy_opts".into(), implementer: self.to_string() })
    }
}
