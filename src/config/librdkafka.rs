//! Properties that are passed on to librdkafka: which there are, which are secret, and which
//! are not the configuration's to set, because the delivery guarantee hangs on them.
//!
//! The list is that of the librdkafka this is built with (2.12), so a name that is mistyped is
//! found here, with its line, and not when the first producer is made.

use super::error::{Error, Kind};
use super::keys::{nearest, shown_name};
use super::reading::At;

/// A property that is refused: its names, and why.
pub(super) struct Refused {
    pub(super) names: &'static [&'static str],
    pub(super) why: &'static str,
    pub(super) instead: &'static str,
}

/// Properties that are refused by name.
pub(super) const REFUSED: &[Refused] = &[
    Refused {
        names: &["bootstrap.servers", "metadata.broker.list"],
        why: "the brokers have a key of their own",
        instead: "use `kafka.bootstrap_servers`",
    },
    Refused {
        names: &["acks", "request.required.acks"],
        why: "Postgres may discard a change only when all in-sync replicas have it, so acks is `all`",
        instead: "leave it out; `min.insync.replicas` under `kafka.topic_config` says how many they must be",
    },
    Refused {
        names: &["enable.idempotence", "enable.gapless.guarantee"],
        why: "retries must neither repeat nor reorder records, so the producer is always idempotent",
        instead: "leave it out",
    },
    Refused {
        names: &["max.in.flight.requests.per.connection", "max.in.flight"],
        why: "the order of records hangs on it, and the daemon sets what an idempotent producer bears",
        instead: "leave it out",
    },
    Refused {
        names: &["message.send.max.retries", "retries"],
        why: "a record is retried until it is delivered",
        instead: "leave it out; `retry.backoff.max.ms` says how often",
    },
    Refused {
        names: &["message.timeout.ms", "delivery.timeout.ms"],
        why: "an outage is waited out: a record that is given up starts the pipeline over from its \
              checkpoint",
        instead: "leave it out",
    },
    Refused {
        names: &["transactional.id"],
        why: "it is what keeps a second daemon from writing, and comes from the pipeline's name",
        instead: "leave it out; the pipeline's name is the way to another one",
    },
    Refused {
        names: &["partitioner", "partitioner_cb", "msg_order_cmp"],
        why: "a key must land where Java's producers put it, or its records lose their order",
        instead: "leave it out; it is `murmur2_random`",
    },
    Refused {
        names: &["queuing.strategy"],
        why: "records leave in the order of their commits",
        instead: "leave it out",
    },
    Refused {
        names: &["delivery.report.only.error", "dr_cb", "dr_msg_cb", "produce.offset.report"],
        why: "every delivery report is counted before Postgres is told that a change is safe",
        instead: "leave it out",
    },
    Refused {
        names: &["queue.buffering.backpressure.threshold"],
        why: "the daemon bounds what is in flight itself, and batches grow because work is waiting",
        instead: "leave it out; `batch.size` and `linger.ms` shape batches",
    },
    Refused {
        names: &[
            "isolation.level",
            "auto.offset.reset",
            "enable.auto.commit",
            "auto.commit.enable",
            "auto.commit.interval.ms",
            "enable.auto.offset.store",
            "enable.partition.eof",
            "offset.store.method",
            "offset.store.path",
            "offset.store.sync.interval.ms",
        ],
        why: "the only thing that is consumed is the checkpoint, and it must be read as it was written",
        instead: "leave it out",
    },
    Refused {
        names: &[
            "group.id",
            "group.instance.id",
            "group.protocol",
            "group.protocol.type",
            "group.remote.assignor",
            "partition.assignment.strategy",
            "session.timeout.ms",
            "heartbeat.interval.ms",
            "max.poll.interval.ms",
            "coordinator.query.interval.ms",
            "consume.callback.max.messages",
        ],
        why: "the daemon is in no consumer group; holding the replication slot is leadership",
        instead: "leave it out",
    },
    Refused {
        names: &["allow.auto.create.topics", "topic.blacklist"],
        why: "topics are made on purpose, as the configuration says, and none may be hidden",
        instead: "use `kafka.partitions`, `kafka.replication_factor` and `kafka.topic_config`",
    },
    Refused {
        names: &["plugin.library.paths", "interceptors"],
        why: "a plug-in could drop or change records",
        instead: "leave it out",
    },
    Refused {
        names: &[
            "background_event_cb",
            "builtin.features",
            "closesocket_cb",
            "connect_cb",
            "consume_cb",
            "default_topic_conf",
            "enabled_events",
            "error_cb",
            "internal.termination.signal",
            "log.queue",
            "log_cb",
            "oauthbearer_token_refresh_cb",
            "offset_commit_cb",
            "opaque",
            "open_cb",
            "rebalance_cb",
            "resolve_cb",
            "socket_cb",
            "ssl.certificate.verify_cb",
            "ssl_ca",
            "ssl_certificate",
            "ssl_engine_callback_data",
            "ssl_key",
            "stats_cb",
            "throttle_cb",
        ],
        why: "it is set by a program, not by a text",
        instead: "leave it out",
    },
];

