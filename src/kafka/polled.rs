//! A client whose call-backs are served by a thread of its own.
//!
//! That of the `rdkafka` crate wakes ten times a second, and spins for the last millisecond of
//! each wait, which its time-out cannot express: one per cent of a core for a client at rest.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseProducer, Producer as _, ProducerContext, PurgeConfig};

/// How long the thread waits without looking whether it is still wanted. What is reported wakes
/// it at once.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// A client that has call-backs.
pub(super) trait Served: Send + Sync + 'static {
    /// Serves those that come meanwhile.
    fn serve(&self, wait: Duration);

    /// Nobody wants it any more.
    fn leave(&self) {}
}

impl<C: ProducerContext + 'static> Served for BaseProducer<C> {
    fn serve(&self, wait: Duration) {
        self.poll(wait);
    }

    /// What it has not sent goes at once, for another may send the same by then.
    fn leave(&self) {
        self.purge(PurgeConfig::default().queue().inflight());
    }
}

/// One that is assigned nothing, and only asks.
impl<C: ConsumerContext + 'static> Served for BaseConsumer<C> {
    fn serve(&self, wait: Duration) {
        // An error has been told to the context as well.
        drop(self.poll(wait));
    }
}

/// A client and its thread.
pub(super) struct Polled<T: Served> {
    client: Arc<T>,
    ended: Arc<AtomicBool>,
}

impl<T: Served> Polled<T> {
    pub(super) fn new<C>(config: &ClientConfig, context: C) -> KafkaResult<Self>
    where
        C: rdkafka::ClientContext,
        T: FromClientConfigAndContext<C>,
    {
        let client: Arc<T> = Arc::new(config.create_with_context(context)?);
        let ended = Arc::new(AtomicBool::new(false));
        let (served, wanted) = (Arc::clone(&client), Arc::clone(&ended));
        std::thread::Builder::new()
            .name("kafka-reports".to_owned())
            .spawn(move || {
                while !wanted.load(Ordering::Relaxed) {
                    served.serve(LOOK_EVERY);
                }
            })
            .map_err(|error| KafkaError::ClientCreation(error.to_string()))?;
        Ok(Self { client, ended })
    }
}

impl<T: Served> Deref for Polled<T> {
    type Target = T;

    fn deref(&self) -> &Self::Target {
        &self.client
    }
}

impl<T: Served> Drop for Polled<T> {
    /// The client goes with its thread, a moment later: nobody has to wait for it.
    fn drop(&mut self) {
        self.client.leave();
        self.ended.store(true, Ordering::Relaxed);
    }
}
