//! How many pipelines of a daemon get ready beside each other. A hundred that ask Postgres, Kafka
//! and the registry at the same moment keep each other waiting until they all give up, and then do
//! it again.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Enough to keep a few cores busy: a start mostly waits for answers.
const AT_ONCE: usize = 8;

/// One that waits longer than this waits for a server, and must not hold up those whose servers
/// answer: it goes on, and the next one begins.
const TURN: Duration = Duration::from_secs(1);

/// The turns of all pipelines of a daemon.
#[derive(Clone, Debug)]
pub struct Starts(Arc<Semaphore>);

impl Default for Starts {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Starts {
    /// Does the work when it is its turn.
    pub(super) async fn in_turn<T>(&self, work: impl Future<Output = T>) -> T {
        let turn = self.0.acquire().await;
        let mut work = pin!(work);
        match timeout(TURN, &mut work).await {
            Ok(done) => done,
            Err(_) => {
                drop(turn);
                work.await
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;

    use super::*;

    #[tokio::test]
    async fn starts_that_wait_for_a_server_hold_up_the_others_for_a_turn_and_no_longer() {
        let (starts, mut waiting) = (Starts::default(), JoinSet::new());
        for _ in 0..AT_ONCE {
            let starts = starts.clone();
            waiting.spawn(async move { starts.in_turn(std::future::pending::<()>()).await });
        }
        while starts.0.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        let next = starts.in_turn(std::future::ready(7));
        let mut next = pin!(next);
        assert!(timeout(TURN / 2, &mut next).await.is_err());
        assert_eq!(next.await, 7);
        // They go on all the same.
        assert_eq!(waiting.len(), AT_ONCE);
        assert!(waiting.try_join_next().is_none());
    }
}
