//! Options of object stores: what users and the environment say, checked before anything is connected to.
//!
//! No value is ever part of an error: which of them are secret depends on keys that may be misspelt.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::time::Duration;

use object_store::aws::AmazonS3ConfigKey as S3;
use object_store::azure::AzureConfigKey as Azure;
use object_store::gcp::GoogleConfigKey as Google;
use object_store::{BackoffConfig, ClientConfigKey as Client, RetryConfig};
use url::Url;

use super::root::StoreKind;
use crate::error::{Error, Result};

/// Retries of one request end when this much time has passed since its beginning; together with the time limit of the
/// last try it stays below a minute.
const RETRY_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_RETRIES: usize = 6;
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);

/// Options of every cloud.
const CLIENT_NAMES: [&str; 18] = [
    "allow_http",
    "connect_timeout",
    "default_content_type",
    "http1_only",
    "http2_keep_alive_interval",
    "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle",
    "http2_max_frame_size",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "randomize_addresses",
    "timeout",
    "user_agent",
    "allow_invalid_certificates",
];
const RETRY_NAMES: [&str; 5] = [
    "max_retries",
    "retry_timeout",
    "backoff_config.init_backoff",
    "backoff_config.max_backoff",
    "backoff_config.base",
];
const AZURE_NAMES: [&str; 34] = [
    "azure_storage_account_name",
    "account_name",
    "azure_storage_account_key",
    "azure_storage_access_key",
    "account_key",
    "access_key",
    "azure_storage_sas_key",
    "azure_storage_sas_token",
    "sas_key",
    "sas_token",
    "azure_storage_token",
    "bearer_token",
    "azure_storage_client_id",
    "azure_client_id",
    "client_id",
    "azure_storage_client_secret",
    "azure_client_secret",
    "client_secret",
    "azure_storage_tenant_id",
    "azure_tenant_id",
    "tenant_id",
    "azure_storage_authority_host",
    "azure_authority_host",
    "azure_federated_token_file",
    "azure_msi_endpoint",
    "azure_identity_endpoint",
    "azure_object_id",
    "azure_msi_resource_id",
    "azure_use_azure_cli",
    "azure_storage_use_emulator",
    "azure_storage_endpoint",
    "azure_use_fabric_endpoint",
    "azure_container_name",
    "azure_skip_signature",
];
const S3_NAMES: [&str; 33] = [
    "aws_access_key_id",
    "access_key_id",
    "aws_secret_access_key",
    "secret_access_key",
    "aws_session_token",
    "session_token",
    "aws_region",
    "region",
    "aws_default_region",
    "aws_endpoint",
    "aws_endpoint_url",
    "aws_endpoint_url_s3",
    "endpoint",
    "endpoint_url",
    "aws_bucket",
    "aws_virtual_hosted_style_request",
    "aws_s3_express",
    "aws_imdsv1_fallback",
    "aws_metadata_endpoint",
    "aws_unsigned_payload",
    "aws_checksum_algorithm",
    "aws_container_credentials_relative_uri",
    "aws_container_credentials_full_uri",
    "aws_container_authorization_token_file",
    "aws_web_identity_token_file",
    "aws_role_arn",
    "aws_role_session_name",
    "aws_endpoint_url_sts",
    "aws_skip_signature",
    "aws_conditional_put",
    "aws_request_payer",
    "aws_server_side_encryption",
    "aws_sse_kms_key_id",
];
const GOOGLE_NAMES: [&str; 8] = [
    "google_service_account",
    "google_service_account_path",
    "service_account",
    "google_service_account_key",
    "service_account_key",
    "google_application_credentials",
    "google_base_url",
    "google_skip_signature",
];

/// One option of one cloud, whichever of its names was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Azure(Azure),
    S3(S3),
    Google(Google),
}

impl Key {
    fn parse(kind: StoreKind, name: &str) -> Option<Self> {
        match kind {
            StoreKind::Local => None,
            StoreKind::Azure => name.parse().ok().map(Self::Azure),
            StoreKind::S3 => name.parse().ok().map(Self::S3),
            StoreKind::Google => name.parse().ok().map(Self::Google),
        }
    }

    fn client(self) -> Option<Client> {
        match self {
            Self::Azure(Azure::Client(key)) | Self::S3(S3::Client(key)) | Self::Google(Google::Client(key)) => {
                Some(key)
            }
            _ => None,
        }
    }

