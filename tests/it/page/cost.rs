//! What looking at the page costs the daemon.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use waltide_stack::{Stack, Version};

use super::Page;
use crate::support::{Daemon, Pipeline};

/// How many look.
const PEOPLE: u32 = 10;

/// For how long it is measured: each of them asks five times.
const MEASURED: Duration = Duration::from_secs(10);

/// Of a core, while they look: a hundredth.
const MOST: f64 = 0.01;

/// Of a core, while nobody looks: a sample for the hour's history every 15 s is all there is.
const NOTHING: f64 = 0.0005;

/// The time on a processor of the daemon's threads, of all and of the one that answers, as parts of
/// a core over a while. Time on a processor does not grow because others want it too.
fn load(daemon: &Daemon) -> (f64, f64) {
    let before = spent(daemon);
    let from = Instant::now();
    sleep(MEASURED);
    let (after, passed) = (spent(daemon), from.elapsed().as_secs_f64());
    let part = |after: Duration, before: Duration| (after - before).as_secs_f64() / passed;
    (part(after.0, before.0), part(after.1, before.1))
}

fn spent(daemon: &Daemon) -> (Duration, Duration) {
    let tasks = format!("/proc/{}/task", daemon.process().pid());
    let (mut all, mut answering) = (Duration::ZERO, Duration::ZERO);
    for task in fs::read_dir(tasks).expect("it runs").flatten() {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let nanos = read("schedstat").split(' ').next().and_then(|nanos| nanos.parse().ok());
        let spent = Duration::from_nanos(nanos.unwrap_or_default());
        all += spent;
        if read("comm").trim() == "http" {
            answering += spent;
        }
    }
    assert!(answering > Duration::ZERO, "no thread answers");
    (all, answering)
}

#[test]
fn ten_who_look_take_a_hundredth_of_a_core_and_nobody_takes_nothing() {
    let database = Stack::shared().database(Version::NEWEST, "looked at");
    for table in 0..10 {
        database.execute(&format!("CREATE TABLE t_{table} (id int PRIMARY KEY, item text)"));
    }
    let pipeline = Pipeline::of(&database);
    let daemon = pipeline.start();
    for table in 0..10 {
        database.execute(&format!("INSERT INTO t_{table} VALUES (1, 'tea')"));
    }
    pipeline.wait_until_delivered();
    let (alone, answering) = load(&daemon);
    assert!(answering < NOTHING, "{answering} of a core answers nobody");
    let mut page = Page::open(&daemon);
    page.ask(&format!("crowd {}/ {}", daemon.url(), PEOPLE - 1));
    let (with, answering) = load(&daemon);
    eprintln!(
        "of a core: {alone} alone, {with} with {PEOPLE} who look, {answering} to answer them"
    );
    assert!(answering > 0.0, "nobody was answered");
    assert!(answering < MOST, "{answering} of a core answers {PEOPLE}");
    page.end(&daemon);
    daemon.terminate();
}
