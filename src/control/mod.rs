//! What people ask of a running pipeline, and how it comes to the pipeline's owner.
//!
//! ```text
//!   HTTP -> Handle -- wishes (hold until they are taken back) --> Orders -> supervisor, owner
//!                  '- commands (done once, and answered) -------'
//! ```
//!
//! A wish holds however often the pipeline starts over meanwhile: the owner sees the last one. It
//! lives as long as the process: after a restart, and on a standby that takes over, changes flow.
//! A pause that outlives whoever asked for it would fill the source's disk unnoticed.

pub mod reload;
pub mod token;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use waltide_core::snapshot::{Filter, Keys};

use crate::config::{TableName, settled};
use crate::fault::{Code, Fault};
use crate::status::{Pipeline, State};

/// Commands that wait for the owner. It takes them several times a second, and people type slowly.
const COMMANDS: usize = 8;

/// How long a command may take to be answered.
const ANSWER: Duration = Duration::from_secs(10);

/// What a pipeline can be told to do once. The owner answers as soon as it is begun or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// About the rows that are there.
    Snapshot {
        /// Of which table; none for all that are captured.
        table: Option<TableName>,
        /// What is to be done.
        order: SnapshotOrder,
    },
}

/// What can be done about the rows that are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SnapshotOrder {
    /// They are read, whatever was read before: all, or those for which this is true.
    Start(Option<Filter>),
    /// Those with these keys are read, and of those that are not there it is told that they are not.
    Mend(Keys),
    /// Nothing more of them is read for now, also not by a later start of the daemon.
    Pause,
    /// It goes on.
    Resume,
    /// They are not read to their end.
    Cancel,
}

/// A command, and where its answer goes.
#[derive(Debug)]
pub struct Asked {
    /// What is to be done.
    pub command: Command,
    answer: oneshot::Sender<Result<Value, Fault>>,
}

impl Asked {
    /// Whether somebody still waits for it. What nobody waits for any more is not done.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        !self.answer.is_closed()
    }

    /// Says what came of it.
    pub fn answer(self, answer: Result<Value, Fault>) {
        // Whoever asked may have gone.
        let _ = self.answer.send(answer);
    }
}

/// What holds until it is taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Wishes {
    paused: bool,
    /// How often it was asked to go on. A pipeline that was stopped tries again.
    resumed: u64,
    /// What the pipeline is to run with, where that has changed, and how often it has.
    settings: Option<(u64, Arc<settled::Pipeline>)>,
}

/// The end of the line at which people are.
#[derive(Clone, Debug)]
pub struct Handle {
    /// What the pipeline says of itself.
    pub status: Arc<Pipeline>,
    wishes: watch::Sender<Wishes>,
    commands: mpsc::Sender<Asked>,
}

/// The end of the line at which the pipeline is.
#[derive(Debug)]
pub struct Orders {
    wishes: watch::Receiver<Wishes>,
    commands: mpsc::Receiver<Asked>,
    /// How often it had been asked to go on when it last began.
    begun: u64,
    /// Which settings it has.
    renewed: u64,
}

/// A line to a pipeline.
#[must_use]
pub fn line(status: Arc<Pipeline>) -> (Handle, Orders) {
    let (wishes, wished) = watch::channel(Wishes::default());
    let (commands, asked) = mpsc::channel(COMMANDS);
    (
        Handle { status, wishes, commands },
        Orders { wishes: wished, commands: asked, begun: 0, renewed: 0 },
    )
}

impl Handle {
    /// Whether it is to publish nothing for now.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.wishes.borrow().paused
    }

    /// Lets it publish what it has begun, and nothing more.
    pub fn pause(&self) {
        self.wishes.send_modify(|wishes| wishes.paused = true);
    }

    /// Lets it go on; one that was stopped tries again.
    pub fn resume(&self) {
        self.wishes.send_modify(|wishes| {
            wishes.paused = false;
            wishes.resumed += 1;
        });
    }

    /// Lets it go on with other settings. One that was stopped tries again with them.
    pub fn renew(&self, settings: settled::Pipeline) {
        self.wishes.send_modify(|wishes| {
            let times = wishes.settings.as_ref().map_or(0, |(times, _)| *times);
            wishes.settings = Some((times + 1, Arc::new(settings)));
            wishes.resumed += 1;
        });
    }

    /// Has something done by a pipeline that streams.
    ///
    /// # Errors
    /// Where it does not stream, does not answer, or refuses.
    pub async fn command(&self, command: Command) -> Result<Value, Fault> {
        let state = self.status.state();
        if state != State::Streaming {
            return Err(self.unable(&format!("it is {}", state.as_str())));
        }
        let (answer, answered) = oneshot::channel();
        let ask = async {
            self.commands.send(Asked { command, answer }).await.ok()?;
            answered.await.ok()
        };
        match timeout(ANSWER, ask).await {
            Ok(Some(answer)) => answer,
            Ok(None) | Err(_) => Err(self.unable("it does not answer")),
        }
    }

    fn unable(&self, why: &str) -> Fault {
        Fault::new(
            Code::RequestUntimely,
            format!("pipeline {} cannot do that now: {why}", self.status.name),
            "look at `waltide status`, and ask again when it streams",
        )
    }
}

impl Orders {
    /// Whether it is to publish nothing for now.
    #[must_use]
    pub fn paused(&self) -> bool {
        self.wishes.borrow().paused
    }

    /// Waits for another wish or for a command; none is a wish. Nothing is lost where the wait is
    /// given up.
    pub async fn next(&mut self) -> Option<Asked> {
        tokio::select! {
            changed = self.wishes.changed() => match changed {
                Ok(()) => None,
                // Nobody is left to wish anything.
                Err(_) => std::future::pending().await,
            },
            asked = self.commands.recv() => match asked {
                Some(asked) => Some(asked),
                None => std::future::pending().await,
            },
        }
    }

    /// It begins, or begins again: what it was asked before is done with that.
    ///
    /// Other settings, where there are any since it last began.
    pub fn begin(&mut self) -> Option<Arc<settled::Pipeline>> {
        let wishes = self.wishes.borrow();
        self.begun = wishes.resumed;
        let (times, settings) = wishes.settings.as_ref()?;
        let new = *times != self.renewed;
        self.renewed = *times;
        new.then(|| Arc::clone(settings))
    }

    /// Whether there are other settings since it began.
    #[must_use]
    pub fn renewed(&self) -> bool {
        let wishes = self.wishes.borrow();
        wishes.settings.as_ref().is_some_and(|(times, _)| *times != self.renewed)
    }

    /// Waits until it is asked to go on, or was since it began.
    pub async fn resumed(&mut self) {
        let before = self.begun;
        if self.wishes.wait_for(|wishes| wishes.resumed != before).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_wish_holds_and_going_on_is_heard_once() {
        let (handle, mut orders) = line(Pipeline::new("shop"));
        assert!(!orders.paused());
        handle.pause();
        handle.pause();
        assert!(orders.next().await.is_none());
        assert!(orders.paused() && handle.is_paused());
        handle.resume();
        assert!(orders.next().await.is_none());
        assert!(!orders.paused());
        assert_eq!(orders.begin(), None);
        let mut resumed = Box::pin(orders.resumed());
        assert!(timeout(Duration::from_millis(20), &mut resumed).await.is_err());
        handle.resume();
        resumed.await;
    }
}
