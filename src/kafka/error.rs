//! What can go wrong between us and Kafka.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

/// A failure of the sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// No broker answers.
    Unreachable {
        /// The addresses that were tried.
        brokers: String,
        /// What librdkafka last said about them.
        reason: String,
    },
    /// A broker refuses the login.
    Authentication {
        /// The addresses that were tried.
        brokers: String,
        /// What was said.
        reason: String,
    },
    /// No TLS session came to be.
    Tls {
        /// The addresses that were tried.
        brokers: String,
        /// What was said.
        reason: String,
    },
    /// The login is not allowed to do it.
    Authorization {
        /// What was asked for.
        what: String,
        /// What was said.
        reason: String,
    },
    /// A topic cannot be created or written.
    Topic {
        /// Which.
        topic: String,
        /// What was said.
        reason: String,
    },
    /// A record is larger than the broker takes.
    TooLarge {
        /// For which topic.
        topic: String,
    },
    /// A record was not taken.
    Delivery {
        /// For which topic.
        topic: String,
        /// What was said.
        reason: String,
    },
    /// Something was not seen to be done in time; where it is a write, it was not committed.
    NotInTime {
        /// What.
        what: String,
        /// How far it came, or what was said.
        reason: String,
    },
    /// Another producer has taken our transactional id, or Kafka has rolled back a transaction of
    /// ours that was open for too long: this producer may not write any more. What it last tried
    /// may or may not be there.
    Fenced {
        /// The id.
        transactional_id: String,
    },
    /// A commit was sent and its answer did not come: the record may or may not be there. The
    /// producer cannot be used any more; the topic tells.
    UnknownOutcome {
        /// In which topic.
        topic: String,
        /// What was said.
        reason: String,
    },
    /// The same of a transaction with records of any topics.
    UnknownCommit {
        /// Whose.
        transactional_id: String,
        /// What was said.
        reason: String,
    },
    /// A transaction that cannot be committed any more.
    RolledBack {
        /// Whose.
        transactional_id: String,
        /// What was said.
        reason: String,
    },
    /// librdkafka refuses a setting.
    Settings {
        /// What was said.
        reason: String,
    },
}

impl Error {
    /// A call that failed, told apart by librdkafka's code and by what it said meanwhile in its log.
    pub(super) fn of_call(error: &KafkaError, brokers: &str, said: &str, what: &str) -> Self {
        let brokers = brokers.to_owned();
        let reason = if said.is_empty() { error.to_string() } else { said.to_owned() };
        // The value may be a secret, so it is left out; of numbers and words that are none,
        // librdkafka's own sentence has it.
        if let KafkaError::ClientConfig(_, reason, property, _) = error {
            return Self::Settings { reason: format!("{property}: {reason}") };
        }
        if let KafkaError::ClientCreation(reason) = error {
            return Self::Settings { reason: reason.clone() };
        }
        match error.rdkafka_error_code() {
            Some(code) if is_authorization(code) => {
                Self::Authorization { what: what.to_owned(), reason: code.to_string() }
            }
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed) => {
                Self::Authentication { brokers, reason }
            }
            Some(RDKafkaErrorCode::SSL) => Self::Tls { brokers, reason },
            _ if said.is_empty() => Self::Unreachable { brokers, reason },
            _ => Self::of_words(&brokers, said),
        }
    }

    /// What stands between us and the brokers, told apart by librdkafka's words.
    pub(crate) fn of_words(brokers: &str, said: &str) -> Self {
        let (brokers, reason) = (brokers.to_owned(), said.to_owned());
        // A broker that hangs up at once may want TLS, says librdkafka; it may as well be a
        // proxy whose broker is away.
        if said.contains("SSL handshake") || said.contains("certificate") {
            Self::Tls { brokers, reason }
        } else if said.split("; ").any(|one| refuses_login(one, said)) {
            Self::Authentication { brokers, reason }
        } else {
            Self::Unreachable { brokers, reason }
        }
    }

    /// Whether a producer is told so that another has taken its transactional id.
    pub(super) const fn is_fenced(code: RDKafkaErrorCode) -> bool {
        matches!(
            code,
            RDKafkaErrorCode::Fenced
                | RDKafkaErrorCode::ProducerFenced
                | RDKafkaErrorCode::InvalidProducerEpoch
        )
    }

    /// A transaction that was refused, and is not committed.
    pub(super) fn of_transaction(error: &KafkaError, transactional_id: &str) -> Self {
        match error.rdkafka_error_code() {
            Some(code) if is_authorization(code) => Self::Authorization {
                what: "write to a topic in a transaction".to_owned(),
                reason: code.to_string(),
            },
            _ => Self::RolledBack {
                transactional_id: transactional_id.to_owned(),
                reason: error.to_string(),
            },
        }
    }

    /// A record that came back undelivered.
    pub(super) fn of_delivery(error: &KafkaError, topic: &str) -> Self {
        let topic = topic.to_owned();
        match error.rdkafka_error_code() {
            Some(code) if is_authorization(code) => Self::Authorization {
                what: format!("write to topic {topic}"),
                reason: code.to_string(),
            },
            Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
                Self::TooLarge { topic }
            }
            Some(
                code @ (RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::UnknownPartition
                | RDKafkaErrorCode::InvalidTopic
                | RDKafkaErrorCode::PolicyViolation),
            ) => Self::Topic { topic, reason: code.to_string() },
            _ => Self::Delivery { topic, reason: error.to_string() },
        }
    }
}

