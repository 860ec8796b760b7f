//! Schemas that the registry's rules forbid, and the ways to the registry.

use std::fs;
use std::path::PathBuf;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use waltide_stack::serde_json::{Value, json};
use waltide_stack::{Database, Registry, RegistryOptions, Stack, Version, eventually};

use crate::recovery::recover;
use crate::support::{Gateway, Pipeline, SOON};

fn registry() -> &'static Registry {
    Stack::shared().registry()
}

fn shop(test: &str) -> Database {
    let shop = Stack::shared().database(Version::NEWEST, test);
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
    shop
}

/// The rows of a topic by id, in the order of their first coming.
fn ids(pipeline: &Pipeline<'_>, table: &str) -> Vec<u64> {
    let topic = pipeline.topic(table);
    if !Stack::shared().kafka().topics().contains(&topic.name().to_owned()) {
        return Vec::new();
    }
    let records = topic.read_json();
    let mut ids: Vec<u64> =
        records.iter().filter_map(|record| record.value["after"]["id"].as_u64()).collect();
    ids.dedup();
    ids
}

/// Two changes of a column's type that no reader could follow, with rows before and after each.
const CHANGES: [&str; 5] = [
    "INSERT INTO orders VALUES (1, 'tea')",
    "ALTER TABLE orders ALTER item TYPE int USING length(item)",
    "INSERT INTO orders VALUES (2, 2)",
    "ALTER TABLE orders ALTER item TYPE boolean USING item > 2",
    "INSERT INTO orders VALUES (3, true)",
];

#[test]
fn a_table_whose_schema_is_refused_goes_on_in_a_new_topic() {
    let shop = shop("forks");
    let pipeline =
        Pipeline::of(&shop).with("kafka.partitions", 1).with("registry.on_incompatible", "fork");
    let forks = ["public.orders", "public.orders.v2", "public.orders.v3"];
    let daemon = pipeline.start();
    shop.execute(CHANGES[0]);
    pipeline.wait_until_delivered();
    for fork in forks {
        registry().set_compatibility(&format!("{}-value", pipeline.topic(fork).name()), "FULL");
    }
    CHANGES[1..].iter().for_each(|sql| shop.execute(sql));
    pipeline.wait_until_delivered();
    daemon.kill();
    for (fork, expected) in forks.iter().zip([[1], [2], [3]]) {
        assert_eq!(ids(&pipeline, fork), expected, "{fork}");
    }
    // Rows of an older schema that come again stay where that schema is, and newer ones go on.
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (4, false)");
    pipeline.wait_until_delivered();
    daemon.terminate();
    assert_eq!(ids(&pipeline, "public.orders.v3"), [3, 4]);
    assert_eq!(ids(&pipeline, "public.orders.v4"), [0; 0]);
}

#[test]
fn rows_of_an_older_schema_that_come_again_stay_in_their_topic() {
    let shop = shop("forks again");
    let pipeline =
        Pipeline::of(&shop).with("kafka.partitions", 1).with("registry.on_incompatible", "fork");
    pipeline.start().terminate();
    let forks = ["public.orders", "public.orders.v2"].map(|fork| pipeline.topic(fork));
    for fork in &forks {
        registry().set_compatibility(&format!("{}-value", fork.name()), "FULL");
    }
    // A slot that keeps all of it, for a pipeline that has forgotten how far it was.
    let slot = pipeline.slot();
    shop.execute(&format!("SELECT pg_copy_logical_replication_slot('{slot}', '{slot}_kept')"));
    CHANGES[..3].iter().for_each(|sql| shop.execute(sql));
    let daemon = pipeline.start();
    pipeline.wait_until_delivered();
    daemon.terminate();
    let again = Pipeline::of(&shop)
        .with("kafka.partitions", 1)
        .with("registry.on_incompatible", "fork")
        .with("source.slot", format!("{slot}_kept"))
        .with("source.publication", slot.as_str());
    Stack::shared().kafka().delete_topic(pipeline.topic("waltide.checkpoint").name());
    let daemon = again.launch();
    // The topics hold records of a pipeline that has no checkpoint: somebody has to allow it.
    eventually("the pipeline stops", SOON, || daemon.log().contains("WT309").then_some(()));
    daemon.terminate();
    assert_eq!(recover(&again, "--adopt", &["--yes"]).status, Some(0));
    let daemon = again.start();
    shop.execute("INSERT INTO orders VALUES (3, 3)");
    again.wait_until_delivered();
    daemon.terminate();
    assert_eq!(ids(&again, "public.orders"), [1]);
    assert_eq!(ids(&again, "public.orders.v2"), [2, 3]);
    assert_eq!(ids(&again, "public.orders.v3"), [0; 0]);
}

#[test]
fn a_schema_may_be_forced_upon_a_subject_whose_rule_stays() {
    let shop = shop("forced");
    let pipeline =
        Pipeline::of(&shop).with("kafka.partitions", 1).with("registry.on_incompatible", "force");
    let daemon = pipeline.start();
    shop.execute(CHANGES[0]);
    pipeline.wait_until_delivered();
    let subject = format!("{}-value", pipeline.topic("public.orders").name());
    registry().set_compatibility(&subject, "FULL");
    CHANGES[1..].iter().for_each(|sql| shop.execute(sql));
    pipeline.wait_until_delivered();
    daemon.terminate();
    assert_eq!(ids(&pipeline, "public.orders"), [1, 2, 3]);
    let rule = registry().call("GET", &format!("/config/{subject}"), None);
    assert_eq!(rule.body["compatibilityLevel"], "FULL", "{rule:?}");
}