/// Properties that are taken and never shown.
const SECRET: &[&str] = &[
    "sasl.kerberos.kinit.cmd",
    "sasl.oauthbearer.assertion.private.key.passphrase",
    "sasl.oauthbearer.assertion.private.key.pem",
    "sasl.oauthbearer.client.credentials.client.secret",
    "sasl.oauthbearer.client.secret",
    "sasl.oauthbearer.config",
    "sasl.password",
    "ssl.key.password",
    "ssl.key.pem",
    "ssl.keystore.password",
];

/// Properties that are taken and may be shown.
const OPEN: &[&str] = &[
    "api.version.fallback.ms",
    "api.version.request",
    "api.version.request.timeout.ms",
    "batch.num.messages",
    "batch.size",
    "broker.address.family",
    "broker.address.ttl",
    "broker.version.fallback",
    "check.crcs",
    "client.dns.lookup",
    "client.id",
    "client.rack",
    "compression.codec",
    "compression.level",
    "compression.type",
    "connections.max.idle.ms",
    "debug",
    "enable.metrics.push",
    "enable.random.seed",
    "enable.sasl.oauthbearer.unsecure.jwt",
    "enable.ssl.certificate.verification",
    "fetch.error.backoff.ms",
    "fetch.max.bytes",
    "fetch.message.max.bytes",
    "fetch.min.bytes",
    "fetch.queue.backoff.ms",
    "fetch.wait.max.ms",
    "https.ca.location",
    "https.ca.pem",
    "linger.ms",
    "log.connection.close",
    "log.thread.name",
    "log_level",
    "max.partition.fetch.bytes",
    "message.copy.max.bytes",
    "message.max.bytes",
    "metadata.max.age.ms",
    "metadata.recovery.rebootstrap.trigger.ms",
    "metadata.recovery.strategy",
    "queue.buffering.max.kbytes",
    "queue.buffering.max.messages",
    "queue.buffering.max.ms",
    "queued.max.messages.kbytes",
    "queued.min.messages",
    "receive.message.max.bytes",
    "reconnect.backoff.jitter.ms",
    "reconnect.backoff.max.ms",
    "reconnect.backoff.ms",
    "request.timeout.ms",
    "retry.backoff.max.ms",
    "retry.backoff.ms",
    "sasl.kerberos.keytab",
    "sasl.kerberos.min.time.before.relogin",
    "sasl.kerberos.principal",
    "sasl.kerberos.service.name",
    "sasl.mechanism",
    "sasl.mechanisms",
    "sasl.oauthbearer.assertion.algorithm",
    "sasl.oauthbearer.assertion.claim.aud",
    "sasl.oauthbearer.assertion.claim.exp.seconds",
    "sasl.oauthbearer.assertion.claim.iss",
    "sasl.oauthbearer.assertion.claim.jti.include",
    "sasl.oauthbearer.assertion.claim.nbf.seconds",
    "sasl.oauthbearer.assertion.claim.sub",
    "sasl.oauthbearer.assertion.file",
    "sasl.oauthbearer.assertion.jwt.template.file",
    "sasl.oauthbearer.assertion.private.key.file",
    "sasl.oauthbearer.client.credentials.client.id",
    "sasl.oauthbearer.client.id",
    "sasl.oauthbearer.extensions",
    "sasl.oauthbearer.grant.type",
    "sasl.oauthbearer.metadata.authentication.type",
    "sasl.oauthbearer.method",
    "sasl.oauthbearer.scope",
    "sasl.oauthbearer.token.endpoint.url",
    "sasl.username",
    "security.protocol",
    "socket.blocking.max.ms",
    "socket.connection.setup.timeout.ms",
    "socket.keepalive.enable",
    "socket.max.fails",
    "socket.nagle.disable",
    "socket.receive.buffer.bytes",
    "socket.send.buffer.bytes",
    "socket.timeout.ms",
    "ssl.ca.certificate.stores",
    "ssl.ca.location",
    "ssl.ca.pem",
    "ssl.certificate.location",
    "ssl.certificate.pem",
    "ssl.cipher.suites",
    "ssl.crl.location",
    "ssl.curves.list",
    "ssl.endpoint.identification.algorithm",
    "ssl.engine.id",
    "ssl.engine.location",
    "ssl.key.location",
    "ssl.keystore.location",
    "ssl.providers",
    "ssl.sigalgs.list",
    "statistics.interval.ms",
    "sticky.partitioning.linger.ms",
    "topic.metadata.propagation.max.ms",
    "topic.metadata.refresh.fast.cnt",
    "topic.metadata.refresh.fast.interval.ms",
    "topic.metadata.refresh.interval.ms",
    "topic.metadata.refresh.sparse",
    "transaction.timeout.ms",
];

