//! The servers: real ones, each started at once, gone with us.

use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use waltide_stack::{
    Kafka, KafkaOptions, Postgres, PostgresOptions, Registry, RegistryOptions, Version,
};

use crate::screen::Screen;
use crate::shop;

pub(crate) const VERSION: Version = Version::NEWEST;

/// What Kafka keeps of a partition, so that a demo left alone over night does not fill the disk.
/// Our consumer is never this far behind.
const RETAINED: (&str, &str) = ("log.retention.bytes", "67108864");
const SEGMENT: (&str, &str) = ("log.segment.bytes", "16777216");

pub(crate) struct Servers {
    pub(crate) postgres: Postgres,
    pub(crate) kafka: Kafka,
    pub(crate) registry: Registry,
}

impl Servers {
    /// Starts all at once and tells of each when it answers. One that does not start ends the
    /// program, with its log.
    pub(crate) fn start(screen: &mut Screen) -> Self {
        let (tell, told) = mpsc::channel::<String>();
        let began = Instant::now();
        let after = move || format!("after {:.1} s", began.elapsed().as_secs_f64());
        let starting = thread::spawn(move || {
            thread::scope(|scope| {
                let postgres = scope.spawn(|| {
                    let postgres = PostgresOptions::new(VERSION).start();
                    postgres.execute(&format!("CREATE DATABASE {}", shop::DATABASE));
                    postgres.session(shop::DATABASE).execute(shop::TABLES_SQL);
                    let _ = tell.send(format!("PostgreSQL {VERSION} answers {}", after()));
                    postgres
                });
                let kafka = scope.spawn(|| {
                    let (options, (key, value)) = (KafkaOptions::new(), RETAINED);
                    let kafka = options.setting(key, value).setting(SEGMENT.0, SEGMENT.1).start();
                    let _ = tell.send(format!("Kafka answers {}", after()));
                    kafka
                });
                let registry = scope.spawn(|| {
                    let registry = RegistryOptions::new().start();
                    let _ = tell.send(format!("the schema registry answers {}", after()));
                    registry
                });
                Self {
                    postgres: postgres.join().expect("Postgres started"),
                    kafka: kafka.join().expect("Kafka started"),
                    registry: registry.join().expect("the registry started"),
                }
            })
        });
        // Ends when all who could tell have gone.
        for line in told {
            screen.say(&line);
        }
        starting.join().expect("the servers started")
    }

    /// Stops all at once; they leave nothing behind.
    pub(crate) fn stop(self) {
        let Self { postgres, kafka, registry } = self;
        thread::scope(|scope| {
            scope.spawn(move || drop(postgres));
            scope.spawn(move || drop(kafka));
            scope.spawn(move || drop(registry));
        });
    }
}
