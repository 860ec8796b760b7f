//! Keys from the environment, and `${...}` inside values.

use waltide::config::settled::RegistryLogin;
use waltide::config::{Credential, Environment, Kind, Place, TableName, load as load_file};

use super::{MINIMAL, TemporaryFile, errors, errors_with, load_with, minimal_with};

#[test]
fn a_variable_wins_over_the_file() {
    let loaded = load_with(
        MINIMAL,
        &[
            ("WALTIDE_PIPELINES__SHOP__SOURCE__URL", "postgres://other@db/shop"),
            ("WALTIDE_PIPELINES__SHOP__SOURCE__TABLES", "public.orders, audit.*"),
            ("WALTIDE_PIPELINES__SHOP__SOURCE__BINARY", "false"),
            ("WALTIDE_PIPELINES__SHOP__KAFKA__PARTITIONS", "12"),
            ("WALTIDE_PIPELINES__SHOP__ENVELOPE", "flat"),
            ("WALTIDE_HTTP__LISTEN", "0.0.0.0:9464"),
        ],
    );
    let shop = &loaded.config.pipelines[0];
    assert_eq!(shop.source.url.expose(), "postgres://other@db/shop");
    assert!(shop.source.captures("audit", "x") && !shop.source.captures("public", "x"));
    assert!(!shop.source.binary);
    assert_eq!(shop.kafka.partitions, Some(12));
    assert_eq!(shop.envelope.as_str(), "flat");
    assert_eq!(loaded.config.http.listen.to_string(), "0.0.0.0:9464");
}

#[test]
fn the_environment_alone_makes_a_pipeline() {
    let variables: Environment = [
        ("WALTIDE_PIPELINES__SHOP_EU__SOURCE__URL", "postgres://waltide@db/shop"),
        ("WALTIDE_PIPELINES__SHOP_EU__SOURCE__TABLES", "public.*"),
        ("WALTIDE_PIPELINES__SHOP_EU__KAFKA__BOOTSTRAP_SERVERS", "a:9092, b:9092"),
        ("WALTIDE_PIPELINES__SHOP_EU__REGISTRY__URL", "http://registry:8081"),
        ("WALTIDE_PIPELINES__SHOP_EU__SNAPSHOT", "never"),
    ]
    .into_iter()
    .collect();
    let loaded = load_file(None, &variables).unwrap();
    assert_eq!(loaded.config.pipelines[0].name, "shop_eu");
    assert_eq!(loaded.config.pipelines[0].kafka.bootstrap_servers, "a:9092,b:9092");
    assert_eq!(loaded.warnings, []);
}

#[test]
fn a_pipeline_is_found_whatever_joins_its_name() {
    let text = MINIMAL.replace("  shop:", "  shop-eu:");
    let loaded = load_with(&text, &[("WALTIDE_PIPELINES__SHOP_EU__SOURCE__SLOT", "other")]);
    assert_eq!(loaded.config.pipelines.len(), 1);
    assert_eq!(loaded.config.pipelines[0].source.slot, "other");
}

#[test]
fn properties_and_tables_are_found_by_their_folded_names() {
    let text = minimal_with("kafka", "properties:\n  linger.ms: 5");
    let loaded = load_with(
        &text,
        &[
            ("WALTIDE_PIPELINES__SHOP__KAFKA__PROPERTIES__LINGER_MS", "20"),
            ("WALTIDE_PIPELINES__SHOP__KAFKA__PROPERTIES__SASL_PASSWORD", "a$b${c}"),
            ("WALTIDE_PIPELINES__SHOP__KAFKA__TOPIC_CONFIG__RETENTION_MS", "-1"),
            ("WALTIDE_PIPELINES__SHOP__TABLE_OPTIONS__PUBLIC__ORDERS__KEY", "a,b"),
        ],
    );
    let shop = &loaded.config.pipelines[0];
    assert_eq!(shop.kafka.properties.len(), 2);
    assert_eq!(shop.kafka.properties["linger.ms"].expose(), "20");
    assert_eq!(shop.kafka.properties["sasl.password"].expose(), "a$b${c}", "taken as it is");
    assert_eq!(shop.kafka.topic_config["retention.ms"].expose(), "-1");
    let orders = TableName { schema: "public".into(), table: "orders".into() };
    assert_eq!(shop.table_options[&orders].key, ["a", "b"]);
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let loaded = load_with(MINIMAL, &[("WALTIDE_PIPELINES__SHOP__SOURCE__SLOT", "")]);
    assert_eq!(loaded.config.pipelines[0].source.slot, "waltide_shop");
}

#[test]
fn a_mistake_in_a_variable_names_the_variable() {
    for (variable, value, told) in [
        ("WALTIDE_PIPELINES__SHOP__SOURCE__SLOTT", "x", "did you mean `SLOT`?"),
        ("WALTIDE_PIPELINE__SHOP__SOURCE__SLOT", "x", "did you mean `PIPELINES`?"),
        ("WALTIDE_PIPELINES__SHOP__SOURCE", "x", "WALTIDE_PIPELINES__SHOP__SOURCE__URL"),
        ("WALTIDE_PIPELINES__SHOP__SOURCE__SLOT__X", "x", "two underscores"),
        ("WALTIDE_PIPELINES__SHOP__KAFKA__PARTITIONS", "many", "a whole number from 1"),
        ("WALTIDE_PIPELINES__SHOP__DELIVERY", "exactly_one", "exactly_once"),
        ("WALTIDE_PIPELINES__SHOP__KAFKA__PROPERTIES__ACKS", "1", "in-sync replicas"),
        ("WALTIDE_HTTP__LISTEN", "localhost:1", "127.0.0.1:9464"),
        ("WALTIDE___X", "x", "there it can be `pipelines`"),
    ] {
        let errors = errors_with(MINIMAL, &[(variable, value)]);
        let [error] = errors.iter().as_slice() else { panic!("{variable}: {errors}") };
        assert_eq!(error.place, Place::Variable(variable.into()), "{variable}");
        let flowed = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flowed.contains(told), "{variable}: {error}");
    }
}

