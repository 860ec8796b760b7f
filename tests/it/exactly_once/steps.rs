//! What goes wrong on each side of every step: a new producer shuts the others out, a transaction
//! begins, records are produced, the checkpoint is, the commit is sent and answered. The daemon
//! dies there, or loses its connection and must find out by itself; what was caught arrives later.

use std::thread;
use std::time::{Duration, Instant};

use waltide_stack::serde_json::json;
use waltide_stack::{Database, Kafka, KafkaOptions, Stack, Version};

use super::exactly;
use super::wire::{ADD_PARTITIONS, END, INIT, PRODUCE, Side, Step, Wire};
use crate::support::{
    Pipeline, SOON, assert_each_once_and_in_order, assert_transactions_are_whole,
};

/// What happens once a request is caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The daemon dies, and another takes its place.
    Killed,
    /// Its connections to Kafka break.
    CutOff,
}

/// What the second of the two transactional ids ends with.
const SECOND: &str = ".waltide.2";

/// The requests of a transaction, in their order.
const STEPS: [(&str, i16, &str); 9] = [
    ("shut others out", INIT, ""),
    ("shut others out of the second", INIT, SECOND),
    ("begin", ADD_PARTITIONS, "public.orders"),
    ("begin with the checkpoint", ADD_PARTITIONS, "waltide.checkpoint"),
    ("produce", PRODUCE, "public.orders"),
    ("produce elsewhere", PRODUCE, "public.lines"),
    ("checkpoint", PRODUCE, "waltide.checkpoint"),
    ("commit", END, ""),
    ("commit of the second", END, SECOND),
];

struct Shop<'a> {
    database: &'a Database,
    wire: &'a Wire,
    kafka: &'a Kafka,
    orders: u32,
}

impl Shop<'_> {
    /// Two transactions, the second in two tables.
    fn order(&mut self) {
        let next = self.orders + 1;
        self.orders += 21;
        self.database.execute(&format!("INSERT INTO orders VALUES ({next})"));
        self.database.execute(&format!(
            "WITH new AS (INSERT INTO orders SELECT generate_series({next} + 1, {next} + 20)
             RETURNING id) INSERT INTO lines SELECT id, 1 FROM new"
        ));
    }

    /// Which of the two ids it is that commits is not known beforehand.
    #[track_caller]
    fn order_until_caught(&mut self) {
        let since = Instant::now();
        loop {
            self.order();
            if self.wire.is_caught() {
                return;
            }
            assert!(since.elapsed() < SOON, "the request does not come");
        }
    }

    /// The daemon meets its fate at a step, and whoever goes on publishes each change once.
    fn goes_wrong(
        &mut self,
        through: &Pipeline<'_>,
        direct: &Pipeline<'_>,
        step: Step,
        fate: Fate,
    ) {
        let daemon = through.start();
        self.order();
        through.wait_until_delivered();
        self.wire.catch(step);
        // The requests of a daemon that starts are not those of one that streams.
        if step.request == INIT {
            self.cut_the_stream(through);
        }
        self.order_until_caught();
        match fate {
            Fate::Killed => {
                daemon.kill();
                let successor = direct.start();
                if step.side == Side::Before {
                    self.wire.release();
                }
                self.order();
                direct.wait_until_delivered();
                successor.terminate();
            }
            Fate::CutOff => {
                self.kafka.proxy().reset();
                self.order();
                through.wait_until_delivered();
                if step.side == Side::Before {
                    self.wire.release();
                }
                self.order();
                through.wait_until_delivered();
                daemon.terminate();
            }
        }
        self.check(direct);
    }

    fn cut_the_stream(&self, pipeline: &Pipeline<'_>) {
        self.database.execute(&format!(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots
             WHERE slot_name = '{}'",
            pipeline.slot()
        ));
    }

    #[track_caller]
    fn check(&self, pipeline: &Pipeline<'_>) {
        let [orders, lines] =
            ["public.orders", "public.lines"].map(|table| pipeline.changes(table));
        assert_each_once_and_in_order(&orders);
        assert_each_once_and_in_order(&lines);
        assert_eq!(orders.len(), self.orders as usize);
        assert_eq!(lines.len(), (self.orders - self.orders / 21) as usize);
        assert_transactions_are_whole(orders.iter().chain(&lines));
    }
}

