//! Whatever value a table holds, a reader of its topic holds the same one.
//!
//! Random values of every type go into a table. What `apache-avro` reads from the topic goes back
//! to the server as text, and the server says whether both are the same: its own output of the one
//! beside its own output of the other.
//!
//! `WALTIDE_RANDOM_VALUES` says how many values each version gets in each form; `WALTIDE_SEED`
//! replays them.

mod copied;
mod extensions;
mod form;
mod kinds;
mod random_text;

use waltide_stack::{Database, JsonRecord, Session, Stack, Version};

use crate::support::{Pipeline, Random, on_each_version};
use form::Beside;
use kinds::Kind;

/// Enough to meet the edges of most types in a few seconds.
const VALUES: usize = 6_000;

/// So many rows go in with one statement.
const ROWS_AT_ONCE: usize = 25;

on_each_version! {
    values_in_binary_are_read_as_the_server_has_them
    values_in_text_are_read_as_the_server_has_them
}

fn values_in_binary_are_read_as_the_server_has_them(version: Version) {
    assert_values_arrive(version, true);
}

fn values_in_text_are_read_as_the_server_has_them(version: Version) {
    assert_values_arrive(version, false);
}

fn assert_values_arrive(version: Version, binary: bool) {
    let test = format!("values {version} {}", if binary { "binary" } else { "text" });
    let mut random = Random::from_environment(&test);
    let shop = Stack::shared().database(version, &test);
    shop.execute(kinds::TYPES);
    assert_values_arrive_in(&shop, &kinds::all(version), binary, &mut random, &test);
}

fn assert_values_arrive_in(
    shop: &Database,
    kinds: &[Kind],
    binary: bool,
    random: &mut Random,
    test: &str,
) {
    create(shop, kinds);
    let pipeline = Pipeline::of(shop).with("source.binary", binary).with("kafka.partitions", 1);
    let daemon = pipeline.start();
    let session = shop.session();
    session.execute("SET timezone TO 'UTC'; SET lc_monetary TO 'C'");
    let rows = values().div_ceil(kinds.len());
    write(&session, kinds, rows, random);
    pipeline.wait_until_delivered();
    daemon.terminate();
    let records = pipeline.topic("public.every").read_json();
    assert_eq!(records.len(), rows);
    read_back(&session, kinds, &records);
    let differences = kinds.iter().enumerate();
    let differences: Vec<String> =
        differences.filter_map(|(at, kind)| difference(&session, at, kind, rows)).collect();
    assert!(differences.is_empty(), "read, and written:\n{}", differences.join("\n"));
    eprintln!("{test}: {} values of {} types", rows * kinds.len(), kinds.len());
}

/// The table `every`, which has a column of each type.
fn create(shop: &Database, kinds: &[Kind]) {
    let columns = kinds.iter().enumerate().map(|(at, kind)| format!("c{at} {}", kind.sql));
    let columns: Vec<String> = columns.collect();
    shop.execute(&format!("CREATE TABLE every (id int PRIMARY KEY, {})", columns.join(", ")));
}

fn values() -> usize {
    let given = std::env::var("WALTIDE_RANDOM_VALUES").ok().filter(|text| !text.is_empty());
    given.map_or(VALUES, |text| text.parse().expect("a number of values"))
}

/// A text as SQL has it, or NULL.
fn literal(text: Option<&str>) -> String {
    text.map_or("NULL".to_owned(), |text| format!("'{}'", text.replace('\'', "''")))
}

/// Inserts rows of random values, with a NULL now and then.
fn write(session: &Session, kinds: &[Kind], rows: usize, random: &mut Random) {
    for first in (0..rows).step_by(ROWS_AT_ONCE) {
        let numbers = first..rows.min(first + ROWS_AT_ONCE);
        let tuples: Vec<String> = numbers
            .map(|id| {
                let cells = kinds.iter().map(|kind| {
                    let text = (!random.once_in(10)).then(|| (kind.make)(random));
                    literal(text.as_deref())
                });
                format!("({id}, {})", cells.collect::<Vec<_>>().join(", "))
            })
            .collect();
        // The statement itself would fill the screen.
        let inserted =
            session.try_query(&format!("INSERT INTO every VALUES {}", tuples.join(", ")));
        inserted.unwrap_or_else(|error| panic!("a value that the server does not take: {error:?}"));
    }
}

/// Puts what a reader made of the records beside what was written, as text.
fn read_back(session: &Session, kinds: &[Kind], records: &[JsonRecord]) {
    let columns: Vec<String> = (0..kinds.len()).map(|at| format!("c{at} text")).collect();
    session
        .execute(&format!("CREATE TEMP TABLE found (id int PRIMARY KEY, {})", columns.join(", ")));
    for records in records.chunks(ROWS_AT_ONCE) {
        let tuples: Vec<String> = records.iter().map(|record| tuple(kinds, record)).collect();
        session.execute(&format!("INSERT INTO found VALUES {}", tuples.join(", ")));
    }
}

fn tuple(kinds: &[Kind], record: &JsonRecord) -> String {
    let value = &record.value;
    let beside = Beside { unrepresentable: &value["unrepresentable"], shapes: &value["shapes"] };
    let cells = kinds.iter().enumerate().map(|(at, kind)| {
        let found = &value["after"][format!("c{at}")];
        literal(kind.form.text(found, &format!("after.c{at}"), &beside).as_deref())
    });
    format!("({}, {})", value["after"]["id"], cells.collect::<Vec<_>>().join(", "))
}

/// Lets the server compare a column, and says what differs. Its own output tells apart what `=`
/// does not: `1.0` and `1.00`, trailing blanks, a NaN from itself.
fn difference(session: &Session, at: usize, kind: &Kind, rows: usize) -> Option<String> {
    let Kind { sql, cast, .. } = kind;
    let compared = format!(
        "SELECT f.id, f.c{at} AS read, format('%s', e.c{at}) AS written, e.c{at} IS NULL AS no_value,
                (f.c{at} IS NULL) = (e.c{at} IS NULL)
                  AND format('%s', f.c{at}::{cast}) = format('%s', e.c{at}) AS same
         FROM every e JOIN found f USING (id)"
    );
    let counted =
        format!("SELECT count(*), count(*) FILTER (WHERE same) FROM ({compared}) AS both_");
    let mut counts = match session.try_query(&counted) {
        Ok(counts) => counts,
        Err(error) => return Some(format!("{sql}: what was read is no value of it: {error:?}")),
    };
    let all = Some(rows.to_string());
    if counts.remove(0) == [all.clone(), all] {
        return None;
    }
    let some = format!("SELECT * FROM ({compared}) AS both_ WHERE NOT same LIMIT 2");
    Some(format!("{sql}: {:?}", session.query(&some)))
}
