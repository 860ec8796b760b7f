//! One way to reach Kafka for the producer and for administration, and what it says meanwhile.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::client::OAuthToken;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;

use super::Error;
use super::login::{Badge, Login};

/// How long what librdkafka said counts as the present state of the connection.
const COMPLAINT_LASTS: Duration = Duration::from_secs(15);

/// Of a large cluster in trouble, how many brokers a message names.
const MAX_COMPLAINTS: usize = 4;

/// How Kafka is reached.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `host:port`, comma-separated.
    pub bootstrap_servers: String,
    /// Properties of librdkafka that configuration has let through.
    pub properties: BTreeMap<String, String>,
    /// Who we are, where that changes while the daemon runs.
    pub login: Login,
}

impl Settings {
    pub(super) fn client(&self) -> Result<ClientConfig, Error> {
        let mut config = ClientConfig::new();
        config.set("client.id", "waltide");
        // A broker that went away is asked again soon: the default of 10 s is the longest part of
        // most recoveries.
        config.set("reconnect.backoff.ms", "100").set("reconnect.backoff.max.ms", "2000");
        config.set("socket.keepalive.enable", "true");
        for (key, value) in &self.properties {
            config.set(key, value);
        }
        self.login.configure(&mut config).map_err(|reason| Error::Settings { reason })?;
        config.set("bootstrap.servers", &self.bootstrap_servers);
        // Else asking for a topic that is not there is enough for a broker to make it with its own
        // defaults: before we do, or when it was deleted behind our back.
        config.set("allow.auto.create.topics", "false");
        config.set_log_level(RDKafkaLogLevel::Warning);
        Ok(config)
    }

    /// The context of a client that only asks.
    pub(super) fn listening(&self) -> Listening {
        Listening(Complaints::default(), Badge::new(&self.login))
    }
}

/// What librdkafka complained of lately, in its own words: a failed call alone says little more
/// than "transport failure".
#[derive(Debug, Default)]
pub(super) struct Complaints {
    heard: Mutex<BTreeMap<String, Instant>>,
}

impl Complaints {
    fn note(&self, text: &str) {
        let text = without_changing_parts(text);
        if let Ok(mut heard) = self.heard.lock() {
            heard.retain(|_, at| at.elapsed() < COMPLAINT_LASTS);
            if heard.len() < MAX_COMPLAINTS || heard.contains_key(text) {
                heard.insert(text.to_owned(), Instant::now());
            }
        }
    }

    /// All of them, in an order that does not depend on who was asked first: the same trouble has
    /// the same words.
    pub(super) fn recent(&self) -> Option<String> {
        let heard = self.heard.lock().ok()?;
        let recent = heard.iter().filter(|(_, at)| at.elapsed() < COMPLAINT_LASTS);
        let texts: Vec<&str> = recent.map(|(text, _)| text.as_str()).collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }

    /// librdkafka's log and error call-backs both come here; neither carries row values.
    pub(super) fn logged(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
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

    pub(super) fn failed(&self, error: &KafkaError, reason: &str) {
        // Why each of them is down comes by itself and says more.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            self.note(reason);
        }
    }
}

/// `[thrd:x]: broker: what happened (after 3ms in state CONNECT, 2 identical error(s) suppressed)`
/// without the thread, the time and the count.
fn without_changing_parts(text: &str) -> &str {
    let text =
        text.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")).map_or(text, |it| it.1);
    text.split(" (after ").next().unwrap_or(text).trim()
}

/// The context of clients that only ask: they keep complaints for the message of a failure.
#[derive(Debug)]
pub(super) struct Listening(pub(super) Complaints, pub(super) Badge);

impl ClientContext for Listening {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn generate_oauth_token(&self, _: Option<&str>) -> Result<OAuthToken, Box<dyn StdError>> {
        self.1.show()
    }

    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.0.logged(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.failed(&error, reason);
    }
}

impl ConsumerContext for Listening {}

impl ProducerContext for Listening {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_has_the_same_words() {
        let complaints = Complaints::default();
        let down = KafkaError::Global(RDKafkaErrorCode::AllBrokersDown);
        let other = KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure);
        complaints.failed(&other, "b:1/bootstrap: Connect failed (after 0ms in state CONNECT)");
        complaints.failed(&down, "2/2 brokers are down");
        complaints.logged(
            RDKafkaLogLevel::Error,
            "FAIL",
            "[thrd:b:1/bootstrap]: b:1/bootstrap: Connect failed (after 3ms in state CONNECT, 9 \
             identical error(s) suppressed)",
        );
        complaints.logged(
            RDKafkaLogLevel::Error,
            "FAIL",
            "[thrd:a:1/bootstrap]: a:1/bootstrap: no",
        );
        complaints.logged(RDKafkaLogLevel::Info, "x", "nothing of importance");
        assert_eq!(
            complaints.recent().as_deref(),
            Some("a:1/bootstrap: no; b:1/bootstrap: Connect failed")
        );
    }
}
