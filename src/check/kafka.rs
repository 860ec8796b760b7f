//! The cluster, and topics that are there or will be.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::finding::Finding;
use super::tables::Captured;
use crate::config::settled::{Delivery, LargeRows, Pipeline};
use crate::kafka::{Admin, ClusterFacts, Error, TRANSACTION_TIMEOUT, TopicFacts, TopicOptions};
use crate::pipeline;

/// Fewer replicas lose records with two disks, or stand still while one broker is down.
const REPLICAS: usize = 3;

/// What Kafka and librdkafka take unless they are told otherwise.
const MESSAGE_BYTES: usize = 1_000_000;

/// Looks at the cluster and at the topics of a pipeline.
pub(super) async fn look(settings: &Pipeline, tables: &[Captured]) -> Vec<Finding> {
    const CHECK: &str = "kafka.connect";
    let brokers = &settings.kafka.bootstrap_servers;
    let topics = Topics::of(settings, tables);
    let names: Vec<String> = topics.all().cloned().collect();
    let admin = match Admin::new(&pipeline::kafka_settings(&settings.kafka)) {
        Ok(admin) => admin,
        Err(error) => return vec![refused(CHECK, &error, settings, tables)],
    };
    let facts = match admin.look(&names).await {
        Ok(facts) => facts,
        Err(error) => return vec![refused(CHECK, &error, settings, tables)],
    };
    let mut findings = vec![Finding::ok(CHECK, format!("{brokers} lets us in"))];
    findings.extend(brokers_of(&facts));
    findings.extend(topics.judge(&facts, settings));
    findings.push(largest(&facts, settings));
    if settings.delivery == Delivery::ExactlyOnce {
        findings.extend(transactions(&facts, settings));
    }
    if facts.config.is_empty() {
        let what = "the brokers' settings are not shown to us: replicas in sync, clean-up and sizes \
                    were not looked at";
        findings.push(Finding::ok("kafka.settings", what));
    }
    if let Some(missing) = topics.first_missing(&facts) {
        findings.push(match admin.could_make(missing, &options(settings)).await {
            Ok(()) => Finding::ok("kafka.create", "topics can be made as they are configured"),
            Err(error) => refused("kafka.create", &error, settings, tables),
        });
    }
    findings
}

fn options(settings: &Pipeline) -> TopicOptions {
    let kafka = &settings.kafka;
    let plain = kafka.topic_config.iter();
    TopicOptions {
        partitions: kafka.partitions,
        replication_factor: kafka.replication_factor,
        config: plain.map(|(key, value)| (key.clone(), value.expose().to_owned())).collect(),
    }
}

fn refused(check: &'static str, error: &Error, settings: &Pipeline, of: &[Captured]) -> Finding {
    let fault = pipeline::of_kafka(error);
    let finding = Finding::fault(check, &fault);
    if !matches!(error, Error::Authorization { .. }) {
        return finding.advice(fault.mend);
    }
    let user = settings.kafka.properties.get("sasl.username");
    let user = user.map_or("ANONYMOUS", |name| name.expose());
    let tables = of.iter().map(Captured::name);
    let commands = pipeline::access_commands(settings, user, tables);
    commands.into_iter().fold(finding, Finding::command)
}

fn brokers_of(facts: &ClusterFacts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let brokers = facts.brokers;
    findings.push(if brokers < REPLICAS {
        let what = format!("the cluster has {brokers} brokers: records can be lost with a disk");
        Finding::warning("kafka.brokers", what).advice("run at least three brokers")
    } else {
        Finding::ok("kafka.brokers", format!("the cluster has {brokers} brokers"))
    });
    if facts.config.get("auto.create.topics.enable").is_some_and(|it| it == "true") {
        let what = "auto.create.topics.enable is on: a consumer that comes first makes a topic of \
                    ours with the brokers' defaults";
        let mend = "set auto.create.topics.enable=false in every broker's server.properties";
        findings.push(Finding::warning("kafka.auto_create", what).advice(mend));
    }
    findings
}

/// The topics of a pipeline, by what they are for.
struct Topics {
    tables: BTreeSet<String>,
    /// Of these, those whose records may have no key.
    keyless: BTreeSet<String>,
    checkpoint: String,
    others: Vec<String>,
}

