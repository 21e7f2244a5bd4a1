//! The arguments of `JobLedger.redrive` and `JobLedger.settle_by_hand`.

use pyo3::prelude::*;

use super::convert::Rows;
use super::convert::arguments::Text;
use super::errors::PyOutcome;
use crate::delivery::AuditNote;
use crate::ledger::{JobLedger, LedgerRow, LedgerTable};

/// The rows that an operator acts on, with the reason and the operator's name.
pub(super) struct OperatorAction {
    pub(super) table: LedgerTable,
    pub(super) rows: Option<Vec<LedgerRow>>,
    reason: Option<String>,
    by: String,
}

impl OperatorAction {
    pub(super) fn new(
        py: Python<'_>,
        rows: Option<Rows>,
        reason: Option<Text>,
        by: Option<Text>,
        table: LedgerTable,
    ) -> PyOutcome<Self> {
        let rows = rows.map(|rows| JobLedger::rows_from_batch(table, &rows.0)).transpose()?;
        Ok(Self {
            table,
            rows,
            reason: reason.map(|reason| reason.0),
            by: by.map_or_else(|| author(py), |by| Ok(by.0))?,
        })
    }

    pub(super) fn core(&self) -> AuditNote<'_> {
        AuditNote { by: &self.by, reason: self.reason.as_deref() }
    }
}

/// The user of this process and its host.
fn author(py: Python<'_>) -> PyResult<String> {
    // A user without a name, as in containers, is in no user database.
    let user = py.import("getpass")?.call_method0("getuser").and_then(|user| user.extract::<String>());
    let user = user.unwrap_or_else(|_| "unknown".to_owned());
    Ok(format!("{user}@{}", gethostname::gethostname().to_string_lossy()))
}