/// Whether one of the things said is of a login that a broker has refused. A broker that goes away
/// amid a login has refused nothing, though librdkafka calls that a failed login too; and where
/// connections are refused, a guess of why others ended is no more than that.
fn refuses_login(one: &str, said: &str) -> bool {
    let is_of_login = one.contains("SASL") || one.contains("uthentication");
    let is_unanswered = one.contains("failed: Local: ");
    let is_guess = one.contains("might require SASL");
    is_of_login && !is_unanswered && !(is_guess && said.contains("refused"))
}

fn is_authorization(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::TransactionalIdAuthorizationFailed
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::types::RDKafkaConfRes;

    #[test]
    fn a_broker_that_goes_away_amid_a_login_has_not_refused_it() {
        let of = |said: &str| Error::of_words("k:1", said);
        for outage in [
            "k:1: SASL PLAIN mechanism handshake failed: Local: Broker transport failure: \
             broker's supported mechanisms: ",
            "k:1: SASL authentication error: SaslAuthenticateRequest failed: Local: Timed out",
            "k:1: Connect to ipv4#10.0.0.1:1 failed: Connection refused; k:1: Disconnected: verify \
             that security.protocol is correctly configured, broker might require SASL \
             authentication",
        ] {
            assert!(matches!(of(outage), Error::Unreachable { .. }), "{outage}");
        }
        for refusal in [
            "k:1: SASL authentication error: Authentication failed: Invalid username or password",
            "k:1: SASL SCRAM-SHA-256 mechanism handshake failed: Broker: Unsupported SASL \
             mechanism: broker's supported mechanisms: PLAIN",
            "k:1: Disconnected: verify that security.protocol is correctly configured, broker \
             might require SASL authentication",
            "k:1: Connect to ipv4#10.0.0.1:1 failed: Connection refused; k:2: SASL authentication \
             error: Authentication failed",
        ] {
            assert!(matches!(of(refusal), Error::Authentication { .. }), "{refusal}");
        }
    }

    #[test]
    fn the_value_of_a_refused_property_is_not_shown() {
        let refused = KafkaError::ClientConfig(
            RDKafkaConfRes::RD_KAFKA_CONF_INVALID,
            "not supported".to_owned(),
            "ssl.key.password".to_owned(),
            "hush".to_owned(),
        );
        let error = Error::of_call(&refused, "k:1", "", "");
        let reason = "ssl.key.password: not supported".to_owned();
        assert_eq!(error, Error::Settings { reason });
    }
}
