//! The daemon as a library: what `main` puts together and tests reach into.

/// The commands.
pub mod cli {
    pub mod args;
}
pub mod config;
