//! Checks files that hold secrets: whether they exist, and whether other users can read them.

use std::fs::{File, metadata};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::report::{Area, Check};

/// Checks the file at `path`, which holds a secret: absent (a note), readable by others (a warning), or private.
pub(super) fn check_private(name: &str, path: &Path, content: &str) -> Check {
    let area = Area::Credentials;
    let shown = path.display();
    let found = match metadata(path) {
        Ok(found) => found,
        Err(e) if e.kind() == ErrorKind::NotFound => return area.note(name, format!("{shown} does not exist")),
        Err(e) => {
            let detail = format!("{shown} cannot be accessed: {e}");
            return area.warning(name, detail, "give this user permission, or name another file");
        }
    };
    if !found.is_file() {
        return area.warning(name, format!("{shown} is not a file"), &format!("name the file with {content}"));
    }
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        let detail = format!("{shown} can be read by other users (mode {mode:04o})");
        return area.warning(name, detail, &format!("chmod 600 '{shown}'"));
    }
    match File::open(path) {
        Ok(_) => area.ok(name, format!("{content} in {shown}")),
        Err(e) => area.warning(name, format!("{shown} cannot be read: {e}"), "let this user own the file"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::Status;
    use super::*;

    #[test]
    fn a_file_that_others_can_read_is_a_warning_with_the_command_to_repair_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        assert_eq!(check_private("key", &path, "a key").status, Status::Note);
        assert_eq!(check_private("key", directory.path(), "a key").status, Status::Warning);
        std::fs::write(&path, "x").unwrap();
        let with = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            check_private("key", &path, "a key")
        };
        assert_eq!(with(0o600).status, Status::Ok);
        let open = with(0o644);
        assert_eq!(open.status, Status::Warning);
        assert!(open.detail.contains("0644") && open.advice.unwrap().starts_with("chmod 600"));
    }
}
