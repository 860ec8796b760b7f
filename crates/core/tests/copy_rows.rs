//! What a COPY sends, damaged at random: read or refused, never a panic, and no allocation but for
//! the one buffer.
//!
//! `WALTIDE_FUZZ_ITERATIONS` says how many, `WALTIDE_FUZZ_SEED` replays a failure, which prints both.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::hash::{BuildHasher, RandomState};

use waltide_core::pgoutput::{CopyRows, Field};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(limit).unwrap()).unwrap()
    }
}

/// The CopyData of some rows, the way a server cuts them.
fn sent(random: &mut Random) -> Vec<Vec<u8>> {
    let mut sent = vec![b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0".to_vec()];
    for row in 0..3 {
        if row > 0 {
            sent.push(Vec::new());
        }
        let data = sent.last_mut().unwrap();
        data.extend([0, 4]);
        for _ in 0..4 {
            let length = random.below(20);
            match random.below(4) {
                0 => data.extend([0xFF; 4]),
                _ => data.extend(u32::try_from(length).unwrap().to_be_bytes()),
            }
            if data.last() != Some(&0xFF) {
                data.extend(std::iter::repeat_n(0xAB, length));
            }
        }
    }
    sent.push(vec![0xFF, 0xFF]);
    sent
}

fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let at = random.below(bytes.len());
    match random.below(5) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFF][random.below(5)],
        2 => bytes.truncate(at),
        3 => bytes.insert(at, 0),
        _ => {
            bytes.remove(at);
        }
    }
}

/// How many bytes of values are read before the end or the first fault; each is in what was sent.
fn walk(rows: &mut CopyRows, sent: &[Vec<u8>]) -> Option<usize> {
    let mut seen = 0;
    for data in sent {
        let Some(tuple) = rows.decode(data).ok()? else { continue };
        let mut fields = 0;
        for field in tuple.fields() {
            fields += 1;
            if let Field::Binary(value) | Field::Text(value) = field {
                seen += value.len();
                assert!(value.len() <= data.len());
            }
        }
        assert_eq!(fields, tuple.len());
    }
    Some(seen)
}

fn setting(name: &str) -> Option<u64> {
    #[expect(clippy::disallowed_methods, reason = "how long to try is asked of who runs the test")]
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is a number, not {value:?}")))
}

#[test]
fn damaged_rows_are_refused_or_read_and_never_panic() {
    let seed = setting("WALTIDE_FUZZ_SEED").unwrap_or_else(|| RandomState::new().hash_one("seed"));
    let iterations = setting("WALTIDE_FUZZ_ITERATIONS").unwrap_or(100_000);
    println!("WALTIDE_FUZZ_SEED={seed} WALTIDE_FUZZ_ITERATIONS={iterations}");
    let mut random = Random(seed);
    let mut read = 0;
    for _ in 0..iterations {
        let mut sent = sent(&mut random);
        assert!(walk(&mut CopyRows::new([false, true]), &sent).is_some());
        let which = random.below(sent.len());
        damage(&mut sent[which], &mut random);
        read += u64::from(walk(&mut CopyRows::new([false, true]), &sent).is_some());
    }
    // Where all is refused or all is read, the damage does not reach what it should.
    assert!(iterations < 1000 || (iterations / 100..iterations * 9 / 10).contains(&read), "{read}");
}

#[test]
fn a_row_takes_no_allocation_once_the_buffer_has_grown() {
    let sent = sent(&mut Random(1));
    let mut rows = CopyRows::new([false]);
    let first = rows.decode(&sent[0]).unwrap().unwrap();
    assert_eq!(first.len(), 4);
    let counted = allocation_counter::measure(|| {
        for _ in 0..100 {
            assert!(rows.decode(&sent[0][19..]).is_ok());
            assert!(rows.decode(b"\0\x01\x7f\xff\xff\xff").is_err());
        }
    });
    assert_eq!(counted.count_total, 0);
}
