//! Options of object stores: what users and the environment say, checked before anything is connected to.
//!
//! No value is ever part of an error: which of them are secret depends on keys that may be misspelt.

use std::collections::{HashMap, HashSet};
use std::fmt;

use object_store::aws::AmazonS3ConfigKey as S3;
use object_store::azure::AzureConfigKey as Azure;
use object_store::gcp::GoogleConfigKey as Google;
use object_store::{ClientConfigKey as Client, RetryConfig};
use url::Url;

use super::root::StoreKind;
use crate::duration;
use crate::error::{Error, Result};

mod keys;
mod retry;

pub(super) use keys::Key;
use keys::{Address, clouds, names, not_an_option, unknown};

/// What was said about one store.
pub(super) struct Settings {
    pub(super) values: HashMap<Key, String>,
    pub(super) retry: RetryConfig,
    /// Neither the options nor the environment name an identity.
    pub(super) anonymous: bool,
    /// Keys that only the environment named.
    pub(super) from_environment: HashSet<Key>,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("keys", &self.values.keys()).finish_non_exhaustive()
    }
}

/// Checks the options of a local directory, which needs none: what is an option of no store is a mistake.
pub(super) fn check_unused(options: &HashMap<String, String>) -> Result<()> {
    for name in sorted(options) {
        let lower = name.trim().to_ascii_lowercase();
        let known = retry::NAMES.contains(&lower.as_str()) || clouds().any(|kind| Key::parse(kind, &lower).is_some());
        if !known {
            return Err(unknown(name, &clouds().flat_map(names).collect::<Vec<_>>()));
        }
    }
    Ok(())
}

/// What `options` and, where they are silent, `environment` say about a store of `kind`.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] for an unknown key, for two values of one option, and for values that can never
/// work. No error repeats a value.
pub(super) fn read(
    kind: StoreKind,
    options: &HashMap<String, String>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Settings> {
    let mut settings = Settings {
        values: HashMap::new(),
        retry: retry::default(),
        anonymous: false,
        from_environment: HashSet::new(),
    };
    let mut names: HashMap<Key, &str> = HashMap::new();
    for name in sorted(options) {
        let (lower, value) = (name.trim().to_ascii_lowercase(), options[name].as_str());
        if retry::NAMES.contains(&lower.as_str()) {
            retry::set(&mut settings.retry, name, &lower, value)?;
            continue;
        }
        let key = Key::parse(kind, &lower).ok_or_else(|| not_an_option(kind, name, &lower))?;
        let value = checked(name, key, value)?;
        if let Some(other) = names.insert(key, name)
            && settings.values.get(&key).is_some_and(|before| *before != value)
        {
            return Err(Error::invalid(format!(
                "the storage options '{other}' and '{name}' are two names of one option, with different values; give one"
            )));
        }
        settings.values.insert(key, value);
    }
    let given = settings.values.keys().any(|key| key.is_identity());
    for (name, value) in environment {
        let Some(key) = variable(kind, &name).filter(|_| !value.is_empty()) else { continue };
        if settings.values.contains_key(&key) || given && key.is_identity() {
            continue;
        }
        settings.values.insert(key, checked(&name, key, &value)?);
        settings.from_environment.insert(key);
    }
    settings.anonymous = !settings.values.keys().any(|key| key.is_identity());
    check_addresses(&mut settings.values)?;
    Ok(settings)
}

/// The option that the environment variable `name` sets. What names the container, and what would turn the checks of
/// certificates off, is not taken from there: both belong to the code that opens the ledger, if anywhere.
fn variable(kind: StoreKind, name: &str) -> Option<Key> {
    let prefix = match kind {
        StoreKind::Local => return None,
        StoreKind::Azure => "AZURE_",
        StoreKind::S3 => "AWS_",
        StoreKind::Google => "GOOGLE_",
    };
    // Where App Service and Functions keep the address of their managed identity.
    if kind == StoreKind::Azure && name == "IDENTITY_ENDPOINT" {
        return Some(Key::Azure(Azure::MsiEndpoint));
    }
    if !name.starts_with(prefix) {
        return None;
    }
    let key = Key::parse(kind, &name.to_ascii_lowercase())?;
    let here = matches!(key, Key::Azure(Azure::ContainerName) | Key::S3(S3::Bucket) | Key::Google(Google::Bucket))
        || key.client() == Some(Client::AllowInvalidCertificates);
    (!here).then_some(key)
}

/// Whether `value` is one of the words that the stores take for true.
pub(super) fn is_true(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "true" | "on" | "yes" | "y")
}

