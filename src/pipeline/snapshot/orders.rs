//! What people ask of snapshots while the stream runs.
//!
//! A table that is to be read is looked at by the scout first: the owner waits for nobody. Whoever
//! asked is answered once a checkpoint has it, so that what is said holds however the process ends.

use serde_json::{Value, json};
use waltide_core::pgoutput::RelationId;
use waltide_core::snapshot::{Book, Filter, Keys, Terms};

use super::scout::{Ask, Member};
use super::{Snapshots, status};
use crate::config::TableName;
use crate::control::{Asked, Command, SnapshotOrder};
use crate::fault::{Code, Fault};

/// What is to be read, and who asks.
#[derive(Debug)]
pub(in super::super) struct Wanted {
    /// None for all there are.
    pub(super) table: Option<TableName>,
    asked: Asked,
}

impl Wanted {
    /// Which rows.
    pub(super) fn filter(&self) -> Option<&Filter> {
        let Command::Snapshot { order, .. } = &self.asked.command;
        if let SnapshotOrder::Start(filter) = order { filter.as_ref() } else { None }
    }

    /// Which rows, where they are named.
    pub(super) fn keys(&self) -> Option<&Keys> {
        let Command::Snapshot { order, .. } = &self.asked.command;
        if let SnapshotOrder::Mend(keys) = order { Some(keys) } else { None }
    }
}

/// What somebody waits for: the books that must be in a checkpoint before, once that is known.
#[derive(Debug)]
pub(super) struct Answer {
    edition: Option<u64>,
    asked: Asked,
    answer: Value,
}

/// A pipeline that keeps no books of what was read.
pub(in super::super) fn never(pipeline: &str) -> Fault {
    Fault::new(
        Code::RequestUntimely,
        format!("pipeline {pipeline} reads no rows that are there: it has `snapshot: never`"),
        "set `snapshot: on_request`, with which rows are read when that is asked for, and restart",
    )
}

fn untimely(what: String, mend: &str) -> Fault {
    Fault::new(Code::RequestUntimely, what, mend)
}

impl Snapshots {
    /// Does what somebody has asked for.
    pub(in super::super) fn obey(&mut self, book: &mut Book, asked: Asked) {
        let Command::Snapshot { table, order } = asked.command.clone();
        if let SnapshotOrder::Start(_) | SnapshotOrder::Mend(_) = order {
            let ask = Ask::Vet(Box::new(Wanted { table, asked }));
            if let Err(error) = self.scout.try_send(ask)
                && let Ask::Vet(wanted) = error.into_inner()
            {
                let fault = untimely("others ask at the same time".to_owned(), "ask again");
                wanted.asked.answer(Err(fault));
            }
            return;
        }
        match self.change(book, table.as_ref(), &order) {
            Ok(tables) => self.answer_later(asked, &tables),
            Err(fault) => asked.answer(Err(fault)),
        }
    }

    /// Changes what becomes of tables that are being read; their names.
    fn change(
        &mut self,
        book: &mut Book,
        table: Option<&TableName>,
        order: &SnapshotOrder,
    ) -> Result<Vec<String>, Fault> {
        let members = self.tables.iter().map(|(id, table)| (*id, &table.member));
        let meant = members.filter(|(_, member)| table.is_none_or(|name| member.is_called(name)));
        let meant: Vec<(RelationId, String)> = meant.map(|(id, it)| (id, it.name())).collect();
        let mut changed = Vec::new();
        for (id, name) in meant {
            let done = match order {
                SnapshotOrder::Pause => book.set_paused(id, true),
                SnapshotOrder::Resume => book.set_paused(id, false),
                SnapshotOrder::Cancel => book.cancel(id),
                SnapshotOrder::Start(_) | SnapshotOrder::Mend(_) => false,
            };
            if done {
                tracing::info!(pipeline = self.status.name, table = name, ?order, "reading it");
                changed.push((id, name));
            }
        }
        if changed.is_empty() {
            let what = match table {
                Some(table) => format!("table {table} is not being read"),
                None => "no table is being read".to_owned(),
            };
            return Err(untimely(what, "look at `waltide snapshot list`"));
        }
        if matches!(order, SnapshotOrder::Cancel) {
            for (id, name) in &changed {
                self.tables.remove(id);
                self.status.snapshot_ended(name, status::End::Cancelled);
            }
            self.held.retain(|chunk, _| book.holds(*chunk));
        }
        Ok(changed.into_iter().map(|(_, name)| name).collect())
    }

    /// What is wanted can be read, or not.
    pub(super) fn vetted(
        &mut self,
        book: &mut Book,
        wanted: Wanted,
        found: Result<Vec<Member>, Fault>,
    ) {
        // Whoever asks again must not find the first request done as well.
        if !wanted.asked.is_wanted() {
            return;
        }
        let members = match found {
            Ok(members) => members,
            Err(fault) => return wanted.asked.answer(Err(fault)),
        };
        self.covered(book, members);
        let members = self.members.values();
        let meant =
            members.filter(|it| wanted.table.as_ref().is_none_or(|name| it.is_called(name)));
        let meant: Vec<Member> = meant.cloned().collect();
        let mut begun = Vec::new();
        for member in meant {
            let id = member.published.id;
            if book.reads(id) {
                continue;
            }
            // What is configured of the table counts where the request says nothing. A row that is
            // named is not there only where the table does not have it.
            let keys = wanted.keys().cloned();
            let configured = || self.plan(&member).filter.filter(|_| keys.is_none());
            let filter = wanted.filter().cloned().or_else(configured);
            let terms = Terms { filter, asked: true, keys, ..Terms::default() };
            book.start_on(id, member.known.clone(), [].into(), terms);
            self.follow(book, id, &member);
            begun.push(member.name());
        }
        if !begun.is_empty() {
            return self.answer_later(wanted.asked, &begun);
        }
        let fault = match &wanted.table {
            Some(table) => untimely(
                format!("table {table} is being read already"),
                "wait for its end, or `waltide snapshot cancel` it first",
            ),
            None => untimely("every table is being read already".to_owned(), "wait for their end"),
        };
        wanted.asked.answer(Err(fault));
    }

    fn answer_later(&mut self, asked: Asked, tables: &[String]) {
        let answer = json!({ "pipeline": self.status.name, "tables": tables });
        self.answers.push(Answer { edition: None, asked, answer });
    }

    /// Answers whose request is in a checkpoint: the books will have it with the one edition, and a
    /// checkpoint has the other.
    pub(in super::super) fn answer(&mut self, (next, kept): (u64, u64)) {
        for answer in &mut self.answers {
            answer.edition.get_or_insert(next);
        }
        let due = |answer: &mut Answer| answer.edition.is_some_and(|edition| edition <= kept);
        for Answer { asked, answer, .. } in self.answers.extract_if(.., due) {
            asked.answer(Ok(answer));
        }
    }
}
