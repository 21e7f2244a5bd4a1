//! Writes version 0 of a table. The kernel's own interface for that is not stable yet.

use delta_kernel::KernelError;
use delta_kernel::engine::arrow_conversion::TryIntoKernel as _;
use delta_kernel::schema::StructType;
use futures::StreamExt as _;
use futures::future::ready;
use object_store::path::Path;
use object_store::{ObjectMeta, PutMode};
use serde_json::json;
use url::Url;

use crate::delta::errors::from_kernel;
use crate::delta::types::TableSpec;
use crate::error::{Error, ErrorKind, Result};
use crate::runtime::environment;
use crate::storage::Storage;
use crate::storage::file_names::{LOG_DIRECTORY, entry_name};

/// The name and version recorded in each commit's history.
pub(in crate::delta) const ENGINE_INFO: &str = concat!("jobrota/", env!("CARGO_PKG_VERSION"));

/// Writes version 0 of the table at `url`. Returns false if another writer has created it meanwhile.
pub(in crate::delta) fn create_table(storage: &Storage, url: &Url, spec: &TableSpec) -> Result<bool> {
    let text = version_zero(spec)?;
    let path = log_path(url, &entry_name(0))?;
    let store = storage.store().clone();
    match storage.block_on(async move { store.put_opts(&path, text.into(), PutMode::Create.into()).await })? {
        Ok(_) => Ok(true),
        Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
        Err(e) => Err(from_kernel(format!("creating the Delta table '{}'", spec.name), KernelError::from(e))),
    }
}

/// Whether the table at `url` has a log.
pub(in crate::delta) fn table_exists(storage: &Storage, url: &Url) -> Result<bool> {
    let log = log_path(url, "")?;
    let store = storage.store().clone();
    let first = storage.block_on(async move {
        // An unfinished file that a crash left behind is not a log.
        let unfinished = |file: &ObjectMeta| file.location.filename().is_some_and(|name| name.starts_with('.'));
        let files = store.list(Some(&log)).filter(|file| ready(!file.as_ref().is_ok_and(unfinished)));
        std::pin::pin!(files).next().await
    })?;
    let Some(first) = first else { return Ok(false) };
    Ok(if_found(first, || format!("looking for the Delta table '{url}'"))?.is_some())
}

/// What the store answered to a request about a file; `None` if there is no such file. Errors say what it was for.
pub(in crate::delta) fn if_found<T>(
    answer: object_store::Result<T>,
    doing: impl FnOnce() -> String,
) -> Result<Option<T>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(e) => Err(from_kernel(doing(), KernelError::from(e))),
    }
}

/// The path in the store of a file in the table's log.
pub(in crate::delta) fn log_path(url: &Url, file: &str) -> Result<Path> {
    let path = url.join(&format!("{LOG_DIRECTORY}/{file}"));
    store_path(&path.map_err(|e| internal(format!("'{url}' has no log directory")).with_source(e))?)
}

/// The path of `url` in the store.
pub(in crate::delta) fn store_path(url: &Url) -> Result<Path> {
    Path::from_url_path(url.path()).map_err(|e| internal(format!("'{url}' is not a path of the store")).with_source(e))
}

fn internal(text: String) -> Error {
    Error::new(ErrorKind::Internal, text)
}

/// The first commit, with reader version 1, writer version 2 and no table feature, so that every Delta client can use the
/// table.
fn version_zero(spec: &TableSpec) -> Result<String> {
    let name = spec.name;
    if let Some(column) = spec.partition_by.iter().find(|column| spec.schema.column_with_name(column).is_none()) {
        return Err(internal(format!("the table '{name}' has no column '{column}' to be partitioned by")));
    }
    let schema = spec.schema.as_ref().try_into_kernel();
    let schema: StructType =
        schema.map_err(|e| internal(format!("the schema of '{name}' has no Delta types")).with_source(e))?;
    let schema_string = serde_json::to_string(&schema)
        .map_err(|e| internal(format!("the schema of '{name}' cannot be written")).with_source(e))?;
    let now = environment().utc().timestamp_millis();
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
            "id": environment().uuid().to_string(),
            "name": spec.name,
            "format": {"provider": "parquet", "options": {}},
            "schemaString": schema_string,
            "partitionColumns": spec.partition_by,
            // Short logs make cold opens fast. Deletion vectors, which some workspaces enable by default, would raise the
            // protocol version.
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
