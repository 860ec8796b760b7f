//! What a configuration comes to.

use std::path::{Path, PathBuf};

use waltide::config::settled::{
    Columns, Delivery, Envelope, KafkaLogin, LogFormat, LogLevel, Profile, RegistryLogin, Snapshot,
};
use waltide::config::{Credential, Environment, TableName, json_schema};

use super::{DESIGN, MINIMAL, TemporaryFile, errors, load, load_with, minimal_with};

#[test]
fn the_example_of_the_design_means_what_it_says() {
    let loaded = load(DESIGN);
    assert_eq!(loaded.warnings, []);
    let [shop] = loaded.config.pipelines.as_slice() else { panic!("one pipeline") };
    assert_eq!(shop.name, "shop");
    assert_eq!(shop.source.url.expose(), "postgres://waltide@db:5432/shop");
    assert_eq!(shop.source.slot, "waltide_shop");
    assert_eq!(shop.source.publication, "waltide_shop");
    assert!(shop.source.captures("public", "orders"));
    assert!(!shop.source.captures("audit", "orders"));
    assert_eq!(shop.kafka.bootstrap_servers, "kafka:9092");
    let orders = TableName { schema: "public".into(), table: "orders".into() };
    assert_eq!(shop.topic_of(&orders), "shop.public.orders");
    assert!(shop.kafka.properties.is_empty());
    assert_eq!(shop.registry.urls, ["http://registry:8081"]);
    assert_eq!(shop.registry.login, RegistryLogin::None);
    assert_eq!((shop.profile, shop.envelope), (Profile::Waltide, Envelope::Full));
    assert_eq!(shop.spool_directory(), Path::new("/var/lib/waltide/shop"));
    assert_eq!(loaded.config.http.listen.to_string(), "127.0.0.1:9464");
}

#[test]
fn an_endpoint_speaks_tls_with_a_certificate_and_its_key() {
    let with = |http: &str| format!("{MINIMAL}\nhttp: {http}\n");
    assert_eq!(load(&with("{}")).config.http.tls, None);
    let tls = load(&with("{ tls: { certificate: /c.pem, key: /k.pem } }")).config.http.tls;
    let tls = tls.expect("it is given");
    assert_eq!(
        (tls.certificate.as_path(), tls.key.as_path()),
        ("/c.pem".as_ref(), "/k.pem".as_ref())
    );
    for (one, other) in [("certificate", "`key`"), ("key", "`certificate`")] {
        let errors = errors(&with(&format!("{{ tls: {{ {one}: /x }} }}")));
        assert_eq!(errors.count(), 1, "{errors}");
        assert!(errors.to_string().contains(other), "{errors}");
    }
}

#[test]
fn a_directory_stands_for_a_registry() {
    let with = |lines: &str| {
        let lines: String = lines.lines().map(|line| format!("      {line}\n")).collect();
        MINIMAL.replace("      url: http://registry:8081\n", &lines)
    };
    let own = |lines: &str| load(&with(lines)).config.pipelines[0].registry.own.clone().unwrap();
    let smallest = own("directory: /s");
    assert_eq!(smallest.directory, Path::new("/s"));
    assert_eq!(smallest.listen.to_string(), "127.0.0.1:8081");
    assert_eq!(smallest.announced, "http://127.0.0.1:8081");
    assert_eq!(smallest.token, None);
    let open = own("directory: /s\nlisten: 0.0.0.0:9000\ntoken_file: /t");
    assert_eq!(open.announced, "http://localhost:9000");
    assert_eq!(open.token, Some(Credential::File("/t".into())));
    let named = own("directory: /s\nannounce: https://schemas.shop/");
    assert_eq!(named.announced, "https://schemas.shop");
    for (lines, told) in [
        ("directory: /s\nusername: u", "keep one of the two"),
        ("directory: /s\nlisten: shop:8081", "not an address with a port"),
        ("directory: /s\nannounce: http://u:p@a", "it has no login"),
    ] {
        let errors = errors(&with(lines));
        assert_eq!(errors.count(), 1, "{lines}: {errors}");
        assert!(errors.to_string().contains(told), "{lines}: {errors}");
    }
    let second = |lines: &str| {
        let first = with("directory: /s");
        let shop = first.split_once("pipelines:\n").unwrap().1.replace("  shop:", "  other:");
        first + &shop.replace("      directory: /s\n", &lines.replace('|', "\n      "))
    };
    load(&second("      directory: /s\n"));
    load(&second("      directory: /t|listen: 127.0.0.1:8082\n"));
    for lines in ["      directory: /t\n", "      directory: /s|listen: 127.0.0.1:8082\n"] {
        let errors = errors(&second(lines));
        assert_eq!(errors.count(), 1, "{lines}: {errors}");
        assert!(errors.to_string().contains("share the directory or the address"), "{errors}");
    }
}

