//! The daemon's entry: error policy, and one match on what was asked.

use std::process::ExitCode;

fn main() -> ExitCode {
    match waltide::cli::perform() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            failure.exit_code()
        }
    }
}