    /// Decides which identity is used: these come all from the options or all from the environment, so that one half
    /// of an identity never meets the other half of another one.
    fn is_identity(self) -> bool {
        matches!(
            self,
            Self::Azure(
                Azure::AccessKey
                    | Azure::SasKey
                    | Azure::Token
                    | Azure::ClientSecret
                    | Azure::FederatedTokenFile
                    | Azure::UseAzureCli
                    | Azure::SkipSignature
                    | Azure::FabricSessionToken
            ) | Self::S3(
                S3::AccessKeyId
                    | S3::SecretAccessKey
                    | S3::Token
                    | S3::WebIdentityTokenFile
                    | S3::RoleArn
                    | S3::ContainerCredentialsRelativeUri
                    | S3::ContainerCredentialsFullUri
                    | S3::ContainerAuthorizationTokenFile
                    | S3::SkipSignature
            ) | Self::Google(
                Google::ServiceAccount
                    | Google::ServiceAccountKey
                    | Google::ApplicationCredentials
                    | Google::SkipSignature
            )
        )
    }

    /// Is either true or false.
    fn is_flag(self) -> bool {
        matches!(
            self,
            Self::Azure(
                Azure::UseAzureCli
                    | Azure::SkipSignature
                    | Azure::UseEmulator
                    | Azure::UseFabricEndpoint
                    | Azure::DisableTagging
            ) | Self::S3(
                S3::ImdsV1Fallback
                    | S3::VirtualHostedStyleRequest
                    | S3::S3Express
                    | S3::UnsignedPayload
                    | S3::SkipSignature
                    | S3::DisableTagging
                    | S3::RequestPayer
            ) | Self::Google(Google::SkipSignature)
        ) || self.client().is_some_and(|key| {
            matches!(
                key,
                Client::AllowHttp
                    | Client::AllowInvalidCertificates
                    | Client::Http1Only
                    | Client::Http2Only
                    | Client::Http2KeepAliveWhileIdle
                    | Client::RandomizeAddresses
            )
        })
    }

    /// Names a file that holds a credential.
    fn is_file(self) -> bool {
        matches!(
            self,
            Self::Azure(Azure::FederatedTokenFile)
                | Self::S3(S3::WebIdentityTokenFile | S3::ContainerAuthorizationTokenFile)
                | Self::Google(Google::ServiceAccount | Google::ApplicationCredentials)
        )
    }

    pub(super) fn allows_http(self) -> bool {
        self.client() == Some(Client::AllowHttp)
    }