/// Configuration of topics, as of Kafka 4.1. It is not refused to know others: brokers of other
/// makes and times do, and judge them when a topic is made.
const TOPIC_CONFIG: &[&str] = &[
    "cleanup.policy",
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.type",
    "compression.zstd.level",
    "delete.retention.ms",
    "file.delete.delay.ms",
    "flush.messages",
    "flush.ms",
    "follower.replication.throttled.replicas",
    "index.interval.bytes",
    "leader.replication.throttled.replicas",
    "local.retention.bytes",
    "local.retention.ms",
    "max.compaction.lag.ms",
    "max.message.bytes",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "message.timestamp.type",
    "min.cleanable.dirty.ratio",
    "min.compaction.lag.ms",
    "min.insync.replicas",
    "preallocate",
    "remote.log.copy.disable",
    "remote.log.delete.on.disable",
    "remote.storage.enable",
    "retention.bytes",
    "retention.ms",
    "segment.bytes",
    "segment.index.bytes",
    "segment.jitter.ms",
    "segment.ms",
    "unclean.leader.election.enable",
];

/// Whether the value of a topic's configuration may be shown. A name that is not known may be a
/// slip, and its value a password.
pub(super) fn topic_config_may_be_shown(name: &str) -> bool {
    TOPIC_CONFIG.contains(&name)
}

/// Looks at one configuration of topics: an error, or the name that was probably meant.
pub(super) fn check_topic_config(name: &str, at: &At) -> Result<Option<&'static str>, Error> {
    if TOPIC_CONFIG.contains(&name) {
        return Ok(None);
    }
    if known_properties().any(|property| property == name) {
        let message = format!("`{name}` is a property of the client, not of a topic");
        let error = at.key_error(Kind::UnknownKey, message);
        return Err(error.help("it belongs under `kafka.properties`"));
    }
    Ok(nearest(name, TOPIC_CONFIG.iter().copied()))
}

/// Every property that is known here, in no order; for a test that asks librdkafka itself.
pub fn known_properties() -> impl Iterator<Item = &'static str> {
    let refused = REFUSED.iter().flat_map(|refused| refused.names);
    OPEN.iter().chain(SECRET).chain(refused).copied()
}

