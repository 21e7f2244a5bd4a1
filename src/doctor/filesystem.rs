//! Checks the type of file system of a directory, and what it means for a ledger.

use std::path::Path;

use super::report::{Area, Check};

/// What can happen to a ledger there, and what to do about it.
type FilesystemRisk = (&'static str, &'static str);

const CONTAINER: FilesystemRisk = (
    ": the layer of a container, which is deleted with the container",
    "put the ledger on a volume, or into a container or bucket of a cloud",
);
const MEMORY: FilesystemRisk =
    (": in memory, lost after a restart", "put the ledger on a disk, or into a container or bucket of a cloud");
const NETWORK: FilesystemRisk = (
    ": shared over the network; other machines may see files late, and the server and its mount options decide whether \
     files are created atomically across machines",
    "where several machines write, use a container or bucket (abfss://, s3://, gs://) instead",
);
/// A program implements the file system.
const FUSE: FilesystemRisk = (
    ": a program provides the files, and may create them late or not atomically",
    "use the store of that program directly (abfss://, s3://, gs://), or a local disk",
);

/// Magic numbers of statfs(2) (Linux, magic.h; CIFS and SMB2 in fs/smb/client).
fn of_magic(magic: u64) -> (&'static str, Option<FilesystemRisk>) {
    match magic {
        0xef53 => ("ext4", None),
        0x5846_5342 => ("XFS", None),
        0x9123_683e => ("Btrfs", None),
        0x2fc1_2fc1 => ("ZFS", None),
        0xf2f5_2010 => ("F2FS", None),
        0x794c_7630 => ("overlay", Some(CONTAINER)),
        0x0102_1994 | 0x8584_58f6 => ("tmpfs", Some(MEMORY)),
        0x6969 => ("NFS", Some(NETWORK)),
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => ("SMB/CIFS", Some(NETWORK)),
        0x00c3_6400 => ("Ceph", Some(NETWORK)),
        0x0bd0_0bd0 => ("Lustre", Some(NETWORK)),
        0x4750_4653 => ("GPFS", Some(NETWORK)),
        0x0102_1997 => ("9P", Some(NETWORK)),
        0x6573_5546 => ("FUSE", Some(FUSE)),
        _ => ("of an unknown type", None),
    }
}

/// Checks the file system of `directory`, or of the nearest directory above it that exists. The call can hang when a
/// file server hangs.
pub(super) fn examine(directory: &Path) -> Option<Check> {
    let existing = directory.ancestors().find(|above| above.exists())?;
    let found = rustix::fs::statfs(existing).ok()?;
    // The type of f_type differs between architectures; magic numbers have 32 bits.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast, reason = "see above")]
    let magic = u64::from(found.f_type as u32);
    let read_only =
        rustix::fs::statvfs(existing).is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    let free = found.f_bavail.saturating_mul(u64::try_from(found.f_bsize).unwrap_or(0));
    Some(describe(magic, read_only, free))
}

/// A ledger needs little space, but a commit fails on a full disk.
const MIN_FREE: u64 = 100 << 20;

fn describe(magic: u64, read_only: bool, free: u64) -> Check {
    let (name, risk) = of_magic(magic);
    let detail = format!("{name}, {:.1} GiB free", free as f64 / f64::from(1 << 30));
    let (more, advice) = match risk {
        _ if read_only => (", mounted read-only", "choose another root, or mount the file system for writing"),
        _ if free < MIN_FREE => ("", "free some space: a commit fails when the disk is full"),
        None => return Area::LEDGER.ok("file system", detail),
        Some(risk) => risk,
    };
    Area::LEDGER.warning("file system", format!("{detail}{more}"), advice)
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;

    #[test]
    fn file_systems_that_guarantee_less_are_warnings() {
        let plenty = 10 << 30;
        assert_eq!(describe(0xef53, false, plenty).status, Status::Ok);
        for (magic, word) in [
            (0x6969, "NFS"),
            (0xff53_4d42, "SMB"),
            (0x6573_5546, "FUSE"),
            (0x0102_1994, "memory"),
            (0x794c_7630, "layer of a container"),
        ] {
            let check = describe(magic, false, plenty);
            assert_eq!(check.status, Status::Warning, "{word}");
            assert!(check.detail.contains(word) && check.advice.is_some(), "{}", check.detail);
        }
        assert!(describe(0xef53, true, plenty).detail.contains("read-only"));
        assert_eq!(describe(0xef53, false, 1 << 20).status, Status::Warning);
    }

    #[test]
    fn a_missing_directory_is_on_the_file_system_of_the_directory_above() {
        let directory = tempfile::tempdir().unwrap();
        let here = examine(directory.path()).unwrap();
        let below = examine(&directory.path().join("not/there")).unwrap();
        assert_eq!(here.detail.split(',').next(), below.detail.split(',').next());
        // Memory and network file systems have no disk behind them; /proc has no room at all.
        assert_eq!(examine(Path::new("/proc")).unwrap().status, Status::Warning);
    }
}
