//! Kafka logins with a token (OAUTHBEARER), from a file and from a command.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use waltide_stack::serde_json::json;
use waltide_stack::{Database, Kafka, KafkaOptions, Version, eventually};

use super::rotation::SecretFile;
use super::{arrive, fails_fast_as, logged, logged_once, order, set_up, shop, tells, tries_again};
use crate::support::{Pipeline, SOON};

/// How long a token of these tests lives.
const LIFE: Duration = Duration::from_secs(10);

/// A broker that wants tokens with a scope, and a new one from each connection before the old one
/// has expired.
fn kafka() -> Kafka {
    KafkaOptions::new()
        .protocol("SASL_PLAINTEXT")
        .setting("sasl.enabled.mechanisms", "OAUTHBEARER")
        .setting("listener.name.client.oauthbearer.connections.max.reauth.ms", "60000")
        .setting(
            "listener.name.client.oauthbearer.sasl.jaas.config",
            "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
             unsecuredLoginStringClaim_sub=\"broker\" \
             unsecuredValidatorRequiredScope=\"publish\";",
        )
        .start()
}

/// A script that prints a token for this scope, and leaves a line each time it is run.
fn issue(scope: &str, life: Duration, runs: &str) -> String {
    let life = life.as_secs();
    format!(
        r#"encode() {{ printf %s "$1" | base64 -w0 | tr '+/' '-_' | tr -d '='; }}
now=$(date +%s)
printf '%s.%s.' "$(encode '{{"alg":"none"}}')" \
    "$(encode "{{\"sub\":\"waltide\",\"scope\":\"{scope}\",\"iat\":$now,\"exp\":$((now + {life}))}}")"
echo run >> {runs}
"#
    )
}

/// A pipeline whose topics are there.
fn pipeline<'a>(database: &'a Database, kafka: &Kafka) -> Pipeline<'a> {
    let pipeline = set_up(database).into_kafka(kafka);
    let checkpoints = format!("{}.waltide.checkpoint", pipeline.name());
    kafka.create_topic(&checkpoints, 1, &[("cleanup.policy", "compact")]);
    pipeline.with(
        "kafka.properties",
        json!({ "security.protocol": "sasl_plaintext", "sasl.mechanism": "OAUTHBEARER" }),
    )
}

#[test]
fn a_token_of_a_command_is_asked_for_again_before_it_expires() {
    let kafka = kafka();
    let database = shop(Version::NEWEST, "token command");
    let runs = SecretFile::of(&database, "runs", "");
    let script = SecretFile::of(&database, "sh", &issue("publish", LIFE, runs.path()));
    let pipeline =
        pipeline(&database, &kafka).with("kafka.token_command", vec!["sh", script.path()]);
    let daemon = pipeline.launch();
    // The part of the client library that makes topics cannot log in with a token.
    let topic = pipeline.topic("public.orders");
    order(&database, 1);
    let told = tells(&daemon, "WT305", &[topic.name(), "OAUTHBEARER", "create it by hand"]);
    fails_fast_as(&pipeline, &told);
    kafka.create_topic(topic.name(), 1, &[]);
    arrive(&pipeline, &[1]);
    daemon.wait_ready();
    let count = || fs::read_to_string(runs.path()).expect("the runs").lines().count();
    let before = count();
    let (started, mut id) = (Instant::now(), 1);
    // Through the life of two tokens and into the third.
    while started.elapsed() < LIFE * 5 / 2 {
        id += 1;
        order(&database, id);
        thread::sleep(Duration::from_millis(500));
    }
    arrive(&pipeline, &(1..=u64::from(id)).collect::<Vec<_>>());
    logged_once(&daemon, &["WT305"]);
    assert!(count() >= before + 2, "{before} runs and then {}", count());
    // No command: those there are run out, and new ones are asked for until there is one.
    script.write("echo 'the issuer is away' >&2; exit 1");
    let waited = Instant::now();
    eventually("it is told", SOON + LIFE, || {
        id += 1;
        order(&database, id);
        thread::sleep(Duration::from_millis(500));
        logged(&daemon).iter().any(|told| told.code == "WT302").then_some(())
    });
    eprintln!("told after {:?}", waited.elapsed());
    tells(&daemon, "WT302", &["the issuer is away", "token_command"]);
    tries_again(&daemon);
    script.write(&issue("publish", LIFE, runs.path()));
    // The brokers ended connections meanwhile: what was on its way may have come twice.
    let expected: Vec<u64> = (1..=u64::from(id)).collect();
    eventually("every row is there, in order", SOON, || {
        let records = topic.read_json();
        let found = records.iter().filter_map(|record| record.value["after"]["id"].as_u64());
        let mut firsts: Vec<u64> = Vec::new();
        found.for_each(|id| {
            if !firsts.contains(&id) {
                firsts.push(id)
            }
        });
        (firsts == expected).then_some(())
    });
    daemon.wait_ready();
    assert!(!daemon.log().contains("eyJ"), "a token is in the log");
    daemon.terminate();
}

#[test]
fn a_token_that_is_refused_is_told_and_read_again() {
    let kafka = kafka();
    let database = shop(Version::NEWEST, "token file");
    let file = SecretFile::of(&database, "token", &token("read", LIFE * 60));
    let pipeline = pipeline(&database, &kafka).with("kafka.token_file", file.path());
    kafka.create_topic(pipeline.topic("public.orders").name(), 1, &[]);
    order(&database, 1);
    let daemon = pipeline.launch();
    let told = tells(&daemon, "WT302", &["insufficient_scope", "token_file"]);
    fails_fast_as(&pipeline, &told);
    tries_again(&daemon);
    file.write(&token("publish", Duration::ZERO));
    tells(&daemon, "WT302", &["the token has expired"]);
    file.write(&token("publish", LIFE * 60));
    arrive(&pipeline, &[1]);
    daemon.wait_ready();
    assert!(!daemon.log().contains("eyJ"), "a token is in the log");
    daemon.terminate();
}

/// The token that the script would print.
fn token(scope: &str, life: Duration) -> String {
    let script = issue(scope, life, "/dev/null");
    let printed = std::process::Command::new("sh").args(["-c", &script]).output();
    String::from_utf8(printed.expect("a shell").stdout).expect("a token")
}
