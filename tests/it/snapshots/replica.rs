//! Tables that are read from a replica, which is always behind; and replicas that hold reading
//! back.

use std::thread;
use std::time::{Duration, Instant};

use waltide_stack::serde_json::{Value, json};
use waltide_stack::{Database, Postgres, PostgresOptions, Stack, Version, eventually};

use super::{assert_arrived, assert_fails_with, rows, shop, wait_until_read};
use crate::faults::rotation::{SecretFile, YEAR, after, authority, certificate};
use crate::support::{Daemon, Pipeline, Random, SOON};

const TABLE: &str = "public.accounts";

/// A replica of a source, over its socket.
fn following(source: &Postgres) -> PostgresOptions {
    let place = source.socket_directory();
    let connection = format!("host={} port={} user=postgres", place.display(), source.port());
    PostgresOptions::new(source.version())
        .standby_of(source)
        .setting("primary_conninfo", &connection)
}

/// A source and its replica.
struct Pair {
    // The database goes first: it cleans up on its server.
    shop: Database,
    source: Postgres,
    replica: Postgres,
}

impl Pair {
    fn start(version: Version, test: &str, delay: &str) -> Self {
        let source = PostgresOptions::new(version).setting("log_statement", "all").start();
        let shop = source.database(test);
        let replica = following(&source)
            .setting("recovery_min_apply_delay", delay)
            // One that lags has used up its patience with whoever reads.
            .setting("max_standby_streaming_delay", "-1")
            .setting("log_statement", "all")
            .start();
        Self { shop, source, replica }
    }

    fn pipeline(&self) -> Pipeline<'_> {
        let from = json!({ "url": self.replica.url(self.shop.name()) });
        Pipeline::of(&self.shop).with("snapshot", json!({ "mode": "initial", "from": from }))
    }

    /// Waits until the replica has all there is.
    fn wait_for_replica(&self) {
        let end = self.shop.value("SELECT pg_current_wal_lsn()");
        let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{end}'");
        eventually("the replica has it", SOON, || {
            (self.replica.query(&sql)[0][0].as_deref() == Some("t")).then_some(())
        });
    }
}

/// What is waited for, of a table.
fn code(daemon: &Daemon, table: &str) -> Value {
    daemon.status()["snapshots"][table]["error"]["code"].take()
}

#[test]
fn a_table_is_read_from_a_replica_that_lags_and_arrives_as_it_is() {
    from_a_replica(Version::NEWEST);
}

#[test]
fn so_it_is_from_one_of_the_oldest_version() {
    from_a_replica(Version::V14);
}

/// What the stream has published is a second away from the replica.
fn from_a_replica(version: Version) {
    let test = "snapshot from a replica";
    let random = Random::from_environment(test);
    let pair = Pair::start(version, test, "1s");
    shop::fill(&pair.shop, rows() / 2);
    pair.wait_for_replica();
    let pipeline = pair.pipeline();
    let pace = (rows() / 2, Duration::from_millis(20));
    let daemon = shop::while_writing(&pair.shop, &random, pace, || {
        let daemon = pipeline.start();
        thread::sleep(Duration::from_millis(500));
        daemon.kill();
        let daemon = pipeline.start();
        wait_until_read(&pipeline, &[TABLE]);
        daemon
    });
    pipeline.wait_until_delivered();
    daemon.terminate();
    assert_arrived(&pair.shop, &pipeline, TABLE);
    let parts = |server: &Postgres| server.log().matches("COPY (SELECT ctid").count();
    assert_eq!(parts(&pair.source), 0, "the source was read");
    assert!(parts(&pair.replica) > 0, "the replica was not read");
}

