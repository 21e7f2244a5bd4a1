//! Listings that are remembered: in this process, and in a file of the user's state directory. No token is ever in them.

use std::collections::HashMap;
use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use siphasher::sip128::{Hasher128, SipHasher13};

use super::listing::Listed;
use crate::inventory::Vm;
use crate::runtime;

/// Changes when files of older versions cannot be read any more.
const VERSION: u32 = 1;
/// Larger files are not ours: a subscription has at most 25,000 VMs per region.
const LARGEST: u64 = 64 << 20;
/// Most listings that a process remembers.
const MOST: usize = 256;

static KNOWN: Mutex<Option<HashMap<String, Remembered>>> = Mutex::new(None);

/// One listing as it is remembered.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    pub listed_at: DateTime<Utc>,
    pub vms: Vec<Vm>,
    pub left_out: Vec<(String, String)>,
    recalled: bool,
}

impl Remembered {
    /// What was listed just now.
    pub(super) fn new(mut listed: Listed) -> Self {
        listed.left_out.sort();
        Self { listed_at: Utc::now(), vms: listed.vms, left_out: listed.left_out, recalled: false }
    }

    /// Whether it comes from memory.
    pub(super) fn is_recalled(&self) -> bool {
        self.recalled
    }

    /// How old it is. What is of the future, because a clock was set back, is as good as forgotten.
    pub(super) fn age(&self) -> Duration {
        (Utc::now() - self.listed_at).to_std().unwrap_or(Duration::MAX)
    }
}

/// The form in the file.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    /// The whole key: the file's name is only a digest of it.
    key: String,
    listed_at: DateTime<Utc>,
    vms: Vec<StoredVm>,
    left_out: Vec<(String, String)>,
}

#[derive(Serialize, Deserialize)]
struct StoredVm {
    name: String,
    ip_address: String,
    nic_name: Option<String>,
}

/// Where one listing is remembered.
#[derive(Debug)]
pub(super) struct Memory {
    key: String,
    file: Option<PathBuf>,
}

impl Memory {
    pub(super) fn new(key: String, dir: Option<PathBuf>) -> Self {
        let mut hasher = SipHasher13::new();
        hasher.write(key.as_bytes());
        let digest = hasher.finish128().as_u128();
        Self { key, file: dir.map(|dir| dir.join(format!("inventory-{digest:032x}.json"))) }
    }

    /// The younger one of what this process and the file remember.
    pub(super) async fn recall(&self) -> Option<Remembered> {
        let in_process = {
            let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
            known.as_ref().and_then(|known| known.get(&self.key).cloned())
        };
        let (file, key) = (self.file.clone(), self.key.clone());
        let in_file = runtime::blocking(move || Ok(file.and_then(|file| read(&file, &key)))).await.ok().flatten();
        in_process.into_iter().chain(in_file).max_by_key(|known| known.listed_at)
    }

    /// Remembers it. Where the file cannot be written, the process alone remembers.
    pub(super) async fn keep(&self, listed: &Remembered) {
        {
            let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
            let known = known.get_or_insert_default();
            if known.len() >= MOST {
                known.clear();
            }
            known.insert(self.key.clone(), Remembered { recalled: true, ..listed.clone() });
        }
        let Some(file) = self.file.clone() else { return };
        let stored = Stored {
            version: VERSION,
            key: self.key.clone(),
            listed_at: listed.listed_at,
            vms: listed
                .vms
                .iter()
                .map(|vm| StoredVm {
                    name: vm.name.clone(),
                    ip_address: vm.ip_address.clone(),
                    nic_name: vm.nic_name.clone(),
                })
                .collect(),
            left_out: listed.left_out.clone(),
        };
        let written = runtime::blocking(move || {
            if let Err(error) = write(&file, &stored) {
                tracing::warn!(file = %file.display(), %error, "the listing of Azure's VMs is not remembered beyond this process");
            }
            Ok(())
        });
        if let Err(error) = written.await {
            tracing::warn!(
                error = error.full_message(),
                "the listing of Azure's VMs is not remembered beyond this process"
            );
        }
    }

    /// Forgets what this process remembers, as a new process would.
    #[cfg(test)]
    pub(super) fn forget_in_process() {
        *KNOWN.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// What the file remembers of `key`; a file that is missing, damaged or of another version remembers nothing.
fn read(file: &Path, key: &str) -> Option<Remembered> {
    let size = std::fs::metadata(file).ok()?.len();
    let stored: Stored = serde_json::from_slice(&std::fs::read(file).ok().filter(|_| size <= LARGEST)?).ok()?;
    if stored.version != VERSION || stored.key != key {
        return None;
    }
    let vm = |vm: StoredVm| Vm { name: vm.name, ip_address: vm.ip_address, nic_name: vm.nic_name, weight: 1 };
    let vms = stored.vms.into_iter().map(vm).collect();
    Some(Remembered { listed_at: stored.listed_at, vms, left_out: stored.left_out, recalled: true })
}

fn write(file: &Path, stored: &Stored) -> std::io::Result<()> {
    use std::io::Write;
    let Some(dir) = file.parent() else { return Ok(()) };
    let mut made = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut made, 0o700);
    made.recursive(true).create(dir)?;
    // Mode 0600 from the start, and in place in one step: readers see the old file or the new one.
    let mut temporary = tempfile::Builder::new().prefix(".inventory-").suffix(".tmp").tempfile_in(dir)?;
    serde_json::to_writer(&mut temporary, stored)?;
    temporary.write_all(b"\n")?;
    temporary.persist(file).map_err(|e| e.error)?;
    Ok(())
}
