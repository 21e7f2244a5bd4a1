//! The cache of listings: in this process, and in a file of the user's state directory. It contains no token.

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};

use super::listing::UsableVms;
use crate::error::{Error, ErrorKind};
use crate::inventory::Vm;
use crate::runtime::{self, lock};

/// The version of the file. It changes when older files can no longer be read.
const VERSION: u32 = 1;
/// The largest file that is read: a subscription has at most 25,000 VMs per region.
const LARGEST: u64 = 64 << 20;
/// Most listings that a process caches.
const MOST: usize = 256;

pub(super) static IN_PROCESS: Mutex<BTreeMap<String, CachedListing>> = Mutex::new(BTreeMap::new());

/// A cached listing, as it is in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CachedListing {
    version: u32,
    /// The whole key: the file's name is only a digest of it.
    key: String,
    pub listed_at: DateTime<Utc>,
    pub vms: Vec<Vm>,
    pub left_out: Vec<(String, String)>,
    /// Whether it comes from the cache.
    #[serde(skip)]
    pub from_cache: bool,
}

impl CachedListing {
    /// How old it is. A time in the future, because a clock was set back, is infinitely old.
    pub(super) fn age(&self) -> Duration {
        (Utc::now() - self.listed_at).to_std().unwrap_or(Duration::MAX)
    }
}

/// The cache of one listing.
#[derive(Debug)]
pub(super) struct ListingCache {
    key: String,
    file: Option<PathBuf>,
}

impl ListingCache {
    pub(super) fn new(key: String, dir: Option<PathBuf>) -> Self {
        let mut hasher = SipHasher13::new();
        hasher.write(key.as_bytes());
        let digest = hasher.finish128().as_u128();
        Self { key, file: dir.map(|dir| dir.join(format!("inventory-{digest:032x}.json"))) }
    }

    /// The newer of the listings in this process and in the file.
    pub(super) async fn load(&self) -> Option<CachedListing> {
        let in_process = lock(&IN_PROCESS).get(&self.key).cloned();
        let (file, key) = (self.file.clone(), self.key.clone());
        let in_file = runtime::blocking(move || Ok(file.and_then(|file| read(&file, &key)))).await.ok().flatten();
        in_process.into_iter().chain(in_file).max_by_key(|listing| listing.listed_at)
    }

    /// A new listing.
    pub(super) fn listing(&self, mut listed: UsableVms) -> CachedListing {
        listed.left_out.sort();
        CachedListing {
            version: VERSION,
            key: self.key.clone(),
            listed_at: Utc::now(),
            vms: listed.vms,
            left_out: listed.left_out,
            from_cache: false,
        }
    }

    /// Stores a listing. Where the file cannot be written, only this process has it.
    pub(super) async fn store(&self, listing: &CachedListing) {
        {
            let mut cached = lock(&IN_PROCESS);
            if cached.len() >= MOST {
                cached.clear();
            }
            cached.insert(self.key.clone(), CachedListing { from_cache: true, ..listing.clone() });
        }
        let Some(file) = self.file.clone() else { return };
        let listing = listing.clone();
        let written = runtime::blocking(move || {
            write(&file, &listing).map_err(|e| {
                let text = format!("the file {} could not be written", file.display());
                Error::new(ErrorKind::Storage, text).with_source(e)
            })
        });
        if let Err(error) = written.await {
            let error = error.full_message();
            tracing::warn!(error, "the listing of Azure's VMs is cached in this process only");
        }
    }
}

/// The listing of `key` in the file. A file that is missing, damaged or of another version has none.
fn read(file: &Path, key: &str) -> Option<CachedListing> {
    let size = std::fs::metadata(file).ok()?.len();
    let listing = serde_json::from_slice(&std::fs::read(file).ok().filter(|_| size <= LARGEST)?).ok()?;
    let listing = CachedListing { from_cache: true, ..listing };
    (listing.version == VERSION && listing.key == key).then_some(listing)
}

fn write(file: &Path, listing: &CachedListing) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::DirBuilderExt as _;
    let Some(dir) = file.parent() else { return Ok(()) };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    // Mode 0600 from the start, and replaced in one step: readers see the old file or the new one.
    let mut temporary = tempfile::Builder::new().prefix(".inventory-").suffix(".tmp").tempfile_in(dir)?;
    serde_json::to_writer(&mut temporary, listing)?;
    temporary.write_all(b"\n")?;
    temporary.persist(file).map_err(|e| e.error)?;
    Ok(())
}
