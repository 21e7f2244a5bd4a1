//! Checks when a table is opened whether it can be written, so that the error does not come after the first rows.

use delta_kernel::SnapshotRef;

use super::commit::{CommitAttempt, CommitKind};
use super::schema::same_kind;
use super::state::TableState;
use super::table::Table;
use super::types::TableSpec;
use crate::error::{Error, ErrorKind, Result};

impl Table {
    /// Refuses a table to which rows cannot be appended.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`], which names the table feature and says what can be done.
    pub fn check_writable(&self) -> Result<()> {
        let (table, snapshot) = (&self.state.url, self.state.known());
        let Err(error) = CommitAttempt::new(&self.state, &CommitKind::append(false), &snapshot).transaction() else {
            return Ok(());
        };
        let text = match named_feature(&error.full_message()) {
            Some(feature) => format!(
                "the table '{table}' has the table feature '{feature}', which this version cannot write; {}",
                remedy(feature)
            ),
            None => format!(
                "the table '{table}' cannot be written by this version; give another root for a ledger of its own"
            ),
        };
        Err(Error::new(error.kind(), text).with_retryable(error.is_retryable()).with_source(error))
    }

    /// Refuses a table in which rows cannot be replaced.
    ///
    /// # Errors
    /// As [`Table::check_writable`].
    pub fn check_rewritable(&self) -> Result<()> {
        self.check_writable()?;
        check_rows_replaceable(&self.state, &self.state.known())
    }

    /// Refuses a table that lacks a column of `spec` or has it with another type, and a table with a column that must not
    /// be left out.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`], which names the column.
    pub fn check_columns(&self, spec: &TableSpec) -> Result<()> {
        let unfit = |text: String| {
            let text = format!("{text}; see whether '{}' really is such a table, or give another root", self.state.url);
            Err(Error::new(ErrorKind::Unsupported, text))
        };
        let (schema, table) = (self.schema(), spec.name);
        for wanted in spec.schema.fields() {
            let (name, kind) = (wanted.name(), wanted.data_type());
            match schema.field_with_name(name).map(|field| field.data_type()) {
                Ok(found) if same_kind(kind, found) => {}
                Ok(found) => return unfit(format!("the column '{name}' of {table} is {found}, not {kind}")),
                Err(_) => return unfit(format!("the table {table} has no column '{name}'")),
            }
        }
        for field in self.state.known().schema().fields() {
            let known = spec.schema.field_with_name(field.name()).is_ok();
            if !known && (!field.nullable || field.metadata.contains_key("CURRENT_DEFAULT")) {
                let what = if field.nullable { "a default" } else { "NOT NULL" };
                let text = format!("the table {table} has a column '{}' that jobrota does not know", field.name());
                return unfit(format!("{text}, with {what}, which rows of jobrota would violate"));
            }
        }
        Ok(())
    }
}

/// Refuses `snapshot` if the kernel cannot replace rows of it. Another writer can have changed the table since it was opened.
///
/// # Errors
/// [`ErrorKind::Unsupported`], which names the table property and says how to switch it off.
pub(super) fn check_rows_replaceable(table: &TableState, snapshot: &SnapshotRef) -> Result<()> {
    let properties = snapshot.table_properties();
    let in_the_way = [
        (properties.append_only, "appendOnly", "delta.appendOnly"),
        (properties.enable_change_data_feed, "changeDataFeed", "delta.enableChangeDataFeed"),
        (properties.enable_row_tracking, "rowTracking", "delta.enableRowTracking"),
    ];
    match in_the_way.into_iter().find(|(enabled, ..)| *enabled == Some(true)) {
        None => Ok(()),
        Some((_, feature, property)) => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "rows of the table '{}' cannot be acknowledged, because of its table feature '{feature}'; switch it off with \
                 Spark (ALTER TABLE delta.`…` SET TBLPROPERTIES ('{property}' = 'false')), or give another root",
                table.url
            ),
        )),
    }
}

/// How to remove a feature with Spark. A feature that columns use cannot be dropped.
fn remedy(feature: &str) -> String {
    let another = "or give another root for a ledger of its own";
    match feature {
        "generatedColumns" | "identityColumns" | "catalogManaged" => {
            format!("copy it with Spark into a table without that (CREATE TABLE … AS SELECT), {another}")
        }
        "checkpointProtection" => {
            format!("drop it with Spark (ALTER TABLE delta.`…` DROP FEATURE {feature} TRUNCATE HISTORY), {another}")
        }
        feature => format!("drop it with Spark (ALTER TABLE delta.`…` DROP FEATURE {feature}), {another}"),
    }
}

/// The feature in the kernel's message: `Feature 'checkConstraints' is not supported`.
fn named_feature(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("eature '")?;
    rest.split_once('\'').map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::named_feature;

    #[test]
    fn parses_the_feature_from_the_kernels_message() {
        assert_eq!(
            named_feature("x: Unsupported: Feature 'checkConstraints' is not supported"),
            Some("checkConstraints")
        );
        assert_eq!(named_feature("no such thing"), None);
    }
}