#[test]
fn subjects_are_named_as_configured() {
    let shop = shop("subjects");
    for (named, expected) in [
        ("topic", "{topic}-value"),
        ("record", "{topic}.Envelope"),
        ("topic_record", "{topic}-{topic}.Envelope"),
    ] {
        let pipeline = Pipeline::of(&shop).with("registry.subjects", named);
        let daemon = pipeline.start();
        shop.execute("INSERT INTO orders SELECT count(*), 'tea' FROM orders");
        pipeline.wait_until_delivered();
        daemon.terminate();
        let topic = pipeline.topic("public.orders").name().to_owned();
        let subject = expected.replace("{topic}", &topic);
        let subjects = registry().subjects();
        assert!(subjects.contains(&subject), "{subject} is not among {subjects:?}");
    }
}

#[test]
fn the_next_address_is_asked_where_one_does_not_answer() {
    let shop = shop("several registries");
    let failing = Gateway::start();
    failing.answers(Some("503 Service Unavailable\r\n\r\nnot now"));
    let other = registry().url().replace(&registry().address(), &failing.address);
    let nobody = registry().url().replace(&registry().address(), "127.0.0.1:1");
    let urls = [nobody, other, registry().url()].join(", ");
    let pipeline = Pipeline::of(&shop).with("registry.url", urls);
    let daemon = pipeline.start();
    shop.execute(CHANGES[0]);
    pipeline.wait_until_delivered();
    assert!(!daemon.log().contains("WT40"), "{}", daemon.log());
    daemon.terminate();
    assert_eq!(ids(&pipeline, "public.orders"), [1]);
}

#[test]
fn tokens_of_another_server_let_us_in_and_are_fetched_again_when_refused() {
    let shop = shop("oauth");
    shop.execute("CREATE TABLE later (id int PRIMARY KEY)");
    let (giver, guard) = (Gateway::start(), Gateway::start());
    giver.answers(Some("401 Unauthorized\r\ncontent-length: 0\r\n\r\n"));
    guard.wants("Bearer first");
    let url = registry().url().replace(&registry().address(), &guard.address);
    let oauth = json!({
        "token_url": format!("http://{}/token", giver.address), "client_id": "waltide",
        "client_secret": "s3cret", "scope": "schemas",
    });
    let pipeline = Pipeline::of(&shop).with("registry.url", url).with("registry.oauth", oauth);
    let daemon = pipeline.launch();
    let told = || daemon.log().contains("gives no token").then_some(());
    eventually("the refusal is told", SOON, told);
    giver.answers(Some(
        "200 OK\r\ncontent-type: application/json\r\n\r\n\
         {\"access_token\": \"first\", \"token_type\": \"bearer\", \"expires_in\": 3600}",
    ));
    daemon.wait_ready();
    shop.execute(CHANGES[0]);
    pipeline.wait_until_delivered();
    // Taken back before its time: another one is fetched.
    guard.wants("Bearer second");
    giver.answers(Some("200 OK\r\n\r\n{\"access_token\": \"second\"}"));
    shop.execute("INSERT INTO later VALUES (7)");
    assert_eq!(pipeline.topic("public.later").wait_for_json(1, SOON).len(), 1);
    let log = daemon.log();
    assert!(!log.contains("s3cret") && !log.contains("Bearer"), "{log}");
    daemon.terminate();
}

/// Files that go away with the test.
struct Files(PathBuf);

impl Files {
    fn of(shop: &Database) -> Self {
        let directory =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-tls", shop.name()));
        fs::create_dir_all(&directory).expect("a directory");
        Self(directory)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_registry_behind_tls_is_trusted_by_its_own_authority_only() {
    let shop = shop("registry tls");
    let files = Files::of(&shop);
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key).expect("an authority");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let certificate = params.signed_by(&key, &authority).expect("a certificate");
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr();
    let port = port.expect("an address").port();
    let private = RegistryOptions::new()
        .setting("quarkus.http.ssl-port", &port.to_string())
        .setting(
            "quarkus.http.ssl.certificate.files",
            &files.write("server.crt", &certificate.pem()),
        )
        .setting(
            "quarkus.http.ssl.certificate.key-files",
            &files.write("server.key", &key.serialize_pem()),
        )
        .start();
    let url = format!("https://localhost:{port}/apis/ccompat/v7");
    let pipeline = Pipeline::of(&shop).with("registry.url", url.as_str());
    let daemon = pipeline.launch();
    eventually("the certificate is refused", SOON, || daemon.log().contains("WT401").then_some(()));
    daemon.terminate();
    let pipeline =
        pipeline.with("registry.ca_file", files.write("ca.crt", &authority.as_ref().pem()));
    let daemon = pipeline.start();
    shop.execute(CHANGES[0]);
    pipeline.wait_until_delivered();
    daemon.terminate();
    assert!(private.subjects().iter().any(|subject| subject.contains("orders")));
    let plain: Value = private.call("GET", "/config", None).body;
    assert!(plain.get("compatibilityLevel").is_some(), "{plain}");
}
