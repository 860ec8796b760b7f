//! The daemon as a library: what `main` puts together and tests reach into.

pub mod config;
