//! What goes wrong on each side of every step: a new producer shuts the others out, a transaction
//! begins, records are produced, the checkpoint is, the commit is sent and answered. The daemon
//! dies there, or loses its connection and must find out by itself; what was caught arrives later.

use waltide_stack::{Database, Kafka, KafkaOptions, Stack, Version};

use super::exactly;
use super::wire::{ADD_PARTITIONS, END, INIT, PRODUCE, Side, Step, Wire};
use crate::support::{Pipeline, assert_each_once_and_in_order, assert_transactions_are_whole};

/// What happens once a request is caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// The daemon dies, and another takes its place.
    Killed,
    /// Its connections to Kafka break.
    CutOff,
}

/// The requests of a transaction, in their order.
const STEPS: [(&str, i16, &str); 7] = [
    ("shut others out", INIT, ""),
    ("begin", ADD_PARTITIONS, "public.orders"),
    ("begin with the checkpoint", ADD_PARTITIONS, "waltide.checkpoint"),
    ("produce", PRODUCE, "public.orders"),
    ("produce elsewhere", PRODUCE, "public.lines"),
    ("checkpoint", PRODUCE, "waltide.checkpoint"),
    ("commit", END, ""),
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
        self.order();
        self.wire.wait();
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

fn at_each_step(test: &str, fate: Fate) {
    let kafka = KafkaOptions::new().behind_proxy().start();
    let wire = Wire::on(&kafka);
    let database = Stack::shared().database(Version::NEWEST, test);
    database.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    database.execute("CREATE TABLE lines (id int PRIMARY KEY, n int)");
    let through = exactly(&database).into_kafka(&kafka);
    let direct =
        exactly(&database).into_kafka(&kafka).with("kafka.bootstrap_servers", kafka.direct());
    let mut shop = Shop { database: &database, wire: &wire, kafka: &kafka, orders: 0 };
    for (name, request, with) in STEPS {
        for side in [Side::Before, Side::After] {
            eprintln!("{side:?} {name}");
            shop.goes_wrong(&through, &direct, Step { request, with, side }, fate);
        }
    }
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
    let kafka = KafkaOptions::new().behind_proxy().start();
    let wire = Wire::on(&kafka);
    let database = Stack::shared().database(Version::NEWEST, "exactly once late commit");
    database.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    database.execute("CREATE TABLE lines (id int PRIMARY KEY, n int)");
    let through = exactly(&database).into_kafka(&kafka);
    let direct =
        exactly(&database).into_kafka(&kafka).with("kafka.bootstrap_servers", kafka.direct());
    let mut shop = Shop { database: &database, wire: &wire, kafka: &kafka, orders: 0 };
    let first = through.start();
    let second = direct.launch();
    second.wait_for_state("standby");
    wire.catch(Step { request: END, with: "", side: Side::Before });
    shop.order();
    wire.wait();
    first.process().pause();
    second.wait_for_state("streaming");
    // The successor has published the same; now comes the commit of what it has shut out.
    direct.wait_until_delivered();
    wire.release();
    first.process().resume();
    first.wait_for_state("standby");
    shop.order();
    direct.wait_until_delivered();
    first.terminate();
    second.terminate();
    shop.check(&direct);
}
