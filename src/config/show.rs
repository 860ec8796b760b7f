//! The effective configuration as YAML: every default written out and marked, every secret
//! masked. What is shown can be read again, except for the masks.

use std::fmt::Write as _;

use waltide_core::snapshot::Filter;

use super::error::Place;
use super::librdkafka;
use super::reading::{At, Given, Key, Map, MapEntry, Property};
use super::scalars::Verbatim;
use super::secret::{Credential, MASK};
use super::settled::{
    Columns, Config, Delivery, Pipeline, RegistryLogin, Snapshot, Source, TableOptions,
};
use super::typed;

/// The column that marks begin at, where the value leaves room.
const MARK_COLUMN: usize = 56;

/// Writes a configuration out.
pub(super) fn show(typed: &typed::Config, settled: &Config) -> String {
    let mut lines = Lines::default();
    lines.group("pipelines");
    let entries = typed.pipelines.value().map(|map| map.entries.as_slice()).unwrap_or_default();
    for (entry, pipeline) in entries.iter().zip(&settled.pipelines) {
        lines.pipeline(entry, pipeline);
    }
    lines.close();
    let http = typed.http.value().cloned().unwrap_or_default();
    lines.group("http");
    lines.leaf("listen", &settled.http.listen.to_string(), &http.listen);
    lines.secret("token", &http.token);
    lines.path("token_file", &http.token_file);
    lines.leaf("protect_reads", &settled.http.protect_reads.to_string(), &http.protect_reads);
    if let Some(tls) = http.tls.value() {
        lines.group("tls");
        lines.path("certificate", &tls.certificate);
        lines.path("key", &tls.key);
        lines.close();
    }
    lines.close();
    let log = typed.log.value().cloned().unwrap_or_default();
    lines.group("log");
    lines.leaf("level", settled.log.level.as_str(), &log.level);
    lines.leaf("format", settled.log.format.as_str(), &log.format);
    lines.text
}

#[derive(Default)]
struct Lines {
    text: String,
    depth: usize,
}

impl Lines {
    fn group(&mut self, name: &str) {
        let _ = writeln!(self.text, "{:width$}{}:", "", scalar(name), width = self.depth * 2);
        self.depth += 1;
    }

    fn close(&mut self) {
        self.depth -= 1;
    }

    fn line(&mut self, name: &str, value: &str, mark: &str) {
        let line = format!("{:width$}{}: {value}", "", scalar(name), width = self.depth * 2);
        if mark.is_empty() {
            self.text.push_str(&line);
        } else {
            let _ = write!(self.text, "{line:<MARK_COLUMN$} # {mark}");
        }
        self.text.push('\n');
    }

    /// A single value.
    fn leaf<T>(&mut self, name: &str, value: &str, typed: &Key<T>) {
        let hidden = typed.given().is_some_and(|given| given.at.hidden);
        let shown = if hidden { scalar(MASK) } else { scalar(value) };
        self.line(name, &shown, &mark(typed));
    }

    /// A value that is shown only where it was given.
    fn given<T>(&mut self, name: &str, value: Option<&str>, typed: &Key<T>) {
        if let Some(value) = value {
            self.leaf(name, value, typed);
        }
    }

    fn secret<T>(&mut self, name: &str, typed: &Key<T>) {
        if typed.given().is_some() {
            self.line(name, &scalar(MASK), &mark(typed));
        }
    }

    fn list<T>(&mut self, name: &str, typed: &Key<Vec<Given<T>>>, text: impl Fn(&T) -> String) {
        let Some(given) = typed.given() else { return };
        let items = given.value.iter().map(|item| {
            let hidden = given.at.hidden || item.at.hidden;
            if hidden { scalar(MASK) } else { scalar(&text(&item.value)) }
        });
        let items: Vec<_> = items.collect();
        self.line(name, &format!("[{}]", items.join(", ")), &mark(typed));
    }

