//! The stack is what other tests stand on, so it is tested too.

mod kafka;
mod postgres;
mod registry;