/// A shop whose daemon can be met on the wire, and a pipeline that cannot.
fn in_a_shop(test: &str, play: impl FnOnce(&mut Shop<'_>, Pipeline<'_>, Pipeline<'_>)) {
    let kafka = KafkaOptions::new().behind_proxy().start();
    let wire = Wire::on(&kafka);
    let database = Stack::shared().database(Version::NEWEST, test);
    database.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    database.execute("CREATE TABLE lines (id int PRIMARY KEY, n int)");
    let through = exactly(&database).into_kafka(&kafka);
    let direct =
        exactly(&database).into_kafka(&kafka).with("kafka.bootstrap_servers", kafka.direct());
    let mut shop = Shop { database: &database, wire: &wire, kafka: &kafka, orders: 0 };
    play(&mut shop, through, direct);
}

fn at_each_step(test: &str, fate: Fate) {
    in_a_shop(test, |shop, through, direct| {
        for (name, request, with) in STEPS {
            for side in [Side::Before, Side::After] {
                eprintln!("{side:?} {name}");
                shop.goes_wrong(&through, &direct, Step { request, with, side }, fate);
            }
        }
    });
}

#[test]
fn a_daemon_killed_at_any_step_leaves_each_change_to_come_once() {
    at_each_step("exactly once steps killed", Fate::Killed);
}

#[test]
fn a_daemon_cut_off_at_any_step_publishes_each_change_once() {
    at_each_step("exactly once steps cut", Fate::CutOff);
}

/// A daemon shuts the one before it out before it reads how far that came.
#[test]
fn a_commit_that_comes_after_the_successor_has_begun_is_refused() {
    refuses_what_is_late("exactly once late commit", END, "");
}

/// What has no checkpoint yet is not in the way of whoever reads the last one.
#[test]
fn so_is_a_checkpoint_through_the_second_of_its_transactional_ids() {
    refuses_what_is_late("exactly once late checkpoint", PRODUCE, ".waltide.2 .waltide.checkpoint");
}

fn refuses_what_is_late(test: &str, request: i16, with: &'static str) {
    in_a_shop(test, |shop, through, direct| {
        // Who waits until Kafka gives the transaction up by itself has shut nobody out.
        let patient = || json!({ "transaction.timeout.ms": "200000" });
        let [through, direct] =
            [through, direct].map(|pipeline| pipeline.with("kafka.properties", patient()));
        let first = through.start();
        let second = direct.launch();
        second.wait_for_state("standby");
        shop.wire.catch(Step { request, with, side: Side::Before });
        shop.order_until_caught();
        first.process().pause();
        second.wait_for_state("streaming");
        // The successor has published the same; now comes the commit of what it has shut out.
        direct.wait_until_delivered();
        shop.wire.release();
        first.process().resume();
        first.wait_for_state("standby");
        shop.order();
        direct.wait_until_delivered();
        first.terminate();
        second.terminate();
        shop.check(&direct);
    });
}

/// The records of a transaction do not overtake those of the one before, which go by another
/// connection.
#[test]
fn what_has_its_turn_next_waits_until_all_before_it_has_arrived() {
    in_a_shop("exactly once in turn", |shop, through, _| {
        let pipeline = through.with("kafka.partitions", 1);
        let daemon = pipeline.start();
        shop.order();
        pipeline.wait_until_delivered();
        shop.wire.catch(Step { request: PRODUCE, with: "public.orders", side: Side::Before });
        shop.order();
        shop.wire.wait();
        shop.order();
        // Long enough for whatever does not wait.
        thread::sleep(Duration::from_secs(1));
        shop.wire.release();
        shop.order();
        pipeline.wait_until_delivered();
        daemon.terminate();
        shop.check(&pipeline);
    });
}

/// Else the one before could come to be rolled back, and what follows it be there.
#[test]
fn a_commit_is_not_sent_before_the_one_before_it_is_known() {
    in_a_shop("exactly once commits in turn", |shop, through, direct| {
        let daemon = through.start();
        shop.wire.catch(Step { request: END, with: "", side: Side::Before });
        shop.order_until_caught();
        shop.order();
        // Long enough for whatever does not wait.
        thread::sleep(Duration::from_secs(1));
        daemon.kill();
        let successor = direct.start();
        shop.order();
        direct.wait_until_delivered();
        successor.terminate();
        shop.check(&direct);
    });
}
