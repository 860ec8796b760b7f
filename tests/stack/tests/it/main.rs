//! The stack is what other tests stand on, so it is tested too.

mod cleanup;
mod faults;
mod kafka;
mod postgres;
mod registry;
