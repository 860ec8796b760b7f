use apache_avro::rabin::Rabin;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use apache_avro::{GenericSingleObjectReader, Schema};

use super::*;
use crate::checkpoint::tests::checkpoint;

const SCHEMA: &str = include_str!("../../../../../schemas/checkpoint.avsc");
const EXAMPLE: &str = include_str!("../../../../../schemas/checkpoint.example.json");

fn schema() -> Schema {
    Schema::parse_str(SCHEMA).unwrap()
}

/// As the independent implementation writes it.
fn datum(value: Value) -> Vec<u8> {
    let schema = schema();
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    writer.write_value_to_vec(value).unwrap()
}

fn encoded(checkpoint: &Checkpoint) -> Vec<u8> {
    let mut bytes = Vec::new();
    checkpoint.encode(&mut bytes);
    bytes
}

/// What `schemas/checkpoint.example.json` says.
fn example() -> Checkpoint {
    Checkpoint {
        system_identifier: 7_426_123_950_162_345_001,
        timeline: 3,
        database: "shop".to_owned(),
        slot: "waltide_shop".to_owned(),
        publication_fingerprint: "5f1c0d6b9a3e2f47".to_owned(),
        commit_lsn: CommitLsn(Lsn(0x16_B374_D848)),
        end_lsn: EndLsn(Lsn(0x16_B374_D878)),
        progress: Progress::Partial(Partial {
            commit_lsn: CommitLsn(Lsn(0x16_B900_0028)),
            ordinal: 250_000,
            hash: 0x0123_4567_89AB_CDEF,
        }),
        topics: vec![
            TopicEnd {
                name: "shop.public.orders".to_owned(),
                topic_id: Some("lQs7dQfxRcy2vS0zEEmWYg".to_owned()),
                end_offsets: vec![81_234, 0, 79_990],
            },
            TopicEnd {
                name: "shop.public.customers".to_owned(),
                topic_id: None,
                end_offsets: vec![512],
            },
        ],
        schemas: vec![RegisteredSchema {
            subject: "shop.public.orders-value".to_owned(),
            id: 17,
            fingerprint: "c4f7a86d0b1e9352".to_owned(),
        }],
        settled_at_us: 1_767_225_600_123_456,
        snapshot: None,
        instance: "waltide-7d9f-0".to_owned(),
        written_at_us: 1_767_225_600_125_000,
    }
}

/// As large and odd as the types allow.
fn extreme() -> Checkpoint {
    Checkpoint {
        system_identifier: u64::MAX,
        timeline: u32::MAX,
        database: "Überzahl \u{10FFFF} \0".to_owned(),
        commit_lsn: CommitLsn(Lsn(u64::MAX - 1)),
        end_lsn: EndLsn(Lsn(u64::MAX)),
        progress: Progress::Partial(Partial {
            commit_lsn: CommitLsn(Lsn(u64::MAX)),
            ordinal: i64::MAX.cast_unsigned(),
            hash: 1,
        }),
        topics: vec![TopicEnd {
            name: "t".repeat(300),
            topic_id: Some(String::new()),
            end_offsets: vec![i64::MAX, i64::MIN, -1, 0, 63, 64, -64, -65],
        }],
        settled_at_us: i64::MIN,
        snapshot: Some(vec![0, 255, 0x80]),
        written_at_us: i64::MAX,
        schemas: vec![RegisteredSchema {
            subject: String::new(),
            id: u32::MAX,
            fingerprint: String::new(),
        }],
        ..example()
    }
}

#[test]
fn what_is_written_reads_back_the_same() {
    for checkpoint in [checkpoint(), example(), extreme()] {
        assert_eq!(Checkpoint::decode(&encoded(&checkpoint)), Ok(checkpoint));
    }
}

#[test]
fn the_bytes_carry_the_fingerprint_of_the_schema_file() {
    assert_eq!(*schema().fingerprint::<Rabin>().bytes, FINGERPRINT.to_le_bytes());
}

#[test]
fn an_independent_reader_finds_under_the_schema_file_what_was_written() {
    let reader = GenericSingleObjectReader::builder().schema(schema()).build().unwrap();
    for checkpoint in [checkpoint(), example(), extreme()] {
        let bytes = encoded(&checkpoint);
        let mut rest = bytes.as_slice();
        let value = reader.read_value(&mut rest).unwrap();
        assert!(rest.is_empty());
        assert!(value.validate(&schema()));
        let body = datum(value);
        assert_eq!(bytes[10..], body);
    }
}

#[test]
fn the_example_beside_the_schema_is_what_it_says_it_is() {
    let json: serde_json::Value = serde_json::from_str(EXAMPLE).unwrap();
    let value = Value::try_from(json).unwrap().resolve(&schema()).unwrap();
    let body = datum(value);
    assert_eq!(encoded(&example())[10..], body);
}