    fn pipeline(&mut self, entry: &MapEntry<typed::Pipeline>, settled: &Pipeline) {
        let typed = entry.value.value().cloned().unwrap_or_default();
        self.group(&settled.name);
        self.source(&typed.source.value().cloned().unwrap_or_default(), &settled.source);
        self.kafka(&typed.kafka.value().cloned().unwrap_or_default(), settled);
        self.registry(&typed.registry.value().cloned().unwrap_or_default(), settled);
        self.leaf("profile", settled.profile.as_str(), &typed.profile);
        self.given("prefix", typed.prefix.value().map(String::as_str), &typed.prefix);
        self.leaf("envelope", settled.envelope.as_str(), &typed.envelope);
        self.leaf("tombstones", flag(settled.tombstones), &typed.tombstones);
        self.leaf("truncates", flag(settled.truncates), &typed.truncates);
        self.leaf("transactions", flag(settled.transactions), &typed.transactions);
        self.leaf("messages", flag(settled.messages), &typed.messages);
        let seconds = settled.heartbeat.map_or(0, |every| every.as_secs()).to_string();
        self.leaf("heartbeat_seconds", &seconds, &typed.heartbeat_seconds);
        let seconds = settled.standby_yield.map_or(0, |after| after.as_secs()).to_string();
        self.leaf("standby_yield_seconds", &seconds, &typed.standby_yield_seconds);
        let delivery = match settled.delivery {
            Delivery::AtLeastOnce => typed::Delivery::AtLeastOnce,
            Delivery::ExactlyOnce => typed::Delivery::ExactlyOnce,
        };
        self.leaf("delivery", delivery.as_str(), &typed.delivery);
        self.snapshot(&typed.snapshot, &settled.snapshot);
        self.leaf("spool", &settled.spool.to_string_lossy(), &typed.spool);
        let most = settled.spool_max_bytes.to_string();
        self.leaf("spool_max_bytes", &most, &typed.spool_max_bytes);
        self.leaf("max_row_bytes", &settled.max_row_bytes.to_string(), &typed.max_row_bytes);
        self.leaf("large_rows", settled.large_rows.as_str(), &typed.large_rows);
        if let Some(options) = typed.table_options.value() {
            self.group("table_options");
            for (entry, (table, settled)) in by_table(&options.entries, settled) {
                self.table(&table, entry, settled);
            }
            self.close();
        }
        self.close();
    }

    fn source(&mut self, typed: &typed::Source, settled: &Source) {
        self.group("source");
        self.leaf("url", &settled.url.to_string(), &typed.url);
        self.password(settled.password.as_ref(), &typed.password_file, &typed.password_command);
        self.list("tables", &typed.tables, Clone::clone);
        self.list("exclude", &typed.exclude, Clone::clone);
        self.leaf("slot", &settled.slot, &typed.slot);
        self.leaf("failover", flag(settled.failover), &typed.failover);
        self.leaf("publication", &settled.publication, &typed.publication);
        self.leaf("streaming", flag(settled.streaming), &typed.streaming);
        self.leaf("binary", flag(settled.binary), &typed.binary);
        self.close();
    }

    fn password(
        &mut self,
        settled: Option<&Credential>,
        file: &Key<std::path::PathBuf>,
        command: &Key<typed::Texts>,
    ) {
        match settled {
            Some(Credential::File(path)) => {
                self.leaf("password_file", &path.to_string_lossy(), file);
            }
            Some(Credential::Command(_)) => {
                self.list("password_command", command, Clone::clone);
            }
            Some(Credential::Inline(_)) => {
                self.comment("the password is that of the environment variable PGPASSWORD");
            }
            None => {}
        }
    }

