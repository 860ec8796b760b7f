//! Drives the start of a pipeline, a step at a time, in either world. Between two steps anything may
//! happen, and any of them may fail.

use std::collections::{BTreeMap, BTreeSet};

use waltide_core::checkpoint::Checkpoint;
use waltide_core::delivery::{Began, Event, Halt, Start, Step, Wanted};
use waltide_core::lsn::{DurableLsn, Lsn};

use crate::random::Random;
use crate::server::Server;

pub(crate) const TOPIC: &str = "rows";

/// What a start asks of Kafka.
pub(crate) trait Kafka {
    /// Shuts out whoever wrote before.
    fn fence(&mut self) -> u64;
    /// The same of what is shut out a moment later, before anything is read.
    fn fence_rest(&mut self, _epoch: u64) {}
    /// The last checkpoint, as somebody reads it who shuts nobody out.
    fn last_checkpoint(&self) -> Option<Checkpoint>;
    /// Where the topic ends, by partition.
    fn ends(&self) -> Vec<i64>;
    /// Writes a checkpoint; false where it is refused, or nobody knows.
    fn write(&mut self, epoch: u64, checkpoint: &Checkpoint, random: &mut Random) -> bool;
}

/// Bugs of who drives it.
#[derive(Default)]
pub(crate) struct Slips {
    /// The checkpoint is read before the predecessor is shut out.
    pub(crate) reads_early: bool,
    /// This one is taken for the last.
    pub(crate) remembered: Option<Checkpoint>,
    /// A new pipeline's checkpoint is not written.
    pub(crate) no_birth: bool,
    /// It goes on one byte too far.
    pub(crate) one_too_far: bool,
}

pub(crate) struct Starting {
    start: Start,
    step: Step,
    pub(crate) epoch: u64,
    early: Option<Checkpoint>,
    written: Option<Checkpoint>,
}

/// How far it is.
enum Way {
    On,
    /// It is tried again, sooner or later.
    GivenUp,
    Began(Box<Began>),
}

impl Starting {
    pub(crate) fn new(instance: &str, exactly_once: bool) -> Self {
        let (start, step) = Start::new(Wanted {
            slot: "shop".to_owned(),
            publication_fingerprint: String::new(),
            topics: BTreeSet::from([TOPIC.to_owned()]),
            instance: instance.to_owned(),
            exactly_once,
            snapshots: false,
            now_us: 0,
        });
        Self { start, step, epoch: 0, early: None, written: None }
    }

    /// Does what is to be done next.
    fn go_on(
        &mut self,
        who: usize,
        server: &mut Server,
        kafka: &mut impl Kafka,
        random: &mut Random,
        slips: &Slips,
    ) -> Result<Way, String> {
        if random.once_in(60) {
            return Ok(Way::GivenUp);
        }
        let Some(event) = self.perform(who, server, kafka, random, slips) else {
            return Ok(Way::GivenUp);
        };
        self.step = match self.start.on(event) {
            // Another daemon has taken over between two steps.
            Ok(Step::StandBy) | Err(Halt::Superseded { .. } | Halt::SlotLost) => {
                return Ok(Way::GivenUp);
            }
            Err(halt) => return Err(format!("stopped without need: {halt:?}")),
            Ok(Step::Stream(mut began)) => {
                if slips.one_too_far {
                    began.resume = DurableLsn::proven(Lsn(began.resume.lsn().0 + 1));
                }
                return Ok(Way::Began(began));
            }
            Ok(step) => step,
        };
        Ok(Way::On)
    }

    fn perform(
        &mut self,
        who: usize,
        server: &mut Server,
        kafka: &mut impl Kafka,
        random: &mut Random,
        slips: &Slips,
    ) -> Option<Event> {
        let boxed = |found: Option<Checkpoint>| Event::Checkpoint(found.map(Box::new));
        Some(match &self.step {
            Step::FindSlot => Event::Slot { there: server.slot.is_some() },
            Step::Look => boxed(kafka.last_checkpoint()),
            Step::MakeSlot => server.make_slot().then_some(Event::SlotMade)?,
            Step::TakeSlot => match server.take_slot(who) {
                Some(facts) => {
                    self.early = kafka.last_checkpoint();
                    Event::Held(Box::new(facts))
                }
                None => Event::HeldByAnother,
            },
            Step::Fence => {
                self.epoch = kafka.fence();
                Event::Fenced
            }
            Step::Recall if slips.reads_early => boxed(self.early.take()),
            Step::Recall => {
                kafka.fence_rest(self.epoch);
                boxed(slips.remembered.clone().or_else(|| kafka.last_checkpoint()))
            }
            Step::Measure(_) => Event::Ends(BTreeMap::from([(TOPIC.to_owned(), kafka.ends())])),
            Step::AskForSlot => Event::Ours(server.holds(who)),
            Step::Write(checkpoint) if slips.no_birth => {
                self.written = Some(checkpoint.as_ref().clone());
                Event::Written
            }
            Step::Write(checkpoint) => {
                kafka.write(self.epoch, checkpoint, random).then_some(Event::Written)?
            }
            Step::ReadBack => boxed(self.written.take().or_else(|| kafka.last_checkpoint())),
            Step::StandBy | Step::Stream(_) => return None,
        })
    }
}

/// Where a daemon is.
pub(crate) enum Phase<S> {
    Off,
    Starting(Box<Starting>),
    Streaming(Box<S>),
}

impl<S> Phase<S> {
    /// A step on the way to a stream; false where the start is given up.
    pub(crate) fn go_on(
        &mut self,
        who: usize,
        server: &mut Server,
        kafka: &mut impl Kafka,
        random: &mut Random,
        slips: &Slips,
        stream: impl FnOnce(Began, u64, &Server) -> S,
    ) -> Result<bool, String> {
        let Self::Starting(starting) = self else { return Ok(true) };
        match starting.go_on(who, server, kafka, random, slips)? {
            Way::On => {}
            Way::GivenUp => return Ok(false),
            Way::Began(began) => {
                let stream = stream(*began, starting.epoch, server);
                *self = Self::Streaming(Box::new(stream));
            }
        }
        Ok(true)
    }
}