impl Topics {
    fn of(settings: &Pipeline, tables: &[Captured]) -> Self {
        let topic = |table: &Captured| settings.topic_of(&table.name());
        let keyless = tables.iter().filter(|table| table.keyed == Some(false));
        let mut others = settings.topics_beside_tables();
        if settings.large_rows == LargeRows::DeadLetter {
            others.push(settings.dead_letter_topic());
        }
        if settings.heartbeat.is_some() {
            others.push(settings.heartbeat_topic());
        }
        Self {
            tables: tables.iter().map(topic).collect(),
            keyless: keyless.map(topic).collect(),
            checkpoint: settings.checkpoint_topic(),
            others,
        }
    }

    fn all(&self) -> impl Iterator<Item = &String> {
        self.tables.iter().chain([&self.checkpoint]).chain(&self.others)
    }

    fn first_missing(&self, facts: &ClusterFacts) -> Option<&String> {
        self.all().find(|name| !facts.topics.contains_key(*name))
    }

    fn judge(&self, facts: &ClusterFacts, settings: &Pipeline) -> Vec<Finding> {
        let mut problems = Problems::new(&settings.kafka.bootstrap_servers);
        let mut there = 0;
        for name in self.all() {
            match facts.topics.get(name) {
                Some(topic) => {
                    there += 1;
                    problems.durability(name, topic, facts.brokers);
                }
                None => problems.missing(&to_be_made(facts, settings), facts.brokers),
            }
        }
        self.cleanup(facts, settings, &mut problems);
        let mut findings = problems.findings();
        if findings.is_empty() {
            let what = format!(
                "{there} topics are there, {} are made when they are needed",
                self.all().count() - there
            );
            findings.push(Finding::ok("kafka.topics", what));
        }
        findings
    }

    fn cleanup(&self, facts: &ClusterFacts, settings: &Pipeline, problems: &mut Problems) {
        if let Some(policy) = policy(facts, &self.checkpoint)
            && policy != "compact"
        {
            problems.checkpoint(&self.checkpoint, policy);
        }
        for name in &self.keyless {
            let made = settings.kafka.topic_config.get("cleanup.policy").map(|it| it.expose());
            let there = facts.topics.contains_key(name);
            let policy = if there { policy(facts, name) } else { made };
            if policy.is_some_and(|policy| policy.contains("compact")) {
                problems.keyless(name, there);
            }
        }
    }
}

fn policy<'a>(facts: &'a ClusterFacts, topic: &str) -> Option<&'a str> {
    facts.topics.get(topic)?.config.get("cleanup.policy").map(String::as_str)
}

/// A topic as it would be made.
fn to_be_made(facts: &ClusterFacts, settings: &Pipeline) -> TopicFacts {
    let kafka = &settings.kafka;
    let number = |name: &str| facts.config.get(name).and_then(|text| text.parse::<usize>().ok());
    let replicas = kafka.replication_factor.and_then(|it| usize::try_from(it).ok());
    let replicas = replicas.or(number("default.replication.factor")).unwrap_or(REPLICAS);
    let mut config = facts.config.clone();
    let own = kafka.topic_config.iter();
    config.extend(own.map(|(key, value)| (key.clone(), value.expose().to_owned())));
    TopicFacts { partitions: 1, replicas, in_sync: replicas, config }
}

/// What is wrong with topics, each kind told once with all the topics that have it.
struct Problems<'a> {
    brokers: &'a str,
    found: BTreeMap<&'static str, Finding>,
}

impl<'a> Problems<'a> {
    fn new(brokers: &'a str) -> Self {
        Self { brokers, found: BTreeMap::new() }
    }

    fn note(&mut self, kind: &'static str, topic: &str, finding: impl FnOnce() -> Finding) {
        let found = self.found.entry(kind).or_insert_with(finding);
        match &mut found.of {
            Some(of) => *of = format!("{of}, {topic}"),
            of => *of = Some(topic.to_owned()),
        }
    }

    fn set(&mut self, kind: &'static str, topic: &str, setting: &str) {
        let command = format!(
            "kafka-configs.sh --bootstrap-server {} --alter --entity-type topics --entity-name \
             {topic} --add-config {setting}",
            self.brokers
        );
        if let Some(found) = self.found.remove(kind) {
            self.found.insert(kind, found.command(command));
        }
    }

