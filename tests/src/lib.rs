//! End-to-end tests over the two real binaries.
