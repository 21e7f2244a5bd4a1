//! The variables that a shell file exports, such as the `autosys.sh.host` of every AutoSys client.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use tokio::process::Command;
use tokio::sync::OnceCell;

use crate::http::Secret;

/// The file is an argument and not part of the script. `env -0` ends each variable with a NUL, because values have newlines.
const SOURCE: &str = r#"[ -r "$1" ] || exit 126; . "$1" >/dev/null 2>&1; exec env -0"#;

pub(super) type SourcedVariables = Arc<Vec<(OsString, OsString)>>;

/// The variables of the file, after it was sourced.
#[derive(Default)]
pub(super) struct EnvFile(OnceCell<SourcedVariables>);

impl std::fmt::Debug for EnvFile {
    /// Shows no values, because they may be credentials.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("EnvFile").field(&self.0.initialized()).finish()
    }
}

impl EnvFile {
    /// All variables after `file` was sourced on top of those of this process and of `given`. The file is sourced once.
    ///
    /// # Errors
    /// Why there are no variables. Sourcing is tried again next time.
    pub(super) async fn variables(
        &self,
        file: &Path,
        given: &BTreeMap<String, Secret>,
        limit: Duration,
    ) -> Result<SourcedVariables, String> {
        self.0.get_or_try_init(|| source(file, given, limit)).await.cloned()
    }
}

async fn source(file: &Path, given: &BTreeMap<String, Secret>, limit: Duration) -> Result<SourcedVariables, String> {
    let failed = |why: String| format!("env_file {} {why}", file.display());
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", SOURCE, "jobrota"])
        .arg(file)
        .envs(super::exposed(given))
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let done = tokio::time::timeout(limit, command.output()).await;
    let done = done.map_err(|_| failed(format!("did not end within {} s", limit.as_secs_f64())))?;
    let done = done.map_err(|e| failed(format!("could not be sourced: {e}")))?;
    match done.status.code() {
        Some(0) => {}
        Some(126) => {
            return Err(failed("cannot be read: check that it exists and that this user may read it".to_owned()));
        }
        _ => return Err(failed(format!("ended the shell that sourced it ({})", done.status))),
    }
    let variables = done.stdout.split(|byte| *byte == 0).filter_map(|variable| {
        let at = variable.iter().position(|byte| *byte == b'=')?;
        let text = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        Some((text(&variable[..at]), text(&variable[at + 1..])))
    });
    Ok(Arc::new(variables.collect()))
}
