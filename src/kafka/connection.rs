//! One way to reach Kafka for the producer and for administration, and what it says meanwhile.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;

/// How long what librdkafka said counts as the present state of the connection.
const COMPLAINT_LASTS: Duration = Duration::from_secs(15);

/// How Kafka is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `host:port`, comma-separated.
    pub bootstrap_servers: String,
    /// Properties of librdkafka that configuration has let through.
    pub properties: BTreeMap<String, String>,
}

impl Settings {
    pub(super) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "waltide");
        // A broker that went away is asked again soon: the default of 10 s is the longest part of
        // most recoveries.
        config.set("reconnect.backoff.ms", "100").set("reconnect.backoff.max.ms", "2000");
        config.set("socket.keepalive.enable", "true");
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        config.set("bootstrap.servers", &self.bootstrap_servers);
        config.set_log_level(RDKafkaLogLevel::Warning);
        config
    }
}

/// What librdkafka last complained of, in its own words: a failed call alone says little more
/// than "transport failure".
#[derive(Debug, Default)]
pub(super) struct Complaints {
    last: Mutex<Option<(Instant, String)>>,
}

impl Complaints {
    pub(super) fn note(&self, text: &str) {
        if let Ok(mut last) = self.last.lock() {
            *last = Some((Instant::now(), text.to_owned()));
        }
    }

    pub(super) fn recent(&self) -> Option<String> {
        let last = self.last.lock().ok()?;
        last.as_ref().filter(|(at, _)| at.elapsed() < COMPLAINT_LASTS).map(|(_, text)| text.clone())
    }

    /// librdkafka's log and error call-backs both come here; neither carries row values.
    pub(super) fn heard(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        tracing::debug!(facility, text, "librdkafka");
        if matches!(
            level,
            RDKafkaLogLevel::Emerg
                | RDKafkaLogLevel::Alert
                | RDKafkaLogLevel::Critical
                | RDKafkaLogLevel::Error
        ) {
            self.note(text);
        }
    }
}

/// The context of clients that only ask: they keep complaints for the message of a failure.
#[derive(Debug, Default)]
pub(super) struct Listening(pub(super) Complaints);

impl ClientContext for Listening {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.0.heard(level, facility, text);
    }

    fn error(&self, _error: KafkaError, reason: &str) {
        self.0.note(reason);
    }
}
