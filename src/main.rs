//! The daemon's entry: error policy, and one match on what was asked.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A record is six allocations in librdkafka, which one thread makes and another gives back: the
/// system's allocator takes a lock and a search for each.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    match waltide::cli::perform() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit_code()
        }
    }
}
