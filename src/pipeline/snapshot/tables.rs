//! The tables that are being read: which they are, what becomes of them, and what is shown of it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use waltide_core::pgoutput::{Relation, RelationId};
use waltide_core::snapshot::{Book, Terms};

use super::super::routes::Route;
use super::Snapshots;
use super::progress::Pace;
use super::scout::{Measured, Member};
use super::target::Target;
use crate::config::settled::TableSnapshot;
use crate::fault::{Class, Code, Fault};
use crate::status;

/// Between attempts at a table that cannot be read.
pub(super) const AGAIN: Duration = Duration::from_secs(3);

/// A table that is being read.
pub(super) struct Table {
    pub(super) member: Member,
    pub(super) target: Option<Arc<Target>>,
    pub(super) route: Option<Box<Route>>,
    pub(super) measuring: bool,
    /// The stream's last word on what it looks like.
    pub(super) described: Option<Relation>,
    /// Not before then: it could not be read.
    pub(super) not_before: Instant,
    pub(super) failed: Option<Fault>,
    pub(super) began: Instant,
    pub(super) pace: Pace,
}

impl Snapshots {
    /// What is published is compared with what has been read.
    pub(super) fn covered(&mut self, book: &mut Book, members: Vec<Member>) {
        let adopt = book.take_adopts();
        self.members = members.into_iter().map(|one| (one.published.id, one)).collect();
        if adopt {
            let names = self.members.len();
            tracing::warn!(
                pipeline = self.status.name,
                tables = names,
                "the pipeline began without snapshots: rows from before are not read, those of \
                 tables that join are"
            );
            for (id, member) in &self.members {
                book.take_as_read(*id, member.known.clone());
            }
            return;
        }
        let mut gone = book.all();
        gone.retain(|table| !self.members.contains_key(table));
        for gone in gone {
            self.end(book, gone, "the table is not published any more");
            book.forget(gone);
        }
        for (id, member) in self.members.clone() {
            // Rows that somebody has named are read with all others, where those are read.
            let mends = book.mends(id);
            let terms = book.terms(id).filter(|_| !mends).cloned();
            let only = match book.known(id) {
                Some(known) if known.fingerprint == member.known.fingerprint => {
                    let new: BTreeSet<_> = &member.known.leaves - &known.leaves;
                    if new.is_empty() {
                        self.follow(book, id, &member);
                        continue;
                    }
                    // One that is being read starts over with all it has now.
                    if book.reads(id) && !mends { BTreeSet::new() } else { new }
                }
                _ => BTreeSet::new(),
            };
            let plan = self.plan(&member);
            if terms.is_none() && plan.on_request == Some(true) {
                book.take_as_read(id, member.known);
                continue;
            }
            let of_plan = || Terms { filter: plan.filter, ..Terms::default() };
            let terms = terms.unwrap_or_else(of_plan);
            book.start_on(id, member.known.clone(), only, terms);
            self.tables.remove(&id);
            self.follow(book, id, &member);
        }
    }

    /// What is to be read of a table, where nobody has asked for anything else.
    pub(super) fn plan(&self, member: &Member) -> TableSnapshot {
        let mut plan = self.plans.get(&member.table_name()).cloned().unwrap_or_default();
        plan.on_request.get_or_insert(self.options.on_request);
        plan
    }

    /// Sees to a table that is being read.
    pub(super) fn follow(&mut self, book: &mut Book, id: RelationId, member: &Member) {
        if !book.reads(id) || self.tables.contains_key(&id) {
            return;
        }
        let table = member.name();
        tracing::info!(pipeline = self.status.name, table, "its rows are read beside the stream");
        self.looked_too_early |= self.looking;
        book.set_rank(id, -self.plan(member).priority);
        let now = Instant::now();
        let read = Table {
            member: member.clone(),
            target: None,
            route: None,
            measuring: false,
            described: None,
            not_before: now,
            failed: None,
            began: now,
            pace: Pace::default(),
        };
        self.tables.insert(id, read);
        self.show_one(book, id);
    }

    pub(super) fn measured(&mut self, book: &mut Book, measured: Measured) {
        let Measured { target, shape, at, mut spans } = measured;
        let id = target.relation.id;
        let Some(table) = self.tables.get_mut(&id) else { return };
        table.measuring = false;
        if let Some(only) = book.only(id) {
            spans.retain(|span| only.contains(&span.leaf));
        }
        // The first blocks come last off the list.
        spans.reverse();
        book.measured(id, shape, at, spans);
        table.route = None;
        table.target = Some(target);
    }

