//! What `table_options` means.

use std::collections::BTreeMap;

use waltide_core::snapshot::Filter;

use crate::config::error::Kind;
use crate::config::reading::{At, Given, Key, MapEntry};
use crate::config::settled::{Columns, Source, TableOptions, TableSnapshot};
use crate::config::tables::{MAX_IDENTIFIER_BYTES, TableName, TablePattern};
use crate::config::typed::{self, Texts};

use super::Settling;

/// Topics of our own, after the pipeline's name.
const OWN_TOPICS: [&str; 4] =
    ["waltide.checkpoint", "waltide.deadletter", "transaction", "message"];

impl Settling<'_> {
    pub(super) fn table_options(
        &mut self,
        (pipeline, prefix): (&str, &str),
        typed: &typed::Pipeline,
        source: Option<&Source>,
    ) -> Option<BTreeMap<TableName, TableOptions>> {
        let entries = match &typed.table_options {
            Key::Given(given) => given.value.entries.as_slice(),
            Key::Absent => &[],
            Key::Broken => return None,
        };
        let mut settled = BTreeMap::new();
        let mut topics: BTreeMap<String, &At> = BTreeMap::new();
        for entry in entries {
            let Some(table) = self.table(entry, source) else { continue };
            let Some(given) = entry.value.given() else { continue };
            let Some(options) = self.options_of_one(given) else { continue };
            if let (Some(topic), Some(typed)) = (&options.topic, given.value.topic.given()) {
                let name = topic.render(prefix, &table.schema, &table.table);
                self.refuse_taken_topic([pipeline, prefix], &name, &typed.at, &topics);
                topics.insert(name, &typed.at);
            }
            if settled.insert(table, options).is_some() {
                let message = "this table has options already, under another notation of its name";
                self.problems.add(entry.at.key_error(Kind::DuplicateKey, message));
            }
        }
        Some(settled)
    }

    fn table(
        &mut self,
        entry: &MapEntry<typed::TableOptions>,
        source: Option<&Source>,
    ) -> Option<TableName> {
        let at = &entry.at;
        let pattern = TablePattern::parse(&entry.name)
            .map_err(|why| at.key_error(Kind::InvalidValue, format!("this names no table: {why}")));
        let table = self.problems.check(pattern)?.exact();
        let Some(table) = table else {
            let message = "options are for one table, and this is a pattern";
            self.problems.add(at.key_error(Kind::InvalidValue, message));
            return None;
        };
        if source.is_some_and(|source| !source.captures(&table.schema, &table.table)) {
            let message = "this table is not captured, so its options would do nothing";
            let error = at.key_error(Kind::Conflict, message);
            self.problems.add(error.help("look at `source.tables` and `source.exclude`"));
            return None;
        }
        Some(table)
    }

    fn options_of_one(&mut self, given: &Given<typed::TableOptions>) -> Option<TableOptions> {
        let typed = &given.value;
        let topic = match &typed.topic {
            Key::Given(given) => Some(self.topic(given)?),
            Key::Absent => None,
            Key::Broken => return None,
        };
        let key = self.columns(&typed.key)?;
        let excluded = self.columns(&typed.exclude_columns)?;
        let included = self.columns(&typed.include_columns)?;
        if let Some((_, second)) = typed.include_columns.given().zip(typed.exclude_columns.given())
        {
            let message = "a table has `include_columns` or `exclude_columns`, not both";
            self.problems
                .add(second.at.key_error(Kind::Conflict, message).help("keep one of them"));
            return None;
        }
        let columns = if typed.exclude_columns.given().is_some() {
            Columns::Except(excluded)
        } else if typed.include_columns.given().is_some() {
            Columns::Only(included)
        } else {
            Columns::All
        };
        self.refuse_keys_left_out(typed, &columns);
        let snapshot = self.table_snapshot(typed)?;
        Some(TableOptions { topic, key, columns, snapshot })
    }

    fn table_snapshot(&mut self, typed: &typed::TableOptions) -> Option<TableSnapshot> {
        let filter = match &typed.snapshot_where {
            Key::Given(Given { value, at }) => {
                let wrong = |why| {
                    let error = at.error(Kind::InvalidValue, format!("no condition: {why}"));
                    error.help(
                        "give one condition on the table's columns, as it stands behind WHERE",
                    )
                };
                Some(self.problems.check(Filter::parse(value).map_err(wrong))?)
            }
            Key::Absent => None,
            Key::Broken => return None,
        };
        let mode = typed.snapshot.value().copied();
        let priority = typed.snapshot_priority.value().and_then(|it| i32::try_from(it.0).ok());
        Some(TableSnapshot {
            on_request: mode.map(|mode| mode == typed::TableSnapshot::OnRequest),
            filter,
            priority: priority.unwrap_or(0),
        })
    }

    fn columns(&mut self, typed: &Key<Texts>) -> Option<Vec<String>> {
        let given = match typed {
            Key::Given(given) => given,
            Key::Absent => return Some(Vec::new()),
            Key::Broken => return None,
        };
        if given.value.is_empty() {
            let error = given.at.error(Kind::InvalidValue, "this list is empty");
            self.problems.add(error.help("name a column, or take the key away"));
        }
        let mut columns: Vec<String> = Vec::with_capacity(given.value.len());
        for Given { value, at } in &given.value {
            if columns.contains(value) {
                self.problems.add(at.error(Kind::InvalidValue, "this column is named twice"));
            } else if value.len() > MAX_IDENTIFIER_BYTES {
                let message = format!("a column's name has at most {MAX_IDENTIFIER_BYTES} bytes");
                self.problems.add(at.error(Kind::InvalidValue, message));
            }
            columns.push(value.clone());
        }
        Some(columns)
    }

    fn refuse_keys_left_out(&mut self, typed: &typed::TableOptions, columns: &Columns) {
        for Given { value, at } in typed.key.value().map(Vec::as_slice).unwrap_or_default() {
            let left_out = match columns {
                Columns::All => false,
                Columns::Except(names) => names.contains(value),
                Columns::Only(names) => !names.contains(value),
            };
            if left_out {
                let message = "this column is part of the key and left out of the row";
                self.problems.add(at.error(Kind::Conflict, message));
            }
        }
    }

    fn refuse_taken_topic(
        &mut self,
        owners: [&str; 2],
        name: &str,
        at: &At,
        topics: &BTreeMap<String, &At>,
    ) {
        let own = |owner| {
            let rest = name.strip_prefix(owner).and_then(|rest| rest.strip_prefix('.'));
            rest.is_some_and(|rest| OWN_TOPICS.contains(&rest))
        };
        if owners.into_iter().any(own) {
            let message = "the pipeline keeps a topic of its own under this name";
            self.problems.add(at.error(Kind::Conflict, message).help("choose another name"));
        }
        if let Some(first) = topics.get(name) {
            let error = at.error(Kind::Conflict, "another table has this topic");
            self.problems.add(error.help(format!("it is at {}", first.value.place)));
        }
    }
}
