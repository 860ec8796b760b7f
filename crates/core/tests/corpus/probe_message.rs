//! What must hold for any bytes as a message: shared by the fuzz targets and the tests.

use waltide_core::pgoutput::{Context, decode, encode};

use crate::walk::walk;

/// Decodes bytes as a message, walks all of it and writes it again. Whether it was one.
pub(crate) fn probe(bytes: &[u8], in_stream: bool) -> bool {
    let message = match decode(bytes, Context { in_stream }) {
        Ok(message) => message,
        Err(error) => {
            assert!(error.offset <= bytes.len(), "{error}");
            assert!(!error.to_string().is_empty());
            return false;
        }
    };
    let mut walked = 0;
    walk(&message, &mut |field| walked += field.map_or(0, <[u8]>::len));
    assert!(walked <= bytes.len());

    // There is one way to write a message, but for the schema that can be left empty.
    let mut written = Vec::new();
    encode::message(&mut written, &message);
    let named = bytes.windows(11).any(|window| window == b"pg_catalog\0");
    assert!(written == bytes || named, "{message:?}");
    true
}
