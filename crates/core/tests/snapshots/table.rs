//! A table of a server: versions of rows, and who sees them.

use std::collections::BTreeMap;

/// A version of a row. Old ones stay, because a replica may not have come so far.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) key: u8,
    pub(crate) row: Row,
    /// The file it is in.
    pub(crate) file: u32,
    /// Its place in it; two places make a block.
    pub(crate) place: u32,
    /// The top-level transactions that made and removed it.
    pub(crate) made: u64,
    pub(crate) gone: Option<u64>,
}

/// A small value and a large one, which the log leaves out where it does not change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) small: u64,
    pub(crate) large: u64,
}

/// What the log says happened to a row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Insert(u8, Row),
    /// The key before and after, and whether the large value is left out.
    Update(u8, u8, Row, bool),
    Delete(u8),
    Truncate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Open,
    /// In the log, and not visible: it waits for a standby.
    Waiting,
    Done,
    Aborted,
}

/// A transaction.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    pub(crate) xid: u64,
    /// What it does, it does in a subtransaction with this id.
    pub(crate) sub: Option<u64>,
    pub(crate) state: State,
    /// Where each change is in the log.
    pub(crate) events: Vec<(u64, Event)>,
}

/// A transaction in the log.
#[derive(Clone, Debug)]
pub(crate) struct Logged {
    pub(crate) xid: u64,
    pub(crate) sub: Option<u64>,
    pub(crate) commit: u64,
    pub(crate) end: u64,
    pub(crate) events: Vec<(u64, Event)>,
}

/// The table, as a reader sees it.
pub(crate) fn visible<'a>(
    heap: &'a [Version],
    file: u32,
    sees: impl Fn(u64) -> bool + 'a,
) -> impl Iterator<Item = &'a Version> + 'a {
    heap.iter().filter(move |version| {
        version.file == file && sees(version.made) && !version.gone.is_some_and(&sees)
    })
}

/// What a consumer holds.
pub(crate) type Table = BTreeMap<u8, Row>;
