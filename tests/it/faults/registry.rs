//! The schema registry does not answer, or refuses.

use waltide_stack::serde_json::json;
use waltide_stack::{Proxy, Registry, RegistryOptions, Stack, Version};

use super::rotation::SecretFile;
use super::{
    FailingFast, arrive, fails_fast, fails_fast_as, logged_once, open_circuits, order, pipeline,
    set_up, shop, tells, tries_again,
};
use crate::support::{Gateway, SOON};

fn registry() -> &'static Registry {
    Stack::shared().registry()
}

/// The registry's URL at another address.
fn url_at(address: impl std::fmt::Display) -> String {
    registry().url().replace(&registry().address(), &address.to_string())
}

#[test]
fn a_registry_that_is_away_or_silent_is_waited_for() {
    let database = shop(Version::NEWEST, "no registry");
    let proxy = Proxy::to(registry().address());
    let url = url_at(proxy.addr());
    let pipeline = set_up(&database).with("registry.url", url.as_str());
    order(&database, 1);
    // One after the other: which schemas are known is read once the slot is held.
    proxy.cut();
    let refused = fails_fast(&pipeline, "WT401");
    proxy.stall();
    let silent = FailingFast::launch(&pipeline).ends_with("WT401");
    proxy.cut();
    let daemon = pipeline.launch();
    let told = tells(&daemon, "WT401", &[&url, "refused", "registry.url"]);
    assert_eq!(refused, told.line());
    tries_again(&daemon);
    assert_eq!(open_circuits(&daemon), ["registry"]);
    proxy.stall();
    let told = tells(&daemon, "WT401", &[&url, "no answer within"]);
    assert_eq!(silent, told.line());
    proxy.restore();
    order(&database, 2);
    arrive(&pipeline, &[1, 2]);
    logged_once(&daemon, &["WT401", "WT401"]);
    daemon.terminate();
}

#[test]
fn known_schemas_keep_flowing_while_the_registry_is_away() {
    let database = shop(Version::NEWEST, "registry goes away");
    let proxy = Proxy::to(registry().address());
    let pipeline = pipeline(&database).with("registry.url", url_at(proxy.addr()));
    database.execute("CREATE TABLE later (id int PRIMARY KEY)");
    let daemon = pipeline.start();
    order(&database, 1);
    arrive(&pipeline, &[1]);
    proxy.cut();
    order(&database, 2);
    arrive(&pipeline, &[1, 2]);
    daemon.wait_ready();
    database.execute("INSERT INTO later VALUES (1)");
    tells(&daemon, "WT401", &["registry.url"]);
    order(&database, 3);
    proxy.restore();
    arrive(&pipeline, &[1, 2, 3]);
    assert_eq!(pipeline.topic("public.later").wait_for_json(1, SOON).len(), 1);
    daemon.wait_ready();
    daemon.terminate();
}

#[test]
fn each_odd_answer_has_a_reason_of_its_own() {
    let database = shop(Version::NEWEST, "odd answers");
    let gateway = Gateway::start();
    let pipeline = set_up(&database).with("registry.url", url_at(&gateway.address));
    order(&database, 1);
    gateway.answers(Some("401 Unauthorized\r\ncontent-length: 0\r\n\r\n"));
    let daemon = pipeline.launch();
    for (answer, code, words) in [
        ("401 Unauthorized\r\ncontent-length: 0\r\n\r\n", "WT402", ["refuses the login", "401"]),
        (
            "200 OK\r\ncontent-type: text/html\r\n\r\n<html><h1>Welcome</h1></html>",
            "WT405",
            ["Welcome", "under which the API begins"],
        ),
        ("404 Not Found\r\n\r\nno such page", "WT405", ["404", "no such page"]),
        (
            "500 Internal Server Error\r\n\r\n{\"message\": \"no storage\"}",
            "WT406",
            ["500", "no storage"],
        ),
        ("200 OK\r\n\r\n{\"answer\": 42}", "WT405", ["compatibilityLevel", "registry"]),
    ] {
        gateway.answers(Some(answer));
        let told = tells(&daemon, code, &words);
        fails_fast_as(&pipeline, &told);
    }
    gateway.answers(None);
    order(&database, 2);
    arrive(&pipeline, &[1, 2]);
    logged_once(&daemon, &["WT402", "WT405", "WT405", "WT406", "WT405"]);
    daemon.terminate();
}

