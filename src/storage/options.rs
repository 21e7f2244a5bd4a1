//! Reads and checks the options of object stores, from the caller and the environment, before a store is opened.
//!
//! No error contains a value, because a misspelt name does not tell whether its value is secret.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use object_store::aws::AmazonS3ConfigKey as S3;
use object_store::azure::AzureConfigKey as Azure;
use object_store::gcp::GoogleConfigKey as Google;
use object_store::{BackoffConfig, ClientConfigKey as Client, RetryConfig};
use url::Url;

use super::root::StoreKind;
use crate::duration;
use crate::error::{Error, Result};
use crate::http::address::has_userinfo;

mod keys;

pub(super) use keys::OptionKey;
use keys::{Address, CLOUDS, ValueKind, names, not_an_option, unknown};

/// The time after the beginning of a request in which it is repeated. With the time limit of the last attempt, a request
/// takes less than a minute.
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_RETRIES: usize = 6;
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// The names that delta-rs has for these options.
const RETRY_NAMES: [&str; 5] = [
    "max_retries",
    "retry_timeout",
    "backoff_config.init_backoff",
    "backoff_config.max_backoff",
    "backoff_config.base",
];

/// The options of one store.
pub(super) struct StoreOptions {
    pub(super) values: HashMap<OptionKey, String>,
    pub(super) retry: RetryConfig,
    /// Whether neither the caller nor the environment names an identity.
    pub(super) anonymous: bool,
    /// The keys from the environment.
    pub(super) from_environment: HashSet<OptionKey>,
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreOptions").field("keys", &self.values.keys()).finish_non_exhaustive()
    }
}

/// Checks the options of a local directory, which ignores them. A name that is not an option of any store is an error, and
/// so is a value that no store takes. Files with credentials can be missing here.
pub(super) fn check_unused(options: &HashMap<String, String>) -> Result<()> {
    each_option(options, &mut default_retry(), |name, lower, value| {
        let key = CLOUDS.into_iter().find_map(|kind| OptionKey::parse(kind, lower));
        let key = key.ok_or_else(|| unknown(name, CLOUDS.into_iter().flat_map(names)))?;
        if key.kind() != ValueKind::CredentialFile {
            checked(name, key, value)?;
        }
        Ok(())
    })
}

/// Passes the name of each option, the name in lower case, and the value to `set`, in the order of the names. The options for
/// retries are set in `retry` instead.
fn each_option<'a>(
    options: &'a HashMap<String, String>,
    retry: &mut RetryConfig,
    mut set: impl FnMut(&'a str, &str, &str) -> Result<()>,
) -> Result<()> {
    for (name, value) in options.iter().collect::<BTreeMap<_, _>>() {
        let lower = name.trim().to_ascii_lowercase();
        match RETRY_NAMES.contains(&lower.as_str()) {
            true => set_retry(retry, name, &lower, value)?,
            false => set(name, &lower, value)?,
        }
    }
    Ok(())
}

/// Reads the options of a store of `kind` from `options`, and those that it does not give from `environment`.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] for an unknown name, for two values of one option, and for an invalid value. No
/// error repeats a value.
pub(super) fn read(
    kind: StoreKind,
    options: &HashMap<String, String>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<StoreOptions> {
    let (mut values, mut retry, mut from_environment) = (HashMap::new(), default_retry(), HashSet::new());
    let mut names: HashMap<OptionKey, &str> = HashMap::new();
    each_option(options, &mut retry, |name, lower, value| {
        let key = OptionKey::parse(kind, lower).ok_or_else(|| not_an_option(kind, name, lower))?;
        let value = checked(name, key, value)?;
        if let Some(other) = names.insert(key, name)
            && values.get(&key).is_some_and(|before| *before != value)
        {
            return Err(Error::invalid(format!(
                "the storage options '{other}' and '{name}' are two names of one option, but have different values; give one of them"
            )));
        }
        values.insert(key, value);
        Ok(())
    })?;
    let has_identity = values.keys().any(|key| key.is_identity());
    for (name, value) in environment {
        let Some(key) = variable(kind, &name).filter(|_| !value.is_empty()) else { continue };
        let is_about_identity = key.is_identity() || key == OptionKey::Azure(Azure::CredentialType);
        if values.contains_key(&key) || has_identity && is_about_identity {
            continue;
        }
        values.insert(key, checked(&name, key, &value)?);
        from_environment.insert(key);
    }
    let anonymous = !values.keys().any(|key| key.is_identity());
    check_addresses(&mut values)?;
    Ok(StoreOptions { values, retry, anonymous, from_environment })
}

/// The option that the environment variable `name` sets. The name of the container and the option that disables the
/// check of certificates are not read from the environment, because they belong to the code that opens the ledger.
fn variable(kind: StoreKind, name: &str) -> Option<OptionKey> {
    let prefix = match kind {
        StoreKind::Local => return None,
        StoreKind::Azure => "AZURE_",
        StoreKind::S3 => "AWS_",
        StoreKind::Google => "GOOGLE_",
    };
    // App Service and Functions give the address of their managed identity in this variable.
    if kind == StoreKind::Azure && name == "IDENTITY_ENDPOINT" {
        return Some(OptionKey::Azure(Azure::MsiEndpoint));
    }
    if !name.starts_with(prefix) {
        return None;
    }
    let key = OptionKey::parse(kind, &name.to_ascii_lowercase())?;
    let is_excluded = matches!(
        key,
        OptionKey::Azure(Azure::ContainerName) | OptionKey::S3(S3::Bucket) | OptionKey::Google(Google::Bucket)
    ) || key.client() == Some(Client::AllowInvalidCertificates);
    (!is_excluded).then_some(key)
}

/// Whether object_store reads `value` as true.
pub(super) fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "on" | "yes" | "y")
}

