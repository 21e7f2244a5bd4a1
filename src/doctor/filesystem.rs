//! What kind of file system a directory is on, and what that means for a ledger.

use std::path::Path;

use super::report::{Area, Check, ok};

/// What a ledger may expect of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    Local,
    /// It is gone after a restart.
    Memory,
    Network,
    /// A program decides what happens.
    Fuse,
    Unknown,
}

/// Magic numbers of statfs(2) (Linux, magic.h; CIFS and SMB2 in fs/smb/client).
fn of_magic(magic: u64) -> (&'static str, Promise) {
    match magic {
        0xef53 => ("ext4", Promise::Local),
        0x5846_5342 => ("XFS", Promise::Local),
        0x9123_683e => ("Btrfs", Promise::Local),
        0x2fc1_2fc1 => ("ZFS", Promise::Local),
        0xf2f5_2010 => ("F2FS", Promise::Local),
        0x794c_7630 => ("overlay", Promise::Memory),
        0x0102_1994 | 0x8584_58f6 => ("tmpfs", Promise::Memory),
        0x6969 => ("NFS", Promise::Network),
        0xff53_4d42 | 0xfe53_4d42 | 0x517b => ("SMB/CIFS", Promise::Network),
        0x00c3_6400 => ("Ceph", Promise::Network),
        0x0bd0_0bd0 => ("Lustre", Promise::Network),
        0x4750_4653 => ("GPFS", Promise::Network),
        0x0102_1997 => ("9P", Promise::Network),
        0x6573_5546 => ("FUSE", Promise::Fuse),
        _ => ("of an unknown type", Promise::Unknown),
    }
}

/// Says on what kind of file system `directory`, or the nearest directory above it that exists, is. It asks the file
/// system, which may hang when a server does.
#[cfg(target_os = "linux")]
pub(super) fn examine(directory: &Path) -> Option<Check> {
    let there = directory.ancestors().find(|above| above.exists())?;
    let found = rustix::fs::statfs(there).ok()?;
    // The type of f_type differs between architectures; magic numbers have 32 bits.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::unnecessary_cast)]
    let magic = u64::from(found.f_type as u32);
    let read_only =
        rustix::fs::statvfs(there).is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    let free = found.f_bavail.saturating_mul(u64::try_from(found.f_bsize).unwrap_or(0));
    Some(described(magic, read_only, free))
}

#[cfg(not(target_os = "linux"))]
pub(super) fn examine(_directory: &Path) -> Option<Check> {
    None
}

/// A ledger needs little, but a commit must not fail for want of it.
const LITTLE: u64 = 100 << 20;

fn described(magic: u64, read_only: bool, free: u64) -> Check {
    let (name, promise) = of_magic(magic);
    let detail = format!("{name}, {:.1} GiB free", free as f64 / f64::from(1 << 30));
    let check = ok(Area::Ledger, "file system", detail.clone());
    if read_only {
        return check.warning(format!("{detail}, mounted read-only"), "choose another root, or mount it for writing");
    }
    if free < LITTLE {
        return check.warning(detail, "make room: a commit fails when the disk is full");
    }
    match promise {
        Promise::Local => check,
        Promise::Memory if name == "overlay" => check.warning(
            format!("{detail}: the layer of a container, gone with it"),
            "put the ledger on a volume, or into a container or bucket of a cloud",
        ),
        Promise::Memory => check.warning(
            format!("{detail}: in memory, gone after a restart"),
            "put the ledger on a disk, or into a container or bucket of a cloud",
        ),
        Promise::Network => check.warning(
            format!(
                "{detail}: shared over the network; other machines may see files late, and whether creating is atomic \
                     across machines depends on the server and its mount options"
            ),
            "where several machines write, use a container or bucket (abfss://, s3://, gs://) instead",
        ),
        Promise::Fuse => check.warning(
            format!(
                "{detail}: a program stands between you and the files, and it may create them non-atomically or late"
            ),
            "use the store behind it directly (abfss://, s3://, gs://), or a local disk",
        ),
        Promise::Unknown => check,
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;

    #[test]
    fn file_systems_that_promise_less_say_so() {
        let plenty = 10 << 30;
        assert_eq!(described(0xef53, false, plenty).status, Status::Ok);
        for (magic, word) in [
            (0x6969, "NFS"),
            (0xff53_4d42, "SMB"),
            (0x6573_5546, "FUSE"),
            (0x0102_1994, "memory"),
            (0x794c_7630, "layer of a container"),
        ] {
            let check = described(magic, false, plenty);
            assert_eq!(check.status, Status::Warning, "{word}");
            assert!(check.detail.contains(word) && check.advice.is_some(), "{}", check.detail);
        }
        assert!(described(0xef53, true, plenty).detail.contains("read-only"));
        assert_eq!(described(0xef53, false, 1 << 20).status, Status::Warning);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_directory_that_is_not_there_is_on_the_file_system_of_the_one_above() {
        let directory = tempfile::tempdir().unwrap();
        let here = examine(directory.path()).unwrap();
        let below = examine(&directory.path().join("not/there")).unwrap();
        assert_eq!(here.detail.split(',').next(), below.detail.split(',').next());
        // Memory and network file systems have no disk behind them; /proc has no room at all.
        assert_eq!(examine(Path::new("/proc")).unwrap().status, Status::Warning);
    }
}
