//! What was said stays, whoever is killed and whoever writes beside.
//!
//! `WALTIDE_REGISTRY_KILLS` says how often the daemon is killed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use waltide_stack::{Registry, eventually};

use super::{Schemas, as_body, schema, serve, write};
use crate::support::{Random, SOON};

const KILLS: u64 = 12;

/// Registers a schema of this number; its id, unless nobody answered.
fn register(registry: &Registry, subject: &str, number: u64) -> Option<u64> {
    let path = format!("/subjects/{subject}/versions");
    let (status, answer) = write(registry, "t", &path, &as_body(&schema(number)))?;
    assert_eq!(status, 200, "{answer}");
    Some(answer["id"].as_u64().expect("an id"))
}

#[test]
fn every_id_that_was_given_stays_through_kills_during_registration() {
    let kills = std::env::var("WALTIDE_REGISTRY_KILLS").ok();
    let kills = kills.map_or(KILLS, |text| text.parse().expect("a number"));
    let mut random = Random::from_environment("kills of a registry");
    let schemas = Schemas::new();
    let mut given: BTreeMap<u64, u64> = BTreeMap::new();
    let mut next = 0;
    for _ in 0..kills {
        let (daemon, registry) = serve(&schemas.guarded("t"));
        for (number, id) in &given {
            let id = u32::try_from(*id).expect("an id");
            assert_eq!(registry.schema(id), schema(*number), "schema {number}");
            assert_eq!(register(&registry, "s", *number), Some(id.into()), "schema {number}");
        }
        let wanted = usize::try_from(random.of(1..20)).expect("a small number");
        let told = AtomicUsize::new(0);
        let more = thread::scope(|scope| {
            let registering = scope.spawn(|| {
                let mut more = Vec::new();
                for number in next.. {
                    // Also where the one that was under way when it ended is asked for again.
                    let Some(id) = register(&registry, "s", number) else { break };
                    more.push((number, id));
                    told.store(more.len(), Ordering::Relaxed);
                }
                more
            });
            eventually("some are registered", SOON, || {
                (told.load(Ordering::Relaxed) >= wanted).then_some(())
            });
            daemon.kill();
            registering.join().expect("registrations")
        });
        next += more.len() as u64;
        given.extend(more);
    }
    let ids: BTreeSet<u64> = given.values().copied().collect();
    assert_eq!(ids.len(), given.len(), "an id was given twice: {given:?}");
    let (daemon, registry) = serve(&schemas.guarded("t"));
    let versions = registry.call("GET", "/subjects/s/versions", None).body;
    let versions = versions.as_array().expect("a list").len();
    assert!(versions >= given.len() && versions <= given.len() + 1, "{versions}");
    daemon.terminate();
}

#[test]
fn two_daemons_on_one_directory_never_give_an_id_twice() {
    let schemas = Schemas::new();
    let settings = schemas.guarded("t");
    let servers = [serve(&settings), serve(&settings)];
    // Each registers its own, and both the same ones under one subject.
    let go = AtomicBool::new(false);
    let given: Vec<BTreeMap<u64, u64>> = thread::scope(|scope| {
        let running: Vec<_> = (0..2_u64)
            .zip(&servers)
            .map(|(which, (_, registry))| {
                let go = &go;
                scope.spawn(move || {
                    while !go.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                    let mut ids = BTreeMap::new();
                    for number in 0..40 {
                        let common = register(registry, "common", number).expect("an answer");
                        let mine = 1000 * (which + 1) + number;
                        let own =
                            register(registry, &format!("s{which}"), mine).expect("an answer");
                        ids.extend([(number, common), (mine, own)]);
                    }
                    ids
                })
            })
            .collect();
        go.store(true, Ordering::Relaxed);
        running.into_iter().map(|one| one.join().expect("registrations")).collect()
    });
    let mut all: BTreeMap<u64, u64> = BTreeMap::new();
    for (number, id) in given.iter().flatten() {
        assert_eq!(*all.entry(*number).or_insert(*id), *id, "schema {number} has two ids");
    }
    let ids: BTreeSet<u64> = all.values().copied().collect();
    assert_eq!((all.len(), ids.len()), (120, 120), "an id was given twice");
    for (daemon, registry) in servers {
        for (number, id) in &all {
            assert_eq!(registry.schema(u32::try_from(*id).expect("an id")), schema(*number));
        }
        let versions = registry.call("GET", "/subjects/common/versions", None).body;
        assert_eq!(versions.as_array().map(Vec::len), Some(40));
        daemon.terminate();
    }
}
