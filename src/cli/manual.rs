//! What a shell and a manual want to know of the command line.

use std::path::Path;

use clap::CommandFactory as _;

use super::args::Arguments;
use super::{Failure, say};
use crate::fault::{Code, Fault};

/// `waltide completions`
pub(super) fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "waltide", &mut text);
    say(&String::from_utf8_lossy(&text))
}

/// `waltide man`: a page for each command.
pub(super) fn pages(directory: &Path) -> Result<(), Failure> {
    clap_mangen::generate_to(Arguments::command(), directory).map_err(|error| {
        let what = format!("cannot write pages into {}: {error}", directory.display());
        Fault::new(Code::Internal, what, "name a directory that is there and may be written").into()
    })
}
