//! A Kafka with TLS, passwords and access control: what `waltide setup` prints is enough, and
//! nothing of it can be left out.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use waltide_stack::serde_json::{self, Value, json};
use waltide_stack::{Database, Kafka, KafkaOptions, Version};

use super::{arrive, order, pipeline, shop, tells};
use crate::cli::waltide;
use crate::support::Pipeline;

/// The user, as Kafka knows it.
const USER: &str = "User:waltide";

/// A file that goes away with its owner.
struct File(PathBuf);

impl File {
    fn of(name: &str, text: &str) -> Self {
        let name = format!("{}-{name}", std::process::id());
        let file = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        fs::write(&file.0, text).expect("a file");
        file
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A broker that lets nobody do anything, and a certificate by which it is known.
fn kafka() -> (Kafka, File) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
    let params = rcgen::CertificateParams::new(names).expect("names of a host");
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    let store = File::of("kafka.pem", &format!("{}{certificate}", key.serialize_pem()));
    let kafka = KafkaOptions::new()
        .protocol("SASL_SSL")
        .setting("ssl.keystore.type", "PEM")
        .setting("ssl.keystore.location", store.path())
        .setting("sasl.enabled.mechanisms", "PLAIN")
        .setting(
            "listener.name.client.plain.sasl.jaas.config",
            "org.apache.kafka.common.security.plain.PlainLoginModule required \
             user_waltide=\"secret\";",
        )
        .setting("authorizer.class.name", "org.apache.kafka.metadata.authorizer.StandardAuthorizer")
        // The broker itself, and the stack's own helpers.
        .setting("super.users", "User:ANONYMOUS")
        .start();
    (kafka, File::of("kafka-ca.pem", &certificate))
}

/// The arguments of the commands that `waltide setup` prints, for our user.
#[track_caller]
fn printed(pipeline: &Pipeline<'_>) -> Vec<Vec<String>> {
    let file = pipeline.file();
    let ended = waltide(&["setup", "--config", file.path().to_str().expect("a path in UTF-8")]);
    assert_eq!(ended.status, Some(0), "{}", ended.everything);
    let commands = ended.out.lines().filter_map(|line| line.split_once("kafka-acls.sh "));
    let arguments = commands.map(|(_, arguments)| {
        let words = arguments.split(' ').map(|word| word.replace("User:USER", USER));
        // The address is the user's; the tool is run on the broker's own listener.
        words.skip(2).collect()
    });
    arguments.collect()
}

fn allow(kafka: &Kafka, command: &[String]) {
    kafka.acls(command.iter().map(String::as_str));
}

/// One of the operations that were printed, left out.
struct Without {
    operation: &'static str,
    /// Of which resource.
    on: &'static str,
    /// What the message names.
    says: &'static [&'static str],
}

const EACH: [Without; 4] = [
    Without { operation: "Create", on: "--topic", says: &["create", "waltide.checkpoint"] },
    // Who may write to a topic may see that it is there, and who may not is stopped at that.
    Without { operation: "Write", on: "--topic", says: &["describe", "public.orders"] },
    Without { operation: "Read", on: "--topic", says: &["waltide.checkpoint"] },
    Without { operation: "Write", on: "--transactional-id", says: &["transactional id"] },
];

#[test]
fn what_setup_prints_for_kafka_is_enough_and_nothing_of_it_can_be_left_out() {
    let (kafka, ca) = kafka();
    thread::scope(|scope| {
        for without in &EACH {
            let (kafka, ca) = (&kafka, &ca);
            scope.spawn(move || is_missed(kafka, ca, without));
        }
    });
    check_says_what_is_missing(&kafka, &ca);
}

/// A pipeline that logs in there.
fn logs_in<'a>(database: &'a Database, kafka: &Kafka, ca: &File) -> Pipeline<'a> {
    pipeline(database).into_kafka(kafka).with(
        "kafka.properties",
        json!({
            "security.protocol": "sasl_ssl",
            "ssl.ca.location": ca.path(),
            "sasl.mechanism": "PLAIN",
            "sasl.username": "waltide",
            "sasl.password": "secret",
        }),
    )
}

fn check_says_what_is_missing(kafka: &Kafka, ca: &File) {
    let database = shop(Version::NEWEST, "acl check");
    let pipeline = logs_in(&database, kafka, ca);
    let check = || {
        let file = pipeline.file();
        let path = file.path().to_str().expect("a path in UTF-8");
        let ended = waltide(&["check", "--json", "--config", path]);
        let lines = ended.out.lines().map(serde_json::from_str::<Value>);
        let findings: Vec<Value> = lines.collect::<Result<_, _>>().expect("JSON");
        let refused = findings.into_iter().find(|it| it["check"] == "kafka.create");
        (ended.status, refused.expect("topics are looked at"))
    };
    let (status, refused) = check();
    assert_eq!(status, Some(1));
    assert_eq!((&refused["level"], &refused["code"]), (&"error".into(), &"WT304".into()));
    for step in refused["mend"].as_array().expect("steps") {
        let command = step["text"].as_str().expect("a text");
        let arguments = command.strip_prefix("kafka-acls.sh ").expect("Kafka's tool").split(' ');
        kafka.acls(arguments.skip(2));
    }
    let (status, allowed) = check();
    assert_eq!((status, &allowed["level"]), (Some(0), &"ok".into()), "{allowed}");
    assert!(!kafka.topics().iter().any(|topic| topic.starts_with(pipeline.name())));
}

fn is_missed(kafka: &Kafka, ca: &File, without: &Without) {
    let name = format!("acl {} {}", without.operation, without.on.trim_start_matches('-'));
    let database = shop(Version::NEWEST, &name);
    let pipeline = logs_in(&database, kafka, ca);
    let mut missing = Vec::new();
    for mut command in printed(&pipeline) {
        let place = command
            .windows(2)
            .position(|pair| pair[0] == "--operation" && pair[1] == without.operation);
        if let Some(place) = place.filter(|_| command.iter().any(|word| word == without.on)) {
            missing.push(command.clone());
            command.drain(place..place + 2);
        }
        if command.iter().any(|word| word == "--operation") {
            allow(kafka, &command);
        }
    }
    assert!(!missing.is_empty(), "{name} is not printed");
    let daemon = pipeline.launch();
    tells(&daemon, "WT304", without.says);
    missing.iter().for_each(|command| allow(kafka, command));
    daemon.wait_ready();
    order(&database, 1);
    arrive(&pipeline, &[1]);
    daemon.terminate();
}
