//! Which SAS Viya is meant, where nobody says so with each call.

use super::auth;
use crate::error::{Error, Result};
use crate::settings;

/// Variables that name a server, after our own: the first job execution client's, SAS's own command line's, and those of
/// others.
pub const VARIABLES: [&str; 5] =
    ["SAS_BASE_URL", "SAS_SERVICES_ENDPOINT", "VIYA_ENDPOINT", "VIYA_BASE_URL", "SAS_VIYA_URL"];

/// The server: `given`, else the setting `base_url`, else the first of [`VARIABLES`] that is set, else the `sas-endpoint`
/// of the profile in use of SAS's own command line (`~/.sas/config.json`); none when nothing says.
///
/// # Errors
/// Those of [`settings::lookup`]; no retry helps.
pub fn base_url(given: Option<&str>) -> Result<Option<String>> {
    if let Some(url) = settings::lookup("base_url", given)? {
        return Ok(Some(url));
    }
    let variable = |name: &&str| std::env::var(name).ok().filter(|value| !value.is_empty());
    Ok(VARIABLES.iter().find_map(variable).or_else(|| auth::cli_endpoint(None)))
}

/// [`base_url`], which must be there.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] that names every way to say it.
pub fn require(given: Option<&str>) -> Result<String> {
    base_url(given)?.ok_or_else(|| {
        Error::invalid(format!(
            "no SAS Viya server is given: give base_url (--base-url), set JOBROTA_BASE_URL (or {}), put base_url into \
             jobrota.toml, or log in with sas-viya",
            VARIABLES.join(", ")
        ))
    })
}
