//! A client whose call-backs are served by a thread of its own.
//!
//! That of the `rdkafka` crate wakes ten times a second, and spins for the last millisecond of
//! each wait, which its time-out cannot express: one per cent of a core for a client at rest.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext, PurgeConfig};

/// How long the thread waits without looking whether it is still wanted. What is reported wakes
/// it at once.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A client and its thread.
pub(super) struct Polled<C: ProducerContext + 'static> {
    client: Arc<BaseProducer<C>>,
    ended: Arc<AtomicBool>,
}

impl<C: ProducerContext + 'static> Polled<C> {
    pub(super) fn new(config: &ClientConfig, context: C) -> KafkaResult<Self> {
        let client: Arc<BaseProducer<C>> = Arc::new(config.create_with_context(context)?);
        let ended = Arc::new(AtomicBool::new(false));
        let (served, wanted) = (Arc::clone(&client), Arc::clone(&ended));
        std::thread::Builder::new()
            .name("kafka-reports".to_owned())
            .spawn(move || {
                while !wanted.load(Ordering::Relaxed) {
                    served.poll(LOOK_EVERY);
                }
            })
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { client, ended })
    }
}

impl<C: ProducerContext + 'static> Deref for Polled<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &Self::Target {
        &self.client
    }
}

impl<C: ProducerContext + 'static> Drop for Polled<C> {
    /// The client goes with its thread, a moment later: nobody has to wait for it. What it has
    /// not sent goes at once, for another may send the same by then.
    fn drop(&mut self) {
        self.client.purge(PurgeConfig::default().queue().inflight());
        self.ended.store(true, Ordering::Relaxed);
    }
}
