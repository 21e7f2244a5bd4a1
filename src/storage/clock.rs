//! The store's clock. Processes on different machines compare times by it, and never by their own wall clocks.
//!
//! The store tells its time in the modification time of an object that was just written; on a disk this is the time of the kernel
//! or of the file server. A measurement is good for some minutes: in between, the time since the machine started counts. It goes
//! on while the machine sleeps, and no setting of a clock changes it.

use std::io;
use std::sync::Mutex;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt as _};
use url::Url;

use super::{Storage, StoreKind};
use crate::error::{Error, ErrorKind, Result, chain};
use crate::runtime::{environment, lock};

/// How long a measurement counts. A clock that is wrong by a tenth of a percent is off by less than a second then.
const VALID: Duration = Duration::from_secs(600);
/// How far the clocks of the machines of one remote store can differ.
const REMOTE_SKEW: TimeDelta = TimeDelta::seconds(2);
/// Modification times without a part of a second may be cut to two seconds (FAT; S3 to one).
const COARSE: TimeDelta = TimeDelta::seconds(2);
/// The kernel's clock for files goes on in steps.
const STEP: TimeDelta = TimeDelta::milliseconds(20);

/// What time does not change about a local disk.
const DENIED: [io::ErrorKind; 2] = [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem];

/// The time of the store, as exactly as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoreTime {
    /// It is not earlier than this,
    pub(crate) earliest: DateTime<Utc>,
    /// and not later than this.
    pub(crate) latest: DateTime<Utc>,
}

/// The newest measurement: when it was made, by the time since the machine started, and the time of the store then.
pub(super) type StoreClock = Mutex<Option<(Duration, StoreTime)>>;

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::MAX)
}

impl Storage {
    /// The time of the store now. Writes, looks at and deletes an object below the root, once in ten minutes.
    ///
    /// # Errors
    /// [`ErrorKind::Storage`] when the store failed, retryable unless this user may not write there.
    pub(crate) fn time(&self) -> Result<StoreTime> {
        let mut measured = lock(&self.clock);
        let (at, time) = match *measured {
            Some((at, time)) if environment().since_boot().saturating_sub(at) < VALID => (at, time),
            _ => *measured.insert(self.measure()?),
        };
        let passed = delta(environment().since_boot().saturating_sub(at));
        Ok(StoreTime { earliest: time.earliest + passed, latest: time.latest + passed })
    }

    fn measure(&self) -> Result<(Duration, StoreTime)> {
        let prefix = Path::from_url_path(self.root.path()).unwrap_or_default();
        let path = prefix.join(format!("_jobrota_clock_{}", environment().uuid().simple()));
        let store = self.store.clone();
        let before = environment().since_boot();
        let measured = self.block_on(async move {
            store.put(&path, "x".into()).await?;
            let after = environment().since_boot();
            let written: object_store::Result<ObjectMeta> = store.head(&path).await;
            if let Err(error) = store.delete(&path).await {
                tracing::debug!(%path, %error, "the object that shows the store's time was not deleted");
            }
            Ok((after, written?.last_modified))
        })?;
        let (after, written) = measured.map_err(|error| unreadable(&self.root, error))?;
        let precision = if written.timestamp_subsec_nanos() == 0 { COARSE } else { STEP };
        let skew = if self.kind() == StoreKind::Local { TimeDelta::zero() } else { REMOTE_SKEW };
        // It was written at some moment in between: at `after`, it is at least that time, and at most as much later as passed.
        let latest = written + precision + delta(after.saturating_sub(before)) + skew;
        Ok((after, StoreTime { earliest: written - skew, latest }))
    }
}

fn unreadable(root: &Url, error: object_store::Error) -> Error {
    // An error of a cloud store says itself whether time can help.
    let known: Option<&Error> = chain(&error).find_map(|part| part.downcast_ref());
    let local: Option<&io::Error> = chain(&error).find_map(|part| part.downcast_ref());
    let denied = local.map(io::Error::kind).is_some_and(|kind| DENIED.contains(&kind));
    let retryable = known.map_or(!denied, Error::is_retryable);
    let advice = if retryable { "try again" } else { "check that this user may write there" };
    let text = format!("the time of the store at '{root}' could not be read: {advice}");
    Error::new(ErrorKind::Storage, text).with_retryable(retryable).with_source(error)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_store_tells_the_time_and_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::open(dir.path().to_str().unwrap(), &HashMap::new()).unwrap();
        let first = storage.time().unwrap();
        let now = Utc::now();
        assert!(first.earliest <= now && now <= first.latest + TimeDelta::seconds(1), "{first:?} {now}");
        assert!(first.earliest < first.latest);
        let requests = storage.requests();
        let second = storage.time().unwrap();
        assert!(second.earliest >= first.earliest && second.latest - second.earliest == first.latest - first.earliest);
        assert_eq!(storage.requests(), requests, "measured once");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_store_that_cannot_be_written_to_tells_no_time() {
        let storage = Storage::open("/proc/nothing", &HashMap::new()).unwrap();
        let error = storage.time().unwrap_err();
        assert!(error.is_retryable() && error.to_string().contains("could not be read"), "{error}");
    }

    #[test]
    fn time_does_not_give_permission() {
        let error = |source| {
            let error = object_store::Error::Generic { store: "LocalFileSystem", source };
            unreadable(&Url::parse("file:///data/ledger/").unwrap(), error)
        };
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::ReadOnlyFilesystem] {
            let error = error(Box::new(io::Error::from(kind)));
            assert!(!error.is_retryable() && error.to_string().contains("may write there"), "{error}");
        }
        let refused = Error::new(ErrorKind::Authentication, "the bucket 'b' answered with HTTP status 403");
        assert!(!error(Box::new(refused)).is_retryable());
        let away = error(Box::new(io::Error::from(io::ErrorKind::StorageFull)));
        assert!(away.is_retryable() && away.to_string().ends_with("try again"), "{away}");
    }
}
