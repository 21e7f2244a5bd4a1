//! Connects to containers and buckets: Azure, S3 and Google Cloud Storage.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as S3};
use object_store::azure::{AzureConfigKey as Azure, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey as Google};
use object_store::{ClientOptions, DynObjectStore};
use url::Url;

use super::error_mapping::ErrorMappingStore;
use super::options::{self, OptionKey, StoreOptions};
use super::root::{Bucket, StoreKind};
use crate::error::{Error, Result};
use crate::http::address::is_loopback;
use crate::http::secret::Scrubber;

/// The time limit of one request with its body: enough for a compacted file on a slow network, and short enough to notice
/// within a minute that a server does not answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The environment variable with the address of Azurite, for the emulator mode of object_store.
const AZURITE_URL: &str = "AZURITE_BLOB_STORAGE_URL";

/// Makes the store of `bucket`. This sends no request. [`ErrorMappingStore`] explains the errors of the store.
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
    // One of object_store's builders allows plain HTTP by default.
    let client =
        ClientOptions::new().with_allow_http(false).with_timeout(REQUEST_TIMEOUT).with_connect_timeout(CONNECT_TIMEOUT);
    let (store, place) = match bucket.kind {
        StoreKind::Local => {
            return Err(Error::invalid("a local directory is not a bucket; give a root in a container or bucket"));
        }
        StoreKind::Azure => azure(bucket, settings, client)?,
        StoreKind::S3 => s3(bucket, settings, client)?,
        StoreKind::Google => google(bucket, settings, client)?,
    };
    Ok(Arc::new(ErrorMappingStore::new(store, place, anonymous)))
}

/// `builder` with the options whose keys are `$cloud`. The builders of object_store have no common trait.
macro_rules! configure {
    ($builder:expr, $settings:expr, $cloud:path) => {
        $settings.values.iter().fold($builder, |builder, (key, value)| match key {
            $cloud(key) => builder.with_config(*key, value),
            _ => builder,
        })
    };
}

fn azure(bucket: &Bucket, mut settings: StoreOptions, client: ClientOptions) -> Result<(Arc<DynObjectStore>, String)> {
    remove_redundant(&mut settings, OptionKey::Azure(Azure::ContainerName), &bucket.name)?;
    let emulator =
        settings.values.get(&OptionKey::Azure(Azure::UseEmulator)).is_some_and(|value| options::is_true(value));
    if emulator {
        check_emulator(&settings)?;
    }
    if let Some((account, endpoint)) = &bucket.account {
        remove_redundant(&mut settings, OptionKey::Azure(Azure::AccountName), account)?;
        settings.values.insert(OptionKey::Azure(Azure::AccountName), account.clone());
        settings.values.entry(OptionKey::Azure(Azure::Endpoint)).or_insert_with(|| endpoint.clone());
    }
    let account = match settings.values.get(&OptionKey::Azure(Azure::AccountName)) {
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
    let builder = MicrosoftAzureBuilder::new().with_client_options(client).with_retry(settings.retry.clone());
    let builder = configure!(builder, settings, OptionKey::Azure);
    let store = builder.with_container_name(&bucket.name).build().map_err(|e| unusable(bucket, &settings, &e))?;
    Ok((Arc::new(store), format!("the container '{}' of the storage account '{account}'", bucket.name)))
}

/// Checks the address of the emulator. The emulator mode allows plain HTTP, which is safe only on this machine.
fn check_emulator(settings: &StoreOptions) -> Result<()> {
    let Ok(url) = std::env::var(AZURITE_URL) else { return Ok(()) };
    let Some(address) = Url::parse(&url).ok().filter(Url::has_host) else {
        return Err(Error::invalid(format!("{AZURITE_URL} must be a URL, such as http://127.0.0.1:10000")));
    };
    let allows_http = settings.values.iter().any(|(key, value)| key.allows_http() && options::is_true(value));
    if is_loopback(&address) || allows_http || url.starts_with("https://") {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "{AZURITE_URL} is an http:// address of another machine; use https://, or set allow_http to 'true'"
    )))
}

fn s3(bucket: &Bucket, mut settings: StoreOptions, client: ClientOptions) -> Result<(Arc<DynObjectStore>, String)> {
    remove_redundant(&mut settings, OptionKey::S3(S3::Bucket), &bucket.name)?;
    let builder = AmazonS3Builder::new().with_client_options(client).with_retry(settings.retry.clone());
    let builder = configure!(builder, settings, OptionKey::S3);
    let store = builder.with_bucket_name(&bucket.name).build().map_err(|e| unusable(bucket, &settings, &e))?;
    Ok((Arc::new(store), format!("the bucket '{}'", bucket.name)))
}

fn google(bucket: &Bucket, mut settings: StoreOptions, client: ClientOptions) -> Result<(Arc<DynObjectStore>, String)> {
    remove_redundant(&mut settings, OptionKey::Google(Google::Bucket), &bucket.name)?;
    let given = |key| settings.values.contains_key(&OptionKey::Google(key));
    if given(Google::ServiceAccount) && given(Google::ServiceAccountKey) {
        return Err(Error::invalid(
            "both google_service_account and google_service_account_key are given: give the file or the key, not both",
        ));
    }
    let builder = GoogleCloudStorageBuilder::new().with_client_options(client).with_retry(settings.retry.clone());
    let builder = configure!(builder, settings, OptionKey::Google);
    let store = builder.with_bucket_name(&bucket.name).build().map_err(|e| unusable(bucket, &settings, &e))?;
    Ok((Arc::new(store), format!("the bucket '{}'", bucket.name)))
}

/// Removes an option that the root gives too, and checks that both agree.
fn remove_redundant(settings: &mut StoreOptions, key: OptionKey, of_root: &str) -> Result<()> {
    match settings.values.remove(&key) {
        Some(other) if other != of_root && !settings.from_environment.contains(&key) => Err(Error::invalid(format!(
            "the storage option '{}' contradicts the root, which says '{of_root}'; leave the option out",
            key.name()
        ))),
        _ => Ok(()),
    }
}

/// The error of object_store about the options, without their values.
fn unusable(bucket: &Bucket, settings: &StoreOptions, error: &object_store::Error) -> Error {
    // The error quotes parts of a key that is not JSON.
    let reason = if bucket.kind == StoreKind::Google {
        "the service account key must be the JSON of a key file".to_owned()
    } else {
        let values: Vec<&str> = settings.values.values().map(String::as_str).filter(|value| value.len() > 3).collect();
        Scrubber::new(&values).scrub(&error.to_string()).into_owned()
    };
    Error::invalid(format!("the storage options cannot be used for '{}': {reason}", bucket.url))
}

#[cfg(test)]
mod tests;
