//! Rewrites legacy protocol versions for the kernel.
//!
//! Before table features, a table's writer version stood for a set of features: version 5, which column mapping needs,
//! includes CHECK constraints and generated columns whether the table has any or not (Delta protocol, "Table Features").
//! The kernel can write neither these two nor identity columns, and takes the version for their presence. So the kernel
//! gets the same protocol as a list of features without them. [`unwritable_column`] or the kernel itself, which finds
//! constraints among the properties, refuses a table that does use one. Only readers of the log see the rewritten
//! protocol: it is never written.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, Int32Array, ListBuilder, RecordBatch, StringBuilder, StructArray,
};
use arrow::datatypes::{DataType, Int32Type};
use delta_kernel::{KernelResult, Snapshot};

use super::engine::LogEngine;
use crate::storage::KernelEngine;

/// Writer versions that stand for features which the kernel cannot write.
const LEGACY: std::ops::RangeInclusive<i32> = 3..=6;
/// The writer version of protocols that list their features.
const FEATURES: i32 = 7;

/// The other features that those versions stand for, and the version that introduced each.
const FEATURES_SINCE: [(&str, i32); 4] =
    [("appendOnly", 2), ("invariants", 2), ("changeDataFeed", 4), ("columnMapping", 5)];

/// Column metadata that marks a column as generated or as an identity column.
const UNWRITABLE: [(&str, &str); 2] =
    [("delta.generationExpression", "generatedColumns"), ("delta.identity.start", "identityColumns")];

/// A column that the kernel cannot write, and the feature that it uses.
pub(in crate::delta) fn unwritable_column(snapshot: &Snapshot) -> Option<(String, &'static str)> {
    let schema = snapshot.schema();
    schema.fields().find_map(|field| {
        let (_, feature) = UNWRITABLE.iter().find(|(key, _)| field.metadata.contains_key(*key))?;
        Some((field.name().clone(), *feature))
    })
}

/// The engine to build snapshots with: it shows legacy protocols as lists of features, and watches a log entry.
pub(in crate::delta) fn log_reader(engine: &Arc<KernelEngine>, watched: Option<u64>) -> LogEngine {
    LogEngine::new(engine, watched, rewrite_protocols)
}

/// The actions in `batch`, with each legacy protocol as a list of features.
fn rewrite_protocols(batch: RecordBatch) -> KernelResult<RecordBatch> {
    let Some((at, _)) = batch.schema_ref().column_with_name("protocol") else { return Ok(batch) };
    let Some(protocols) = batch.column(at).as_struct_opt() else { return Ok(batch) };
    let column = |name: &str| protocols.column_by_name(name);
    let versions = column("minWriterVersion").and_then(|column| column.as_primitive_opt::<Int32Type>());
    let lists = column("writerFeatures").and_then(|column| column.as_list_opt::<i32>());
    let (Some(versions), Some(lists)) = (versions, lists) else { return Ok(batch) };
    let legacy = |row: usize| {
        let version = (protocols.is_valid(row) && versions.is_valid(row)).then(|| versions.value(row));
        version.filter(|version| LEGACY.contains(version))
    };
    if !(0..batch.num_rows()).any(|row| legacy(row).is_some()) {
        return Ok(batch);
    }
    let mut features = ListBuilder::new(StringBuilder::new());
    if let DataType::List(item) = lists.data_type() {
        features = features.with_field(Arc::clone(item));
    }
    for row in 0..lists.len() {
        let list = lists.is_valid(row).then(|| lists.value(row));
        match (legacy(row), list.as_ref().and_then(|list| list.as_string_opt::<i32>())) {
            (Some(version), _) => {
                let known = FEATURES_SINCE.iter().filter(|(_, since)| *since <= version);
                features.append_value(known.map(|(name, _)| Some(*name)));
            }
            (None, Some(list)) => features.append_value(list.iter().flatten().map(Some)),
            (None, None) => features.append_null(),
        }
    }
    let new_versions: Int32Array =
        versions.iter().enumerate().map(|(row, version)| legacy(row).map_or(version, |_| Some(FEATURES))).collect();
    let (new_versions, features): (ArrayRef, ArrayRef) = (Arc::new(new_versions), Arc::new(features.finish()));
    let columns = protocols.column_names().into_iter().zip(protocols.columns()).map(|(name, column)| match name {
        "minWriterVersion" => Arc::clone(&new_versions),
        "writerFeatures" => Arc::clone(&features),
        _ => Arc::clone(column),
    });
    let rewritten = StructArray::try_new(protocols.fields().clone(), columns.collect(), protocols.nulls().cloned())?;
    let mut columns = batch.columns().to_vec();
    columns[at] = Arc::new(rewritten);
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}