#[test]
fn a_newer_format_is_told_from_damage_whatever_follows() {
    for (found, version) in [(2, b"\x04".as_slice()), (64, b"\x80\x01")] {
        let bytes =
            [&MARKER, b"\x01\x02\x03\x04\x05\x06\x07\x08".as_slice(), version, b"??"].concat();
        let newer = Unreadable::NewerFormat { found, known: FORMAT_VERSION };
        assert_eq!(Checkpoint::decode(&bytes), Err(newer));
        assert!(newer.to_string().contains(&format!("format {found}")));
    }
}

#[test]
fn what_never_was_a_checkpoint_is_foreign() {
    let good = encoded(&example());
    let mut other_schema = good.clone();
    other_schema[5] ^= 1;
    let mut version_zero = good.clone();
    version_zero[10] = 0;
    let registry_framed = [b"\x00\x00\x00\x00\x11", &good[10..]].concat();
    for bytes in [b"".as_slice(), b"{}", &good[..5], &other_schema, &version_zero, &registry_framed]
    {
        assert_eq!(Checkpoint::decode(bytes), Err(Unreadable::Foreign), "{bytes:?}");
    }
}

#[test]
fn a_record_cut_short_or_with_something_behind_it_is_damaged() {
    let mut bytes = encoded(&example());
    for length in 10..bytes.len() {
        let cut = Checkpoint::decode(&bytes[..length]);
        assert!(matches!(cut, Err(Unreadable::Malformed { .. })), "{length}: {cut:?}");
    }
    let length = bytes.len();
    bytes.push(0);
    let expected = Unreadable::Malformed { at: length, expected: "the end of the record" };
    assert_eq!(Checkpoint::decode(&bytes), Err(expected));
}

#[test]
fn positions_that_cannot_all_be_true_are_refused() {
    let partial = |commit| {
        Progress::Partial(Partial { commit_lsn: CommitLsn(Lsn(commit)), ordinal: 1, hash: 1 })
    };
    let at = |commit, end, progress| Checkpoint {
        commit_lsn: CommitLsn(Lsn(commit)),
        end_lsn: EndLsn(Lsn(end)),
        progress,
        ..checkpoint()
    };
    for (checkpoint, is_good) in [
        (at(0, 0, Progress::Complete), false),
        (at(5, 5, Progress::Complete), false),
        (at(5, 6, Progress::Complete), true),
        (at(5, 6, partial(5)), false),
        (at(5, 6, partial(6)), true),
    ] {
        let decoded = Checkpoint::decode(&encoded(&checkpoint));
        let expected = if is_good { Ok(checkpoint) } else { Err(Unreadable::Contradictory) };
        assert_eq!(decoded, expected);
    }
}

#[test]
fn an_array_in_blocks_with_their_sizes_is_read_as_avro_allows() {
    let mut items = Vec::new();
    let mut out = Writer(&mut items);
    for number in [-2, 2, 7, 8, 1, 9, 0] {
        out.long(number);
    }
    let mut input = Reader { whole: items.len(), rest: &items };
    assert_eq!(input.array(Reader::long), Ok(vec![7, 8, 9]));
    assert!(input.rest.is_empty());
}

#[test]
fn a_number_too_long_for_64_bits_is_damage() {
    for (bytes, expected) in [
        (vec![0xFF; 11], None),
        ([vec![0xFF; 9], vec![0x02]].concat(), None),
        ([vec![0xFF; 9], vec![0x01]].concat(), Some(i64::MIN)),
        (vec![0x80], None),
    ] {
        let mut input = Reader { whole: bytes.len(), rest: &bytes };
        assert_eq!(input.long().ok(), expected, "{bytes:?}");
    }
}

/// Any bytes give an answer, and what decodes is what those bytes mean: encoding it again and
/// reading that gives the same.
#[test]
fn damaged_bytes_never_panic_and_never_read_back_differently() {
    let seed: u64 = option_env!("WALTIDE_SEED").and_then(|s| s.parse().ok()).unwrap_or(42);
    let mut random = seed;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % below as u64).unwrap()
    };
    let originals = [encoded(&checkpoint()), encoded(&example()), encoded(&extreme())];
    for round in 0..60_000 {
        let mut bytes = originals[next(originals.len())].clone();
        for _ in 0..=next(3) {
            let at = 10 + next(bytes.len() - 10);
            bytes[at] = [0, 1, 0x7F, 0x80, 0xFF, bytes[at] ^ (1 << next(8))][next(6)];
        }
        if let Ok(read) = Checkpoint::decode(&bytes) {
            let again = Checkpoint::decode(&encoded(&read));
            assert_eq!(again, Ok(read), "seed {seed}, round {round}");
        }
    }
}
