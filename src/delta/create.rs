//! Version 0 of a table: written by us, as the kernel's builder for it is not a stable interface yet.

use std::sync::Arc;

use delta_kernel::engine::arrow_conversion::TryIntoKernel as _;
use delta_kernel::schema::StructType;
use futures::future::ready;
use object_store::path::Path;
use object_store::{ObjectMeta, PutMode};
use serde_json::json;
use url::Url;

use super::failure::from_kernel;
use super::table::TableSpec;
use crate::error::{Error, ErrorKind, Result};
use crate::storage::Storage;

/// The name and version recorded in each commit's history.
pub(super) const ENGINE_INFO: &str = concat!("jobrota/", env!("CARGO_PKG_VERSION"));

/// Writes version 0 of the table at `url`. `false` when somebody else has created it in the meantime.
pub(super) fn create(storage: &Storage, url: &Url, spec: &TableSpec) -> Result<bool> {
    let text = version_zero(spec)?;
    let path = log_path(url, "00000000000000000000.json")?;
    let store = Arc::clone(storage.store());
    let put = storage
        .block_on(async move { store.put_opts(&path, text.into_bytes().into(), PutMode::Create.into()).await })?;
    match put {
        Ok(_) => Ok(true),
        Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
        Err(e) => {
            Err(from_kernel(format!("creating the Delta table '{}'", spec.name), delta_kernel::KernelError::from(e)))
        }
    }
}

/// Whether the table at `url` has a log.
pub(super) fn exists(storage: &Storage, url: &Url) -> Result<bool> {
    let log = log_path(url, "")?;
    let store = Arc::clone(storage.store());
    let first = storage.block_on(async move {
        use futures::StreamExt as _;
        // What a crash left behind of a file that was being written, as its name says, is no log.
        let unfinished = |file: &ObjectMeta| file.location.filename().is_some_and(|name| name.starts_with('.'));
        let files = store.list(Some(&log)).filter(|file| ready(!file.as_ref().is_ok_and(unfinished)));
        std::pin::pin!(files).next().await
    })?;
    match first {
        None | Some(Err(object_store::Error::NotFound { .. })) => Ok(false),
        Some(Ok(_)) => Ok(true),
        Some(Err(e)) => {
            Err(from_kernel(format!("looking for the Delta table '{url}'"), delta_kernel::KernelError::from(e)))
        }
    }
}

/// The store's path of a file in the table's log.
pub(super) fn log_path(url: &Url, file: &str) -> Result<Path> {
    url.join("_delta_log/")
        .and_then(|log| log.join(file))
        .map_err(|e| Error::new(ErrorKind::Internal, format!("'{url}' has no log directory")).with_source(e))
        .and_then(|url| store_path(&url))
}

/// The store's path of `url`.
pub(super) fn store_path(url: &Url) -> Result<Path> {
    Path::from_url_path(url.path())
        .map_err(|e| Error::new(ErrorKind::Internal, format!("'{url}' is not a path of the store")).with_source(e))
}

/// The first commit: reader 1 and writer 2 and no table feature, so that every Delta client can work on the table.
fn version_zero(spec: &TableSpec) -> Result<String> {
    for column in spec.partition_by {
        if spec.schema.column_with_name(column).is_none() {
            return Err(Error::new(
                ErrorKind::Internal,
                format!("the table '{}' has no column '{column}' to be partitioned by", spec.name),
            ));
        }
    }
    let schema: StructType = spec.schema.as_ref().try_into_kernel().map_err(|e| {
        Error::new(ErrorKind::Internal, format!("the schema of '{}' has no Delta types", spec.name)).with_source(e)
    })?;
    let schema_string = serde_json::to_string(&schema).map_err(|e| {
        Error::new(ErrorKind::Internal, format!("the schema of '{}' cannot be written", spec.name)).with_source(e)
    })?;
    let now = chrono::Utc::now().timestamp_millis();
    let actions = [
        json!({"commitInfo": {
            "timestamp": now,
            "operation": "CREATE TABLE",
            "operationParameters": {},
            "isBlindAppend": true,
            "engineInfo": ENGINE_INFO,
        }}),
        json!({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}),
        json!({"metaData": {
            "id": uuid::Uuid::new_v4().to_string(),
            "name": spec.name,
            "format": {"provider": "parquet", "options": {}},
            "schemaString": schema_string,
            "partitionColumns": spec.partition_by,
            // Short logs make cold opens fast; deletion vectors would raise the protocol, were a workspace to turn
            // them on by default.
            "configuration": {
                "delta.checkpointInterval": "20",
                "delta.logRetentionDuration": spec.log_retention,
                "delta.enableDeletionVectors": "false",
            },
            "createdTime": now,
        }}),
    ];
    Ok(actions.iter().map(|action| format!("{action}\n")).collect())
}
