//! The source does not answer.

use std::net::SocketAddr;

use waltide_stack::{Database, PostgresOptions, Proxy, Version};

use super::{
    FailingFast, arrive, fails_fast, fails_fast_as, logged_once, order, set_up, shop, tells,
    tries_again,
};

/// The way to a database through a proxy.
fn url_through(proxy: &Proxy, database: &Database) -> String {
    format!("postgres://postgres@{}/{}", proxy.addr(), database.name())
}

fn proxy_to(database: &Database) -> Proxy {
    Proxy::to(SocketAddr::from(([127, 0, 0, 1], database.postgres().port())))
}

#[test]
fn a_source_where_nothing_listens_is_waited_for() {
    let database = shop(Version::NEWEST, "nothing listens");
    let proxy = proxy_to(&database);
    let pipeline = set_up(&database).with("source.url", url_through(&proxy, &database));
    order(&database, 1);
    proxy.cut();
    let daemon = pipeline.launch();
    let address = proxy.addr().to_string();
    let told = tells(&daemon, "WT201", &[&address, "refused", "host and port"]);
    fails_fast_as(&pipeline, &told);
    tries_again(&daemon);
    proxy.restore();
    order(&database, 2);
    arrive(&pipeline, &[1, 2]);
    logged_once(&daemon, &["WT201"]);
    daemon.terminate();
}

#[test]
fn a_host_that_has_no_address_is_told() {
    let database = shop(Version::NEWEST, "no address");
    let pipeline = set_up(&database).with("source.url", "postgres://a@nowhere.invalid/b");
    let line = fails_fast(&pipeline, "WT201");
    assert!(line.contains("nowhere.invalid"), "{line}");
}

#[test]
fn a_source_that_never_answers_is_not_waited_for_in_silence() {
    let database = shop(Version::NEWEST, "never answers");
    let proxy = proxy_to(&database);
    let pipeline = set_up(&database).with("source.url", url_through(&proxy, &database));
    order(&database, 1);
    proxy.stall();
    let failing = FailingFast::launch(&pipeline);
    let daemon = pipeline.launch();
    let told = tells(&daemon, "WT201", &[&proxy.addr().to_string(), "longer than"]);
    assert_eq!(failing.ends_with("WT201"), told.line());
    proxy.restore();
    order(&database, 2);
    arrive(&pipeline, &[1, 2]);
    logged_once(&daemon, &["WT201"]);
    daemon.terminate();
}

#[test]
fn a_source_that_falls_silent_after_the_login_is_not_waited_for_in_silence() {
    // The lock holds up others' new slots, so the server is this test's own.
    let postgres = PostgresOptions::new(Version::NEWEST).start();
    let database = postgres.database("falls silent");
    database.execute(super::ORDERS);
    let pipeline = set_up(&database);
    order(&database, 1);
    let holder = database.session();
    holder.execute("BEGIN; LOCK TABLE pg_publication IN ACCESS EXCLUSIVE MODE");
    let failing = FailingFast::launch(&pipeline);
    let daemon = pipeline.launch();
    let told = tells(&daemon, "WT201", &["an answer longer than"]);
    assert_eq!(failing.ends_with("WT201"), told.line());
    holder.execute("COMMIT");
    order(&database, 2);
    arrive(&pipeline, &[1, 2]);
    logged_once(&daemon, &["WT201"]);
    daemon.terminate();
}