    fn durability(&mut self, name: &str, topic: &TopicFacts, brokers: usize) {
        let (replicas, config) = (topic.replicas, &topic.config);
        let wanted = REPLICAS.min(brokers);
        if replicas < wanted {
            self.note("replicas", name, || {
                let what = format!("topics have fewer than {wanted} replicas of each record");
                let mend = "raise it with kafka-reassign-partitions.sh";
                Finding::warning("kafka.replication", what).advice(mend)
            });
        }
        let least = config.get("min.insync.replicas").and_then(|text| text.parse::<usize>().ok());
        match least {
            Some(least) if least > replicas => {
                self.note("impossible", name, || {
                    let what = "topics want more replicas in sync than they have: no record is \
                                ever acknowledged";
                    Finding::error("kafka.min_insync", what)
                });
                self.set("impossible", name, &format!("min.insync.replicas={}", replicas.max(1)));
            }
            Some(least) if least < 2 && replicas >= REPLICAS => {
                self.note("min_insync", name, || {
                    let what = "topics acknowledge a record that only one broker has \
                                (min.insync.replicas is 1)";
                    Finding::warning("kafka.min_insync", what)
                });
                self.set("min_insync", name, "min.insync.replicas=2");
            }
            _ => {}
        }
        if config.get("unclean.leader.election.enable").is_some_and(|it| it == "true") {
            self.note("unclean", name, || {
                let what = "topics let a broker lead that lacks acknowledged records \
                            (unclean.leader.election.enable)";
                Finding::warning("kafka.unclean_election", what)
            });
            self.set("unclean", name, "unclean.leader.election.enable=false");
        }
    }

    /// What a topic would lack that is not there yet: told once, with configuration.
    fn missing(&mut self, made: &TopicFacts, brokers: usize) {
        let wanted = REPLICAS.min(brokers);
        let mut note = |kind, finding: Finding| {
            self.found.entry(kind).or_insert(finding);
        };
        if made.replicas < wanted {
            let what = format!("topics would be made with {} replicas", made.replicas);
            let finding = Finding::warning("kafka.replication", what);
            note("made replicas", finding.configure("kafka.replication_factor", wanted));
        }
        let least = made.config.get("min.insync.replicas").and_then(|text| text.parse().ok());
        let key = "kafka.topic_config";
        match least {
            Some(least) if made.replicas < least => {
                let what = format!(
                    "topics would be made with {} replicas and want {least} in sync: no record \
                     would ever be acknowledged",
                    made.replicas
                );
                let finding = Finding::error("kafka.min_insync", what);
                let setting = format!("{key}.\"min.insync.replicas\"");
                note("made impossible", finding.configure(setting, made.replicas.max(1)));
            }
            Some(least) if least < 2_usize && made.replicas >= REPLICAS => {
                let what = "topics would be made with min.insync.replicas 1: a record that only \
                            one broker has is acknowledged";
                let finding = Finding::warning("kafka.min_insync", what);
                note(
                    "made min_insync",
                    finding.configure(format!("{key}.\"min.insync.replicas\""), 2),
                );
            }
            _ => {}
        }
        if made.config.get("unclean.leader.election.enable").is_some_and(|it| it == "true") {
            let what = "topics would be made with unclean.leader.election.enable";
            let finding = Finding::warning("kafka.unclean_election", what);
            let setting = format!("{key}.\"unclean.leader.election.enable\"");
            note("made unclean", finding.configure(setting, "false"));
        }
    }

    fn checkpoint(&mut self, name: &str, policy: &str) {
        self.note("checkpoint", name, || {
            let what =
                format!("the checkpoint's topic has cleanup.policy {policy}: it can be lost");
            Finding::error("kafka.checkpoint", what)
        });
        self.set("checkpoint", name, "cleanup.policy=compact");
    }

    fn keyless(&mut self, name: &str, there: bool) {
        self.note("keyless", name, || {
            let what = "tables without a key have topics that are compacted: Kafka refuses records \
                        without a key";
            Finding::error("kafka.compaction", what)
        });
        if there {
            self.set("keyless", name, "cleanup.policy=delete");
        } else if let Some(found) = self.found.remove("keyless") {
            let key = "kafka.topic_config.\"cleanup.policy\"";
            let found = if found.mend.is_empty() { found.configure(key, "delete") } else { found };
            self.found.insert("keyless", found);
        }
    }

    fn findings(self) -> Vec<Finding> {
        self.found.into_values().collect()
    }
}

