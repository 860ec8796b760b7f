//! What is refused, where the finger points, and in which words.

use waltide::config::{Kind, librdkafka};

use super::{MINIMAL, errors, load, minimal_with};

/// The one error of a text, as kind, line and column, with all its words on one line.
fn only(text: &str) -> (Kind, u32, u32, String) {
    let errors = errors(text);
    let [error] = errors.iter().as_slice() else { panic!("{errors}") };
    let words = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    (error.kind, error.place.line().unwrap(), error.place.column().unwrap(), words)
}

fn assert_only(text: &str, kind: Kind, line: u32, column: u32, told: &str) {
    let (found, at_line, at_column, words) = only(text);
    assert_eq!(found, kind, "{words}");
    assert_eq!((at_line, at_column), (line, column), "{words}");
    assert!(words.contains(told), "{words}");
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one() {
    let text = minimal_with("kafka", "partitons: 3");
    assert_only(&text, Kind::UnknownKey, 7, 7, "did you mean `partitions`?");
    let text = minimal_with("source", "password-file: /f");
    assert_only(&text, Kind::UnknownKey, 4, 7, "did you mean `password_file`?");
}

#[test]
fn a_mistyped_key_is_not_missed_as_well() {
    let text = MINIMAL.replace("bootstrap_servers", "bootstrap_server");
    assert_only(&text, Kind::UnknownKey, 7, 7, "did you mean `bootstrap_servers`?");
}

#[test]
fn a_key_in_the_wrong_group_is_sent_home() {
    let text = minimal_with("", "slot: x");
    assert_only(&text, Kind::UnknownKey, 3, 5, "`slot` is a key of `source`");
}

#[test]
fn a_key_without_likeness_is_told_what_there_is() {
    let text = minimal_with("registry", "storage: ./schemas");
    let told = "here it can be `url`, `directory`, `listen`, `announce`, `username`, `password`";
    assert_only(&text, Kind::UnknownKey, 9, 7, told);
}

#[test]
fn a_duplicate_key_names_both_lines() {
    let text = minimal_with("source", "url: postgres://a@b/c");
    assert_only(&text, Kind::DuplicateKey, 5, 7, "the other is at waltide.yaml:4:7");
    assert!(only(&text).3.contains("pipelines.shop.source.url"));
}

#[test]
fn a_value_of_the_wrong_type_is_told_what_it_takes() {
    for (group, line, column, told) in [
        ("kafka", "partitions: many", 19, "a whole number from 1 to 100000"),
        ("kafka", "partitions: \"3\"", 19, "take the quotes away"),
        ("kafka", "partitions: [3]", 19, "what is given is a list"),
        ("source", "binary: yes", 15, "`true` or `false`"),
        ("source", "slot: {a: b}", 13, "a single value; what is given is keys"),
        ("source", "exclude: public.x", 16, "put it in brackets: [public.x]"),
        ("", "table_options: []", 20, "this takes keys"),
        ("kafka", "properties: {linger: {ms: 5}}", 28, "`linger.ms: 5`"),
    ]
    .map(|(group, line, column, told)| (group, line, column, told))
    {
        let errors = errors(&minimal_with(group, line));
        let error = errors.iter().find(|error| error.kind == Kind::WrongType);
        let error = error.unwrap_or_else(|| panic!("{line}: {errors}"));
        assert_eq!(error.place.column(), Some(column), "{error}");
        let words = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(told), "{line}: {words}");
    }
}

#[test]
fn a_group_that_is_not_one_is_told() {
    let text =
        MINIMAL.replace("    kafka:\n      bootstrap_servers: kafka:9092\n", "    kafka: x\n");
    assert_only(&text, Kind::WrongType, 6, 12, "this takes keys, each on a line of its own");
}

#[test]
fn a_word_that_is_not_known_is_refused_with_the_nearest_one() {
    let text = minimal_with("", "profile: debezum");
    assert_only(&text, Kind::InvalidValue, 3, 14, "did you mean `debezium`?");
    let text = minimal_with("", "envelope: x");
    assert_only(&text, Kind::InvalidValue, 3, 15, "it takes `full` or `flat`");
}