    fn kafka(&mut self, typed: &typed::Kafka, settled: &Pipeline) {
        let kafka = &settled.kafka;
        self.group("kafka");
        self.leaf("bootstrap_servers", &kafka.bootstrap_servers, &typed.bootstrap_servers);
        self.leaf("topic", &kafka.topic.to_string(), &typed.topic);
        let partitions = kafka.partitions.map(|count| count.to_string());
        self.given("partitions", partitions.as_deref(), &typed.partitions);
        let replicas = kafka.replication_factor.map(|count| count.to_string());
        self.given("replication_factor", replicas.as_deref(), &typed.replication_factor);
        self.verbatims("topic_config", &typed.topic_config, librdkafka::topic_config_may_be_shown);
        self.verbatims("properties", &typed.properties, librdkafka::may_be_shown);
        self.path("password_file", &typed.password_file);
        self.path("token_file", &typed.token_file);
        self.list("token_command", &typed.token_command, Clone::clone);
        self.close();
    }

    fn snapshot(&mut self, typed: &Key<typed::SnapshotOrWord>, settled: &Snapshot) {
        use typed::SnapshotMode::{Initial, Never, OnRequest};
        let Snapshot::Initial(options) = settled else {
            return self.leaf("snapshot", Never.as_str(), typed);
        };
        let mode = if options.on_request { OnRequest } else { Initial };
        let typed::SnapshotOrWord(keys) = typed.value().cloned().unwrap_or_default();
        // The word stands for the keys with their defaults.
        let given = [
            keys.parallelism.given().is_some(),
            keys.max_rate.given().is_some(),
            keys.max_rows.given().is_some(),
            keys.max_replica_lag_bytes.given().is_some(),
            keys.keyless_max_bytes.given().is_some(),
            keys.from.given().is_some(),
        ];
        if !given.contains(&true) {
            return self.leaf("snapshot", mode.as_str(), typed);
        }
        self.group("snapshot");
        self.leaf("mode", mode.as_str(), &keys.mode);
        self.leaf("parallelism", &options.parallelism.to_string(), &keys.parallelism);
        self.leaf("max_rate", &options.max_rate.unwrap_or(0).to_string(), &keys.max_rate);
        self.leaf("max_rows", &options.max_rows.unwrap_or(0).to_string(), &keys.max_rows);
        let lag = options.max_replica_lag.unwrap_or(0).to_string();
        self.leaf("max_replica_lag_bytes", &lag, &keys.max_replica_lag_bytes);
        let keyless = options.keyless_max_bytes.unwrap_or(0).to_string();
        self.leaf("keyless_max_bytes", &keyless, &keys.keyless_max_bytes);
        if let Some(replica) = &options.from {
            let keys = keys.from.value().cloned().unwrap_or_default();
            self.group("from");
            self.leaf("url", &replica.url.to_string(), &keys.url);
            self.password(replica.password.as_ref(), &keys.password_file, &keys.password_command);
            self.close();
        }
        self.close();
    }

    fn path(&mut self, name: &str, typed: &Key<std::path::PathBuf>) {
        let path = typed.value().map(|path| path.to_string_lossy().into_owned());
        self.given(name, path.as_deref(), typed);
    }

    fn verbatims(
        &mut self,
        name: &str,
        typed: &Key<Map<Property, Verbatim>>,
        may_be_shown: impl Fn(&str) -> bool,
    ) {
        let entries = typed.value().map(|map| map.entries.as_slice()).unwrap_or_default();
        if entries.is_empty() {
            return;
        }
        self.group(name);
        for MapEntry { name, value, .. } in entries {
            let Some(given) = value.given() else { continue };
            if may_be_shown(name) {
                let shown = super::secret::mask_urls(given.value.0.expose());
                self.leaf(name, &shown, value);
            } else {
                self.secret(name, value);
            }
        }
        self.close();
    }

