//! The hands of a start: what `waltide_core::delivery::Start` asks for is done here, on servers.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use waltide_core::checkpoint::{Checkpoint, Resume};
use waltide_core::delivery::{Began, Event, Halt, Start, Step, Wanted};

use super::diagnosis;
use super::holding::{self, Ask, Held};
use super::keeper::{Keeper, Writer, now_us};
use super::recovery::{self, fingerprint, topics_of};
use super::source::{self, Published};
use crate::config::settled::{Delivery, Pipeline, Snapshot};
use crate::fault::Fault;
use crate::kafka::{self, Admin, CheckpointTopic};
use crate::postgres::{Connection, Params};
use crate::spool::{self, Spool};

/// How long what the server said last may take to be read. It is on its way already, or there is
/// nothing.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What a start works with.
pub(super) struct Hands<'a> {
    pub(super) settings: &'a Pipeline,
    pub(super) control: &'a Handle,
    pub(super) params: &'a Params,
    pub(super) published: &'a Published,
    pub(super) kafka: &'a kafka::Settings,
    pub(super) admin: &'a Arc<Admin>,
    pub(super) catalog: &'a mut Connection,
    /// Why the registry does not answer: then nothing is made that would keep the source's log for
    /// a pipeline that cannot begin.
    pub(super) away: Option<&'a Fault>,
    /// Where open transactions are to be kept.
    pub(super) directory: Option<spool::Directory>,
}

/// A pipeline that may publish.
pub(super) struct Started {
    pub(super) began: Box<Began>,
    pub(super) held: Held,
    pub(super) keeper: Keeper,
    /// None where open transactions are not kept, or where that has failed.
    pub(super) spool: Option<Spool>,
    pub(super) spool_failed: Option<spool::Error>,
}

/// What is in hand, as the start goes on.
#[derive(Default)]
struct InHand {
    held: Option<Held>,
    keeper: Option<Keeper>,
    spool: Option<Spool>,
    spool_failed: Option<spool::Error>,
}

