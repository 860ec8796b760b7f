//! Times as Postgres and Kafka count them.

use std::time::{SystemTime, UNIX_EPOCH};

use waltide_core::pgoutput::PgTimestamp;

/// Microseconds from 1970 to 2000, where Postgres starts to count.
pub(super) const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;

/// Our clock, as Postgres counts.
#[must_use]
pub fn now() -> PgTimestamp {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    PgTimestamp(i64::try_from(since_1970.as_micros()).unwrap_or(i64::MAX) - POSTGRES_EPOCH_US)
}

/// A Postgres time as a Kafka record's timestamp.
#[must_use]
pub const fn unix_ms(time: PgTimestamp) -> i64 {
    time.0.saturating_add(POSTGRES_EPOCH_US).div_euclid(1_000)
}
