//! `make demo`: a small shop on a real Postgres, the daemon, and what arrives in Kafka. At the end
//! an independent consumer's books say whether everything did.

mod consumer;
mod daemon;
mod dashboard;
mod decode;
mod interrupts;
mod ledger;
mod live;
mod screen;
mod servers;
mod settings;
mod shop;
mod story;
mod workload;

use std::io::Write as _;
use std::process::ExitCode;

use interrupts::Interrupts;
use screen::Screen;
use settings::Settings;

fn main() -> ExitCode {
    let settings = match Settings::from_environment() {
        Ok(settings) => settings,
        Err(message) => return failed(&message, 2),
    };
    let usual = std::panic::take_hook();
    // The stack panics when a server does not start; its message is made for people. Whatever
    // panics, and wherever: nothing after it can be trusted, and the keeper cleans up.
    std::panic::set_hook(Box::new(move |panic| {
        screen::restore();
        match panic.payload().downcast_ref::<String>() {
            Some(message) => complain(message),
            None => usual(panic),
        }
        interrupts::leave(1);
    }));
    let mut screen = Screen::new();
    let done = Interrupts::take_over()
        .and_then(|interrupts| story::run(&settings, &interrupts, &mut screen));
    screen.close_dashboard();
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(message) => failed(&message, 1),
    }
}

fn failed(message: &str, status: u8) -> ExitCode {
    complain(message);
    ExitCode::from(status)
}

fn complain(message: &str) {
    let _ = writeln!(std::io::stderr(), "demo: {message}");
}
