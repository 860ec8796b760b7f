//! The configuration is read again, and what can be taken on is.

use std::fs;

use waltide_stack::serde_json::{self, Value, json};
use waltide_stack::{Stack, Version, eventually};

use super::told;
use crate::support::{Daemon, Pipeline, SOON, assert_each_once_and_in_order};

/// Writes another configuration in place of the one that the daemon has read.
fn rewrite(daemon: &Daemon, pipeline: &str, change: impl Fn(&mut Value, &mut Value)) {
    let text = fs::read_to_string(daemon.config()).expect("its file");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    let (mut one, mut log) = (config["pipelines"][pipeline].take(), config["log"].take());
    change(&mut one, &mut log);
    config["pipelines"][pipeline] = one;
    if !log.is_null() {
        config["log"] = log;
    }
    fs::write(daemon.config(), config.to_string()).expect("its file");
}

#[test]
fn tables_and_levels_are_taken_on_and_what_needs_a_restart_is_refused_by_name() {
    let database = Stack::shared().database(Version::NEWEST, "reload");
    database.execute(
        "CREATE TABLE orders (id int PRIMARY KEY); CREATE TABLE notes (id int PRIMARY KEY)",
    );
    let pipeline = Pipeline::of(&database).with("source.tables", json!(["public.orders"]));
    let name = pipeline.name();
    let daemon = pipeline.start();
    database.execute("INSERT INTO orders SELECT generate_series(1, 1000)");
    database.execute("INSERT INTO notes VALUES (1)");
    let ended = told(&daemon, &["reload"]);
    assert_eq!((ended.status, ended.out.as_str()), (Some(0), "nothing has changed\n"));

    // Nothing of it is taken on, although the tables could be.
    rewrite(&daemon, name, |one, log| {
        one["source"]["tables"] = json!(["public.*"]);
        one["kafka"]["topic"] = json!("other.{schema}.{table}");
        *log = json!({ "level": "debug" });
    });
    let ended = told(&daemon, &["reload"]);
    assert_eq!(ended.status, Some(1), "{}", ended.everything);
    let file = daemon.config().to_str().expect("UTF-8");
    let key = format!(
        "error: WT111 this cannot change while the daemon runs: pipelines.{name}.kafka.topic ({file}:1:"
    );
    assert!(ended.everything.contains(&key), "{key}: {}", ended.everything);
    rewrite(&daemon, name, |one, _| one["kafka"]["topc"] = json!("x"));
    daemon.process().signal("HUP");
    eventually("what is wrong is logged", SOON, || daemon.log().contains("WT102").then_some(()));
    let debug = || daemon.events().iter().filter(|event| event["level"] == "DEBUG").count();
    assert_eq!(debug(), 0);
    assert_eq!(daemon.status()["state"], "streaming");

    rewrite(&daemon, name, |one, _| {
        one["kafka"] =
            json!({ "bootstrap_servers": one["kafka"]["bootstrap_servers"], "partitions": 3 });
    });
    let ended = told(&daemon, &["reload"]);
    assert_eq!(ended.status, Some(0), "{}", ended.everything);
    let taken = format!("taken on: log.level, pipelines.{name}.source.tables[0]\n");
    assert_eq!(ended.out, taken);
    daemon.wait_for_event("other settings are taken on", 1);
    database.execute("INSERT INTO orders SELECT generate_series(1001, 2000)");
    // The table joins with the next look at the catalog; its rows come from then on.
    eventually("the table is published", SOON, || {
        let sql = "SELECT FROM pg_publication_tables WHERE tablename = 'notes'";
        (!database.query(sql).is_empty()).then_some(())
    });
    database.execute("INSERT INTO notes VALUES (2)");
    pipeline.wait_until_delivered();
    assert_eq!(pipeline.changes("public.notes").len(), 1);
    let orders = pipeline.changes("public.orders");
    assert_eq!(orders.len(), 2_000, "nothing is repeated");
    assert_each_once_and_in_order(&orders);
    eventually("the log says more", SOON, || (debug() > 0).then_some(()));
    daemon.terminate();
}
