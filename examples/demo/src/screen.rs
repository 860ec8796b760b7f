//! What a person sees: lines while things start and end, and in between a dashboard where there
//! is a terminal. Elsewhere there are lines only, without control sequences.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use terminal_size::{Height, Width, terminal_size};

use crate::dashboard::{self, Addresses, grouped};
use crate::live::Live;

/// Plain lines with numbers come this often.
const STATUS_EVERY: Duration = Duration::from_secs(2);

/// The other screen, no cursor, no wrapping: a line that is too long is cut by the terminal, too.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J";
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";

/// How wide plain lines may be.
const PLAIN_WIDTH: usize = 80;

/// Whether the terminal shows the dashboard.
static ENTERED: AtomicBool = AtomicBool::new(false);

/// Gives the terminal back as it was.
pub(crate) fn restore() {
    if ENTERED.swap(false, Ordering::AcqRel) {
        let mut stdout = io::stdout();
        let _ = stdout.write_all(LEAVE.as_bytes()).and_then(|()| stdout.flush());
    }
}

pub(crate) struct Screen {
    is_terminal: bool,
    has_colour: bool,
    /// Nobody reads any more.
    is_closed: bool,
    shown_sample: u64,
    shown_events: usize,
    shown_status: Option<Instant>,
}

impl Screen {
    pub(crate) fn new() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let is_terminal =
            io::stdout().is_terminal() && set("TERM").is_some_and(|terminal| terminal != "dumb");
        Self {
            is_terminal,
            has_colour: is_terminal && set("NO_COLOR").is_none(),
            is_closed: false,
            shown_sample: 0,
            shown_events: 0,
            shown_status: None,
        }
    }

    /// How often a sample is wanted: a screen that moves can bear more than lines that stay.
    pub(crate) fn sample_every(&self) -> Duration {
        Duration::from_millis(if self.is_terminal { 350 } else { 800 })
    }

    /// Whether the reader of our output has gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Tells something in a line that stays.
    pub(crate) fn say(&mut self, text: &str) {
        self.line(&format!("demo: {text}"));
    }

    /// How many events were told in lines that stay.
    pub(crate) fn told_events(&self) -> usize {
        self.shown_events
    }

    /// Shows the present state.
    pub(crate) fn show(&mut self, live: &Live, addresses: &Addresses) {
        if self.is_terminal {
            self.draw(live, addresses);
        } else {
            self.print_news(live);
        }
    }

    /// Goes back from the dashboard to lines.
    pub(crate) fn close_dashboard(&mut self) {
        restore();
    }

    fn draw(&mut self, live: &Live, addresses: &Addresses) {
        let (width, height) = match terminal_size() {
            Some((Width(width), Height(height))) if width > 0 && height > 0 => {
                (usize::from(width), usize::from(height))
            }
            _ => (80, 24),
        };
        let mut frame = String::new();
        if !ENTERED.swap(true, Ordering::AcqRel) {
            frame.push_str(ENTER);
        }
        frame.push_str("\x1b[H");
        for (row, line) in dashboard::frame(live, addresses, height).iter().enumerate() {
            if row > 0 {
                frame.push_str("\r\n");
            }
            frame.push_str(&line.render(width, self.has_colour));
            frame.push_str("\x1b[K");
        }
        frame.push_str("\x1b[J");
        self.write(&frame);
    }

    fn print_news(&mut self, live: &Live) {
        for event in live.events.iter().skip(self.shown_events) {
            self.line(&format!("{:6.1} s  * {}", event.after.as_secs_f64(), event.text));
        }
        self.shown_events = live.events.len();
        let shown = self.shown_sample;
        for sample in live.samples.iter().filter(|sample| sample.number > shown) {
            self.line(&format!("          {}", dashboard::sample(sample).plain()));
        }
        self.shown_sample = live.samples.back().map_or(0, |sample| sample.number);
        if self.shown_status.is_none_or(|shown| shown.elapsed() >= STATUS_EVERY) {
            let first = self.shown_status.replace(Instant::now()).is_none();
            if !first {
                self.line(&status_line(live));
            }
        }
    }

    fn line(&mut self, text: &str) {
        let text = dashboard::cut(text, PLAIN_WIDTH);
        self.write(&format!("{text}\n"));
    }

    /// Tells a line however long it is: for what is there to be copied.
    pub(crate) fn say_in_full(&mut self, text: &str) {
        self.write(&format!("demo: {text}\n"));
    }

    fn write(&mut self, text: &str) {
        let mut stdout = io::stdout().lock();
        if stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).is_err() {
            self.is_closed = true;
        }
    }
}

fn status_line(live: &Live) -> String {
    let delay = live.delay_ms.map_or(0.0, |(middle, _)| middle);
    format!(
        "{:6.1} s  {} committed  {} read  {} rows/s  lag {:.0} ms  delay {delay:.1} ms",
        live.elapsed().as_secs_f64(),
        grouped(live.committed),
        grouped(live.read),
        dashboard::rate(live.rates.read),
        live.daemon.lag_ms,
    )
}
