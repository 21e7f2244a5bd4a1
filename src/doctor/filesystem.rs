//! Checks the type of file system of a directory, and what it means for a ledger.

use std::path::Path;

use super::report::{Area, Check};

/// What a file system guarantees to a ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guarantee {
    Local,
    /// Files are deleted with their container.
    Container,
    /// Files are lost after a restart.
    Memory,
    Network,
    /// A program implements the file system.
    Fuse,
    Unknown,
}

/// Magic numbers of statfs(2) (Linux, magic.h; CIFS and SMB2 in fs/smb/client).
fn of_magic(magic: u64) -> (&'static str, Guarantee) {
    match magic {
        0xef53 => ("ext4", Guarantee::Local),
        0x5846_5342 => ("XFS", Guarantee::Local),
        0x9123_683e => ("Btrfs", Guarantee::Local),
        0x2fc1_2fc1 => ("ZFS", Guarantee::Local),
        0xf2f5_2010 => ("F2FS", Guarantee::Local),
        0x794c_7630 => ("overlay", Guarantee::Container),
        0x0102_1994 | 0x8584_58f6 => ("tmpfs", Guarantee::Memory),
        0x6969 => ("NFS", Guarantee::Network),
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => ("SMB/CIFS", Guarantee::Network),
        0x00c3_6400 => ("Ceph", Guarantee::Network),
        0x0bd0_0bd0 => ("Lustre", Guarantee::Network),
        0x4750_4653 => ("GPFS", Guarantee::Network),
        0x0102_1997 => ("9P", Guarantee::Network),
        0x6573_5546 => ("FUSE", Guarantee::Fuse),
        _ => ("of an unknown type", Guarantee::Unknown),
    }
}

/// Checks the file system of `directory`, or of the nearest directory above it that exists. The call can hang when a
/// file server hangs.
pub(super) fn examine(directory: &Path) -> Option<Check> {
    let existing = directory.ancestors().find(|above| above.exists())?;
    let found = rustix::fs::statfs(existing).ok()?;
    // The type of f_type differs between architectures; magic numbers have 32 bits.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast)]
    let magic = u64::from(found.f_type as u32);
    let read_only =
        rustix::fs::statvfs(existing).is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    let free = found.f_bavail.saturating_mul(u64::try_from(found.f_bsize).unwrap_or(0));
    Some(describe(magic, read_only, free))
}

/// A ledger needs little space, but a commit fails on a full disk.
const MIN_FREE: u64 = 100 << 20;

fn describe(magic: u64, read_only: bool, free: u64) -> Check {
    let (name, guarantee) = of_magic(magic);
    let detail = format!("{name}, {:.1} GiB free", free as f64 / f64::from(1 << 30));
    let (detail, advice) = match guarantee {
        _ if read_only => {
            (format!("{detail}, mounted read-only"), "choose another root, or mount the file system for writing")
        }
        _ if free < MIN_FREE => (detail, "free some space: a commit fails when the disk is full"),
        Guarantee::Local | Guarantee::Unknown => return Area::Ledger.ok("file system", detail),
        Guarantee::Container => (
            format!("{detail}: the layer of a container, which is deleted with the container"),
            "put the ledger on a volume, or into a container or bucket of a cloud",
        ),
        Guarantee::Memory => (
            format!("{detail}: in memory, lost after a restart"),
            "put the ledger on a disk, or into a container or bucket of a cloud",
        ),
        Guarantee::Network => (
            format!(
                "{detail}: shared over the network; other machines may see files late, and the server and its mount \
                 options decide whether files are created atomically across machines"
            ),
            "where several machines write, use a container or bucket (abfss://, s3://, gs://) instead",
        ),
        Guarantee::Fuse => (
            format!("{detail}: a program provides the files, and may create them late or not atomically"),
            "use the store of that program directly (abfss://, s3://, gs://), or a local disk",
        ),
    };
    Area::Ledger.warning("file system", detail, advice)
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
