//! The rules of a table without a key, driven through random schedules.
//!
//! Its rows cannot be told apart, so it is read at once while the stream waits, and the stream
//! leaves out afterwards what that read has seen. A small world (a table whose rows are values, of
//! which there may be several alike, a log, a topic) has a daemon that uses the real books, the real
//! bytes of a checkpoint, and delivers at least once or exactly once. Everything may happen between
//! any two steps: commits that are in the log and not visible, transactions that were open when the
//! table joined, kills amid the read and behind it.
//!
//! At the end the rows of the read that counts, with what the stream has of transactions that it has
//! not seen, are the table, each as often; nothing that it has seen comes behind it; and nothing is
//! there less often than in the table.
//!
//! `WALTIDE_SEED` and `WALTIDE_SCHEDULES` replay and lengthen.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "it is only for tests"
)]

mod daemon;
#[path = "../random/mod.rs"]
mod random;
mod world;

use random::{catch, hold};
use world::{Delivery, Plant, World};

/// In each of the two ways to deliver.
const SCHEDULES: u64 = 50_000;

/// A planted bug must show within so many.
const ENOUGH: u64 = 100_000;

fn run(delivery: Delivery, plant: Plant, seed: u64) -> Result<(), String> {
    World::new(delivery, plant, seed).run()
}

fn holds(delivery: Delivery) {
    hold(delivery, SCHEDULES, |seed| run(delivery, Plant::None, seed));
}

#[test]
fn nothing_of_a_table_without_a_key_is_missing_at_least_once() {
    holds(Delivery::AtLeastOnce);
}

#[test]
fn each_row_of_a_table_without_a_key_is_there_as_often_exactly_once() {
    holds(Delivery::ExactlyOnce);
}

#[test]
fn every_planted_bug_is_caught() {
    for plant in [
        Plant::StreamGoesOn,
        Plant::NothingLeftOut,
        Plant::SubtransactionsLeftOut,
        Plant::BoundBeforeTheSnapshot,
        Plant::SnapshotNotRemembered,
        Plant::HalfForTheWhole,
        Plant::OpenTransactionsIgnored,
        Plant::DoneOnceReleased,
        Plant::FormerLivesForgotten,
        Plant::PublishedTakenForSeen,
    ] {
        for delivery in [Delivery::AtLeastOnce, Delivery::ExactlyOnce] {
            // Records and checkpoint are one: nothing is in the one and not in the other. Else a
            // kill may let rows come twice.
            let not = match plant {
                Plant::DoneOnceReleased | Plant::FormerLivesForgotten => {
                    Some(Delivery::ExactlyOnce)
                }
                Plant::SnapshotNotRemembered => Some(Delivery::AtLeastOnce),
                _ => None,
            };
            if not == Some(delivery) {
                continue;
            }
            catch((plant, delivery), (1, ENOUGH), |seed| run(delivery, plant, seed));
        }
    }
}
