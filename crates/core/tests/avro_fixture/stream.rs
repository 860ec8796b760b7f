//! The golden tables and rows as a real server streams them, see `tests/golden/record-stream.sql`.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "it is only for tests"
)]

use std::collections::HashMap;

use serde_json::Value;
use waltide_core::avro::{Options, Plan};
use waltide_core::catalog::{Table, TableColumn, Types};
use waltide_core::change::{Row, Transaction};
use waltide_core::pgoutput::{Decoder, Message, Relation, RelationId};

use crate::recorded;

pub struct Stream {
    pub types: Types,
    pub tables: HashMap<String, Table>,
    pub binary: Vec<Vec<u8>>,
    pub text: Vec<Vec<u8>>,
}

pub fn load() -> Stream {
    let recorded: Value =
        serde_json::from_str(include_str!("../../../../tests/golden/stream.json")).unwrap();
    let messages = |name: &str| {
        let all = recorded[name].as_array().unwrap().iter();
        all.map(|hex| recorded::unhex(hex.as_str().unwrap())).collect()
    };
    let tables = recorded["tables"].as_array().unwrap().iter();
    Stream {
        types: recorded::types(&recorded),
        tables: tables.map(|of| (of["name"].as_str().unwrap().to_owned(), table(of))).collect(),
        binary: messages("binary"),
        text: messages("text"),
    }
}

fn table(of: &Value) -> Table {
    let owned = |of: &Value| of.as_str().map(str::to_owned);
    let column = |of: &Value| TableColumn {
        name: owned(&of["name"]).unwrap(),
        not_null: of["not_null"].as_bool().unwrap(),
        default: owned(&of["default"]),
        identity: of["identity"].as_bool().unwrap(),
        generated: of["generated"].as_bool().unwrap(),
        comment: owned(&of["comment"]),
    };
    Table {
        comment: owned(&of["comment"]),
        columns: of["columns"].as_array().unwrap().iter().map(column).collect(),
        primary_key: of["primary_key"].as_array().unwrap().iter().filter_map(owned).collect(),
        identity_index: Vec::new(),
    }
}

/// What a stream comes to.
pub enum Event<'a> {
    /// A relation was described; its plan is compiled.
    Plan(&'a Relation, &'a Plan),
    /// A row changed.
    Row(&'a Plan, Transaction, Row<'a>),
    /// A table was emptied.
    Truncate(&'a Plan, Transaction),
}

/// Decodes a stream and gives all that happens to `each`.
pub fn play(
    stream: &Stream,
    messages: &[Vec<u8>],
    options: &Options,
    mut each: impl FnMut(Event<'_>),
) {
    let mut plans: HashMap<RelationId, Plan> = HashMap::new();
    let mut decoder = Decoder::new();
    let mut transaction = None;
    for bytes in messages {
        match decoder.decode(bytes).unwrap() {
            Message::Begin(begin) => {
                transaction = Some(Transaction {
                    commit_lsn: begin.commit_lsn,
                    commit_time: begin.commit_time,
                    xid: begin.xid,
                });
            }
            Message::Relation(_, body) => {
                let relation = Relation::from(&body);
                let table = &stream.tables[&relation.name];
                let plan = Plan::compile(&relation, table, &stream.types, options).unwrap();
                each(Event::Plan(&relation, &plan));
                plans.insert(relation.id, plan);
            }
            Message::Insert(_, id, new) => {
                each(Event::Row(&plans[&id], transaction.unwrap(), Row::Insert(new)));
            }
            Message::Update(_, id, old, new) => {
                each(Event::Row(&plans[&id], transaction.unwrap(), Row::Update { old, new }));
            }
            Message::Delete(_, id, old) => {
                each(Event::Row(&plans[&id], transaction.unwrap(), Row::Delete(old)));
            }
            Message::Truncate(_, truncate) => truncate.relations().for_each(|id| {
                each(Event::Truncate(&plans[&id], transaction.unwrap()));
            }),
            _ => {}
        }
    }
}