#[test]
fn a_replica_that_stands_still_goes_away_or_is_none_is_waited_for_by_code() {
    let pair = Pair::start(Version::NEWEST, "snapshot from no replica", "0");
    let shop = &pair.shop;
    shop.execute("CREATE TABLE accounts (id int PRIMARY KEY)");
    shop.execute("INSERT INTO accounts SELECT generate_series(1, 1000)");
    pair.wait_for_replica();
    pair.replica.execute("SELECT pg_wal_replay_pause()");
    let pipeline = pair.pipeline();
    let daemon = pipeline.start();
    assert_fails_with(&daemon, TABLE, "WT237");
    shop.execute("INSERT INTO accounts VALUES (2000)");
    pipeline.wait_until_delivered();
    assert_eq!(pipeline.changes(TABLE).len(), 1, "it was read before the replica had it");
    pair.replica.execute("SELECT pg_wal_replay_resume()");
    wait_until_read(&pipeline, &[TABLE]);

    pair.replica.stop();
    let read_again = || {
        let url = daemon.url();
        let all = ["snapshot", "start", "--table", TABLE, "--url", &url];
        assert_eq!(crate::cli::waltide(&all).status, Some(0));
    };
    read_again();
    assert_fails_with(&daemon, TABLE, "WT201");
    pair.replica.start_again();
    eventually("it is read again", SOON, || {
        (pipeline.read_whole().iter().filter(|table| *table == TABLE).count() == 2).then_some(())
    });

    // Connections outlive this, and what they show is another history.
    pair.replica.promote();
    pair.replica.session(shop.name()).execute("DELETE FROM accounts");
    read_again();
    assert_fails_with(&daemon, TABLE, "WT238");
    shop.execute("INSERT INTO accounts VALUES (3000)");
    pipeline.wait_until_delivered();
    daemon.terminate();

    let other = PostgresOptions::new(Version::NEWEST).start();
    for url in [other.url("postgres"), pair.source.url(shop.name())] {
        let pipeline = pair.pipeline().with("snapshot.from.url", url);
        let daemon = pipeline.start();
        assert_fails_with(&daemon, TABLE, "WT238");
        daemon.terminate();
    }
    // Taken away, the source itself is read.
    let plain = super::initial(shop);
    let daemon = plain.start();
    eventually("it is read to its end", SOON, || {
        (plain.read_whole().iter().filter(|table| *table == TABLE).count() == 3).then_some(())
    });
    daemon.terminate();
    assert_arrived(shop, &plain, TABLE);
}

/// The stream waits while a table without a key is read, so that one is not begun by a reader which
/// still has to wait for the replica.
#[test]
fn a_table_without_a_key_does_not_let_the_stream_wait_for_a_replica() {
    let pair = Pair::start(Version::NEWEST, "snapshot without a key and replica", "0");
    let shop = &pair.shop;
    shop.execute("CREATE TABLE accounts (id int PRIMARY KEY)");
    shop.execute("INSERT INTO accounts SELECT generate_series(1, 1000)");
    pair.wait_for_replica();
    pair.replica.execute("SELECT pg_wal_replay_pause()");
    let pipeline = pair.pipeline().with("snapshot.parallelism", 1);
    let daemon = pipeline.start();
    assert_fails_with(&daemon, TABLE, "WT237");

    const JOINS: &str = "public.visits";
    shop.execute("CREATE TABLE visits (page int); INSERT INTO visits VALUES (1)");
    eventually("it is known how large it is", SOON, || {
        daemon.status()["snapshots"][JOINS]["blocks"]
            .as_u64()
            .is_some_and(|it| it > 0)
            .then_some(())
    });
    // More often than tables are given out to be read.
    for id in 2000..2005 {
        shop.execute(&format!("INSERT INTO accounts VALUES ({id})"));
        pipeline.wait_until_delivered();
    }
    assert_eq!(pipeline.read_whole(), [""; 0]);
    pair.replica.execute("SELECT pg_wal_replay_resume()");
    wait_until_read(&pipeline, &[TABLE, JOINS]);
    daemon.terminate();
    assert_arrived(shop, &pipeline, TABLE);
    assert_eq!(pipeline.changes(JOINS).len(), 1);
}