fn is_false(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "0" | "false" | "off" | "no" | "n")
}

/// Checks a value, and converts a time to the form that object_store reads. Refuses values that break a promise of the
/// ledger.
fn checked(name: &str, key: OptionKey, value: &str) -> Result<String> {
    let wrong = |what: &str| Err(Error::invalid(format!("the storage option '{name}' must be {what}")));
    match key.kind() {
        ValueKind::Flag if !is_true(value) && !is_false(value) => return wrong("'true' or 'false'"),
        ValueKind::Time => {
            let Ok(time) = duration::parse(value) else { return wrong("a time such as '500ms', '10s' or '1m'") };
            return Ok(format!("{}ms", time.as_millis()));
        }
        ValueKind::CredentialFile if value.trim_start().starts_with('{') => {
            return Err(Error::invalid(format!(
                "'{name}' holds a key, but must name a file; give the key as google_service_account_key"
            )));
        }
        ValueKind::CredentialFile => {
            _ = std::fs::File::open(value)
                .map_err(|e| Error::invalid(format!("the file that '{name}' names cannot be opened: {}", e.kind())))?
        }
        ValueKind::Flag | ValueKind::Url(_) | ValueKind::Text => {}
    }
    if key.client() == Some(Client::AllowInvalidCertificates) && is_true(value) {
        return Err(Error::invalid(format!(
            "'{name}' is not supported: certificates are always verified; for your own certificate authority, put its \
             certificate into a file and name the file in the environment variable SSL_CERT_FILE"
        )));
    }
    if key == OptionKey::S3(S3::ConditionalPut) && !value.eq_ignore_ascii_case("etag") {
        return Err(Error::invalid(format!(
            "'{name}' can only be 'etag', the default: without conditional writes, concurrent writers would overwrite \
             each other's commits"
        )));
    }
    Ok(value.to_owned())
}

fn check_addresses(values: &mut HashMap<OptionKey, String>) -> Result<()> {
    let allow_http = values.iter().any(|(key, value)| key.allows_http() && is_true(value));
    for (&key, value) in values.iter_mut() {
        let ValueKind::Url(address) = key.kind() else { continue };
        let name = key.name();
        let wrong = |why: &str| Error::invalid(format!("'{name}' {why}"));
        let url = Url::parse(value)
            .ok()
            .filter(|url| url.has_host())
            .ok_or_else(|| wrong("must be a URL, such as https://host:port"))?;
        if address != Address::Proxy && has_userinfo(&url) {
            return Err(wrong("holds a user or password, which do not belong in a URL; give them as separate options"));
        }
        if address == Address::Server && (url.query().is_some() || url.fragment().is_some()) {
            return Err(wrong("has a query or a fragment; a signature is given as azure_storage_sas_key"));
        }
        match (url.scheme(), address) {
            ("https", _) | ("http", Address::Metadata | Address::Proxy) => {}
            ("http", Address::Server) if allow_http => {}
            ("http", Address::Server) => {
                return Err(wrong(
                    "is an http:// address, so that others can read and change the rows on the network; use https://, \
                     or set allow_http to 'true', for example for an emulator on this machine",
                ));
            }
            ("socks5" | "socks5h", Address::Proxy) => {}
            _ => return Err(wrong("must be a URL that begins with https://")),
        }
        // Azure gives it with a slash at the end, and object_store appends another one.
        let trimmed = value.trim_end_matches('/').len();
        value.truncate(trimmed);
    }
    Ok(())
}

/// The retries without options.
fn default_retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: FIRST_BACKOFF, max_backoff: LONGEST_BACKOFF, base: 2.0 },
        max_retries: MAX_RETRIES,
        retry_timeout: RETRY_TIMEOUT,
    }
}

/// Sets the option `lower`, which the caller wrote as `name`.
fn set_retry(retry: &mut RetryConfig, name: &str, lower: &str, value: &str) -> Result<()> {
    let wrong = |expected: &str| Error::invalid(format!("the storage option '{name}' must be {expected}"));
    let time = || duration::parse(value).map_err(|_| wrong("a time such as '500ms', '10s' or '1m'"));
    match lower {
        "max_retries" => retry.max_retries = value.parse().map_err(|_| wrong("a whole number"))?,
        "retry_timeout" => retry.retry_timeout = time()?,
        "backoff_config.init_backoff" => retry.backoff.init_backoff = time()?.max(Duration::from_millis(1)),
        "backoff_config.max_backoff" => retry.backoff.max_backoff = time()?.max(Duration::from_millis(1)),
        _ => {
            let base = value.parse().ok().filter(|base: &f64| *base > 1.0 && *base <= 100.0);
            retry.backoff.base = base.ok_or_else(|| wrong("a number above 1 and up to 100"))?;
        }
    }
    // The client chooses each wait at random between these, so the interval must not be empty.
    retry.backoff.max_backoff = retry.backoff.max_backoff.max(retry.backoff.init_backoff);
    Ok(())
}

#[cfg(test)]
mod tests;