#[test]
fn what_is_missing_is_told_where_it_belongs() {
    let text = MINIMAL.replace("      url: http://registry:8081\n", "      username: u\n");
    let errors = errors(&text);
    let found: Vec<_> = errors
        .iter()
        .map(|error| (error.kind, error.key.as_str(), error.place.line().unwrap()))
        .collect();
    assert_eq!(
        found,
        [
            (Kind::MissingKey, "pipelines.shop.registry.url", 8),
            (Kind::MissingKey, "pipelines.shop.registry.password_file", 8),
        ]
    );
    assert_only("", Kind::MissingKey, 1, 1, "`pipelines` is missing");
    assert_only("pipelines: {}", Kind::MissingKey, 1, 1, "there is no pipeline");
}

#[test]
fn a_pipeline_without_anything_misses_all_three_of_its_groups() {
    let errors = errors("pipelines:\n  shop:\n");
    let keys: Vec<_> = errors.iter().map(|error| error.key.as_str()).collect();
    assert_eq!(keys, ["pipelines.shop.source", "pipelines.shop.kafka", "pipelines.shop.registry"]);
}

#[test]
fn everything_that_is_wrong_comes_out_at_once() {
    let text = "\
pipelines:
  shop:
    source:
      url: mysql://db/shop
      tables: [orders]
      slot: Waltide
    kafka:
      bootstrap_servers: kafka:99999
      topic: \"{tabel}\"
      properties:
        enable.idempotence: false
        linger: 5
    registry:
      url: registry:8081
    delivery: exactly_one
    snapshot: sometimes
http:
  listen: localhost
  port: 80
log:
  level: loud
";
    let errors = errors(text);
    let lines: Vec<_> = errors.iter().map(|error| error.place.line().unwrap()).collect();
    assert_eq!(lines, [4, 5, 6, 8, 9, 11, 12, 14, 15, 16, 18, 19, 21], "{errors}");
}

#[test]
fn errors_are_rendered_with_the_line_a_pointer_and_help_within_80_columns() {
    let text = minimal_with("kafka", "topic: \"{pipeline}.{tabel}\"");
    let rendered = errors(&text).to_string();
    let expected = "\
error[WT102]: this names no topic: there is no place of this name in it; did you
              mean `{table}`?
 --> waltide.yaml:7:14
  |
7 |       topic: \"{pipeline}.{tabel}\"
  |              ^^^^^^^^^^^^^^^^^^^^
  = key: pipelines.shop.kafka.topic

the configuration has 1 error";
    assert_eq!(rendered, expected);

    let long = format!("slot: {}", "X".repeat(200));
    let rendered = errors(&minimal_with("source", &long)).to_string();
    for line in rendered.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
}

#[test]
fn what_is_not_yaml_is_told_with_its_line() {
    for (text, line) in [
        ("pipelines:\n  shop: [a\n", 3),
        ("pipelines:\n\tshop: a\n", 2),
        ("pipelines: \"a\n", 1),
        ("a: b: c\n", 1),
        ("pipelines:\n  shop: @a\n", 2),
        ("pipelines: {}\n---\nx: 1\n", 2),
        ("pipelines:\n  shop: !x a\n", 2),
        ("? [a]\n: b\n", 1),
    ] {
        let errors = errors(text);
        let error = errors.iter().find(|error| error.kind == Kind::Syntax);
        let error = error.unwrap_or_else(|| panic!("{text}: {errors}"));
        assert!(error.place.line().unwrap().abs_diff(line) <= 1, "{text}: {error}");
    }
}

#[test]
fn a_star_without_quotes_is_told_to_be_quoted() {
    let text = MINIMAL.replace("[public.*]", "[*.*]");
    assert_only(&text, Kind::Syntax, 5, 16, "put a value that begins with `*` in quotes");
}

#[test]
fn a_few_lines_of_aliases_cannot_fill_the_memory() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = level - 1;
        let item = format!("*a{below}");
        text.push_str(&format!("a{level}: &a{level} [{}]\n", vec![item; 10].join(", ")));
    }
    let (kind, line, _, words) = only(&text);
    assert_eq!((kind, line), (Kind::Unreadable, 5));
    assert!(words.contains("more than 100000 values"), "{words}");
}

#[test]
fn deep_nesting_is_refused() {
    let text = format!("pipelines: {}x{}", "[".repeat(5000), "]".repeat(5000));
    assert_eq!(only(&text).0, Kind::Syntax);
    let text: String = (0..500).map(|depth| format!("{:depth$}a:\n", "")).collect();
    assert_eq!(only(&text).0, Kind::Syntax);
}

