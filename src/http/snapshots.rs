//! Rows that are there: how far they are read, and what is to be read.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State as Shared};
use axum::http::StatusCode;
use axum::response::Json;
use serde_json::{Map, Value, json};
use waltide_core::snapshot::{Filter, Keys};

use super::Board;
use super::guard::{Refused, invalid};
use super::report;
use crate::config::{TableName, TablePattern};
use crate::control::{Command, SnapshotOrder};
use crate::fault::{Code, Fault};

/// What a request says.
type Body = Result<Json<Value>, JsonRejection>;

/// How a request names what it is about.
const TABLE: &str = "send {\"table\": \"schema.table\"}, or {\"all\": true} for every table";

/// How a request names rows.
const KEYS: &str =
    "send {\"columns\": [\"id\"], \"values\": [[\"7\"]]}: a text for each column of the key";

pub(super) async fn list(
    Shared(board): Shared<Board>,
    Path(name): Path<String>,
) -> Result<Json<Value>, Refused> {
    let handle = board.find(&name)?;
    Ok(Json(json!({ "pipeline": name, "snapshots": report::snapshots(&handle.status) })))
}

pub(super) async fn start(
    Shared(board): Shared<Board>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Json<Value>, Refused> {
    let mut body = object(body)?;
    let condition = match body.remove("where") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(Filter::parse(&text).map_err(|why| {
            let what = format!("the condition cannot be used: {why}");
            let mend = "give one condition on the table's columns, as it stands behind WHERE";
            Refused(StatusCode::UNPROCESSABLE_ENTITY, Fault::new(Code::SnapshotFilter, what, mend))
        })?),
        Some(_) => return Err(wrong("`where` is no text", "send a condition as text")),
    };
    let keys = body.remove("keys").filter(|keys| !keys.is_null());
    let table = table(body)?;
    if table.is_none() && (condition.is_some() || keys.is_some()) {
        return Err(wrong(
            "a condition and keys are for one table",
            "name it: {\"table\": \"schema.table\"}",
        ));
    }
    let order = match (keys, condition) {
        (Some(_), Some(_)) => return Err(unusable("`where` and `keys` are both given", KEYS)),
        (Some(keys), None) => SnapshotOrder::Mend(named(&keys)?),
        (None, condition) => SnapshotOrder::Start(condition),
    };
    command(&board, &name, table, order).await
}

/// The rows that are named, each by its key.
fn named(keys: &Value) -> Result<Keys, Refused> {
    let lists = |name: &str| keys.get(name).and_then(Value::as_array);
    let texts = |of: &Vec<Value>| -> Option<Vec<String>> {
        of.iter().map(|it| it.as_str().map(ToOwned::to_owned)).collect()
    };
    let (Some(columns), Some(values)) = (lists("columns"), lists("values")) else {
        return Err(wrong("`keys` is not of this form", KEYS));
    };
    let (Some(columns), true) = (texts(columns), keys.as_object().is_some_and(|it| it.len() == 2))
    else {
        return Err(wrong("`keys` is not of this form", KEYS));
    };
    if columns.is_empty() || values.is_empty() {
        return Err(wrong("`keys` names no row", KEYS));
    }
    let mut keys = Keys { columns, ..Keys::default() };
    for row in values {
        let row = row.as_array().and_then(texts);
        let Some(row) = row.filter(|row| row.len() == keys.columns.len()) else {
            return Err(unusable("a row of `keys` is not one text for each column", KEYS));
        };
        if row.iter().any(|value| value.contains('\0')) {
            return Err(unusable("a value of `keys` has a zero byte, which no text has", KEYS));
        }
        if !keys.push(row.iter().map(String::as_str)) {
            let (most, bytes) = (Keys::MOST, Keys::MOST_BYTES >> 10);
            let what = format!("these are more than {most} keys, or than {bytes} KiB");
            return Err(unusable(&what, "send some after the end of the others"));
        }
    }
    Ok(keys)
}

pub(super) async fn pause(
    Shared(board): Shared<Board>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Json<Value>, Refused> {
    command(&board, &name, table(object(body)?)?, SnapshotOrder::Pause).await
}

pub(super) async fn resume(
    Shared(board): Shared<Board>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Json<Value>, Refused> {
    command(&board, &name, table(object(body)?)?, SnapshotOrder::Resume).await
}

pub(super) async fn cancel(
    Shared(board): Shared<Board>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Json<Value>, Refused> {
    command(&board, &name, table(object(body)?)?, SnapshotOrder::Cancel).await
}

async fn command(
    board: &Board,
    name: &str,
    table: Option<TableName>,
    order: SnapshotOrder,
) -> Result<Json<Value>, Refused> {
    let answer = board.find(name)?.command(Command::Snapshot { table, order }).await;
    answer.map(Json).map_err(|fault| {
        let untimely = fault.code == Code::RequestUntimely;
        let status = if untimely { StatusCode::CONFLICT } else { StatusCode::UNPROCESSABLE_ENTITY };
        Refused(status, fault)
    })
}

fn wrong(what: &str, mend: &str) -> Refused {
    Refused(StatusCode::BAD_REQUEST, invalid(what, mend))
}

/// It is as the document has it, and cannot be done all the same.
fn unusable(what: &str, mend: &str) -> Refused {
    Refused(StatusCode::UNPROCESSABLE_ENTITY, invalid(what, mend))
}

fn object(body: Body) -> Result<Map<String, Value>, Refused> {
    match body {
        Ok(Json(Value::Object(keys))) => Ok(keys),
        Ok(_) => Err(wrong("the body is no object", TABLE)),
        Err(error) => Err(wrong(&error.body_text(), TABLE)),
    }
}

/// The table that is meant; none for all. Anything else in the body is refused.
fn table(mut body: Map<String, Value>) -> Result<Option<TableName>, Refused> {
    let (table, all) = (body.remove("table"), body.remove("all"));
    if let Some(other) = body.keys().next() {
        return Err(wrong(&format!("the body has a key `{other}`"), TABLE));
    }
    match (table, all) {
        (Some(Value::String(table)), None | Some(Value::Bool(false))) => {
            let unnamed =
                |why: &str| Refused(StatusCode::UNPROCESSABLE_ENTITY, invalid(why, TABLE));
            let named = TablePattern::parse(&table).map_err(|why| unnamed(&why))?.exact();
            named.map(Some).ok_or_else(|| unnamed("this names no single table"))
        }
        (None | Some(Value::Null), Some(Value::Bool(true))) => Ok(None),
        _ => Err(wrong("it is not said which table is meant", TABLE)),
    }
}
