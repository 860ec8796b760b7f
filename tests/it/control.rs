//! A running daemon does what it is told, by whoever may tell it.

mod api;
mod flood;
mod fuzz;
mod guard;
mod pause;
mod reload;
mod terminal;
mod tls;

use crate::cli::{Ended, waltide};
use crate::support::{Daemon, Pipeline};

/// Tells the daemon something on the command line.
#[track_caller]
fn told(daemon: &Daemon, arguments: &[&str]) -> Ended {
    waltide(&[arguments, &["--url", &daemon.url()]].concat())
}

/// Tells the daemon something that it does.
#[track_caller]
fn tell(daemon: &Daemon, pipeline: &Pipeline<'_>, order: &str) -> String {
    let ended = told(daemon, &[order, pipeline.name()]);
    assert_eq!(ended.status, Some(0), "{}", ended.everything);
    ended.out
}