#[test]
fn a_name_that_cannot_name_a_slot_is_refused() {
    for name in ["Shop", "shop eu", "shop.eu", "-shop", "shop-", "a__b", "é", "\"\""] {
        let errors = errors(&MINIMAL.replace("  shop:", &format!("  {name}:")));
        let error = errors.iter().next().unwrap();
        assert_eq!((error.kind, error.place.line()), (Kind::InvalidValue, Some(2)), "{name}");
    }
    let longest = "a".repeat(55);
    let loaded = load(&MINIMAL.replace("  shop:", &format!("  {longest}:")));
    assert_eq!(loaded.config.pipelines[0].source.slot.len(), 63);
    let text = MINIMAL.replace("  shop:", &format!("  a{longest}:"));
    assert_only(&text, Kind::InvalidValue, 2, 3, "at most 55 characters");
}

fn second_pipeline(name: &str) -> String {
    MINIMAL.replace("pipelines:\n", "").replace("  shop:", &format!("  {name}:"))
}

#[test]
fn names_that_fold_alike_are_refused() {
    let text = MINIMAL.replace("  shop:", "  shop-eu:") + &second_pipeline("shop_eu");
    let errors = errors(&text);
    let error = errors.iter().next().unwrap();
    assert_eq!((error.kind, error.place.line()), (Kind::Conflict, Some(11)));
    assert!(error.help.as_deref().unwrap().contains("waltide.yaml:2:3"), "{error}");
}

#[test]
fn two_pipelines_on_one_server_need_two_slots() {
    let second = second_pipeline("other")
        .replace("    source:\n", "    source:\n      slot: waltide_shop\n");
    let text = format!("{MINIMAL}{second}");
    assert_only(&text, Kind::Conflict, 13, 13, "another pipeline on the same server");
    // Another database of the same server is no way out, another server is.
    let (kind, ..) = only(&text.replacen("/shop\n", "/elsewhere\n", 1));
    assert_eq!(kind, Kind::Conflict);
    load(&text.replacen("@db:5432", "@other:5432", 1));
}

#[test]
fn two_pipelines_that_write_the_same_topics_are_warned_of() {
    let second = second_pipeline("other");
    let text = format!("{MINIMAL}{second}")
        .replace("    kafka:\n", "    kafka:\n      topic: \"{schema}.{table}\"\n");
    let loaded = load(&text);
    let [warning] = loaded.warnings.as_slice() else { panic!("{:?}", loaded.warnings) };
    assert_eq!(warning.key, "pipelines.other.kafka.topic");
}

#[test]
fn what_cannot_both_be_given_is_refused() {
    for (group, lines, told) in [
        ("registry", "username: u\ntoken_file: /t\npassword: p", "two ways to log in"),
        ("registry", "username: u\npassword: p\npassword_file: /p", "given twice"),
        ("registry", "token_file: /t\npassword: p", "a password beside `token_file`"),
        ("registry", "password: p", "the password needs a user"),
        ("registry", "token_file: /t\noauth: {token_url: 'http://a', client_id: u}", "two ways"),
        ("registry", "oauth: {token_url: 'http://a', client_id: u}", "needs a secret"),
        ("registry", "certificate_file: /c", "a certificate needs its key"),
        ("registry", "key_file: /k", "a key needs its certificate"),
        ("registry", "directory: /s", "`directory` makes one here"),
        ("registry", "listen: 0.0.0.0:8081", "there is no registry of our own"),
        ("registry", "announce: http://a", "there is no registry of our own"),
        ("kafka", "replication_factor: 1\ntopic_config: {min.insync.replicas: 2}", "more in-sync"),
        ("kafka", "topic: all", "all tables would be written to one topic"),
        ("", "table_options: {audit.x: {topic: y}}", "not captured"),
        ("", "table_options: {public.x: {key: [a], exclude_columns: [a]}}", "part of the key"),
        ("", "table_options: {public.x: {key: [a], include_columns: [b]}}", "part of the key"),
        ("", "table_options: {public.x: {include_columns: [a], exclude_columns: [b]}}", "not both"),
        ("", "table_options: {public.x: {topic: a}, public.y: {topic: a}}", "another table has"),
        ("", "table_options: {public.x: {topic: shop.transaction}}", "a topic of its own"),
        ("", "prefix: server", "only the debezium profile has a prefix"),
        ("", "profile: debezium\nprefix: a b", "cannot begin a topic's name"),
    ] {
        let errors = errors(&minimal_with(group, lines));
        let words = errors.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(words.contains(told), "{lines}: {errors}");
        assert_eq!(errors.count(), 1, "{lines}: {errors}");
    }
    let text = MINIMAL.replace("waltide@", "waltide:p@");
    let text = text.replace("    source:\n", "    source:\n      password_file: /f\n");
    assert_only(&text, Kind::Conflict, 4, 7, "take it out of the URL");
    let text = MINIMAL.replace("//registry", "//u:p@registry");
    let text = text.replace("    registry:\n", "    registry:\n      token_file: /f\n");
    assert_only(&text, Kind::Conflict, 8, 5, "two ways to log in");
}

