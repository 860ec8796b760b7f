//! Decoding and walking allocate nothing, whatever the bytes.

mod corpus;
#[path = "corpus/walk.rs"]
mod walk;

use std::hint::black_box;

use waltide_core::pgoutput::{
    Context, Decoder, Frame, Message, Relation, RelationCache, RelationId, decode,
};

/// Allocations that `work` makes on this thread.
fn allocations(work: impl FnOnce()) -> u64 {
    allocation_counter::measure(work).count_total
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(black_box(Box::new(1)))), 1);
}

#[test]
fn no_recorded_message_takes_an_allocation_to_decode_and_walk() {
    for recording in corpus::recordings() {
        let payloads = recording.payloads();
        let mut walked = 0;
        let counted = allocations(|| {
            let mut decoder = Decoder::new();
            for payload in &payloads {
                let Ok(Frame::XLogData { body, .. }) = Frame::decode(payload) else { continue };
                let Ok(message) = decoder.decode(body) else { continue };
                walk::walk(&message, &mut |value| walked += value.map_or(1, <[u8]>::len));
            }
        });
        assert_eq!(counted, 0, "{}", recording.name);
        assert!(walked > 0, "{}", recording.name);
    }
}

#[test]
fn no_refusal_takes_an_allocation() {
    for recording in corpus::recordings() {
        for payload in recording.payloads() {
            let Ok(Frame::XLogData { body, .. }) = Frame::decode(payload) else { continue };
            let counted = allocations(|| {
                for cut in 0..body.len() {
                    for in_stream in [false, true] {
                        let _ = black_box(decode(&body[..cut], Context { in_stream }));
                    }
                    let _ = black_box(Frame::decode(&payload[..cut]));
                }
            });
            assert_eq!(counted, 0, "{}", recording.name);
        }
    }
}

#[test]
fn a_number_that_promises_much_takes_no_allocation() {
    // A relation of 32767 columns, a truncate of 2^31-1 tables, a message of 2^31-1 bytes.
    let relation = b"R\0\0\0\x01s\0t\0d\x7f\xff";
    let truncate = b"T\x7f\xff\xff\xff\0\0\0\0\x01";
    let logical = b"M\0\0\0\0\0\0\0\0\0p\0\x7f\xff\xff\xff";
    for bytes in [relation.as_slice(), truncate, logical] {
        let counted = allocations(|| {
            assert!(decode(bytes, Context::default()).is_err());
        });
        assert_eq!(counted, 0);
    }
}

#[test]
fn looking_up_a_relation_takes_no_allocation() {
    let mut cache = RelationCache::new();
    for recording in corpus::recordings() {
        let mut decoder = Decoder::new();
        for payload in recording.payloads() {
            let Ok(Frame::XLogData { body, .. }) = Frame::decode(payload) else { continue };
            if let Ok(Message::Relation(None, body)) = decoder.decode(body) {
                assert!(cache.insert(Relation::from(&body), ()).is_ok());
            }
        }
    }
    let mut found = 0;
    let counted = allocations(|| {
        for id in 16_000..17_000 {
            found += u32::from(cache.get(RelationId(id)).is_some());
        }
    });
    assert_eq!(counted, 0);
    assert!(found > 10);
}
