//! `jobrota`: fair VM selection, a lossless job ledger for AutoSys, and SAS Viya comparisons.
//!
//! Dependencies point down: a module does not know the modules above it. Everything except [`python`] builds and tests without Python
//! (`cargo check --no-default-features --lib`); so does everything without [`sandbox`].

pub mod autosys;
pub mod azure;
mod columns;
pub mod comparison;
pub mod delivery;
pub mod delta;
pub mod doctor;
pub mod duration;
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
pub mod viya;

pub use error::{Error, ErrorKind, Result};