/// That it is away stops nobody who stands by, and is not taken for an answer when the slot is free.
#[test]
fn who_stood_by_while_the_registry_was_away_asks_it_again() {
    let database = shop(Version::NEWEST, "away from standby");
    let gateway = Gateway::start();
    gateway.answers(Some("500 Internal Server Error\r\n\r\n{\"message\": \"no storage\"}"));
    let first = pipeline(&database).start();
    let pipeline = pipeline(&database).with("registry.url", url_at(&gateway.address));
    let second = pipeline.launch();
    second.wait_for_state("standby");
    gateway.answers(Some("200 OK\r\n\r\n{\"answer\": 42}"));
    first.terminate();
    tells(&second, "WT405", &["compatibilityLevel"]);
    gateway.answers(None);
    order(&database, 1);
    arrive(&pipeline, &[1]);
    logged_once(&second, &["WT405"]);
    second.terminate();
}

#[test]
fn the_url_without_the_path_of_its_api_is_told() {
    let database = shop(Version::NEWEST, "wrong path");
    let pipeline = pipeline(&database)
        .with("registry.url", format!("http://{}/apis/nowhere", registry().address()));
    let daemon = pipeline.launch();
    let told = tells(&daemon, "WT405", &["404", "/apis/ccompat/v7"]);
    fails_fast_as(&pipeline, &told);
    daemon.terminate();
}

#[test]
fn a_schema_that_is_refused_waits_until_the_rule_is_loosened() {
    let database = shop(Version::NEWEST, "incompatible");
    let pipeline = set_up(&database);
    let daemon = pipeline.start();
    order(&database, 1);
    arrive(&pipeline, &[1]);
    let subject = format!("{}-value", pipeline.topic("public.orders").name());
    registry().set_compatibility(&subject, "FULL");
    let confirmed = pipeline.wait_until_delivered();
    database.execute("ALTER TABLE orders ALTER item TYPE int USING length(item)");
    database.execute("INSERT INTO orders VALUES (2, 2)");
    let told =
        ["table public.orders has changed (item was string or null, is int or null)", "row at"];
    tells(&daemon, "WT403", &[&subject, "loosen", told[0], told[1]]);
    database.execute("ALTER TABLE orders ALTER item TYPE text");
    tries_again(&daemon);
    tells(&daemon, "WT403", &[&subject, "does not help"]);
    assert!(pipeline.confirmed() < pipeline.end_of_log());
    assert!(pipeline.confirmed() >= confirmed);
    arrive(&pipeline, &[1]);
    registry().set_compatibility(&subject, "NONE");
    arrive(&pipeline, &[1, 2]);
    daemon.wait_ready();
    daemon.terminate();
}

/// A registry's password may be short-lived.
#[test]
fn a_password_of_the_registry_is_read_again_with_each_request() {
    let database = shop(Version::NEWEST, "registry password");
    database.execute("CREATE TABLE later (id int PRIMARY KEY)");
    let gateway = Gateway::start();
    // waltide:one, waltide:two
    gateway.wants("Basic d2FsdGlkZTpvbmU=");
    let file = SecretFile::of(&database, "registry", "one");
    let pipeline = pipeline(&database)
        .with("registry.url", url_at(&gateway.address))
        .with("registry.username", "waltide")
        .with("registry.password_file", file.path());
    let daemon = pipeline.start();
    order(&database, 1);
    arrive(&pipeline, &[1]);
    gateway.wants("Basic d2FsdGlkZTp0d28=");
    database.execute("INSERT INTO later VALUES (1)");
    tells(&daemon, "WT402", &["refuses the login"]);
    file.write("two");
    assert_eq!(pipeline.topic("public.later").wait_for_json(1, SOON).len(), 1);
    daemon.wait_ready();
    logged_once(&daemon, &["WT402"]);
    daemon.terminate();
}

