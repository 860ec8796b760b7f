//! What goes wrong in each cycle of a run: a function of the seed and the cycle's number, so that a seed
//! replays its schedule.

use std::fmt;

use crate::{Allowance, Random};

/// What can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing, which must not show either.
    Nothing,
    /// The daemon that streams is killed.
    KillLeader,
    /// The one that stands by is.
    KillStandby,
    /// Both are.
    KillBoth,
    /// The daemon that streams is asked to end.
    EndLeader,
    /// It is frozen, and goes on.
    FreezeLeader,
    /// It is frozen until the standby has taken over, and wakes beside it.
    FreezeLeaderLong,
    /// The standby is frozen, and goes on.
    FreezeStandby,
    /// An administrator ends the walsender.
    EndWalsender,
    /// The walsender is killed, for which Postgres restarts all of its processes.
    KillWalsender,
    /// The walsender is frozen, and goes on.
    FreezeWalsender,
    /// Postgres is killed and started again.
    KillPostgres,
    /// Postgres is stopped in order and started again.
    StopPostgres,
    /// Postgres is frozen, and goes on.
    FreezePostgres,
    /// The broker is killed and started again.
    KillBroker,
    /// The broker is stopped in order and started again.
    StopBroker,
    /// The broker is frozen, and goes on.
    FreezeBroker,
    /// The registry is frozen, and goes on.
    FreezeRegistry,
    /// Connections of a side break, and none can be made for a while.
    Cut(Link),
    /// Connections of a side break.
    Reset(Link),
    /// Nothing comes through, and then all of it does.
    Stall(Link),
    /// Everything is slow.
    Delay(Link),
    /// Nothing comes through, and then the connections are gone.
    HalfOpen(Link),
    /// The disk of the spools is full for a while.
    FillSpool,
    /// The daemon is killed beside a step of its way to Kafka; what was on its way arrives later.
    KillAt(Step, Side),
    /// Its connections to Kafka break there.
    CutAt(Step, Side),
}

/// Which of the daemon's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "to whom they lead")]
pub enum Link {
    Postgres,
    Kafka,
}

/// A step of the way to Kafka.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A new producer shuts the others out.
    Init,
    /// A transaction begins for a table's topic (exactly once), or for the checkpoint.
    Begin,
    /// Rows are produced.
    Produce,
    /// A checkpoint is.
    Checkpoint,
    /// The transaction is committed.
    Commit,
}

/// Which side of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The request does not arrive, until it is released.
    Before,
    /// It arrives, and its answer is lost.
    After,
}

impl Step {
    const ALL: [Self; 5] = [Self::Init, Self::Begin, Self::Produce, Self::Checkpoint, Self::Commit];

    /// The number of its request, and what it must have in it.
    pub(crate) const fn request(self) -> (i16, &'static str) {
        match self {
            Self::Init => (22, ""),
            Self::Begin => (24, ""),
            Self::Produce => (0, ".public."),
            Self::Checkpoint => (0, ".waltide.checkpoint"),
            Self::Commit => (26, ""),
        }
    }
}

/// One fault of a cycle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// What.
    pub fault: Fault,
    /// For how long.
    pub lasts_ms: u64,
}

/// What a cycle brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cycle {
    /// From 1.
    pub number: u64,
    /// How long writers write before anything fails.
    pub quiet_ms: u64,
    /// What fails.
    pub first: Planned,
    /// What fails besides, before the first is mended.
    pub second: Option<Planned>,
    /// A table joins.
    pub joins: bool,
}

/// A table joins once in so many cycles, and at most so many do.
const JOINS: (u64, u64) = (12, 12);

impl Cycle {
    /// The cycle of that number in the schedule of a seed.
    pub fn of(seed: u64, number: u64) -> Self {
        let mut random = Random::new(seed).branch(number);
        let first = Planned::any(&mut random);
        let second = random.once_in(3).then(|| Planned::any(&mut random));
        let joins = number % JOINS.0 == 3 && number < JOINS.0 * JOINS.1;
        Self { number, quiet_ms: random.of(100..500), first, second, joins }
    }

    /// The faults.
    pub fn faults(&self) -> impl Iterator<Item = Fault> {
        [Some(self.first), self.second].into_iter().flatten().map(|planned| planned.fault)
    }

    /// What may come again in it, at least once.
    pub fn allows(&self) -> Allowance {
        self.faults().map(Fault::allows).max().unwrap_or(Allowance::Nothing)
    }
}

impl fmt::Display for Cycle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} for {} ms", self.number, self.first.fault, self.first.lasts_ms)?;
        if let Some(second) = self.second {
            write!(f, ", meanwhile {} for {} ms", second.fault, second.lasts_ms)?;
        }
        if self.joins {
            write!(f, "; a table joins")?;
        }
        Ok(())
    }
}

impl Planned {
    fn any(random: &mut Random) -> Self {
        let fault = Fault::any(random);
        let (least, most) = fault.lasts_ms();
        Self { fault, lasts_ms: random.of(least..most) }
    }
}

