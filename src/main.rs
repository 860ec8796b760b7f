//! The daemon's entry: error policy, and one match on what was asked.

fn main() {}