    fn registry(&mut self, typed: &typed::Registry, settled: &Pipeline) {
        let registry = &settled.registry;
        self.group("registry");
        let mut address = registry.urls.join(",");
        if let (RegistryLogin::Basic { username, .. }, None) =
            (&registry.login, typed.username.given())
        {
            address = address.replacen("://", &format!("://{username}:{MASK}@"), 1);
        }
        match &registry.own {
            None => self.leaf("url", &address, &typed.url),
            Some(own) => {
                self.path("directory", &typed.directory);
                self.leaf("listen", &own.listen.to_string(), &typed.listen);
                self.leaf("announce", &own.announced, &typed.announce);
            }
        }
        self.given("username", typed.username.value().map(String::as_str), &typed.username);
        self.secret("password", &typed.password);
        self.path("password_file", &typed.password_file);
        self.path("token_file", &typed.token_file);
        if let Some(given) = typed.oauth.given() {
            self.group("oauth");
            let oauth = &given.value;
            let texts = [
                ("token_url", &oauth.token_url),
                ("client_id", &oauth.client_id),
                ("scope", &oauth.scope),
            ];
            for (name, key) in texts {
                self.given(name, key.value().map(String::as_str), key);
            }
            self.secret("client_secret", &oauth.client_secret);
            self.path("client_secret_file", &oauth.client_secret_file);
            self.close();
        }
        self.path("ca_file", &typed.ca_file);
        self.path("certificate_file", &typed.certificate_file);
        self.path("key_file", &typed.key_file);
        self.leaf("subjects", registry.subjects.as_str(), &typed.subjects);
        self.leaf("on_incompatible", registry.on_incompatible.as_str(), &typed.on_incompatible);
        self.leaf("verify_ids", flag(registry.verify_ids), &typed.verify_ids);
        self.close();
    }

    fn table(&mut self, name: &str, typed: &typed::TableOptions, settled: &TableOptions) {
        self.group(name);
        let topic = settled.topic.as_ref().map(ToString::to_string);
        self.given("topic", topic.as_deref(), &typed.topic);
        self.list("key", &typed.key, Clone::clone);
        match settled.columns {
            Columns::All => {}
            Columns::Except(_) => {
                self.list("exclude_columns", &typed.exclude_columns, Clone::clone)
            }
            Columns::Only(_) => self.list("include_columns", &typed.include_columns, Clone::clone),
        }
        let mode = typed.snapshot.value().map(|mode| mode.as_str());
        self.given("snapshot", mode, &typed.snapshot);
        let filter = settled.snapshot.filter.as_ref().map(Filter::as_str);
        self.given("snapshot_where", filter, &typed.snapshot_where);
        let priority = typed.snapshot_priority.value().map(|it| it.0.to_string());
        self.given("snapshot_priority", priority.as_deref(), &typed.snapshot_priority);
        self.close();
    }

    fn comment(&mut self, text: &str) {
        let _ = writeln!(self.text, "{:width$}# {text}", "", width = self.depth * 2);
    }
}

/// The options as typed and as settled, side by side.
fn by_table<'a>(
    entries: &'a [MapEntry<typed::TableOptions>],
    settled: &'a Pipeline,
) -> impl Iterator<Item = (&'a typed::TableOptions, (String, &'a TableOptions))> {
    entries.iter().filter_map(|entry| {
        let table = super::tables::TablePattern::parse(&entry.name).ok()?.exact()?;
        let options = settled.table_options.get(&table)?;
        Some((entry.value.value()?, (table.to_string(), options)))
    })
}

/// Where a value comes from, unless it is from the file.
fn mark<T>(typed: &Key<T>) -> String {
    match typed {
        Key::Absent | Key::Broken => "default".to_owned(),
        Key::Given(Given { at: At { value, .. }, .. }) => match &value.place {
            Place::Variable(name) => name.to_string(),
            Place::File { .. } | Place::Nowhere => String::new(),
        },
    }
}

/// A scalar in YAML: plain where that is safe, else in double quotes. A dollar that could begin
/// a substitution is doubled.
fn scalar(text: &str) -> String {
    let text = text.replace('$', "$$");
    let plain = text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-:@+$?=&*".contains(c))
        && !text.ends_with(':')
        && !matches!(text.to_ascii_lowercase().as_str(), "null");
    if plain {
        return text;
    }
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if control.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(control));
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
fn flag(on: bool) -> &'static str {
    if on { "true" } else { "false" }
}
