//! Local stand-ins for the outside world, for the demo and the tests.
pub mod autosys;
pub mod viya;