    /// What may be said about the URL that it holds, if it holds one.
    fn url(self) -> Option<Address> {
        match self {
            Self::Azure(Azure::Endpoint | Azure::AuthorityHost | Azure::FabricTokenServiceUrl)
            | Self::S3(S3::Endpoint | S3::S3Endpoint)
            | Self::Google(Google::BaseUrl) => Some(Address::Server),
            Self::S3(S3::StsEndpoint) => Some(Address::TlsOnly),
            // Addresses of this machine or its host, which speak plain HTTP by design.
            Self::Azure(Azure::MsiEndpoint) | Self::S3(S3::MetadataEndpoint | S3::ContainerCredentialsFullUri) => {
                Some(Address::Metadata)
            }
            _ if self.client() == Some(Client::ProxyUrl) => Some(Address::Proxy),
            _ => None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Address {
    Server,
    TlsOnly,
    Metadata,
    /// The only URL in which a user and password have their place.
    Proxy,
}

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
        let known = RETRY_NAMES.contains(&lower.as_str()) || clouds().any(|kind| Key::parse(kind, &lower).is_some());
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
    let mut settings =
        Settings { values: HashMap::new(), retry: default_retry(), anonymous: false, from_environment: HashSet::new() };
    let mut names: HashMap<Key, &str> = HashMap::new();
    for name in sorted(options) {
        let (lower, value) = (name.trim().to_ascii_lowercase(), options[name].as_str());
        if RETRY_NAMES.contains(&lower.as_str()) {
            set_retry(&mut settings.retry, name, &lower, value)?;
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
        return duration(value).map(|time| format!("{}ms", time.as_millis())).ok_or_else(|| {
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
        let name = name(key);
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

pub(super) fn name(key: Key) -> &'static str {
    // as_ref() of the keys borrows from the key, although all names are static.
    let known = match key {
        Key::Azure(_) => names(StoreKind::Azure),
        Key::S3(_) => names(StoreKind::S3),
        Key::Google(_) => names(StoreKind::Google),
    };
    let kind = match key {
        Key::Azure(_) => StoreKind::Azure,
        Key::S3(_) => StoreKind::S3,
        Key::Google(_) => StoreKind::Google,
    };
    known.into_iter().find(|name| Key::parse(kind, name) == Some(key)).unwrap_or("a storage option")
}

fn default_retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: FIRST_BACKOFF, max_backoff: LONGEST_BACKOFF, base: 2.0 },
        max_retries: MAX_RETRIES,
        retry_timeout: RETRY_TIMEOUT,
    }
}

fn set_retry(retry: &mut RetryConfig, name: &str, lower: &str, value: &str) -> Result<()> {
    let wrong = |expected: &str| Error::invalid(format!("the storage option '{name}' must be {expected}"));
    let time = || duration(value).ok_or_else(|| wrong("a time such as '500ms', '10s' or '1m'"));
    match lower {
        "max_retries" => retry.max_retries = value.parse().map_err(|_| wrong("a whole number"))?,
        "retry_timeout" => retry.retry_timeout = time()?,
        "backoff_config.init_backoff" => retry.backoff.init_backoff = time()?.max(Duration::from_millis(1)),
        "backoff_config.max_backoff" => retry.backoff.max_backoff = time()?.max(Duration::from_millis(1)),
        _ => {
            retry.backoff.base = value
                .parse()
                .ok()
                .filter(|base: &f64| *base > 1.0 && *base <= 100.0)
                .ok_or_else(|| wrong("a number above 1 and up to 100"))?;
        }
    }
    // The client draws each wait from an interval between these, which must not be empty.
    retry.backoff.max_backoff = retry.backoff.max_backoff.max(retry.backoff.init_backoff);
    Ok(())
}

/// A time such as `500ms`, `10s`, `2m` or `1h`; a number alone is seconds.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor = match unit.trim() {
        "ms" => 0.001,
        "" | "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
        "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3600.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * factor).ok()
}

fn clouds() -> impl Iterator<Item = StoreKind> {
    [StoreKind::Azure, StoreKind::S3, StoreKind::Google].into_iter()
}

fn names(kind: StoreKind) -> Vec<&'static str> {
    let own: &[&str] = match kind {
        StoreKind::Local => &[],
        StoreKind::Azure => &AZURE_NAMES,
        StoreKind::S3 => &S3_NAMES,
        StoreKind::Google => &GOOGLE_NAMES,
    };
    own.iter().chain(&CLIENT_NAMES).chain(&RETRY_NAMES).chain(&[super::delayed::OPTION]).copied().collect()
}

fn sorted(options: &HashMap<String, String>) -> Vec<&String> {
    let mut names: Vec<_> = options.keys().collect();
    names.sort();
    names
}

fn not_an_option(kind: StoreKind, name: &str, lower: &str) -> Error {
    if matches!(lower, "aws_s3_locking_provider" | "aws_s3_allow_unsafe_rename" | "allow_unsafe_rename") {
        return Error::invalid(format!(
            "'{name}' is not needed: commits are conditional writes, which S3 itself decides; leave it out"
        ));
    }
    let other =
        clouds().find(|other| *other != kind && Key::parse(*other, lower).is_some() && names(*other).contains(&lower));
    if let Some(other) = other {
        return Error::invalid(format!(
            "'{name}' is a storage option of {}:// roots, and the root is {}://; leave it out",
            other.scheme(),
            kind.scheme()
        ));
    }
    unknown(name, &names(kind))
}

/// An unknown key, with the known ones that look like it.
fn unknown(name: &str, known: &[&'static str]) -> Error {
    let lower = name.trim().to_ascii_lowercase();
    // A value in the place of a key might be a secret.
    if name.len() > 39 || !name.trim().chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
        return Error::invalid("a key of storage_options is not a name; write it as {'name': 'value'}");
    }
    let mut near: Vec<_> = known
        .iter()
        .map(|&known| (distance(&lower, known), known))
        .filter(|(distance, known)| *distance <= known.len() / 3 || known.contains(&lower))
        .collect();
    near.sort_unstable();
    near.dedup();
    let near: Vec<_> = near.iter().take(3).map(|(_, known)| format!("'{known}'")).collect();
    let advice = if near.is_empty() {
        "docs/storage.md lists the known ones".to_owned()
    } else {
        format!("did you mean {}?", near.join(" or "))
    };
    Error::invalid(format!("'{name}' is not a storage option; {advice}"))
}

/// How many characters have to be inserted, removed or replaced to make `b` of `a` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
