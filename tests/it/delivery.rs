//! What is committed arrives, in order, once, and what is confirmed is what has arrived.

use waltide_stack::{Stack, Version};

use crate::support::{Pipeline, Position, SOON};

#[test]
fn a_committed_row_arrives_and_a_rolled_back_one_does_not() {
    for version in Version::ALL {
        let shop = Stack::shared().database(version, "a row arrives");
        shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
        let pipeline = Pipeline::of(&shop);
        let daemon = pipeline.start();
        daemon.wait_ready();
        shop.execute("BEGIN; INSERT INTO orders VALUES (1, 'coffee'); ROLLBACK");
        shop.execute("INSERT INTO orders VALUES (2, 'tea')");
        pipeline.wait_until_delivered();
        let records = pipeline.topic("public.orders").wait_for_json(1, SOON);
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].key["id"], 2);
        assert_eq!(records[0].value["after"]["item"], "tea");
        assert_eq!(
            (Position::of(&records[0]).ordinal, Position::of(&records[0]).sub_index),
            (0, 0)
        );
        daemon.terminate();
    }
}
