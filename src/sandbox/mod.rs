//! sandbox
pub mod viya;