#[test]
fn two_variables_for_one_key_are_refused() {
    let text = MINIMAL.replace("  shop:", "  shop-eu:");
    let errors = errors_with(
        &text,
        &[
            ("WALTIDE_PIPELINES__SHOP_EU__SOURCE__SLOT", "a"),
            ("WALTIDE_PIPELINES__shop_eu__SOURCE__SLOT", "b"),
        ],
    );
    assert_eq!(errors.iter().next().unwrap().kind, Kind::DuplicateKey);
}

#[test]
fn what_kubernetes_puts_into_every_container_is_no_mistake() {
    let loaded = load_with(
        MINIMAL,
        &[
            ("WALTIDE_SERVICE_HOST", "10.0.0.1"),
            ("WALTIDE_SERVICE_PORT", "9464"),
            ("WALTIDE_SERVICE_PORT_HTTP", "9464"),
            ("WALTIDE_PORT", "tcp://10.0.0.1:9464"),
            ("WALTIDE_PORT_9464_TCP_ADDR", "10.0.0.1"),
            ("WALTIDE_CONFIG", "waltide.yaml"),
        ],
    );
    assert_eq!(loaded.warnings, []);
}

#[test]
fn a_variable_with_one_underscore_too_few_is_warned_of() {
    let loaded = load_with(MINIMAL, &[("WALTIDE_HTTP_LISTEN", "0.0.0.0:9464")]);
    let [warning] = loaded.warnings.as_slice() else { panic!("{:?}", loaded.warnings) };
    assert!(warning.message.contains("two underscores"), "{warning}");
}

#[test]
fn values_are_filled_in_from_the_environment_and_from_files() {
    let file = TemporaryFile::new("substituted", "from a file: $A ${B}\n");
    let lines =
        format!("username: ${{USER_NAME}}-${{SUFFIX:-x}}$$1$\npassword: ${{file:{}}}", file.path());
    let text = minimal_with("registry", &lines);
    let loaded = load_with(&text, &[("USER_NAME", "waltide"), ("SUFFIX", "")]);
    let RegistryLogin::Basic { username, password: Credential::Inline(password) } =
        &loaded.config.pipelines[0].registry.login
    else {
        panic!("a user")
    };
    assert_eq!(username, "waltide-x$1$");
    assert_eq!(password.expose(), "from a file: $A ${B}", "not looked through again");
}

#[test]
fn what_is_filled_in_may_be_a_flag_a_number_or_a_list() {
    let text = minimal_with("kafka", "partitions: \"${N}\"")
        .replace("[public.*]", "\"${TABLES}\"")
        .replace("    source:\n", "    source:\n      binary: ${BINARY:-false}\n");
    let loaded = load_with(&text, &[("N", "3"), ("TABLES", "a.b, c.d")]);
    let shop = &loaded.config.pipelines[0];
    assert_eq!(shop.kafka.partitions, Some(3));
    assert!(!shop.source.binary);
    assert!(shop.source.captures("a", "b") && shop.source.captures("c", "d"));
}

#[test]
fn what_is_filled_in_cannot_change_the_structure() {
    let text = minimal_with("registry", "username: ${X}\npassword: p");
    let value = "u\n    delivery: exactly_once";
    let errors = errors_with(&text, &[("X", value)]);
    let [error] = errors.iter().as_slice() else { panic!("{errors}") };
    assert!(error.message.contains("line break"), "{error}");
}

#[test]
fn a_value_that_comes_out_empty_counts_as_not_given() {
    let text = minimal_with("source", "slot: ${SLOT:-}");
    assert_eq!(load_with(&text, &[]).config.pipelines[0].source.slot, "waltide_shop");
}

#[test]
fn what_cannot_be_filled_in_is_told_with_its_line() {
    for (value, told) in [
        ("${NOT_SET}", "NOT_SET is not set"),
        ("${file:/not/there}", "/not/there cannot be read"),
        ("${NOT CLOSED", "not closed"),
        ("${A:-${B}}", "nested"),
        ("${1A}", "not a variable's name"),
        ("${}", "not a variable's name"),
        ("${file:}", "names no file"),
    ] {
        let errors = errors(&minimal_with("source", &format!("slot: \"{value}\"")));
        let [error] = errors.iter().as_slice() else { panic!("{value}: {errors}") };
        assert_eq!(error.kind, Kind::Substitution, "{value}");
        assert_eq!((error.place.line(), error.place.column()), (Some(4), Some(13)), "{value}");
        assert_eq!(error.key, "pipelines.shop.source.slot");
        let whole = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(whole.contains(told), "{value}: {error}");
    }
}
