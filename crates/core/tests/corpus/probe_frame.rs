//! What must hold for any bytes as a frame: shared by the fuzz targets and the tests.

use waltide_core::pgoutput::{Frame, encode};

/// Decodes bytes as the payload of CopyData.
pub(crate) fn probe(bytes: &[u8]) -> bool {
    let Ok(frame) = Frame::decode(bytes) else { return false };
    let mut written = Vec::new();
    encode::frame(&mut written, &frame);
    assert_eq!(written, bytes, "{frame:?}");
    true
}