#[test]
fn changes_are_published_exactly_once_where_that_is_asked_for() {
    let delivery = |text: &str| load(text).config.pipelines[0].delivery;
    assert_eq!(delivery(MINIMAL), Delivery::AtLeastOnce);
    assert_eq!(delivery(&minimal_with("", "delivery: exactly_once")), Delivery::ExactlyOnce);
}

#[test]
fn without_a_word_on_snapshots_what_is_there_is_read() {
    let loaded = load(&MINIMAL.replace("    snapshot: initial\n", ""));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    assert_eq!(loaded.config, load(MINIMAL).config);
    assert!(matches!(loaded.config.pipelines[0].snapshot, Snapshot::Initial(_)));
    let never = load(&MINIMAL.replace("snapshot: initial", "snapshot: never"));
    assert_eq!(never.config.pipelines[0].snapshot, Snapshot::Never);
}

#[test]
fn the_defaults_of_the_smallest_file_are_those_of_the_design() {
    let minimal = load(MINIMAL);
    assert_eq!(minimal.config, load(DESIGN).config);
    assert_eq!(minimal.config.log.level, LogLevel::Info);
    assert_eq!(minimal.config.log.format, LogFormat::Auto);
    assert!(minimal.config.pipelines[0].source.binary);
}

#[test]
fn the_examples_hold() {
    let secret = TemporaryFile::new("example", "a secret\n");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut seen = 0;
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace("/run/secrets/kafka-password", secret.path());
        let variables = [("SHOP_PASSWORD", "one"), ("BILLING_PASSWORD", "two")];
        let loaded = load_with(&text, &variables);
        assert_eq!(loaded.warnings, [], "{}", path.display());
        seen += 1;
    }
    assert_eq!(seen, 3);
}

#[test]
fn what_two_pipelines_share_is_written_once() {
    let text = include_str!("../../examples/two-pipelines.yaml");
    let loaded = load_with(text, &[("SHOP_PASSWORD", "one"), ("BILLING_PASSWORD", "two")]);
    let [shop, billing] = loaded.config.pipelines.as_slice() else { panic!("two pipelines") };
    assert_eq!(shop.kafka.replication_factor, Some(3));
    assert_eq!(shop.kafka.partitions, None);
    assert_eq!(billing.kafka.replication_factor, Some(3));
    assert_eq!(billing.kafka.partitions, Some(6));
    assert_eq!(billing.kafka.bootstrap_servers, "kafka:9092");
    assert_eq!(billing.registry, shop.registry);
    assert_eq!(billing.source.slot, "waltide_billing");
}

#[test]
fn a_dash_in_a_name_is_an_underscore_in_slot_and_publication() {
    let loaded = load(&MINIMAL.replace("  shop:", "  shop-eu:"));
    let pipeline = &loaded.config.pipelines[0];
    assert_eq!(pipeline.name, "shop-eu");
    assert_eq!(pipeline.source.slot, "waltide_shop_eu");
    assert_eq!(pipeline.source.publication, "waltide_shop_eu");
}

#[test]
fn scalars_keep_the_text_they_were_typed_with() {
    let lines = "properties:\n  client.id: 007\n  socket.nagle.disable: true\n  linger.ms: 1.50";
    let loaded = load(&minimal_with("kafka", lines));
    let properties = &loaded.config.pipelines[0].kafka.properties;
    assert_eq!(properties["client.id"].expose(), "007");
    assert_eq!(properties["socket.nagle.disable"].expose(), "true");
    assert_eq!(properties["linger.ms"].expose(), "1.50");
}

#[test]
fn options_of_a_table_say_topic_key_and_columns() {
    let lines = "table_options:\n  public.orders:\n    topic: orders\n    key: [b, a]\n    exclude_columns: [c]\n  \
                 public.lines: {include_columns: [a]}";
    let loaded = load(&minimal_with("", lines));
    let shop = &loaded.config.pipelines[0];
    let name = |table: &str| TableName { schema: "public".into(), table: table.into() };
    let orders = &shop.table_options[&name("orders")];
    assert_eq!(orders.key, ["b", "a"]);
    assert_eq!(orders.columns, Columns::Except(vec!["c".into()]));
    assert_eq!(shop.table_options[&name("lines")].columns, Columns::Only(vec!["a".into()]));
    assert_eq!(shop.topic_of(&name("orders")), "orders");
    assert_eq!(shop.topic_of(&name("lines")), "shop.public.lines");
}

