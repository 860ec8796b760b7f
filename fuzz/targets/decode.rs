//! Any bytes as a message; the first one says whether it stands in a stream.
#![no_main]

#[path = "../../crates/core/tests/corpus/probe_message.rs"]
mod probe_message;
#[path = "../../crates/core/tests/corpus/walk.rs"]
mod walk;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some((context, bytes)) = data.split_first() {
        probe_message::probe(bytes, context & 1 == 1);
    }
});
