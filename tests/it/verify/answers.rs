//! What is said where it cannot be done, and to programs.

use super::*;

#[test]
fn a_table_that_cannot_be_verified_is_told_with_a_way_out() {
    let shop = shop("verify misuse");
    shop.execute("CREATE TABLE keyless (a int); CREATE TABLE hidden (id int PRIMARY KEY)");
    shop.execute("CREATE TABLE empty (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&shop).with("source.exclude", vec!["public.hidden"]);
    verify(&pipeline, "public.orders", &[]).fails("WT217", &["in no publication"]);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (1, 'tea'); INSERT INTO keyless VALUES (1)");
    pipeline.wait_until_delivered();
    verify(&pipeline, "public.order", &[]).fails("WT217", &["there is no table public.order"]);
    verify(&pipeline, "public.hidden", &[]).fails("WT217", &["not captured"]);
    verify(&pipeline, "public.keyless", &[]).fails("WT123", &["has no key", "multiset"]);
    verify(&pipeline, "public.empty", &[]).fails("WT123", &["there is no topic"]);
    verify(&pipeline, "public.*", &[]).fails("WT102", &["one table"]);
    verify(&pipeline, "public.orders", &["--pipeline", "other"]).fails("WT102", &["other"]);
    let misused = waltide(&["verify", "--config", "x.yaml"]);
    assert_eq!(misused.status, Some(2), "{}", misused.everything);
    // What somebody else wrote is not passed over.
    let intruder = Intruder::of(&pipeline, "public.orders");
    let record = intruder.records(&json!({"id": 1}));
    intruder.writes(&record[0], Some(b"no Avro"));
    verify(&pipeline, "public.orders", &[]).fails("WT123", &["no Avro", "who else writes"]);
    daemon.terminate();
}

#[test]
fn a_role_that_does_not_see_all_rows_is_told() {
    let shop = shop("verify privileges");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (1, 'tea')");
    pipeline.wait_until_delivered();
    daemon.terminate();
    let role = format!("{}_reader", shop.prefix());
    shop.execute(&format!("CREATE ROLE {role} LOGIN"));
    let reader = Pipeline::of(&shop).with("source.url", shop.url_as(&role, None));
    let denied = verify(&reader, "public.orders", &[]);
    denied.fails("WT227", &["GRANT SELECT ON public.orders"]);
    let grant = denied.everything.split("run: ").nth(1).and_then(|text| text.split(';').next());
    shop.execute(grant.expect("the statement"));
    verify(&reader, "public.orders", &[]).is_equal(1);
    shop.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY");
    verify(&reader, "public.orders", &[]).fails("WT228", &["row-level security"]);
    shop.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}

#[test]
fn servers_that_are_away_are_named() {
    let shop = shop("verify away");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (1, 'tea')");
    pipeline.wait_until_delivered();
    daemon.terminate();
    let nowhere = "127.0.0.1:1";
    for (key, value, code) in [
        ("kafka.bootstrap_servers", nowhere.to_owned(), "WT301"),
        ("registry.url", format!("http://{nowhere}"), "WT401"),
        ("source.url", format!("postgres://x@{nowhere}/x"), "WT201"),
    ] {
        let away = Pipeline::of(&shop).with(key, value);
        verify(&away, "public.orders", &[]).fails(code, &[nowhere]);
    }
}

#[test]
fn programs_and_people_are_told_the_same() {
    let shop = shop("verify answers");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders SELECT g, 'tea' FROM generate_series(1, 30) g");
    shop.execute("UPDATE orders SET item = 'x' WHERE id = 4");
    pipeline.wait_until_delivered();
    let intruder = Intruder::of(&pipeline, "public.orders");
    intruder.repeats_the_first(&json!({"id": 4}));
    let told = verify(&pipeline, "public.orders", &[]).json;
    // The page shows an answer with these keys.
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/verify.md"));
    let page = page.expect("the page");
    let shown = page.split("```json\n").nth(1).and_then(|rest| rest.split("```").next());
    let shown: Value = serde_json::from_str(shown.expect("an answer")).expect("JSON");
    let names = |of: &Value| -> Vec<String> {
        of.as_object().expect("an object").keys().cloned().collect()
    };
    assert_eq!(names(&shown), names(&told));
    assert_eq!(names(&shown["counts"]), names(&told["counts"]));
    assert_eq!(names(&shown["named"][0]), names(&told["named"][0]));
    for kind in names(&told["counts"]) {
        assert!(page.contains(&format!("| `{kind}` |")), "{kind}");
    }
    let file = pipeline.file();
    let path = file.path().to_str().expect("UTF-8");
    let ended = waltide(&["verify", "--table", "public.orders", "--config", path]);
    assert_eq!(ended.status, Some(1), "{}", ended.everything);
    for words in ["result     different", "30 in the table", "changed   {\"id\":4} in item"] {
        assert!(ended.out.contains(words), "{words} in: {}", ended.everything);
    }
    daemon.terminate();
}
