//! The directory of a registry of our own cannot be used, or is not the one it was.

use std::fs;
use std::os::unix::fs::symlink;

use waltide_stack::Version;

use super::{fails_fast_as, logged_once, order, pipeline, set_up, shop, tells, tries_again};
use crate::directory::Schemas;
use crate::python::read_through;
use crate::support::{Daemon, Pipeline};

/// Waits until the topic has exactly these orders, as the daemon's own registry reads them.
#[track_caller]
fn arrive(daemon: &Daemon, pipeline: &Pipeline<'_>, ids: &[u64]) {
    let records = read_through(&daemon.registry(), pipeline, "public.orders");
    let found: Vec<u64> =
        records.iter().filter_map(|record| record["value"]["after"]["id"].as_u64()).collect();
    assert_eq!(found, ids);
}

#[test]
fn a_directory_that_cannot_be_written_is_waited_for() {
    let database = shop(Version::NEWEST, "no schemas");
    let schemas = Schemas::new();
    // Where the volume should be is a file.
    fs::write(schemas.path(), "").expect("a file");
    let pipeline = set_up(&database).with("registry", schemas.settings());
    order(&database, 1);
    let daemon = pipeline.launch();
    let told = tells(&daemon, "WT409", &[schemas.text(), "Not a directory", "registry.directory"]);
    fails_fast_as(&pipeline, &told);
    tries_again(&daemon);
    fs::remove_file(schemas.path()).expect("the file");
    order(&database, 2);
    arrive(&daemon, &pipeline, &[1, 2]);
    logged_once(&daemon, &["WT409"]);
    daemon.terminate();
}

#[test]
fn a_disk_that_is_full_is_waited_for() {
    let database = shop(Version::NEWEST, "full schemas");
    database.execute("CREATE TABLE later (id int PRIMARY KEY)");
    let schemas = Schemas::new();
    let pipeline = pipeline(&database).with("registry", schemas.settings());
    let daemon = pipeline.start();
    order(&database, 1);
    arrive(&daemon, &pipeline, &[1]);
    // Whatever is written there meets a full disk.
    let coming = schemas.path().join("new.avsc");
    symlink("/dev/full", &coming).expect("a link");
    order(&database, 2);
    arrive(&daemon, &pipeline, &[1, 2]);
    database.execute("INSERT INTO later VALUES (1)");
    tells(&daemon, "WT409", &["No space left on device", "has room"]);
    tries_again(&daemon);
    fs::remove_file(&coming).expect("the link");
    order(&database, 3);
    arrive(&daemon, &pipeline, &[1, 2, 3]);
    let later = read_through(&daemon.registry(), &pipeline, "public.later");
    assert_eq!(later.len(), 1);
    logged_once(&daemon, &["WT409"]);
    daemon.terminate();
}

#[test]
fn a_directory_without_the_ids_of_what_is_published_is_named() {
    let database = shop(Version::NEWEST, "lost schemas");
    let schemas = Schemas::new();
    let pipeline = set_up(&database).with("registry", schemas.settings());
    let daemon = pipeline.start();
    order(&database, 1);
    arrive(&daemon, &pipeline, &[1]);
    daemon.terminate();
    // As where a volume was not mounted.
    let aside = schemas.path().with_extension("aside");
    fs::rename(schemas.path(), &aside).expect("a move");
    let confirmed = pipeline.confirmed();
    order(&database, 2);
    let daemon = pipeline.launch();
    let words = ["does not know it", "registry.directory", "registry.verify_ids"];
    let told = tells(&daemon, "WT408", &words);
    fails_fast_as(&pipeline, &told);
    tries_again(&daemon);
    assert_eq!(pipeline.confirmed(), confirmed);
    assert!(!schemas.path().exists(), "nothing is written where ids are missing");
    fs::rename(&aside, schemas.path()).expect("a move");
    arrive(&daemon, &pipeline, &[1, 2]);
    daemon.terminate();
}

#[test]
fn a_directory_that_is_damaged_is_named() {
    let database = shop(Version::NEWEST, "damaged schemas");
    let schemas = Schemas::new();
    let pipeline = set_up(&database).with("registry", schemas.settings());
    let daemon = pipeline.start();
    order(&database, 1);
    arrive(&daemon, &pipeline, &[1]);
    daemon.terminate();
    let first = schemas.path().join("1.avsc");
    let whole = fs::read(&first).expect("a schema");
    fs::write(&first, &whole[..whole.len() / 2]).expect("half a schema");
    order(&database, 2);
    let daemon = pipeline.launch();
    let told = tells(&daemon, "WT409", &["is damaged", "id 1 is not the one", "backup"]);
    fails_fast_as(&pipeline, &told);
    fs::write(&first, &whole).expect("the schema");
    arrive(&daemon, &pipeline, &[1, 2]);
    daemon.terminate();
}