/// A registry that has lost ids, or gives them to other schemas, is named before anything that
/// nobody could read is published.
#[test]
fn a_registry_with_other_ids_is_named_and_not_published_through() {
    let database = shop(Version::NEWEST, "other ids");
    // Ids do not begin with the first here, and so not where they begin elsewhere.
    let first = RegistryOptions::new().start();
    let noise = |registry: &Registry, count: usize| {
        for number in 0..count {
            let schema = json!({ "type": "fixed", "name": format!("noise{number}"), "size": 1 });
            registry.register(&format!("noise-{number}"), &schema);
        }
    };
    noise(&first, 20);
    let right = set_up(&database).with("registry.url", first.url());
    // Neither is the one that the helpers ask for schemas.
    let arrive = |count: usize| {
        let topic = right.topic("public.orders");
        assert_eq!(topic.wait_for(count, SOON).len(), count);
    };
    let daemon = right.start();
    order(&database, 1);
    arrive(1);
    right.wait_until_delivered();
    daemon.terminate();

    // It is empty: told at the start.
    let second = RegistryOptions::new().start();
    let wrong = pipeline(&database).with("registry.url", second.url());
    let daemon = wrong.launch();
    let subject = format!("{}-", wrong.topic("public.orders").name());
    let told = tells(&daemon, "WT408", &[&subject, "does not know it", "registry.verify_ids"]);
    fails_fast_as(&wrong, &told);
    daemon.terminate();

    // It has all those ids, for other schemas: told when the first row comes.
    noise(&second, 60);
    let daemon = wrong.start();
    let confirmed = wrong.confirmed();
    order(&database, 2);
    tells(&daemon, "WT408", &[&subject, "does not know it"]);
    tries_again(&daemon);
    assert!(wrong.confirmed() < wrong.end_of_log() && wrong.confirmed() >= confirmed);
    arrive(1);
    assert_eq!(second.latest(&format!("{subject}value")), None, "it was registered");
    daemon.terminate();

    // As the message says: the right one, or none of it matters.
    let daemon = right.start();
    arrive(2);
    right.wait_until_delivered();
    daemon.terminate();
    let anyway = wrong.with("registry.verify_ids", false);
    let daemon = anyway.start();
    order(&database, 3);
    anyway.wait_until_delivered();
    assert!(second.latest(&format!("{subject}value")).is_some());
    daemon.terminate();
    let again = pipeline(&database).with("registry.url", second.url());
    let daemon = again.start();
    order(&database, 4);
    again.wait_until_delivered();
    daemon.wait_ready();
    daemon.terminate();
}

/// What a registry may say to a schema that is to be registered, and what is made of it.
const ANSWERS: [(&str, &str, [&str; 2]); 12] = [
    ("401 Unauthorized\r\ncontent-length: 0\r\n\r\n", "WT402", ["refuses the login", "401"]),
    ("403 Forbidden\r\n\r\n{\"message\": \"read only\"}", "WT402", ["refuses the login", "403"]),
    ("404 Not Found\r\n\r\n<h1>no page</h1>", "WT405", ["404", "no page"]),
    (
        "404 Not Found\r\n\r\n{\"error_code\": 40401, \"message\": \"no subject\"}",
        "WT405",
        ["knows nothing of subject", "no subject"],
    ),
    (
        "409 Conflict\r\n\r\n{\"error_code\": 409, \"message\": \"earlier schema\"}",
        "WT403",
        ["refuses the new schema", "earlier schema"],
    ),
    (
        "422 Unprocessable\r\n\r\n{\"error_code\": 42201, \"message\": \"no schema\"}",
        "WT404",
        ["cannot take the schema", "no schema"],
    ),
    ("200 OK\r\ncontent-length: 90\r\n\r\n{\"id\":", "WT401", ["does not answer", "registry.url"]),
    ("429 Too Many Requests\r\n\r\nslowly", "WT406", ["429", "slowly"]),
    ("500 Oops\r\n\r\n{\"error_code\": 50001, \"message\": \"store\"}", "WT406", ["500", "store"]),
    ("200 OK\r\n\r\n<h1>Welcome</h1>", "WT405", ["Welcome", "is not a schema registry"]),
    ("200 OK\r\n\r\n{\"id\": -7}", "WT405", ["no id in", "-7"]),
    ("garbage\r\n\r\n", "WT401", ["does not answer", "registry.url"]),
];

