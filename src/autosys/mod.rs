//! autosys
