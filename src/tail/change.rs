//! A row of the stream becomes what is shown of it.

use serde_json::{Map, Value, json};
use waltide_core::avro::{
    ColumnFilter, Notes, Options, Plan, Problem, Record, RecordMeta, Snapshot, Written,
};
use waltide_core::change::{Position, Row};
use waltide_core::intake::Place;
use waltide_core::lsn::Lsn;
use waltide_core::pgoutput::{Message, Relation, RelationId};
use waltide_core::read_back::Schema;

use crate::fault::{Code, Fault};
use crate::pipeline;
use crate::postgres::{Connection, Error};

/// A change, as a consumer would read it.
#[derive(Clone, Debug)]
pub struct Change {
    /// `c`, `u`, `d` or `t`.
    pub op: String,
    /// The table's schema.
    pub schema: String,
    /// The table.
    pub table: String,
    /// The table's columns, in order.
    pub columns: Vec<String>,
    /// The key's columns, in order.
    pub key: Vec<String>,
    /// The transaction's id.
    pub xid: u32,
    /// `COMMIT_LSN:ORDINAL:SUB_INDEX`.
    pub position: String,
    /// The record's value.
    pub value: Map<String, Value>,
}

impl Change {
    /// For programs: the record's value, with what it says of its source at the top.
    #[must_use]
    pub fn json(&self) -> Value {
        let part = |name: &str| self.value.get(name).cloned().unwrap_or_default();
        let image = |name: &str| self.value.get(name)?.as_object();
        let row = image("after").or(image("before"));
        let key: Option<Map<String, Value>> = row.filter(|_| !self.key.is_empty()).map(|row| {
            let column = |name: &String| (name.clone(), row.get(name).cloned().unwrap_or_default());
            self.key.iter().map(column).collect()
        });
        json!({
            "op": self.op,
            "schema": self.schema,
            "table": self.table,
            "key": key,
            "before": part("before"),
            "after": part("after"),
            "before_is_key": part("before_is_key"),
            "unchanged": part("unchanged"),
            "unrepresentable": part("unrepresentable"),
            "shapes": part("shapes"),
            "committed_at": part("ts_us"),
            "xid": self.xid,
            "position": self.position,
        })
    }
}

/// What happened to a relation: a row of it, or that it was emptied.
pub(super) type Happened<'a> = (RelationId, Option<Row<'a>>);

/// What a message says of rows; none where it says nothing of any.
pub(super) fn rows<'a>(message: &Message<'a>) -> Option<Vec<Happened<'a>>> {
    Some(match message {
        Message::Insert(_, relation, new) => vec![(*relation, Some(Row::Insert(*new)))],
        Message::Update(_, relation, old, new) => {
            vec![(*relation, Some(Row::Update { old: *old, new: *new }))]
        }
        Message::Delete(_, relation, old) => vec![(*relation, Some(Row::Delete(*old)))],
        Message::Truncate(_, truncate) => {
            truncate.relations().map(|relation| (relation, None)).collect()
        }
        _ => return None,
    })
}

/// How a table's rows are shown.
#[derive(Debug)]
pub(super) struct Shown {
    plan: Plan,
    schema: Schema,
    notes: Notes,
    bytes: Vec<u8>,
    loosened: Vec<String>,
}

impl Shown {
    /// Asks the catalog what it takes.
    pub(super) async fn compile(
        on: &mut Connection,
        relation: &Relation,
        loosened: &[String],
    ) -> Result<Self, Fault> {
        let source = |error: Error| pipeline::of_source(&error);
        let oids: Vec<u32> = relation.columns.iter().map(|column| column.type_oid).collect();
        let mut known = on.load_relations(&[relation.id]).await.map_err(source)?;
        let types = on.load_types(&oids).await.map_err(source)?;
        let mut table = known.tables.remove(&relation.id).unwrap_or_default();
        loosened.iter().for_each(|column| table.loosen(column));
        let options = Options {
            prefix: "tail".to_owned(),
            database: on.peer().database().to_owned(),
            columns: ColumnFilter::All,
            ..Options::default()
        };
        let plan = Plan::compile(relation, &table, &types, &options);
        let plan = plan.map_err(|error| pipeline::of_plan(&error))?;
        let schema = Schema::parse(plan.value_schema()).ok_or_else(|| broken(relation))?;
        let loosened = loosened.to_vec();
        Ok(Self { plan, schema, notes: Notes::new(), bytes: Vec::new(), loosened })
    }