#[test]
fn each_answer_to_a_registration_has_a_reason_of_its_own() {
    let database = shop(Version::NEWEST, "odd registrations");
    database.execute("CREATE TABLE later (id int PRIMARY KEY)");
    let gateway = Gateway::start();
    let pipeline = pipeline(&database).with("registry.url", url_at(&gateway.address));
    let daemon = pipeline.start();
    order(&database, 1);
    arrive(&pipeline, &[1]);
    gateway.answers_registrations(Some(ANSWERS[0].0));
    database.execute("INSERT INTO later VALUES (7)");
    for (answer, code, words) in ANSWERS {
        gateway.answers_registrations(Some(answer));
        tells(&daemon, code, &words);
    }
    order(&database, 2);
    assert!(pipeline.confirmed() < pipeline.end_of_log());
    gateway.answers_registrations(None);
    arrive(&pipeline, &[1, 2]);
    let later = pipeline.topic("public.later").wait_for_json(1, SOON);
    assert_eq!(later.len(), 1);
    let codes = ANSWERS.map(|(_, code, _)| code);
    logged_once(&daemon, &codes);
    daemon.terminate();
}

/// The registry is away from before the daemon starts until after it has ended.
#[test]
fn known_schemas_flow_though_the_registry_is_away_all_the_while() {
    let database = shop(Version::NEWEST, "no registry at all");
    database.execute("CREATE TABLE later (id int PRIMARY KEY)");
    let proxy = Proxy::to(registry().address());
    let pipeline = pipeline(&database)
        .with("registry.url", url_at(proxy.addr()))
        .with("registry.on_incompatible", "fork");
    let daemon = pipeline.start();
    order(&database, 1);
    arrive(&pipeline, &[1]);
    pipeline.wait_until_delivered();
    daemon.terminate();
    proxy.cut();
    order(&database, 2);
    let daemon = pipeline.start();
    arrive(&pipeline, &[1, 2]);
    order(&database, 3);
    arrive(&pipeline, &[1, 2, 3]);
    daemon.wait_ready();
    pipeline.wait_until_delivered();
    logged_once(&daemon, &[]);
    // One that nobody has registered waits, and nothing goes past it.
    database.execute("INSERT INTO later VALUES (1)");
    order(&database, 4);
    tells(&daemon, "WT401", &["registry.url"]);
    tries_again(&daemon);
    arrive(&pipeline, &[1, 2, 3]);
    daemon.terminate();
    proxy.restore();
    let daemon = pipeline.start();
    arrive(&pipeline, &[1, 2, 3, 4]);
    assert_eq!(pipeline.topic("public.later").wait_for_json(1, SOON).len(), 1);
    daemon.terminate();
}

/// Whoever starts without a registry asks it for the ids that are in use before anything else is
/// registered.
#[test]
fn a_registry_that_comes_back_with_other_ids_is_named() {
    let database = shop(Version::NEWEST, "back with other ids");
    database.execute("CREATE TABLE later (id int PRIMARY KEY)");
    let first = RegistryOptions::new().start();
    let proxy = Proxy::to(first.address());
    let url = first.url().replace(&first.address(), &proxy.addr().to_string());
    let right = pipeline(&database).with("registry.url", url.as_str());
    let topic = right.topic("public.orders").with_registry(&first);
    let daemon = right.start();
    order(&database, 1);
    right.wait_until_delivered();
    daemon.terminate();
    proxy.cut();
    let daemon = right.start();
    order(&database, 2);
    assert_eq!(topic.wait_for_json(2, SOON).len(), 2);
    // Restored to what it was before.
    let second = RegistryOptions::new().start();
    proxy.retarget(second.address().parse().expect("an address"));
    proxy.restore();
    database.execute("INSERT INTO later VALUES (1)");
    let subject = format!("{}-", topic.name());
    tells(&daemon, "WT408", &[&subject, "does not know it"]);
    tries_again(&daemon);
    assert_eq!(second.subjects(), [""; 0], "something was registered");
    daemon.terminate();
    proxy.retarget(first.address().parse().expect("an address"));
    proxy.reset();
    let daemon = right.start();
    let later = right.topic("public.later").with_registry(&first);
    assert_eq!(later.wait_for_json(1, SOON).len(), 1);
    daemon.terminate();
}
