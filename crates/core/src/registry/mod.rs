//! What a schema registry decides: which id a schema has, and whether readers can follow a change.
//!
//! The files and the network around it are the daemon's; here is only what follows from what was
//! registered before.

mod book;
mod compatibility;
mod level;
mod line;
mod schema;

pub use book::{Book, Judged, Refusal, Version};
pub use compatibility::obstacles;
pub use level::Level;
pub use line::Line;
pub use schema::{Schema, identity};
