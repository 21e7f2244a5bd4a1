//! `jobrota`: fair VM selection, a lossless job ledger for AutoSys, and honest SAS Viya comparisons.
//!
//! Work flows down: nothing below knows what is above it. Everything but [`python`] builds and tests without Python
//! (`cargo check --no-default-features --lib`); so does everything without [`sandbox`].

pub mod autosys;
pub mod azure;
pub mod comparison;
pub mod delta;
pub mod doctor;
pub mod error;
mod http;
pub mod inventory;
pub mod ledger;
#[cfg(feature = "python")]
pub mod python;
pub mod runtime;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod selection;
pub mod settings;
pub mod stop;
pub mod storage;
pub mod timespan;
pub mod viya;

pub use error::{Error, ErrorKind, Result};