/// Properties with two names, and the one under which they are settled: two settings of one thing
/// are found, and whoever looks for one finds it.
const ALIASES: &[(&str, &str)] = &[
    ("compression.codec", "compression.type"),
    ("max.partition.fetch.bytes", "fetch.message.max.bytes"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("sasl.mechanisms", "sasl.mechanism"),
    ("sasl.oauthbearer.client.credentials.client.id", "sasl.oauthbearer.client.id"),
    ("sasl.oauthbearer.client.credentials.client.secret", "sasl.oauthbearer.client.secret"),
];

/// The name under which a property is settled.
pub(super) fn canonical(name: &str) -> &str {
    ALIASES.iter().find(|(alias, _)| *alias == name).map_or(name, |(_, canonical)| canonical)
}

/// Whether a property's value may be shown. One that is not known may not.
pub(super) fn may_be_shown(name: &str) -> bool {
    OPEN.contains(&name)
}

/// Looks at one property.
pub(super) fn check(name: &str, at: &At) -> Result<(), Error> {
    let folded = name.trim().to_lowercase();
    if let Some(refused) = REFUSED.iter().find(|refused| refused.names.contains(&folded.as_str())) {
        let message = format!("the property `{folded}` cannot be set: {}", refused.why);
        return Err(at.key_error(Kind::RefusedProperty, message).help(refused.instead));
    }
    if !OPEN.contains(&name) && !SECRET.contains(&name) {
        let message = format!("librdkafka has no property `{}`", shown_name(name));
        let error = at.key_error(Kind::UnknownKey, message);
        return Err(match nearest(name, OPEN.iter().chain(SECRET).copied()) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error.help("its names are listed in librdkafka's CONFIGURATION.md"),
        });
    }
    Ok(())
}

/// Whether OpenSSL does what a property with this value asks for. SCRAM hashes with it as well, and
/// librdkafka has tokens only together with it.
fn needs_tls(name: &str, value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    match canonical(name) {
        "security.protocol" => value.ends_with("ssl"),
        "sasl.mechanism" => value != "plain",
        name => ["ssl.", "https.", "sasl.oauthbearer."].iter().any(|it| name.starts_with(it)),
    }
}

/// Refuses what a slim build cannot do. librdkafka would as well, later and in words about its own
/// build.
pub(super) fn check_built(name: &str, value: &str, at: &At) -> Result<(), Error> {
    if cfg!(feature = "kafka-tls") || !needs_tls(name, value) {
        return Ok(());
    }
    Err(not_built(at, &format!("`{name}`")))
}

/// What a slim build says of a key that it cannot follow.
pub(super) fn not_built(at: &At, what: &str) -> Error {
    let message = format!("{what} needs TLS or a login that this build was made without");
    at.key_error(Kind::NotBuilt, message).help(
        "take a build with the feature `kafka-tls`, which releases and the image have; this one \
         speaks to brokers without TLS, and logs in with SASL/PLAIN or not at all",
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_needs_openssl_is_told_from_what_does_not() {
        for (name, value) in [
            ("security.protocol", "SSL"),
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanisms", "SCRAM-SHA-512"),
            ("sasl.mechanism", "OAUTHBEARER"),
            ("ssl.ca.location", "/ca.pem"),
            ("sasl.oauthbearer.token.endpoint.url", "https://id.example"),
        ] {
            assert!(needs_tls(name, value), "{name}: {value}");
        }
        for (name, value) in [
            ("security.protocol", "plaintext"),
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.password", "secret"),
            ("linger.ms", "5"),
        ] {
            assert!(!needs_tls(name, value), "{name}: {value}");
        }
    }

    #[test]
    fn aliases_are_names_of_properties_that_are_taken() {
        for (alias, canonical) in ALIASES {
            let taken = |name| OPEN.contains(name) || SECRET.contains(name);
            assert!(taken(alias) && taken(canonical), "{alias}");
            assert_eq!(OPEN.contains(alias), OPEN.contains(canonical), "{alias}");
        }
    }

    #[test]
    fn no_property_is_both_taken_and_refused() {
        let names: Vec<_> = known_properties().collect();
        let distinct: BTreeSet<_> = names.iter().collect();
        assert_eq!(names.len(), distinct.len());
    }
}
