//! sandbox
pub mod autosys;