#[test]
fn one_table_may_have_a_topic_without_its_name() {
    load(&minimal_with("kafka", "topic: orders").replace("[public.*]", "[public.orders]"));
}

#[test]
fn urls_are_told_what_they_lack() {
    for (url, told) in [
        ("postgres://db/shop", "names no user"),
        ("postgres://waltide@db", "names no database"),
        ("postgres://waltide@/shop", "names no host"),
        ("postgres://waltide:a/b@db/shop", "%2F"),
        ("postgres://waltide:a@b@db/shop", "%40"),
        ("mysql://waltide@db/shop", "`postgres://`"),
        ("host=db user=waltide", "`postgres://`"),
        ("postgres://waltide@db/shop?sslmode", "key=value"),
    ] {
        let text = MINIMAL.replace("postgres://waltide@db:5432/shop", url);
        assert_only(&text, Kind::InvalidValue, 4, 12, told);
    }
    for url in [
        "postgresql://waltide@a:1,b:2/shop?target_session_attrs=primary",
        "postgres:///shop?host=/run/postgresql&user=waltide",
        "postgres://waltide@[::1]:5432/shop",
    ] {
        load(&MINIMAL.replace("postgres://waltide@db:5432/shop", url));
    }
    for (url, told) in [
        ("registry:8081", "`http://`"),
        ("http://", "not a name"),
        ("http://registry:x", "the port"),
        ("http://registry/?a", "ends with its path"),
        ("http://user@registry", "a user and a password"),
    ] {
        let text = MINIMAL.replace("http://registry:8081", url);
        assert_only(&text, Kind::InvalidValue, 9, 12, told);
    }
    for servers in ["", "kafka:", "kafka:0", "a:1,,b:2", "a b:1", "http:://x"] {
        let text = MINIMAL.replace("kafka:9092", &format!("\"{servers}\""));
        let (kind, line, ..) = only(&text);
        assert_eq!((kind, line), (Kind::InvalidValue, 7), "{servers}");
    }
    load(&MINIMAL.replace("kafka:9092", "SASL_SSL://[::1]:9092,kafka-2"));
}

#[test]
fn an_error_found_by_a_closer_reader_of_the_url_keeps_its_place() {
    let loaded = load(MINIMAL);
    let error = loaded.config.pipelines[0].source.url.refused("sslmode must be one of libpq's");
    assert_eq!((error.place.line(), error.place.column()), (Some(4), Some(12)));
    assert_eq!(error.key, "pipelines.shop.source.url");
}

#[test]
fn properties_that_guarantee_delivery_are_refused_by_name_and_reason() {
    for property in [
        "enable.idempotence",
        "acks",
        "request.required.acks",
        "max.in.flight",
        "max.in.flight.requests.per.connection",
        "transactional.id",
        "partitioner",
        "retries",
        "message.send.max.retries",
        "queue.buffering.backpressure.threshold",
        "bootstrap.servers",
        "metadata.broker.list",
        "delivery.report.only.error",
        "dr_cb",
        "dr_msg_cb",
        "queuing.strategy",
        "message.timeout.ms",
        "delivery.timeout.ms",
        "isolation.level",
        "group.id",
        "plugin.library.paths",
    ] {
        let text = minimal_with("kafka", &format!("properties:\n  {property}: x"));
        assert_only(&text, Kind::RefusedProperty, 8, 9, &format!("`{property}` cannot be set:"));
    }
    let text = minimal_with("kafka", "properties: {bootstrap.servers: x}");
    assert!(only(&text).3.contains("use `kafka.bootstrap_servers`"));
    let text = minimal_with("kafka", "properties: {Enable.Idempotence: false}");
    assert_eq!(only(&text).0, Kind::RefusedProperty);
}

