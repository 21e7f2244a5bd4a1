//! Which SAS Viya is used when a call does not name one.

use super::auth;
use crate::error::Result;
use crate::settings;

/// Variables that name a server, after `JOBROTA_BASE_URL`: those of SAS's own programs, and of others.
pub const VARIABLES: [&str; 5] =
    ["SAS_BASE_URL", "SAS_SERVICES_ENDPOINT", "VIYA_ENDPOINT", "VIYA_BASE_URL", "SAS_VIYA_URL"];

/// The server: `given`, else the setting `base_url`, else the first of [`VARIABLES`] that is set, else the `sas-endpoint`
/// of the profile in use of SAS's own command line (`~/.sas/config.json`); `None` when none of these names one.
///
/// # Errors
/// Those of [`settings::lookup`]; a retry does not help.
pub fn base_url(given: Option<&str>) -> Result<Option<String>> {
    if let Some(url) = settings::lookup("base_url", given)? {
        return Ok(Some(url));
    }
    Ok(settings::environment(&VARIABLES).or_else(|| auth::cli_endpoint(None)))
}

/// [`base_url`], or an error when there is none.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] that lists every way to name a server.
pub fn require(given: Option<&str>) -> Result<String> {
    base_url(given)?.ok_or_else(|| {
        let ways = "no SAS Viya server is named: give base_url (--base-url), log in with sas-viya, set";
        settings::missing("base_url", &format!("{ways} {}", VARIABLES.join(", ")))
    })
}
