//! What the keys of `kafka` mean.

use std::collections::BTreeMap;

use crate::config::error::Kind;
use crate::config::keys::shown_name;
use crate::config::librdkafka;
use crate::config::reading::{At, Given, Key, Map, Property};
use crate::config::scalars::{Count, Verbatim};
use crate::config::secret::{Credential, Secret};
use crate::config::settled::{Kafka, KafkaLogin, Source};
use crate::config::topic::TopicTemplate;
use crate::config::typed;
use crate::config::url::check_host;

use super::{Settling, Warning};

const DEFAULT_TOPIC: &str = "{pipeline}.{schema}.{table}";

type Verbatims = BTreeMap<String, Secret>;

impl Settling<'_> {
    pub(super) fn kafka(&mut self, given: &Given<typed::Kafka>) -> Option<Kafka> {
        let Given { value: typed, at } = given;
        let servers = typed.bootstrap_servers.required("bootstrap_servers", at, self.problems);
        let servers = servers.and_then(|given| self.servers(given));
        let topic = match &typed.topic {
            Key::Given(given) => self.topic(given),
            Key::Absent => TopicTemplate::parse(DEFAULT_TOPIC).ok(),
            Key::Broken => None,
        };
        let topic_config = self.topic_config(&typed.topic_config);
        let properties = self.properties(&typed.properties);
        self.refuse_unreachable_min_isr(typed);
        let login = self.kafka_login(typed, at);
        Some(Kafka {
            bootstrap_servers: servers?,
            topic: topic?,
            partitions: whole(&typed.partitions),
            replication_factor: whole(&typed.replication_factor),
            topic_config: topic_config?,
            properties: properties?,
            login: login?,
        })
    }

    fn kafka_login(&mut self, typed: &typed::Kafka, at: &At) -> Option<KafkaLogin> {
        let entries = typed.properties.value().map(|map| map.entries.as_slice());
        let property = |name: &str| {
            let mut entries = entries.unwrap_or_default().iter();
            entries.rfind(|entry| librdkafka::canonical(&entry.name) == name)
        };
        let text = |name: &str| {
            property(name)?.value.value().map(|value| value.0.expose().to_ascii_uppercase())
        };
        let bearer = text("sasl.mechanism").as_deref() == Some("OAUTHBEARER");
        let ways = [
            (typed.password_file.given().map(|given| &given.at), "`password_file`"),
            (typed.token_file.given().map(|given| &given.at), "`token_file`"),
            (typed.token_command.given().map(|given| &given.at), "`token_command`"),
        ];
        let ways: Vec<_> = ways.iter().filter_map(|(at, name)| Some(((*at)?, *name))).collect();
        let mut refuse = |at: &At, message: String, help: &str| {
            self.problems.add(at.key_error(Kind::Conflict, message).help(help));
            None
        };
        let token = ways.iter().find(|(_, name)| name.starts_with("`token_"));
        if let Some((at, name)) = token.filter(|_| !cfg!(feature = "kafka-tls")) {
            self.problems.add(librdkafka::not_built(at, name));
            return None;
        }
        match ways.as_slice() {
            [] => {
                let own = text("enable.sasl.oauthbearer.unsecure.jwt").is_some()
                    || text("sasl.oauthbearer.method").as_deref() == Some("OIDC");
                if bearer && !own {
                    let help = "OAUTHBEARER needs a token: its file, or `token_command`";
                    self.problems.add(at.missing("token_file").help(help));
                    return None;
                }
                Some(KafkaLogin::AsConfigured)
            }
            [(at, "`password_file`")] => {
                if property("sasl.password").is_some() {
                    let message = "the password is given twice: here and as `sasl.password`";
                    return refuse(at, message.to_owned(), "keep this one");
                }
                let file = typed.password_file.value()?;
                Some(KafkaLogin::Password(Credential::File(file.clone())))
            }
            [(at, name)] if !bearer && property("sasl.mechanism").is_some() => refuse(
                at,
                format!("{name} is for `sasl.mechanism: OAUTHBEARER`, and another is set"),
                "keep one of them",
            ),
            [(_, "`token_file`")] => {
                let file = typed.token_file.value()?;
                Some(KafkaLogin::Token(Credential::File(file.clone())))
            }
            [_] => {
                let command = typed.token_command.given()?;
                self.command(command).map(KafkaLogin::Token)
            }
            [(_, first), (at, name), ..] => {
                refuse(at, format!("there are two ways to log in: {first} and {name}"), "keep one")
            }
        }
    }

    fn servers(&mut self, given: &Given<String>) -> Option<String> {
        let servers: Vec<&str> = given.value.split(',').map(str::trim).collect();
        for server in &servers {
            // librdkafka takes a listener's notation as well: PLAINTEXT://host:port.
            let listener = server.split_once("://");
            let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let host = listener.filter(|(name, _)| is_name(name)).map_or(*server, |(_, host)| host);
            if let Err(why) = check_host(host) {
                let message = format!("a server in this list cannot be used: {why}");
                let error = given.at.error(Kind::InvalidValue, message);
                self.problems.add(error.help("write `host:port`, several separated by commas"));
                return None;
            }
        }
        Some(servers.join(","))
    }

    pub(super) fn topic(&mut self, given: &Given<String>) -> Option<TopicTemplate> {
        let parsed = TopicTemplate::parse(&given.value).map_err(|why| {
            given.at.error(Kind::InvalidValue, format!("this names no topic: {why}"))
        });
        self.problems.check(parsed)
    }

    fn properties(&mut self, typed: &Key<Map<Property, Verbatim>>) -> Option<Verbatims> {
        let entries = typed.value().map(|map| map.entries.as_slice()).unwrap_or_default();
        for (index, entry) in entries.iter().enumerate() {
            if let Err(error) = librdkafka::check(&entry.name, &entry.at) {
                self.problems.add(error);
            }
            let value = entry.value.value().map_or("", |value| value.0.expose());
            if let Err(error) = librdkafka::check_built(&entry.name, value, &entry.at) {
                self.problems.add(error);
            }
            let name = librdkafka::canonical(&entry.name);
            let mut before = entries.iter().take(index);
            if let Some(first) = before.find(|one| librdkafka::canonical(&one.name) == name) {
                let message =
                    format!("`{}` and `{}` are two names of one property", first.name, entry.name);
                self.problems.add(entry.at.key_error(Kind::Conflict, message).help("keep one"));
            }
        }
        let settled = verbatims(typed)?.into_iter();
        Some(
            settled.map(|(name, value)| (librdkafka::canonical(&name).to_owned(), value)).collect(),
        )
    }

    fn topic_config(&mut self, typed: &Key<Map<Property, Verbatim>>) -> Option<Verbatims> {
        for entry in typed.value().map(|map| map.entries.as_slice()).unwrap_or_default() {
            match librdkafka::check_topic_config(&entry.name, &entry.at) {
                Err(error) => self.problems.add(error),
                Ok(None) => {}
                Ok(Some(near)) => self.warnings.push(Warning {
                    place: entry.at.key.place.clone(),
                    key: entry.at.path.as_str().to_owned(),
                    message: format!(
                        "Kafka knows no configuration of topics called `{}`; did you mean `{near}`?",
                        shown_name(&entry.name)
                    ),
                }),
            }
        }
        verbatims(typed)
    }

    /// A topic that wants more in-sync replicas than it has replicas takes no record at all.
    fn refuse_unreachable_min_isr(&mut self, typed: &typed::Kafka) {
        let entries = typed.topic_config.value().map(|map| map.entries.as_slice());
        let min_isr = entries
            .unwrap_or_default()
            .iter()
            .find(|entry| entry.name == "min.insync.replicas")
            .and_then(|entry| entry.value.given());
        let Some((min_isr, replicas)) = min_isr.zip(typed.replication_factor.value()) else {
            return;
        };
        if min_isr.value.0.expose().parse().is_ok_and(|wanted: i64| wanted > replicas.0) {
            let message = format!(
                "no record could be written: more in-sync replicas are wanted than the {} of \
                 `replication_factor`",
                replicas.0
            );
            self.problems.add(min_isr.at.error(Kind::Conflict, message));
        }
    }

    /// Tables that share a topic would share a schema and an order; only one table may have a
    /// topic without its name in it.
    pub(super) fn refuse_one_topic_for_all(
        &mut self,
        typed: &typed::Pipeline,
        source: Option<&Source>,
        kafka: Option<&Kafka>,
    ) {
        let Some((source, kafka)) = source.zip(kafka) else { return };
        let one_table = matches!(source.tables.as_slice(), [one] if one.exact().is_some());
        let topic = typed.kafka.value().and_then(|kafka| kafka.topic.given());
        if let Some(topic) = topic.filter(|_| !kafka.topic.names_tables() && !one_table) {
            let message = "all tables would be written to one topic";
            self.problems.add(topic.at.error(Kind::Conflict, message).help(
                "put `{table}` into the name, and `{schema}` where there are several; one table's \
                 own topic is set under `table_options`",
            ));
        }
    }
}

fn verbatims(typed: &Key<Map<Property, Verbatim>>) -> Option<Verbatims> {
    let entries = match typed {
        Key::Given(given) => given.value.entries.as_slice(),
        Key::Absent => &[],
        Key::Broken => return None,
    };
    let given = entries.iter().filter_map(|entry| Some((entry, entry.value.value()?)));
    Some(given.map(|(entry, value)| (entry.name.clone(), value.0.clone())).collect())
}

fn whole<const MIN: i64, const MAX: i64>(typed: &Key<Count<MIN, MAX>>) -> Option<i32> {
    typed.value().and_then(|count| i32::try_from(count.0).ok())
}
