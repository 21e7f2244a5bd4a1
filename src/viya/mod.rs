//! viya
