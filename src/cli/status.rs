//! `waltide status`: how the pipelines of the running daemon are, once or all the time.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::args::Status;
use super::daemon::Daemon;
use super::overview::{self, Overview};
use super::terminal::Style;
use super::{Failure, runtime, say, stop};

/// The other screen of a terminal, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";

/// A file has no edge, and whoever searches it wants whole names.
const OF_A_FILE: u16 = 10_000;

pub(super) fn status(asked: &Status) -> Result<(), Failure> {
    let daemon = Daemon::find(&asked.daemon)?;
    let body = daemon.status()?;
    match asked.watch {
        Some(seconds) => watch(asked, &daemon, body, Duration::from_secs(seconds.max(1))),
        None if asked.json => say(&format!("{body}\n")),
        None => {
            let overview = Overview { body: &body, before: None, error: None };
            say(&overview.lines(width(), Style::of_output()).concat())
        }
    }
}

/// Asks again and again until somebody ends it. A daemon that goes away meanwhile may come back.
fn watch(asked: &Status, daemon: &Daemon, first: Value, every: Duration) -> Result<(), Failure> {
    let screen = Screen::enter(!asked.json && std::io::stdout().is_terminal())?;
    let runtime = runtime()?;
    let stop = runtime.block_on(async { stop() })?;
    let mut stop = std::pin::pin!(stop);
    let (mut last, mut before) = ((first, Instant::now()), None);
    let mut error = None;
    loop {
        let (body, at) = &last;
        let said = if asked.json {
            let unanswered = error.as_ref().map(|error: &Failure| error.to_string());
            match unanswered {
                None => format!("{body}\n"),
                Some(error) => format!("{}\n", serde_json::json!({ "error": error })),
            }
        } else {
            let rates = before.as_ref().map(|(body, then)| (body, at.duration_since(*then)));
            let overview = Overview { body, before: rates, error: error.as_ref() };
            screen.page(&overview.lines(width(), Style::of_output()))
        };
        say(&said)?;
        let ended = runtime.block_on(async {
            tokio::select! {
                () = &mut stop => true,
                () = tokio::time::sleep(every) => false,
            }
        });
        if ended || screen.is_gone() {
            return Ok(());
        }
        match daemon.status() {
            Ok(body) => {
                before = Some(std::mem::replace(&mut last, (body, Instant::now())));
                error = None;
            }
            Err(failure) => error = Some(failure),
        }
    }
}

/// A terminal that shows one page; it is as it was when this is dropped.
pub(super) struct Screen {
    is_terminal: bool,
}

impl Screen {
    pub(super) fn enter(is_terminal: bool) -> Result<Self, Failure> {
        if is_terminal {
            say(ENTER)?;
        }
        Ok(Self { is_terminal })
    }

    /// The page in place of the one before, as far as it fits; elsewhere one below the other.
    pub(super) fn page(&self, lines: &[String]) -> String {
        if !self.is_terminal {
            return lines.concat() + "\n";
        }
        let height =
            terminal_size::terminal_size_of(std::io::stdout()).map_or(24, |(_, height)| height.0);
        let room = usize::from(height).saturating_sub(1).max(1);
        let mut page = "\x1b[H".to_owned();
        for line in overview::fitting(lines, room) {
            page.push_str(line.trim_end_matches('\n'));
            page.push_str("\x1b[K\r\n");
        }
        page + "\x1b[J"
    }

    /// Nobody reads any more.
    pub(super) fn is_gone(&self) -> bool {
        std::io::stdout().lock().flush().is_err()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.is_terminal {
            let _ = say(LEAVE);
        }
    }
}

/// As `COLUMNS` or the terminal says.
pub(super) fn width() -> usize {
    let asked = std::env::var("COLUMNS").ok().and_then(|text| text.parse().ok());
    // Of standard output: another stream may well be a terminal where this one is not.
    let terminal = || terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| width.0);
    usize::from(asked.or_else(terminal).unwrap_or(OF_A_FILE)).max(40)
}