/// Run with `--no-default-features` as well, by the forge.
#[test]
fn what_a_slim_build_lacks_is_refused_by_name_and_line() {
    for (property, line) in [
        ("properties:\n  security.protocol: SASL_SSL", 8),
        ("properties:\n  sasl.mechanism: SCRAM-SHA-512", 8),
        ("properties:\n  ssl.ca.location: /ca.pem", 8),
        ("token_file: /run/token", 7),
    ] {
        let text = minimal_with("kafka", property);
        if cfg!(feature = "kafka-tls") {
            let none = [("", ""); 0].into_iter().collect();
            let loaded = waltide::config::parse("waltide.yaml", &text, &none);
            assert!(loaded.is_ok(), "{property}: {loaded:?}");
            continue;
        }
        let (kind, at, _, help) = only(&text);
        assert_eq!((kind, at), (Kind::NotBuilt, line), "{property}");
        assert!(help.contains("kafka-tls"), "{help}");
    }
}

#[test]
fn every_known_property_is_either_taken_or_refused() {
    let mut refused = 0;
    for property in librdkafka::known_properties() {
        let text = minimal_with("kafka", &format!("properties:\n  {property}: 30000"));
        match waltide::config::parse("waltide.yaml", &text, &[("", ""); 0].into_iter().collect()) {
            Ok(loaded) => {
                let properties = &loaded.config.pipelines[0].kafka.properties;
                let values: Vec<_> = properties.values().map(|value| value.expose()).collect();
                assert_eq!(values, ["30000"], "{property}");
            }
            Err(errors) => {
                assert_eq!(errors.iter().next().unwrap().kind, Kind::RefusedProperty, "{property}");
                refused += 1;
            }
        }
    }
    assert!(refused > 20);
}

#[test]
fn a_property_that_librdkafka_does_not_know_is_told_with_the_nearest() {
    let text = minimal_with("kafka", "properties:\n  linger.mss: 5");
    assert_only(&text, Kind::UnknownKey, 8, 9, "did you mean `linger.ms`?");
}

#[test]
fn a_property_of_the_client_is_not_one_of_a_topic() {
    let text = minimal_with("kafka", "topic_config:\n  sasl.password: hunter2");
    assert_only(&text, Kind::UnknownKey, 8, 9, "it belongs under `kafka.properties`");
    let loaded = load(&minimal_with("kafka", "topic_config:\n  min.insync.replica: 2"));
    let [warning] = loaded.warnings.as_slice() else { panic!("{:?}", loaded.warnings) };
    assert!(warning.message.contains("did you mean `min.insync.replicas`?"), "{warning}");
    // What only the brokers can know is left to them.
    let loaded = load(&minimal_with("kafka", "topic_config:\n  confluent.tier.enable: true"));
    assert_eq!(loaded.warnings, []);
}

#[test]
fn two_names_of_one_property_are_one_property() {
    let lines = "properties: {queue.buffering.max.ms: 5, sasl.mechanisms: PLAIN}";
    let loaded = load(&minimal_with("kafka", lines));
    let properties = &loaded.config.pipelines[0].kafka.properties;
    assert_eq!(properties.keys().collect::<Vec<_>>(), ["linger.ms", "sasl.mechanism"]);
    let text = minimal_with("kafka", "properties: {linger.ms: 1, queue.buffering.max.ms: 5}");
    assert_only(&text, Kind::Conflict, 7, 34, "two names of one property");
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let none = waltide::config::Environment::default();
    let errors = waltide::config::load(Some("/not/there.yaml".as_ref()), &none).unwrap_err();
    assert_eq!(errors.iter().next().unwrap().kind, Kind::Unreadable);
    assert!(errors.to_string().contains("/not/there.yaml"), "{errors}");

    let path = std::env::temp_dir().join(format!("waltide-{}-latin1.yaml", std::process::id()));
    std::fs::write(&path, b"pipelines:\n  caf\xe9:\n").unwrap();
    let errors = waltide::config::load(Some(&path), &none).unwrap_err();
    std::fs::remove_file(&path).unwrap();
    let error = errors.iter().next().unwrap();
    assert_eq!((error.kind, error.place.line()), (Kind::Unreadable, Some(2)));
}
