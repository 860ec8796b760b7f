//! What the fuzz targets do, on stable and bounded: recorded payloads, damaged at random.
//!
//! `WALTIDE_FUZZ_ITERATIONS` says how many, `WALTIDE_FUZZ_SEED` replays a failure, which prints both.
#![expect(clippy::indexing_slicing, clippy::panic, reason = "tests")]

mod corpus;
#[path = "corpus/probe_frame.rs"]
mod probe_frame;
#[path = "corpus/probe_message.rs"]
mod probe_message;
#[path = "corpus/walk.rs"]
mod walk;

use std::hash::{BuildHasher, RandomState};

use waltide_core::pgoutput::{Decoder, Frame};

/// SplitMix64: the same numbers from the same seed for ever.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `limit`, or zero.
    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit.max(1)).unwrap_or(1);
        usize::try_from(self.next() % limit).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        // Half the time one that means something somewhere.
        let known = b"\0\x01\x02\x7f\x80\xffBCORYIUDTMSEcAbPKrpKONnutbwkdfi";
        let any = self.next().to_be_bytes()[0];
        if any & 1 == 0 { known[self.below(known.len())] } else { any }
    }
}

fn damage(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(bytes.len());
    match random.below(8) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => bytes[at] = random.byte(),
        2 => bytes.insert(at, random.byte()),
        3 => bytes.truncate(at),
        4 => {
            let end = (at + random.below(9)).min(bytes.len());
            bytes.drain(at..end);
        }
        5 => {
            let part = bytes[at..(at + random.below(32)).min(bytes.len())].to_vec();
            bytes.splice(at..at, part);
        }
        6 => {
            // A length, as lengths go wrong.
            let lengths = [0, 1, bytes.len() as u64, u64::from(u16::MAX), 0x7FFF_FFFF, 0xFFFF_FFFF];
            let length = lengths[random.below(lengths.len())].to_be_bytes();
            let width = [2, 4][random.below(2)];
            for (to, from) in bytes.iter_mut().skip(at).zip(&length[8 - width..]) {
                *to = *from;
            }
        }
        _ => {
            bytes.truncate(at);
            bytes.extend_from_slice(&other[random.below(other.len())..]);
        }
    }
}

fn setting(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "how long to try is asked of who runs the test")]
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is a number, not {value:?}")))
}

#[test]
fn damaged_messages_are_refused_or_read_and_never_panic() {
    let seed = setting("WALTIDE_FUZZ_SEED").unwrap_or_else(|| RandomState::new().hash_one("seed"));
    let iterations = setting("WALTIDE_FUZZ_ITERATIONS").unwrap_or(100_000);
    println!("WALTIDE_FUZZ_SEED={seed} WALTIDE_FUZZ_ITERATIONS={iterations}");

    let recordings = corpus::recordings();
    let mut bodies = Vec::new();
    let mut frames = Vec::new();
    for recording in &recordings {
        let mut decoder = Decoder::new();
        for payload in recording.payloads() {
            frames.push(payload);
            let Ok(Frame::XLogData { body, .. }) = Frame::decode(payload) else { continue };
            let in_stream = decoder.context().in_stream;
            assert!(decoder.decode(body).is_ok());
            bodies.push((body, in_stream));
        }
    }

    let mut random = Random(seed);
    let mut accepted = 0;
    for _ in 0..iterations {
        let (body, in_stream) = bodies[random.below(bodies.len())];
        let (other, _) = bodies[random.below(bodies.len())];
        let mut bytes = body.to_vec();
        for _ in 0..=random.below(3) {
            damage(&mut bytes, other, &mut random);
        }
        // One in eight is read in the form it was not written in.
        let in_stream = in_stream != (random.below(8) == 0);
        accepted += u64::from(probe_message::probe(&bytes, in_stream));

        let mut bytes = frames[random.below(frames.len())].to_vec();
        damage(&mut bytes, other, &mut random);
        probe_frame::probe(&bytes);
    }
    // Where all is refused or all is read, the damage does not reach what it should.
    assert!(iterations < 1000 || (iterations / 100..iterations / 2).contains(&accepted));
    println!("{accepted} of {iterations} were still messages");
}