    /// A table's rows are elsewhere than they were.
    pub(super) fn start_over(&mut self, book: &mut Book, id: RelationId, why: &str) {
        let Some(table) = self.tables.get_mut(&id).filter(|_| book.reads(id)) else { return };
        if table.target.take().is_some() {
            let name = table.member.name();
            tracing::info!(
                pipeline = self.status.name,
                table = name,
                "{why}: it is read from the start"
            );
        }
        table.route = None;
        book.start_over(id);
    }

    pub(super) fn end(&mut self, book: &Book, id: RelationId, why: &str) {
        if let Some(table) = self.tables.remove(&id).filter(|_| book.reads(id)) {
            let name = table.member.name();
            let code = Code::SnapshotTableGone.id();
            tracing::warn!(
                pipeline = self.status.name,
                table = name,
                code,
                "{why}: it is not read to its end"
            );
            self.status.snapshot_ended(&name, status::End::Gone);
        }
    }

    pub(super) fn fail(&mut self, id: RelationId, fault: Fault) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        table.not_before = Instant::now() + AGAIN;
        self.say(id, fault);
    }

    /// Says what a table waits for, once.
    pub(super) fn say(&mut self, id: RelationId, fault: Fault) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        if table.failed.as_ref() == Some(&fault) {
            return;
        }
        let name = table.member.name();
        let (code, mend) = (fault.code.id(), fault.mend.as_str());
        if fault.code.class() == Class::Transient {
            tracing::info!(pipeline = self.status.name, table = name, code, mend, "{}", fault.what);
        } else {
            tracing::warn!(pipeline = self.status.name, table = name, code, mend, "{}", fault.what);
        }
        table.failed = Some(fault);
    }

    /// The stream describes a relation: what is held of it was read as something else.
    pub(in super::super) fn described(&mut self, book: &mut Book, relation: &Relation) {
        let Some(table) = self.tables.get_mut(&relation.id) else { return };
        let columns = |of: &Relation| {
            let columns = of.columns.iter().map(|column| (column.name.clone(), column.type_oid));
            columns.collect::<Vec<_>>()
        };
        let differs = match (&table.described, &table.target) {
            (Some(before), _) => before != relation,
            (None, Some(target)) => columns(&target.relation) != columns(relation),
            (None, None) => false,
        };
        table.described = Some(relation.clone());
        if differs {
            self.start_over(book, relation.id, "the stream describes the table anew");
        }
    }

    /// Shows how far tables are.
    pub(in super::super) fn show(&mut self, book: &Book) {
        let tables: Vec<RelationId> = self.tables.keys().copied().collect();
        tables.into_iter().for_each(|table| self.show_one(book, table));
    }

    pub(super) fn show_one(&mut self, book: &Book, id: RelationId) {
        let Some(table) = self.tables.get_mut(&id) else { return };
        let (left, rows) = book.progress(id).unwrap_or((0, 0));
        let blocks = table.target.as_ref().map(|target| target.blocks);
        let blocks_left = blocks.map(|_| left);
        let Terms { filter, asked, paused, keys } = book.terms(id).cloned().unwrap_or_default();
        table.pace.note(Instant::now(), rows, blocks_left);
        let shown = status::Snapshot {
            rows,
            blocks_left,
            blocks,
            waits: book.waits().is_none_or(|waits| !waits.is_empty()),
            fault: table.failed.clone().or_else(|| self.courtesy.held_back.clone()),
            running_s: table.began.elapsed().as_secs(),
            rows_per_second: table.pace.rows_per_second(),
            left_seconds: table.pace.left_seconds(),
            asked,
            filter: filter.map(|filter| filter.as_str().to_owned()),
            keys: keys.map(|keys| keys.rows.len()),
            paused,
            end: None,
        };
        self.status.snapshot_at(&table.member.name(), shown);
    }

    /// A table has been read, and that has been told. It may be read again by now.
    pub(in super::super) fn ended(&mut self, book: &Book, id: RelationId) {
        if book.reads(id) {
            return;
        }
        if let Some(table) = self.tables.remove(&id) {
            let name = table.member.name();
            self.status.snapshot_ended(&name, status::End::Done);
            tracing::info!(pipeline = self.status.name, table = name, "its rows have been read");
        }
    }
}