impl Fault {
    fn any(random: &mut Random) -> Self {
        let link = if random.once_in(2) { Link::Postgres } else { Link::Kafka };
        let side = if random.once_in(2) { Side::Before } else { Side::After };
        let step = *random.pick(&Step::ALL);
        // How often of a hundred; what takes long comes seldom.
        let weights = [
            (3, Self::Nothing),
            (12, Self::KillLeader),
            (3, Self::KillStandby),
            (10, Self::KillBoth),
            (3, Self::EndLeader),
            (5, Self::FreezeLeader),
            (3, Self::FreezeLeaderLong),
            (2, Self::FreezeStandby),
            (5, Self::EndWalsender),
            (4, Self::KillWalsender),
            (3, Self::FreezeWalsender),
            (5, Self::KillPostgres),
            (3, Self::StopPostgres),
            (3, Self::FreezePostgres),
            (2, Self::KillBroker),
            (1, Self::StopBroker),
            (3, Self::FreezeBroker),
            (2, Self::FreezeRegistry),
            (5, Self::Cut(link)),
            (5, Self::Reset(link)),
            (4, Self::Stall(link)),
            (2, Self::Delay(link)),
            (2, Self::HalfOpen(link)),
            (3, Self::FillSpool),
            (6, Self::KillAt(step, side)),
            (6, Self::CutAt(step, side)),
        ];
        let mut left = random.of(0..weights.iter().map(|(weight, _)| weight).sum());
        let chosen = weights.iter().find(|(weight, _)| {
            let here = left < *weight;
            left = left.saturating_sub(*weight);
            here
        });
        chosen.map_or(Self::Nothing, |(_, fault)| *fault)
    }

    /// For how long at least, and at most.
    const fn lasts_ms(self) -> (u64, u64) {
        match self {
            Self::KillBroker | Self::StopBroker | Self::EndWalsender | Self::Reset(_) => (1, 50),
            Self::KillAt(..) | Self::CutAt(..) => (1, 400),
            Self::KillLeader | Self::KillStandby | Self::KillBoth | Self::EndLeader => (1, 500),
            Self::FreezeLeaderLong => (5_000, 7_000),
            Self::Stall(_) | Self::HalfOpen(_) => (200, 3_000),
            _ => (50, 1_500),
        }
    }

    /// What may come again after it. What was on its way to Kafka when a daemon lost its place, and is held
    /// up there, comes late.
    const fn allows(self) -> Allowance {
        match self {
            // One that is asked to end delivers what it has.
            Self::Nothing
            | Self::EndLeader
            | Self::KillStandby
            | Self::FreezeStandby
            | Self::FreezeRegistry => Allowance::Nothing,
            Self::FreezeLeader
            | Self::FreezeLeaderLong
            | Self::FreezeBroker
            | Self::Stall(_)
            | Self::Delay(_)
            | Self::HalfOpen(_)
            | Self::KillAt(..)
            | Self::CutAt(..) => Allowance::Late,
            _ => Allowance::Suffix,
        }
    }

    /// What it is done to.
    pub(crate) const fn subject(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::KillLeader
            | Self::KillStandby
            | Self::KillBoth
            | Self::EndLeader
            | Self::FreezeLeader
            | Self::FreezeLeaderLong
            | Self::FreezeStandby => "daemons",
            Self::EndWalsender
            | Self::KillWalsender
            | Self::FreezeWalsender
            | Self::KillPostgres
            | Self::StopPostgres
            | Self::FreezePostgres => "Postgres",
            Self::KillBroker | Self::StopBroker | Self::FreezeBroker => "the broker",
            Self::FreezeRegistry => "the registry",
            Self::Cut(Link::Postgres)
            | Self::Reset(Link::Postgres)
            | Self::Stall(Link::Postgres)
            | Self::Delay(Link::Postgres)
            | Self::HalfOpen(Link::Postgres) => "the way to Postgres",
            Self::Cut(_) | Self::Reset(_) | Self::Stall(_) | Self::Delay(_) | Self::HalfOpen(_) => {
                "the way to Kafka"
            }
            Self::FillSpool => "the spool",
            Self::KillAt(..) | Self::CutAt(..) => "the wire",
        }
    }

    /// Its name in reports: the same for all steps.
    pub fn name(self) -> String {
        match self {
            Self::KillAt(..) => "kill the daemon at a step".into(),
            Self::CutAt(..) => "cut Kafka at a step".into(),
            other => other.to_string(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Nothing => "nothing",
            Self::KillLeader => "kill the leader",
            Self::KillStandby => "kill the standby",
            Self::KillBoth => "kill both daemons",
            Self::EndLeader => "end the leader",
            Self::FreezeLeader => "freeze the leader",
            Self::FreezeLeaderLong => "freeze the leader until it is replaced",
            Self::FreezeStandby => "freeze the standby",
            Self::EndWalsender => "end the walsender",
            Self::KillWalsender => "kill the walsender",
            Self::FreezeWalsender => "freeze the walsender",
            Self::KillPostgres => "kill Postgres",
            Self::StopPostgres => "restart Postgres",
            Self::FreezePostgres => "freeze Postgres",
            Self::KillBroker => "kill the broker",
            Self::StopBroker => "restart the broker",
            Self::FreezeBroker => "freeze the broker",
            Self::FreezeRegistry => "freeze the registry",
            Self::Cut(link) => return write!(f, "cut {link:?}"),
            Self::Reset(link) => return write!(f, "reset {link:?}"),
            Self::Stall(link) => return write!(f, "stall {link:?}"),
            Self::Delay(link) => return write!(f, "delay {link:?}"),
            Self::HalfOpen(link) => return write!(f, "half-open {link:?}"),
            Self::FillSpool => "fill the spool's disk",
            Self::KillAt(step, side) => {
                return write!(f, "kill the daemon {side:?} {step:?}");
            }
            Self::CutAt(step, side) => return write!(f, "cut Kafka {side:?} {step:?}"),
        };
        f.write_str(text)
    }
}