    /// The changes that a row makes, without tombstones; a truncate where there is none.
    pub(super) async fn changes(
        &mut self,
        on: &mut Connection,
        relation: &Relation,
        row: Option<Row<'_>>,
        place: &Place,
        lsn: Lsn,
    ) -> Result<Vec<Change>, Fault> {
        let Some(row) = row else {
            self.bytes.clear();
            let meta = meta(place, 0, lsn);
            self.plan.encode_truncate(&meta, &mut self.notes, &mut self.bytes);
            return Ok(vec![self.change(relation, &meta)?]);
        };
        let records = self.plan.records(&row).map_err(|error| pipeline::of_row(&error))?;
        let mut changes = Vec::new();
        for (sub_index, record) in records {
            let meta = meta(place, u32::from(sub_index), lsn);
            if self.encode(on, relation, &record, &meta).await? == Written::Value {
                changes.push(self.change(relation, &meta)?);
            }
        }
        Ok(changes)
    }

    /// As the daemon does: what is older than a NOT NULL, or of a composite type that has changed
    /// since, is read with what the catalog says now.
    async fn encode(
        &mut self,
        on: &mut Connection,
        relation: &Relation,
        record: &Record<'_>,
        meta: &RecordMeta<'_>,
    ) -> Result<Written, Fault> {
        let mut before = None;
        loop {
            self.bytes.clear();
            let error = match self.plan.encode(record, meta, &mut self.notes, &mut self.bytes) {
                Ok(written) => return Ok(written),
                Err(error) if before.as_ref() == Some(&error) => {
                    return Err(pipeline::of_row(&error));
                }
                Err(error) => error,
            };
            let mut loosened = self.loosened.clone();
            if let (Some(column), Problem::Null) = (&error.column, error.problem) {
                loosened.push(column.clone());
            }
            *self = Self::compile(on, relation, &loosened).await?;
            before = Some(error);
        }
    }

    fn change(&self, relation: &Relation, meta: &RecordMeta<'_>) -> Result<Change, Fault> {
        let Some(Value::Object(mut value)) = self.schema.read(&self.bytes) else {
            return Err(broken(relation));
        };
        let unchanged = self.notes.unchanged().filter_map(|at| self.plan.column_name(at));
        value.insert("unchanged".to_owned(), unchanged.collect::<Vec<_>>().into());
        let name = |at: usize| self.plan.column_name(at).map(str::to_owned);
        let Position { commit_lsn, ordinal, sub_index } = meta.position;
        let op = value.get("op").and_then(Value::as_str).unwrap_or_default().to_owned();
        Ok(Change {
            op,
            schema: relation.schema.clone(),
            table: relation.name.clone(),
            columns: (0..relation.columns.len()).filter_map(name).collect(),
            key: self.plan.key_columns().iter().filter_map(|at| name(*at)).collect(),
            xid: meta.transaction.map_or(0, |of| of.xid.0),
            position: format!("{}:{ordinal}:{sub_index}", commit_lsn.0),
            value,
        })
    }
}

fn meta(place: &Place, sub_index: u32, lsn: Lsn) -> RecordMeta<'static> {
    RecordMeta {
        transaction: Some(place.transaction),
        position: Position { sub_index, ..place.position },
        lsn,
        snapshot: Snapshot::No,
        now: place.transaction.commit_time,
        order: None,
        last_commit: None,
        origin: None,
    }
}

fn broken(relation: &Relation) -> Fault {
    Fault::new(
        Code::Internal,
        format!("a record of {}.{} cannot be read back", relation.schema, relation.name),
        "report it with the table's definition",
    )
}
