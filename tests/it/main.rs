//! Sentences about the daemon, against real servers.
//!
//! One binary, so that the servers start once; tests run beside each other and are kept apart by
//! names: a database, a slot and a topic prefix each. What every file needs is in `support`.

mod brokers;
mod check;
mod checkpoint;
mod cli;
mod contained;
mod control;
mod delivery;
mod delivery_partitions;
mod delivery_positions;
mod delivery_restarts;
mod delivery_standby;
mod differential;
mod directory;
mod documents;
mod evolution;
mod exactly_once;
mod failover;
mod faults;
mod heartbeats;
mod lag;
mod marks;
mod messages;
mod metrics;
mod migration;
mod operating;
mod page;
mod plan;
mod python;
mod random;
mod recovery;
mod scale;
mod schemas;
mod snapshots;
mod streaming;
mod support;
mod tail;
mod transactions;
mod values;
mod verify;
