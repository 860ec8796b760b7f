//! The server: a log of what was committed, and a slot.

use waltide_core::checkpoint::SourceFacts;
use waltide_core::lsn::Lsn;

use crate::random::Random;

pub(crate) const PARTITIONS: usize = 2;

/// A committed transaction: where its commit record lies, and the partition of each row.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    pub(crate) commit: u64,
    pub(crate) end: u64,
    pub(crate) rows: Vec<usize>,
}

/// A record, by its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Record {
    pub(crate) commit: u64,
    pub(crate) ordinal: u64,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) confirmed: u64,
    /// What a crash puts it back to.
    on_disk: u64,
    holder: Option<usize>,
}

pub(crate) struct Server {
    pub(crate) log: Vec<Transaction>,
    pub(crate) wal_end: u64,
    pub(crate) slot: Option<Slot>,
    /// Where the slot started.
    birth: u64,
}

impl Server {
    pub(crate) const fn new() -> Self {
        Self { log: Vec::new(), wal_end: 100, slot: None, birth: 0 }
    }

    /// A transaction of fewer rows than that.
    pub(crate) fn commit(&mut self, random: &mut Random, rows: u64) {
        // Often without a byte in between.
        let gap = if random.once_in(2) { 0 } else { random.below(9) };
        let commit = self.wal_end + gap;
        let end = commit + 1 + random.below(9);
        let rows = random.below(rows);
        let rows = (0..rows).map(|_| random.index(PARTITIONS)).collect();
        self.log.push(Transaction { commit, end, rows });
        self.wal_end = end;
    }

    /// Something that concerns nobody is written to the log.
    pub(crate) fn write(&mut self, random: &mut Random) {
        self.wal_end += random.below(20);
    }

    pub(crate) fn crash(&mut self) {
        if let Some(slot) = &mut self.slot {
            slot.confirmed = slot.on_disk;
            slot.holder = None;
        }
    }

    pub(crate) fn flush(&mut self) {
        if let Some(slot) = &mut self.slot {
            slot.on_disk = slot.confirmed;
        }
    }

    pub(crate) fn holds(&self, who: usize) -> bool {
        self.slot.is_some_and(|slot| slot.holder == Some(who))
    }

    pub(crate) fn lose_the_connection(&mut self, who: usize) {
        if let Some(slot) = &mut self.slot
            && slot.holder == Some(who)
        {
            slot.holder = None;
        }
    }

    /// False where there is one already.
    pub(crate) fn make_slot(&mut self) -> bool {
        if self.slot.is_some() {
            return false;
        }
        let confirmed = self.wal_end;
        self.slot = Some(Slot { confirmed, on_disk: confirmed, holder: None });
        self.birth = confirmed;
        true
    }

    /// What the source says of itself to who has taken the slot.
    pub(crate) fn take_slot(&mut self, who: usize) -> Option<SourceFacts> {
        let slot = self.slot.as_mut().filter(|slot| slot.holder.is_none())?;
        slot.holder = Some(who);
        let slot_confirmed = Lsn(slot.confirmed);
        Some(SourceFacts {
            system_identifier: 7,
            timeline: 1,
            timeline_history: Vec::new(),
            flushed: Lsn(self.wal_end),
            database: "shop".to_owned(),
            slot_confirmed,
            slot_created_now: false,
        })
    }

    pub(crate) fn confirm(&mut self, told: u64) {
        if let Some(slot) = &mut self.slot {
            slot.confirmed = slot.confirmed.max(told);
        }
    }

    /// The first transaction that the server sends: it sends what was committed at or past the
    /// slot's position.
    pub(crate) fn first_to_send(&self) -> usize {
        let confirmed = self.slot.map_or(0, |slot| slot.confirmed);
        self.log.iter().position(|it| it.commit >= confirmed).unwrap_or(self.log.len())
    }

    /// What is due of a transaction.
    pub(crate) fn due(&self, transaction: &Transaction) -> impl Iterator<Item = Record> + use<> {
        let (commit, count) = (transaction.commit, transaction.rows.len() as u64);
        let count = if commit >= self.birth { count } else { 0 };
        (0..count).map(move |ordinal| Record { commit, ordinal })
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.slot.is_some_and(|slot| slot.confirmed >= self.wal_end)
    }
}

/// An offset.
pub(crate) fn offset(of: usize) -> i64 {
    i64::try_from(of).expect("a short log")
}