/// What the brokers say of Kafka transactions.
fn transactions(facts: &ClusterFacts, settings: &Pipeline) -> Vec<Finding> {
    const CHECK: &str = "kafka.transactions";
    const TIMEOUT: &str = "transaction.timeout.ms";
    let number = |name: &str| facts.config.get(name).and_then(|text| text.parse::<u64>().ok());
    let ours = settings.kafka.properties.get(TIMEOUT).and_then(|text| text.expose().parse().ok());
    let ours = ours.map_or(TRANSACTION_TIMEOUT, Duration::from_millis).as_millis();
    let mut findings = Vec::new();
    match number("transaction.max.timeout.ms") {
        Some(most) if ours > u128::from(most) => {
            let what = format!(
                "{TIMEOUT} is {ours}, and the brokers take up to {most} \
                 (transaction.max.timeout.ms): they refuse it"
            );
            let key = format!("kafka.properties.\"{TIMEOUT}\"");
            findings.push(Finding::error(CHECK, what).configure(key, most));
        }
        _ => {
            let what = "each change is published once, for consumers with \
                        isolation.level=read_committed";
            findings.push(Finding::ok(CHECK, what));
        }
    }
    let least = number("transaction.state.log.min.isr");
    if facts.brokers >= REPLICAS && least.is_some_and(|least| least < 2) {
        let what = "what the brokers remember of transactions is acknowledged when only one of them \
                    has it (transaction.state.log.min.isr is 1)";
        let mend = "set transaction.state.log.min.isr=2 in every broker's server.properties, and \
                    min.insync.replicas=2 on topic __transaction_state";
        findings.push(Finding::warning(CHECK, what).advice(mend));
    }
    findings
}

/// Up to what size a row's record is taken.
fn largest(facts: &ClusterFacts, settings: &Pipeline) -> Finding {
    const CHECK: &str = "kafka.max_message";
    let property = settings.kafka.properties.get("message.max.bytes");
    let ours = property.and_then(|text| text.expose().parse().ok()).unwrap_or(MESSAGE_BYTES);
    let number = |text: &String| text.parse::<usize>().ok();
    let topics = facts.topics.values();
    let theirs = topics.filter_map(|topic| topic.config.get("max.message.bytes").and_then(number));
    let broker = facts.config.get("message.max.bytes").and_then(number);
    let taken = theirs.chain(broker).chain([ours]).min().unwrap_or(MESSAGE_BYTES);
    let (allowed, halts) = (settings.max_row_bytes, settings.large_rows == LargeRows::Halt);
    if allowed < taken {
        return Finding::ok(CHECK, format!("Kafka takes rows of up to max_row_bytes ({allowed})"));
    }
    let what = format!("Kafka takes records of {taken} bytes, and max_row_bytes is {allowed}");
    if halts {
        return Finding::ok(CHECK, format!("{what}: a row that is larger stops the pipeline"));
    }
    // Key and headers are part of the record, and not of that number.
    let fits = (taken - taken / 10).max(1_000);
    Finding::warning(CHECK, format!("{what}: a row in between stops the pipeline all the same"))
        .configure("max_row_bytes", fits)
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn topic(replicas: usize, config: &[(&str, &str)]) -> TopicFacts {
        let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        TopicFacts { partitions: 1, replicas, in_sync: replicas, config: config.collect() }
    }

    fn found(topic: &TopicFacts, brokers: usize) -> Vec<(&'static str, Level)> {
        let mut problems = Problems::new("kafka:9092");
        problems.durability("t", topic, brokers);
        problems.findings().iter().map(|found| (found.check, found.level)).collect()
    }

    #[test]
    fn a_topic_that_may_lose_what_it_acknowledged_is_warned_of() {
        let sound = topic(3, &[("min.insync.replicas", "2")]);
        assert_eq!(found(&sound, 3), []);
        // One broker cannot have three replicas; that is said of the cluster.
        assert_eq!(found(&topic(1, &[("min.insync.replicas", "1")]), 1), []);
        let thin = topic(1, &[("min.insync.replicas", "1")]);
        assert_eq!(found(&thin, 3), [("kafka.replication", Level::Warning)]);
        let single = topic(3, &[("min.insync.replicas", "1")]);
        assert_eq!(found(&single, 3), [("kafka.min_insync", Level::Warning)]);
        let stuck = topic(3, &[("min.insync.replicas", "4")]);
        assert_eq!(found(&stuck, 3), [("kafka.min_insync", Level::Error)]);
    }
}