#[test]
fn the_debezium_profiles_prefix_stands_for_the_pipelines_name() {
    let loaded = load(&minimal_with("", "profile: debezium\nprefix: Server.1"));
    let shop = &loaded.config.pipelines[0];
    let orders = TableName { schema: "public".into(), table: "orders".into() };
    assert_eq!(shop.topic_of(&orders), "Server.1.public.orders");
    assert_eq!(shop.transaction_topic(), "Server.1.transaction");
    assert_eq!(shop.message_topic(), "Server.1.message");
    assert_eq!(shop.heartbeat_topic(), "__debezium-heartbeat.Server.1");
    // What is nobody else's business keeps the name.
    assert_eq!(shop.checkpoint_topic(), "shop.waltide.checkpoint");
    assert_eq!(shop.source.slot, "waltide_shop");
}

#[test]
fn a_password_file_is_read_when_it_is_needed_and_not_before() {
    let loaded = load(&minimal_with("source", "password_file: /not/there"));
    let Some(Credential::File(path)) = &loaded.config.pipelines[0].source.password else {
        panic!("a file");
    };
    assert_eq!(path, &PathBuf::from("/not/there"));

    let file = TemporaryFile::new("password", "one\n");
    let credential = Credential::File(file.path().into());
    assert_eq!(credential.read().unwrap().expose(), "one");
    std::fs::write(file.path(), "two\r\n").unwrap();
    assert_eq!(credential.read().unwrap().expose(), "two");
}

#[test]
fn a_password_may_come_from_a_command_and_from_one_place_only() {
    let password = |lines: &str| {
        load(&minimal_with("source", lines)).config.pipelines[0].source.password.clone()
    };
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let command = password("password_command: [vault, read, -field=password, \"a, b\"]");
    let expected = words(&["vault", "read", "-field=password", "a, b"]);
    assert_eq!(command, Some(Credential::Command(expected)));
    for (lines, message) in [
        ("password_command: []", "no program is named"),
        ("password_command: [a]\npassword_file: /f", "given twice"),
    ] {
        let errors = errors(&minimal_with("source", lines));
        assert!(errors.iter().next().unwrap().message.contains(message), "{errors}");
    }
    let in_url = MINIMAL.replace("waltide@", "waltide:own@");
    let in_url = in_url.replace("    source:\n", "    source:\n      password_command: [a]\n");
    assert!(errors(&in_url).to_string().contains("given twice: here and in `url`"));
}

#[test]
fn kafka_s_login_comes_from_one_place() {
    let login =
        |lines: &str| load(&minimal_with("kafka", lines)).config.pipelines[0].kafka.login.clone();
    assert_eq!(login("password_file: /f"), KafkaLogin::Password(Credential::File("/f".into())));
    assert_eq!(login("token_file: /f"), KafkaLogin::Token(Credential::File("/f".into())));
    let bearer = "properties: {sasl.mechanisms: OAuthBearer}\n";
    let command = Credential::Command(vec!["token".into()]);
    assert_eq!(login(&format!("{bearer}token_command: [token]")), KafkaLogin::Token(command));
    let unsecured =
        "properties: {sasl.mechanism: OAUTHBEARER, enable.sasl.oauthbearer.unsecure.jwt: true}";
    assert_eq!(login(unsecured), KafkaLogin::AsConfigured);
    for (lines, message) in [
        ("password_file: /f\nproperties: {sasl.password: p}", "given twice"),
        ("token_file: /f\npassword_file: /f", "two ways to log in"),
        ("token_file: /f\ntoken_command: [a]", "two ways to log in"),
        ("token_file: /f\nproperties: {sasl.mechanism: PLAIN}", "another is set"),
        ("properties: {sasl.mechanism: OAUTHBEARER}", "`token_file` is missing"),
    ] {
        let errors = errors(&minimal_with("kafka", lines));
        assert_eq!(errors.count(), 1, "{errors}");
        assert!(errors.iter().next().unwrap().message.contains(message), "{errors}");
    }
}

#[test]
fn the_password_of_the_environment_is_the_last_resort() {
    let password = |text: &str| {
        let loaded = load_with(text, &[("PGPASSWORD", "from outside")]);
        loaded.config.pipelines[0].source.password.clone()
    };
    let Some(Credential::Inline(secret)) = password(MINIMAL) else { panic!("inline") };
    assert_eq!(secret.expose(), "from outside");
    assert_eq!(password(&MINIMAL.replace("waltide@", "waltide:own@")), None);
    let file = password(&minimal_with("source", "password_file: /f"));
    assert_eq!(file, Some(Credential::File("/f".into())));
}

