//! Files that hold secrets: whether they are there, and who else may read them.

use std::path::Path;

use super::report::{Area, Check, note, ok};

/// A file that holds a secret under `name`: absent (a note), readable by others (a warning), or as it should be.
pub(super) fn private(name: &str, path: &Path, what: &str) -> Check {
    let shown = path.display();
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            note(Area::Credentials, name, format!("{shown} does not exist"))
        }
        Err(e) => ok(Area::Credentials, name, "")
            .warning(format!("{shown} cannot be looked at: {e}"), "give this user permission, or name another file"),
        Ok(found) if !found.is_file() => {
            ok(Area::Credentials, name, "").warning(format!("{shown} is no file"), format!("name the file with {what}"))
        }
        Ok(found) => match others(&found) {
            Some(mode) => ok(Area::Credentials, name, "").warning(
                format!("{shown} can be read by other users (mode {mode:04o})"),
                format!("chmod 600 '{shown}'"),
            ),
            None => match std::fs::File::open(path) {
                Ok(_) => ok(Area::Credentials, name, format!("{what} in {shown}")),
                Err(e) => ok(Area::Credentials, name, "")
                    .warning(format!("{shown} cannot be read: {e}"), "let this user own the file"),
            },
        },
    }
}

/// The file's mode, if it lets the group or others in.
fn others(found: &std::fs::Metadata) -> Option<u32> {
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o7777;
        (mode & 0o077 != 0).then_some(mode)
    }
    #[cfg(not(unix))]
    {
        let _ = found;
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::report::Status;
    use super::*;

    #[test]
    fn a_file_that_others_can_read_is_a_warning_with_the_command_that_mends_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert_eq!(private("key", &path, "a key").status, Status::Note);
        assert_eq!(private("key", directory.path(), "a key").status, Status::Warning);
        std::fs::write(&path, "x").unwrap();
        let with = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            private("key", &path, "a key")
        };
        assert_eq!(with(0o600).status, Status::Ok);
        let open = with(0o644);
        assert_eq!(open.status, Status::Warning);
        assert!(open.detail.contains("0644") && open.advice.unwrap().starts_with("chmod 600"));
    }
}