fn is_false(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "0" | "false" | "off" | "no" | "n")
}

/// The value as object_store understands it. Refuses what can never work, or would break a promise of the ledger.
fn checked(name: &str, key: Key, value: &str) -> Result<String> {
    if key.is_flag() && !is_true(value) && !is_false(value) {
        return Err(Error::invalid(format!("the storage option '{name}' must be 'true' or 'false'")));
    }
    let time = key.client().is_some_and(|key| {
        matches!(
            key,
            Client::Timeout
                | Client::ConnectTimeout
                | Client::PoolIdleTimeout
                | Client::Http2KeepAliveInterval
                | Client::Http2KeepAliveTimeout
        )
    });
    if time {
        return duration::parse(value).map(|time| format!("{}ms", time.as_millis())).map_err(|_| {
            Error::invalid(format!("the storage option '{name}' must be a time such as '500ms', '10s' or '1m'"))
        });
    }
    if key.client() == Some(Client::AllowInvalidCertificates) && is_true(value) {
        return Err(Error::invalid(format!(
            "'{name}' is not supported: certificates are always verified; for a certificate authority of your own, put \
             its certificate into a file and name that in the environment variable SSL_CERT_FILE"
        )));
    }
    if key == Key::S3(S3::ConditionalPut) && !value.eq_ignore_ascii_case("etag") {
        return Err(Error::invalid(format!(
            "'{name}' can only be 'etag', the default: without conditional writes, concurrent writers would overwrite \
             each other's commits"
        )));
    }
    if key.is_file() {
        if value.trim_start().starts_with('{') {
            return Err(Error::invalid(format!(
                "'{name}' holds a key itself, where the name of a file is expected; give the key as \
                 google_service_account_key"
            )));
        }
        std::fs::File::open(value)
            .map_err(|e| Error::invalid(format!("the file that '{name}' names cannot be opened: {}", e.kind())))?;
    }
    Ok(value.to_owned())
}

fn check_addresses(values: &mut HashMap<Key, String>) -> Result<()> {
    let allow_http = values.iter().any(|(key, value)| key.allows_http() && is_true(value));
    for (&key, value) in values.iter_mut() {
        let Some(address) = key.url() else { continue };
        let name = key.name();
        let wrong = |why: &str| Error::invalid(format!("'{name}' {why}"));
        let url = Url::parse(value)
            .ok()
            .filter(|url| url.has_host())
            .ok_or_else(|| wrong("must be a URL, such as https://host:port"))?;
        if address != Address::Proxy && (!url.username().is_empty() || url.password().is_some()) {
            return Err(wrong(
                "holds a user or password, which do not belong in a URL; give them as options of their own",
            ));
        }
        if address == Address::Server && (url.query().is_some() || url.fragment().is_some()) {
            return Err(wrong("has a query or a fragment; a signature is given as azure_storage_sas_key"));
        }
        match (url.scheme(), address) {
            ("https", _) | ("http", Address::Metadata | Address::Proxy) => {}
            ("http", Address::Server) if allow_http => {}
            ("http", Address::Server) => {
                return Err(wrong(
                    "is an http:// address, over which everybody on the way can read and change the rows; use https://, \
                     or set allow_http to 'true', for example for an emulator on this machine",
                ));
            }
            ("socks5" | "socks5h", Address::Proxy) => {}
            _ => return Err(wrong("must be a URL that begins with https://")),
        }
        // Azure hands it out with a slash at its end, and object_store appends one of its own.
        let trimmed = value.trim_end_matches('/').len();
        value.truncate(trimmed);
    }
    Ok(())
}

fn sorted(options: &HashMap<String, String>) -> Vec<&String> {
    let mut names: Vec<_> = options.keys().collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests;