/// Its password and its certificate are held as strictly as the source's, and mended while the
/// stream goes on.
#[test]
fn a_replica_is_trusted_and_trusts_us_as_the_source_does() {
    let test = "snapshot from a guarded replica";
    let source = PostgresOptions::new(Version::NEWEST).start();
    let shop = source.database(test);
    let (ours, other) = (authority(), authority());
    let (server, key) = certificate(&ours, "replica", after(YEAR));
    let file = |name: &str, text: &str| SecretFile::of(&shop, name, text);
    let (server, key) = (file("server.crt", &server), file("server.key", &key));
    let (root, password) = (file("root.crt", &other.pem()), file("password", "zq1wrong\n"));
    let replica = following(&source)
        .hba("hostssl all all 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 reject")
        .tls(server.path().as_ref(), key.path().as_ref())
        .start();
    let role = format!("{}_cdc", shop.prefix());
    shop.execute(&format!(
        "CREATE TABLE accounts (id int PRIMARY KEY);
         INSERT INTO accounts SELECT generate_series(1, 1000);
         CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'zq2right';
         CREATE PUBLICATION tables FOR TABLE accounts;
         GRANT SELECT ON accounts TO {role}"
    ));
    let url = |parameters: &str| {
        format!("postgresql://{role}@127.0.0.1:{}/{}?{parameters}", replica.port(), shop.name())
    };
    let strictly = url(&format!("sslmode=verify-full&sslrootcert={}", root.path()));
    let from = |url: &str| {
        let from = json!({ "url": url, "password_file": password.path() });
        Pipeline::of(&shop)
            .with("source.url", shop.url_as(&role, None))
            .with("source.publication", "tables")
            .with("snapshot", json!({ "mode": "initial", "from": from }))
    };
    let daemon = from(&url("sslmode=disable")).start();
    assert_fails_with(&daemon, TABLE, "WT204");
    daemon.terminate();

    let pipeline = from(&strictly);
    let daemon = pipeline.start();
    assert_fails_with(&daemon, TABLE, "WT203");
    root.write(&ours.pem());
    assert_fails_with(&daemon, TABLE, "WT204");
    shop.execute("INSERT INTO accounts VALUES (2000)");
    pipeline.wait_until_delivered();
    assert_eq!(pipeline.changes(TABLE).len(), 1, "it was read before the replica let us in");
    password.write("zq2right\n");
    wait_until_read(&pipeline, &[TABLE]);
    for secret in ["zq1wrong", "zq2right"] {
        assert!(!daemon.log().contains(secret), "{secret} is in the log");
    }
    daemon.terminate();
    assert_arrived(&shop, &pipeline, TABLE);
}

#[test]
fn nothing_is_read_while_a_replica_is_further_behind_than_is_allowed() {
    let pair = Pair::start(Version::NEWEST, "snapshot beside a replica", "0");
    let shop = &pair.shop;
    shop.execute(
        "CREATE TABLE accounts (id int PRIMARY KEY);
         INSERT INTO accounts SELECT generate_series(1, 1000);
         CREATE ROLE reader LOGIN REPLICATION;
         CREATE PUBLICATION tables FOR TABLE accounts;
         GRANT SELECT ON accounts TO reader",
    );
    let polite = json!({ "mode": "initial", "max_replica_lag_bytes": 1_000_000 });
    let pipeline = Pipeline::of(shop)
        .with("source.url", shop.url_as("reader", None))
        .with("source.publication", "tables")
        .with("snapshot", polite);
    pair.wait_for_replica();
    pair.replica.execute("SELECT pg_wal_replay_pause()");
    shop.execute("CREATE TABLE other AS SELECT repeat('x', 1000) FROM generate_series(1, 3000)");
    let daemon = pipeline.start();
    // Whoever may not see it is not taken for one that sees nothing.
    assert_fails_with(&daemon, TABLE, "WT209");
    shop.execute("GRANT pg_read_all_stats TO reader");
    assert_fails_with(&daemon, TABLE, "WT239");
    shop.execute("INSERT INTO accounts VALUES (2000)");
    pipeline.wait_until_delivered();
    assert_eq!(pipeline.changes(TABLE).len(), 1, "it was read while the replica was behind");
    pair.replica.execute("SELECT pg_wal_replay_resume()");
    wait_until_read(&pipeline, &[TABLE]);
    assert_eq!(code(&daemon, TABLE), Value::Null);
    daemon.terminate();
    assert_arrived(shop, &pipeline, TABLE);
}

#[test]
fn no_more_rows_are_read_in_a_second_than_is_allowed() {
    let shop = Stack::shared().database(Version::NEWEST, "snapshot row by row");
    shop.execute("CREATE TABLE accounts (id int PRIMARY KEY)");
    shop.execute("INSERT INTO accounts SELECT generate_series(1, 2000)");
    let slowly = json!({ "mode": "initial", "max_rows": 500, "parallelism": 1 });
    let pipeline = Pipeline::of(&shop).with("snapshot", slowly);
    let since = Instant::now();
    let daemon = pipeline.start();
    wait_until_read(&pipeline, &[TABLE]);
    // What the last rows cost nobody waits for.
    assert!(since.elapsed() > Duration::from_secs(3), "it took {:?}", since.elapsed());
    daemon.terminate();
    assert_arrived(&shop, &pipeline, TABLE);
}
