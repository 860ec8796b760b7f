//! Any bytes as the payload of CopyData, and what is in it as a message.
#![no_main]

#[path = "../../crates/core/tests/corpus/probe_frame.rs"]
mod probe_frame;
#[path = "../../crates/core/tests/corpus/probe_message.rs"]
mod probe_message;
#[path = "../../crates/core/tests/corpus/walk.rs"]
mod walk;

use libfuzzer_sys::fuzz_target;
use waltide_core::pgoutput::Frame;

fuzz_target!(|data: &[u8]| {
    probe_frame::probe(data);
    if let Ok(Frame::XLogData { body, .. }) = Frame::decode(data) {
        probe_message::probe(body, false);
    }
});
