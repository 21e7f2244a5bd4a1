//! The Python face: argument conversion, GIL release, exceptions. No logic.
