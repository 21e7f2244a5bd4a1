//! Tests of operator actions and of the summary, on real Delta tables in a temporary directory.

mod model;
mod operator;
mod overview;
mod simulation;

use chrono::{DateTime, TimeDelta, Utc};

use super::*;
use crate::error::{Error, ErrorKind, Result};
use crate::ledger::tables::{FLAG, NO};
use crate::ledger::tests::{Fixture, at, row};
use crate::ledger::{JobLedger, LedgerRow, RowFilter, rows};