impl Hands<'_> {
    /// From nothing to a stream; `None` where another daemon has the slot.
    ///
    /// # Errors
    /// Where something is away or in the way, or where nothing may be published.
    pub(super) async fn start(mut self) -> Result<Option<Started>, Fault> {
        let mut in_hand = InHand::default();
        let (mut start, mut step) = Start::new(self.wanted());
        let began = loop {
            let event = match step {
                Step::StandBy => return Ok(None),
                Step::Stream(began) => break began,
                step => self.perform(step, &mut in_hand).await?,
            };
            step = match start.on(event) {
                Ok(step) => step,
                // The server may have said why: it ends a stream that it cannot begin.
                Err(Halt::SlotLost) => return Err(self.why_lost(in_hand.held).await),
                Err(halt) => return Err(self.halted(halt)),
            };
        };
        self.tell(&began);
        let InHand { held, keeper, spool, spool_failed } = in_hand;
        let (Some(held), Some(keeper)) = (held, keeper) else {
            return Err(diagnosis::of_machine());
        };
        Ok(Some(Started { began, held, keeper, spool, spool_failed }))
    }

    fn wanted(&self) -> Wanted {
        Wanted {
            slot: self.settings.source.slot.clone(),
            publication_fingerprint: fingerprint(self.published),
            topics: topics_of(self.settings, self.published),
            instance: instance(),
            exactly_once: self.settings.delivery == Delivery::ExactlyOnce,
            snapshots: self.settings.snapshot != Snapshot::Never,
            now_us: now_us(),
        }
    }

    async fn perform(&mut self, step: Step, in_hand: &mut InHand) -> Result<Event, Fault> {
        let slot = &self.settings.source.slot;
        match step {
            Step::FindSlot => {
                let there = source::find_slot(self.catalog, slot).await?.is_some();
                match self.away {
                    Some(fault) if !there => Err(fault.clone()),
                    _ => Ok(Event::Slot { there }),
                }
            }
            Step::Look => recovery::look(self.settings, self.admin).await.map(checkpoint),
            Step::MakeSlot => {
                source::make_slot(self.catalog, &self.settings.source).await?;
                Ok(Event::SlotMade)
            }
            Step::TakeSlot => self.take_slot(in_hand).await,
            Step::Fence => self.fence(in_hand).await,
            Step::Recall | Step::ReadBack => {
                in_hand.keeper()?.memory.recall().await.map(checkpoint)
            }
            Step::Measure(topics) => self.measure(topics).await,
            Step::AskForSlot => {
                let held = in_hand.held.as_ref().ok_or_else(diagnosis::of_machine)?;
                held.holding.is_ours_by(self.catalog).await.map(Event::Ours)
            }
            Step::Write(next) => {
                let written = in_hand.keeper()?.write(&next).await;
                written.map_err(|error| diagnosis::of_kafka(&error))?;
                Ok(Event::Written)
            }
            Step::StandBy | Step::Stream(_) => Err(diagnosis::of_machine()),
        }
    }

    /// Takes the slot. What cannot be kept on disk stays with the server: then the stream is taken
    /// without open transactions.
    async fn take_slot(&mut self, in_hand: &mut InHand) -> Result<Event, Fault> {
        loop {
            let ask = Ask {
                settings: self.settings,
                params: self.params,
                published: self.published,
                made: false,
                streaming: self.directory.is_some(),
            };
            let Some(held) = holding::hold(self.catalog, self.control, ask).await? else {
                return Ok(Event::HeldByAnother);
            };
            if let Some(directory) = self.directory.take() {
                match Spool::take(directory, self.settings.spool_max_bytes).await {
                    Ok(spool) => in_hand.spool = Some(spool),
                    Err(error) => {
                        in_hand.spool_failed = Some(error);
                        continue;
                    }
                }
            }
            let facts = Box::new(held.facts.clone());
            in_hand.held = Some(held);
            return Ok(Event::Held(facts));
        }
    }

    /// Shuts out whoever wrote before.
    async fn fence(&self, in_hand: &mut InHand) -> Result<Event, Fault> {
        let failed = |error| diagnosis::of_kafka(&error);
        let (settings, name) = (self.settings, self.settings.checkpoint_topic());
        let factor = settings.kafka.replication_factor;
        let topic = CheckpointTopic::open(self.admin, &name, factor).await.map_err(failed)?;
        let memory = recovery::memory(settings, topic);
        let writer = match settings.delivery {
            Delivery::AtLeastOnce => memory.become_only_writer().await.map(Writer::Apart),
            Delivery::ExactlyOnce => {
                memory.become_producer(self.kafka).await.map(|it| Writer::Within(Box::new(it)))
            }
        };
        let writer = writer.map_err(failed)?;
        let slot = in_hand.held.as_ref().ok_or_else(diagnosis::of_machine)?.holding.clone();
        in_hand.keeper = Some(Keeper { memory, writer, slot });
        Ok(Event::Fenced)
    }

    async fn measure(&self, topics: BTreeSet<String>) -> Result<Event, Fault> {
        recovery::ends(self.admin, topics).await.map(Event::Ends)
    }

    /// Why the slot is not ours any more.
    async fn why_lost(&self, held: Option<Held>) -> Fault {
        let told = async {
            let mut reader = held?.reader;
            loop {
                while let Some(frame) = reader.next_frame() {
                    if let Err(error) = frame {
                        return Some(error);
                    }
                }
                match reader.fill().await {
                    Ok(0) => return None,
                    Ok(_) => {}
                    Err(error) => return Some(error),
                }
            }
        };
        match tokio::time::timeout(LAST_WORD, told).await {
            Ok(Some(error)) => diagnosis::of_source(&error),
            Ok(None) | Err(_) => self.halted(Halt::SlotLost),
        }
    }

    fn halted(&self, halt: Halt) -> Fault {
        let (name, slot) = (&self.settings.name, &self.settings.source.slot);
        match halt {
            Halt::SlotMissing { checkpoint } => diagnosis::of_missing_slot(name, slot, checkpoint),
            Halt::Stop(stop) => diagnosis::of_stop(&stop, name),
            Halt::LostTopic(lost) => diagnosis::of_lost_topic(&lost),
            Halt::Unreadable(error) => {
                diagnosis::of_checkpoint(&error, &self.settings.checkpoint_topic())
            }
            Halt::SlotLost => diagnosis::of_lost_slot(slot),
            Halt::Superseded { by } => diagnosis::of_successor(&by),
            Halt::WrittenInVain => diagnosis::of_lost_checkpoint(&self.settings.checkpoint_topic()),
            Halt::OutOfOrder => diagnosis::of_machine(),
        }
    }

    fn tell(&self, began: &Began) {
        let pipeline = self.settings.name.as_str();
        if began.covers_others {
            tracing::info!(
                pipeline,
                "the publication covers other tables than it did at the last checkpoint"
            );
        }
        match began.decided {
            Resume::Continue { .. } => {}
            Resume::Birth { at } | Resume::Adopt { at } => {
                let adopted = matches!(began.decided, Resume::Adopt { .. });
                tracing::info!(pipeline, from = %at.lsn(), adopted, "a new pipeline");
            }
        }
    }
}

impl InHand {
    fn keeper(&mut self) -> Result<&mut Keeper, Fault> {
        self.keeper.as_mut().ok_or_else(diagnosis::of_machine)
    }
}

fn checkpoint(found: Option<Checkpoint>) -> Event {
    Event::Checkpoint(found.map(Box::new))
}

/// A name for this life of the pipeline that no other has.
pub(super) fn instance() -> String {
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    format!("{}-{random:016x}", std::process::id())
}
