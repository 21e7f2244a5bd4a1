//! Whether a table can be written at all: asked when it is opened, so that nobody finds out after the first rows.

use delta_kernel::transaction::UpdateTableOperation;

use super::commit::{Attempt, Kind};
use super::schema;
use super::table::{Inner, TableSpec};
use crate::error::{Error, ErrorKind, Result};

/// Refuses a table that the kernel cannot append to or, if asked for, replace rows in.
pub(super) fn check(table: &Inner, rewritable: bool) -> Result<()> {
    let snapshot = table.known();
    let kind = Kind { operation: UpdateTableOperation::Write, blind: false, data_change: true, parameters: Vec::new() };
    if let Err(error) = Attempt::ahead(table, &kind, &snapshot).transaction() {
        let message = error.full_message();
        let text = match named_feature(&message) {
            Some(feature) => format!(
                "the table '{}' has the table feature '{feature}', which this version cannot write; drop it with Spark (ALTER \
                 TABLE delta.`…` DROP FEATURE {feature}), or give another root for a ledger of its own",
                table.url
            ),
            None => format!(
                "the table '{}' cannot be written by this version; give another root for a ledger of its own",
                table.url
            ),
        };
        return Err(Error::new(error.kind(), text).with_retryable(error.is_retryable()).with_source(error));
    }
    if !rewritable {
        return Ok(());
    }
    let properties = snapshot.table_properties();
    let in_the_way = [
        (properties.append_only, "appendOnly", "delta.appendOnly"),
        (properties.enable_change_data_feed, "changeDataFeed", "delta.enableChangeDataFeed"),
        (properties.enable_row_tracking, "rowTracking", "delta.enableRowTracking"),
    ];
    for (enabled, feature, property) in in_the_way {
        if enabled == Some(true) {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!(
                    "rows of the table '{}' cannot be acknowledged, because of its table feature '{feature}'; switch it off with \
                     Spark (ALTER TABLE delta.`…` SET TBLPROPERTIES ('{property}' = 'false')), or give another root",
                    table.url
                ),
            ));
        }
    }
    Ok(())
}

/// Refuses a table that lacks a column of `spec` or has it in another type, and one with a column that must not be left
/// out.
pub(super) fn check_columns(table: &Inner, spec: &TableSpec) -> Result<()> {
    let unfit = |text: String| {
        let text = format!("{text}; see whether '{}' really is such a table, or give another root", table.url);
        Error::new(ErrorKind::Unsupported, text)
    };
    let schema = table.schema()?;
    for wanted in spec.schema.fields() {
        match schema.field_with_name(wanted.name()) {
            Ok(field) if schema::same_kind(wanted.data_type(), field.data_type()) => {}
            Ok(field) => {
                let (name, found) = (wanted.name(), field.data_type());
                return Err(unfit(format!(
                    "the column '{name}' of {} is {found}, not {}",
                    spec.name,
                    wanted.data_type()
                )));
            }
            Err(_) => return Err(unfit(format!("the table {} has no column '{}'", spec.name, wanted.name()))),
        }
    }
    let snapshot = table.known();
    for field in snapshot.schema().fields() {
        let known = spec.schema.field_with_name(field.name()).is_ok();
        if !known && (!field.nullable || field.metadata.contains_key("CURRENT_DEFAULT")) {
            let what = if field.nullable { "a default" } else { "NOT NULL" };
            let text = format!("the table {} has a column '{}' that jobrota does not know", spec.name, field.name());
            return Err(unfit(format!("{text}, with {what}, which rows from here would break")));
        }
    }
    Ok(())
}

/// The feature that the kernel's message speaks of: `Feature 'checkConstraints' is not supported`.
fn named_feature(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("eature '")?;
    rest.split_once('\'').map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::named_feature;

    #[test]
    fn the_feature_is_read_from_the_kernels_message() {
        assert_eq!(
            named_feature("x: Unsupported: Feature 'checkConstraints' is not supported"),
            Some("checkConstraints")
        );
        assert_eq!(named_feature("no such thing"), None);
    }
}
