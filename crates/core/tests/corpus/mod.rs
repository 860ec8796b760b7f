//! What real servers sent: one file a recording, made by `record.py`.
#![expect(clippy::unwrap_used, reason = "a corpus that cannot be read fails the test")]

use std::path::Path;

const RELEASES: [&str; 6] = ["14", "15", "15.6", "16", "17", "18"];

/// One START_REPLICATION.
pub(crate) struct Recording {
    /// The release it is from, then which of those that `record.py` lists: `15.6/streamed`.
    pub(crate) name: String,
    bytes: Vec<u8>,
}

impl Recording {
    /// The payloads of its CopyData messages.
    pub(crate) fn payloads(&self) -> Vec<&[u8]> {
        let mut payloads = Vec::new();
        let mut rest = self.bytes.as_slice();
        while let Some((length, tail)) = rest.split_first_chunk() {
            let length = u32::from_be_bytes(*length) as usize;
            let (payload, tail) = tail.split_at(length);
            payloads.push(payload);
            rest = tail;
        }
        payloads
    }
}

/// All of them, in a fixed order.
pub(crate) fn recordings() -> Vec<Recording> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut recordings = Vec::new();
    for release in RELEASES {
        for entry in std::fs::read_dir(root.join(format!("pg{release}"))).unwrap() {
            let path = entry.unwrap().path();
            let name = format!("{release}/{}", path.file_stem().unwrap().to_str().unwrap());
            recordings.push(Recording { name, bytes: std::fs::read(path).unwrap() });
        }
    }
    recordings.sort_by(|a, b| a.name.cmp(&b.name));
    recordings
}
