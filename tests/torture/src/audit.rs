//! What committed, as Postgres itself says.
//!
//! Triggers write each change of a row to `audit.changes`, in its transaction, so that what is rolled back
//! leaves no trace and a commit whose answer was lost leaves all of it. The number of an entry is drawn
//! when the row is changed and locked: changes of a key are numbered in the order in which they commit. So
//! are truncates among the changes of a table, for they keep everybody else out.
//!
//! Each change gives its row another number, `v`, by which a record says of which change it is.

use postgres::Client;
use serde_json::Value;

use crate::Row;
use crate::checker::{Change, Kind};

const SCHEMA: &str = "
    CREATE SCHEMA audit;
    CREATE SEQUENCE audit.v;
    CREATE TABLE audit.changes (
        number bigserial, of text, kind text, key jsonb, now jsonb, old jsonb);
    CREATE FUNCTION audit.mark() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.v := nextval('audit.v');
        RETURN NEW;
    END $$;
    CREATE FUNCTION audit.key(r jsonb, names text) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
        SELECT jsonb_object_agg(name, r -> name) FROM unnest(string_to_array(names, ',')) name
    $$;
    -- Arguments: the table, and the columns of its key.
    CREATE FUNCTION audit.note() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        now jsonb; was jsonb; key jsonb; left_key jsonb;
    BEGIN
        IF TG_OP = 'TRUNCATE' THEN
            INSERT INTO audit.changes (of, kind) VALUES (TG_ARGV[0], 't');
            RETURN NULL;
        END IF;
        IF TG_OP <> 'DELETE' THEN
            now := to_jsonb(NEW);
            key := audit.key(now, TG_ARGV[1]);
        END IF;
        IF TG_OP <> 'INSERT' THEN
            was := to_jsonb(OLD);
            left_key := audit.key(was, TG_ARGV[1]);
        END IF;
        IF TG_OP = 'UPDATE' AND key = left_key THEN
            INSERT INTO audit.changes (of, kind, key, now, old)
            VALUES (TG_ARGV[0], 'u', key, now, was);
            RETURN NULL;
        END IF;
        IF TG_OP <> 'INSERT' THEN
            INSERT INTO audit.changes (of, kind, key) VALUES (TG_ARGV[0], 'd', left_key);
        END IF;
        IF TG_OP <> 'DELETE' THEN
            INSERT INTO audit.changes (of, kind, key, now, old)
            VALUES (TG_ARGV[0], 'c', key, now, was);
        END IF;
        RETURN NULL;
    END $$;
";

/// Makes the audit.
pub(crate) fn create(client: &mut Client) -> Result<(), postgres::Error> {
    client.batch_execute(SCHEMA)
}

/// SQL that lets the audit see a table's changes; `key` is its columns, separated by commas.
pub(crate) fn watch(table: &str, key: &str) -> String {
    let note = format!("EXECUTE FUNCTION audit.note('public.{table}', '{key}')");
    format!(
        "CREATE TRIGGER mark BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW
           EXECUTE FUNCTION audit.mark();
         CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW {note};
         CREATE TRIGGER emptied AFTER TRUNCATE ON {table} FOR EACH STATEMENT {note};"
    )
}

/// What has become visible since it was asked before.
pub(crate) fn drain(client: &mut Client) -> Result<Vec<Change>, String> {
    let sql = "WITH gone AS (DELETE FROM audit.changes RETURNING *)
        SELECT number, of, kind, key::text, now::text, old::text FROM gone ORDER BY number";
    let rows = client.query(sql, &[]).map_err(|error| format!("the audit: {error}"))?;
    rows.iter().map(change).collect()
}

fn change(row: &postgres::Row) -> Result<Change, String> {
    let object = |column: usize| -> Result<Option<Row>, String> {
        let Some(text) = row.get::<_, Option<String>>(column) else { return Ok(None) };
        serde_json::from_str(&text).map(Some).map_err(|error| format!("the audit: {error}"))
    };
    let kind = match row.get::<_, &str>(2) {
        "c" => Kind::Create,
        "u" => Kind::Update,
        "d" => Kind::Delete,
        "t" => Kind::Truncate,
        other => return Err(format!("the audit has a change {other:?}")),
    };
    let now = object(4)?;
    let key = match (object(3)?, &now) {
        (Some(key), _) => key_text(&key),
        // A table without a key.
        (None, Some(now)) => now.get("v").map(Value::to_string).unwrap_or_default(),
        (None, None) => String::new(),
    };
    Ok(Change { number: row.get(0), table: row.get(1), kind, key, row: now, old: object(5)? })
}

/// A key in the one form in which the audit's and a record's are the same.
pub(crate) fn key_text(key: &Row) -> String {
    let mut parts: Vec<String> =
        key.iter().map(|(name, value)| format!("{name}={value}")).collect();
    parts.sort_unstable();
    parts.join(" ")
}
