//! Roots in containers and buckets: Azure, S3 and Google Cloud Storage, all through object_store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as S3};
use object_store::azure::{AzureConfigKey as Azure, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey as Google};
use object_store::{ClientOptions, DynObjectStore};
use url::{Host, Url};

use super::clear::ClearErrors;
use super::options::{self, Key, Settings};
use super::root::{Bucket, StoreKind};
use crate::error::{Error, Result};

/// How long one request may take, its body included: enough for a compacted file on a slow line, and short enough that a
/// server that went silent is noticed within a minute.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Where object_store's emulator mode looks for Azurite.
const AZURITE_URL: &str = "AZURITE_BLOB_STORAGE_URL";

/// Connects to the store behind `bucket`; no request is sent yet. Errors of the store come back as [`ClearErrors`] puts
/// them.
///
/// # Errors
/// [`crate::ErrorKind::InvalidInput`] for options that are unknown, contradict the root or can never work.
pub(super) fn connect(
    bucket: &Bucket,
    given: &HashMap<String, String>,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<Arc<DynObjectStore>> {
    let settings = options::read(bucket.kind, given, environment)?;
    let anonymous = settings.anonymous;
    // HTTPS alone until the options say otherwise: one of object_store's builders begins with plain HTTP allowed.
    let client =
        ClientOptions::new().with_allow_http(false).with_timeout(REQUEST_TIMEOUT).with_connect_timeout(CONNECT_TIMEOUT);
    let (store, place) = match bucket.kind {
        StoreKind::Local => return Err(Error::invalid("a local directory is no bucket")),
        StoreKind::Azure => azure(bucket, settings, client)?,
        StoreKind::S3 => s3(bucket, settings, client)?,
        StoreKind::Google => google(bucket, settings, client)?,
    };
    Ok(Arc::new(ClearErrors::new(store, place, anonymous)))
}

fn azure(bucket: &Bucket, mut settings: Settings, client: ClientOptions) -> Result<(Arc<DynObjectStore>, String)> {
    same(&mut settings, Key::Azure(Azure::ContainerName), &bucket.name)?;
    let emulator = settings.values.get(&Key::Azure(Azure::UseEmulator)).is_some_and(|value| options::is_true(value));
    if emulator {
        check_emulator(&settings)?;
    }
    if let Some((account, endpoint)) = &bucket.account {
        same(&mut settings, Key::Azure(Azure::AccountName), account)?;
        settings.values.insert(Key::Azure(Azure::AccountName), account.clone());
        settings.values.entry(Key::Azure(Azure::Endpoint)).or_insert_with(|| endpoint.clone());
    }
    let account = match settings.values.get(&Key::Azure(Azure::AccountName)) {
        Some(account) => account.clone(),
        None if emulator => "devstoreaccount1".to_owned(),
        None => {
            return Err(Error::invalid(format!(
                "'{}' names no storage account: set azure_storage_account_name in storage_options, or \
                 AZURE_STORAGE_ACCOUNT_NAME in the environment, or write the root as \
                 abfss://{}@account.dfs.core.windows.net/path",
                bucket.url, bucket.name
            )));
        }
    };
    let mut builder = MicrosoftAzureBuilder::new().with_client_options(client).with_retry(settings.retry.clone());
    for (key, value) in &settings.values {
        if let Key::Azure(key) = key {
            builder = builder.with_config(*key, value);
        }
    }
    let store = builder.with_container_name(&bucket.name).build().map_err(|e| unusable(bucket, &settings, &e))?;
    Ok((Arc::new(store), format!("the container '{}' of the storage account '{account}'", bucket.name)))
}

/// The emulator mode always allows plain HTTP, which is nobody's business on this machine, but elsewhere needs consent.
fn check_emulator(settings: &Settings) -> Result<()> {
    let Ok(url) = std::env::var(AZURITE_URL) else { return Ok(()) };
    let local = Url::parse(&url).ok().and_then(|url| {
        Some(match url.host()? {
            Host::Domain(name) => name == "localhost",
            Host::Ipv4(ip) => ip.is_loopback(),
            Host::Ipv6(ip) => ip.is_loopback(),
        })
    });
    let allowed = settings.values.iter().any(|(key, value)| key.allows_http() && options::is_true(value));
    match local {
        Some(true) => Ok(()),
        Some(false) if allowed || url.starts_with("https://") => Ok(()),
        Some(false) => Err(Error::invalid(format!(
            "{AZURITE_URL} is an http:// address of another machine; use https://, or set allow_http to 'true'"
        ))),
        None => Err(Error::invalid(format!("{AZURITE_URL} must be a URL, such as http://127.0.0.1:10000"))),
    }
}

fn s3(bucket: &Bucket, mut settings: Settings, client: ClientOptions) -> Result<(Arc<DynObjectStore>, String)> {
    same(&mut settings, Key::S3(S3::Bucket), &bucket.name)?;
    let mut builder = AmazonS3Builder::new().with_client_options(client).with_retry(settings.retry.clone());
    for (key, value) in &settings.values {
        if let Key::S3(key) = key {
            builder = builder.with_config(*key, value);
        }
    }
    let store = builder.with_bucket_name(&bucket.name).build().map_err(|e| unusable(bucket, &settings, &e))?;
    Ok((Arc::new(store), format!("the bucket '{}'", bucket.name)))
}

fn google(bucket: &Bucket, mut settings: Settings, client: ClientOptions) -> Result<(Arc<DynObjectStore>, String)> {
    same(&mut settings, Key::Google(Google::Bucket), &bucket.name)?;
    let given = |key| settings.values.contains_key(&Key::Google(key));
    if given(Google::ServiceAccount) && given(Google::ServiceAccountKey) {
        return Err(Error::invalid(
            "both google_service_account and google_service_account_key are given: give the file or the key, not both",
        ));
    }
    let mut builder = GoogleCloudStorageBuilder::new().with_client_options(client).with_retry(settings.retry.clone());
    for (key, value) in &settings.values {
        if let Key::Google(key) = key {
            builder = builder.with_config(*key, value);
        }
    }
    let store = builder.with_bucket_name(&bucket.name).build().map_err(|e| unusable(bucket, &settings, &e))?;
    Ok((Arc::new(store), format!("the bucket '{}'", bucket.name)))
}

/// An option that the root says as well must say the same.
fn same(settings: &mut Settings, key: Key, of_root: &str) -> Result<()> {
    match settings.values.remove(&key) {
        Some(other) if other != of_root && !settings.from_environment.contains(&key) => Err(Error::invalid(format!(
            "the storage option '{}' contradicts the root, which says '{of_root}'; leave the option out",
            key.name()
        ))),
        _ => Ok(()),
    }
}

/// What object_store has against the options, without their values.
fn unusable(bucket: &Bucket, settings: &Settings, error: &object_store::Error) -> Error {
    // A key that is not JSON is quoted in the error, in parts.
    let reason = if bucket.kind == StoreKind::Google {
        "the service account key must be the JSON of a key file".to_owned()
    } else {
        let values = settings.values.values().filter(|value| value.len() > 3);
        values.fold(error.to_string(), |text, value| text.replace(value, "…"))
    };
    Error::invalid(format!("the storage options cannot be used for '{}': {reason}", bucket.url))
}

#[cfg(test)]
mod tests;
