//! Ctrl-C: the first ends the demo in good order, the second at once. Before there is anything to
//! end in order, the first is the second. The servers go away in every case.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::screen;

#[derive(Clone, Default)]
pub(crate) struct Interrupts {
    is_orderly: Arc<AtomicBool>,
    asked: Arc<AtomicBool>,
}

impl Interrupts {
    pub(crate) fn take_over() -> Result<Self, String> {
        let interrupts = Self::default();
        let because = |error: std::io::Error| format!("cannot handle signals: {error}");
        let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).map_err(because)?;
        let Self { is_orderly, asked } = interrupts.clone();
        let wait = move || {
            for signal in signals.forever() {
                let again = asked.swap(true, Ordering::AcqRel);
                if again || !is_orderly.load(Ordering::Acquire) {
                    leave(128 + signal);
                }
            }
        };
        thread::Builder::new().name("signals".into()).spawn(wait).map_err(because)?;
        Ok(interrupts)
    }

    /// From here on somebody looks at [`asked`](Self::asked).
    pub(crate) fn be_orderly(&self) {
        self.is_orderly.store(true, Ordering::Release);
    }

    /// Whether the end was asked for.
    pub(crate) fn asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}

/// Ends the process without its destructors: other threads are still in the middle of things, and
/// the keeper removes the servers, the daemon and their files.
pub(crate) fn leave(status: i32) -> ! {
    screen::restore();
    signal_hook::low_level::exit(status)
}
