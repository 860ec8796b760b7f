//! Secrets: taken, passed on, never shown.

use waltide::config::{Environment, MASK, Secret, mask_urls, parse};

use super::{MINIMAL, TemporaryFile, load_with, minimal_with};

/// Every secret of these tests has it, and nothing else does.
pub(crate) const MARK: &str = "hunter2";

fn assert_hides(shown: &str) {
    assert!(!shown.contains(MARK), "{shown}");
}

#[test]
fn secrets_appear_nowhere_in_what_is_printed() {
    let file = TemporaryFile::new("secret", "hunter2-file\n");
    let text = format!(
        "\
pipelines:
  shop:
    source:
      url: postgres://waltide:hunter2-url@db:5432/shop?sslpassword=hunter2-parameter
      tables: [public.*]
    kafka:
      bootstrap_servers: kafka:9092
      properties:
        sasl.username: ${{file:{path}}}
        sasl.password: hunter2-property
        ssl.key.pem: |
          hunter2-pem
          hunter2-pem
        sasl.oauthbearer.token.endpoint.url: https://user:hunter2-endpoint@idp/token
    registry:
      url: http://registry:8081
      username: ${{file:{path}}}
      password: ${{REGISTRY_PASSWORD}}
  two:
    source:
      url: postgres://waltide@db:5432/two?password=hunter2-parameter
      tables: [public.*]
    kafka:
      bootstrap_servers: kafka:9092
    registry:
      url: http://user:hunter2-registry@registry:8081
",
        path = file.path()
    );
    let loaded = load_with(
        &text,
        &[
            ("REGISTRY_PASSWORD", "hunter2-variable"),
            ("PGPASSWORD", "hunter2-pgpassword"),
            ("WALTIDE_PIPELINES__TWO__KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2-overlay"),
        ],
    );
    let shop = &loaded.config.pipelines[0];
    assert_eq!(shop.kafka.properties["sasl.username"].expose(), "hunter2-file");
    let shown = loaded.show();
    assert_hides(&shown);
    for key in ["url: postgres://waltide:", "sasl.password:", "ssl.key.pem:", "password:"] {
        let line = shown.lines().find(|line| line.trim_start().starts_with(key)).unwrap();
        assert!(line.contains(MASK), "{line}");
    }
    // A user name from a file is in the settled configuration as it is, and prints in Debug; all
    // else is masked there as well.
    let debugged = format!("{:?}", loaded.config).replace("username: \"hunter2-file\"", "");
    assert_hides(&debugged);
    assert_hides(&format!("{:?}", loaded.warnings));
    for warning in &loaded.warnings {
        assert_hides(&warning.to_string());
    }
}

#[test]
fn a_secret_prints_as_its_mask_whatever_prints_it() {
    let secret = Secret::new("hunter2");
    assert_eq!(format!("{secret} {secret:?} {secret:#?}"), [MASK; 3].join(" "));
    assert_eq!(serde_json::to_string(&secret).unwrap(), format!("\"{MASK}\""));
    assert_eq!(secret.expose(), "hunter2");
}

#[test]
fn an_environment_prints_its_names_only() {
    let environment: Environment = [("PGPASSWORD", "hunter2")].into_iter().collect();
    assert_eq!(format!("{environment:?}"), "{\"PGPASSWORD\"}");
}

#[test]
fn errors_do_not_repeat_secrets() {
    for (group, lines) in [
        ("registry", "pasword: hunter2"),
        ("registry", "password: [hunter2]"),
        ("registry", "password: hunter2"),
        ("registry", "username: u\npassword: hunter2\npassword_file: /f"),
        ("registry", "password: \"hunter2"),
        ("registry", "password: hunter2: x"),
        ("registry", "password: ${hunter2"),
        ("registry", "password: ${A:hunter2}"),
        ("registry", "password: ${A:-${hunter2}}"),
        ("registry", "password hunter2"),
        ("registry", "url: http://u:hunter2@"),
        ("registry", "username:\n  password: hunter2"),
        ("kafka", "properties:\n  sasl.pasword: hunter2"),
        ("kafka", "properties:\n  sasl.password: [hunter2]"),
        ("kafka", "properties:\n  sasl: {password: hunter2}"),
        ("kafka", "properties: [sasl.password=hunter2]"),
        ("kafka", "properties: hunter2"),
        ("kafka", "topic: http://u:hunter2@x"),
        ("kafka", "bootstrap_servers: SASL_SSL://u:hunter2@kafka:9092"),
        ("source", "url: postgres://u:hunter2@db/shop"),
        ("source", "url: postgres://u:hunter2@/"),
        ("source", "url: [postgres://u:hunter2@db/shop]"),
        ("source", "url: mysql://u:hunter2@db/shop"),
        ("source", "url: u:hunter2@db/shop"),
        ("source", "urls: postgres://u:hunter2@db/shop"),
        ("source", "? postgres://u:hunter2@db/shop\n: x"),
        ("source", "postgres://u:hunter2@db/shop: x"),
        ("source", "slot: postgres://u:hunter2@db/shop"),
        ("source", "slot: !!binary hunter2"),
        ("source", "slot: *hunter2"),
    ] {
        // Twice the same key, or a broken one: each is an error of its own.
        let text = minimal_with(group, lines);
        let errors = parse("waltide.yaml", &text, &Environment::default());
        let Err(errors) = errors else { panic!("{lines} should be refused") };
        assert_hides(&errors.to_string());
        assert_hides(&format!("{errors:?}"));
    }
}

#[test]
fn errors_in_what_comes_from_a_file_do_not_repeat_it() {
    let file = TemporaryFile::new("hidden", "hunter2 hunter2");
    for (group, key) in
        [("source", "slot"), ("source", "binary"), ("kafka", "topic"), ("", "profile")]
    {
        let text = minimal_with(group, &format!("{key}: ${{file:{}}}", file.path()));
        let errors = parse("waltide.yaml", &text, &Environment::default()).unwrap_err();
        assert_hides(&errors.to_string());
        assert_hides(&format!("{errors:?}"));
    }
}

#[test]
fn a_variable_that_is_refused_does_not_show_its_value() {
    for name in [
        "WALTIDE_PIPELINES__SHOP__REGISTRY__PASWORD",
        "WALTIDE_PIPELINES__SHOP__SOURCE__URL",
        "WALTIDE_PIPELINES__SHOP__KAFKA__PROPERTIES__SASL_PASWORD",
        "WALTIDE_PIPELINES__SHOP__REGISTRY",
    ] {
        let environment: Environment = [(name, "hunter2")].into_iter().collect();
        let errors = parse("waltide.yaml", MINIMAL, &environment).unwrap_err();
        assert_hides(&errors.to_string());
    }
}

#[test]
fn the_password_of_a_url_is_masked_wherever_the_url_stands() {
    for (text, shown) in [
        ("postgres://u:hunter2@db/x", "postgres://u:********@db/x"),
        ("see http://u:hun/ter2@h/p and", "see http://u:********@h/p and"),
        ("http://h:80/p", "http://h:80/p"),
        ("http://u@h", "http://u@h"),
        ("a://u:hunter2@b c://u:hunter2@d", "a://u:********@b c://u:********@d"),
        ("postgres://h/x?password=hunter2&a=b", "postgres://h/x?password=********&a=b"),
        ("no url", "no url"),
    ] {
        assert_eq!(mask_urls(text), shown);
    }
}