#[test]
fn the_registry_knows_users_and_bearers() {
    let login = |lines: &str| {
        load(&minimal_with("registry", lines)).config.pipelines[0].registry.login.clone()
    };
    let user = login("username: u\npassword_file: /f");
    let file = Credential::File("/f".into());
    assert_eq!(user, RegistryLogin::Basic { username: "u".into(), password: file.clone() });
    assert_eq!(login("token_file: /f"), RegistryLogin::Bearer(file.clone()));
    let oauth =
        login("oauth: {token_url: 'https://id/token', client_id: u, client_secret_file: /f}");
    let (token_url, id) = ("https://id/token".into(), "u".into());
    assert_eq!(oauth, RegistryLogin::Client { token_url, id, secret: file, scope: None });

    let two = MINIMAL.replace("http://registry:8081", "http://a:8081, http://b:8081/");
    let registry = load(&two).config.pipelines[0].registry.clone();
    assert_eq!(registry.urls, ["http://a:8081", "http://b:8081"]);

    let text = MINIMAL.replace("http://registry:8081", "https://u%40x:p%3A@registry/path/");
    let registry = load(&text).config.pipelines[0].registry.clone();
    assert_eq!(registry.urls, ["https://registry/path"]);
    let RegistryLogin::Basic { username, password: Credential::Inline(password) } = registry.login
    else {
        panic!("a user")
    };
    assert_eq!((username.as_str(), password.expose()), ("u@x", "p:"));
}

#[test]
fn what_is_shown_is_whole_marked_and_can_be_read_again() {
    let loaded = load_with(
        include_str!("../../examples/two-pipelines.yaml"),
        &[("SHOP_PASSWORD", "one"), ("BILLING_PASSWORD", "two"), ("WALTIDE_LOG__LEVEL", "debug")],
    );
    let shown = loaded.show();
    assert!(shown.contains("slot: waltide_shop  "), "{shown}");
    assert!(shown.lines().any(|line| line.contains("slot:") && line.ends_with("# default")));
    assert!(shown.contains("# WALTIDE_LOG__LEVEL"));
    let mut again = load(&shown).config;
    // What is masked cannot come back.
    for (pipeline, original) in again.pipelines.iter_mut().zip(&loaded.config.pipelines) {
        assert!(pipeline.source.url.expose().contains("waltide:********@"));
        pipeline.source.url = original.source.url.clone();
    }
    assert_eq!(again, loaded.config);
}

#[test]
fn everything_the_full_example_says_is_shown_again() {
    let secret = TemporaryFile::new("full", "hidden");
    let text = include_str!("../../examples/full.yaml");
    let loaded = load(&text.replace("/run/secrets/kafka-password", secret.path()));
    let shown = loaded.show();
    assert!(!shown.contains("# default"), "{shown}");
    let mut again = load(&shown).config;
    let kafka = &mut again.pipelines[0].kafka;
    let password = loaded.config.pipelines[0].kafka.properties["sasl.password"].clone();
    kafka.properties.insert("sasl.password".into(), password);
    assert_eq!(again, loaded.config);
}

#[test]
fn the_schema_has_every_key_and_the_defaults_that_hold() {
    let schema = json_schema();
    let group = |path: &str| {
        schema.pointer(path).and_then(|group| group.as_object()).unwrap_or_else(|| panic!("{path}"))
    };
    let pipeline = "/properties/pipelines/additionalProperties/properties";
    let shown = load(MINIMAL).show();
    for path in [
        pipeline.to_owned(),
        format!("{pipeline}/source/properties"),
        format!("{pipeline}/kafka/properties"),
        format!("{pipeline}/registry/properties"),
        "/properties/http/properties".to_owned(),
        "/properties/log/properties".to_owned(),
    ] {
        for (name, key) in group(&path) {
            let Some(default) = key.get("default") else { continue };
            let default = default.as_str().map_or_else(|| default.to_string(), str::to_owned);
            let line =
                shown.lines().find(|line| line.trim_start().starts_with(&format!("{name}:")));
            let line = line.unwrap_or_else(|| panic!("{name} is not shown:\n{shown}"));
            let value = line.trim_start()[name.len() + 1..].trim_start();
            let value = value.trim_start_matches('"');
            assert!(value.starts_with(&default), "{name}: {default} is documented, {value} holds");
        }
    }
    assert!(schema.to_string().contains("\"additionalProperties\":false"));
    assert!(schema.to_string().contains("exactly_once"), "what this version takes");
}

#[test]
fn a_file_and_no_file_are_both_loaded() {
    let file = TemporaryFile::new("load.yaml", MINIMAL);
    let path = Path::new(file.path());
    let loaded = waltide::config::load(Some(path), &Environment::default()).unwrap();
    assert_eq!(loaded.config, load(MINIMAL).config);

    let errors = waltide::config::load(None, &Environment::default()).unwrap_err();
    assert!(errors.to_string().contains("`pipelines` is missing"), "{errors}");
}
