//! What a checkpoint says, and where it does not fit what is there.

use waltide_core::checkpoint::{Stop, Unreadable};
use waltide_core::delivery::{BooksBehind, LostTopic};
use waltide_core::lsn::Lsn;

use super::REPORT;
use crate::fault::{Code, Fault};

/// A checkpoint that cannot be gone by.
pub(in crate::pipeline) fn of_checkpoint(error: &Unreadable, topic: &str) -> Fault {
    let mend = match error {
        Unreadable::NewerFormat { .. } => {
            "run the newer version again, which reads all formats before its own".to_owned()
        }
        Unreadable::Foreign | Unreadable::Malformed { .. } | Unreadable::Contradictory => {
            format!("find out who else writes to {topic}; nobody but this pipeline may")
        }
    };
    Fault::new(Code::CheckpointUnreadable, format!("topic {topic}: {error}"), mend)
}

/// Continuity that cannot be proved.
pub(in crate::pipeline) fn of_stop(stop: &Stop, pipeline: &str) -> Fault {
    let code = match stop {
        Stop::CheckpointLost { .. } => Code::CheckpointLost,
        Stop::AnotherSystem { .. } | Stop::AnotherDatabase { .. } => Code::AnotherSource,
        Stop::OlderTimeline { .. } | Stop::ForkedTimeline { .. } | Stop::LogEndsBefore { .. } => {
            Code::AnotherHistory
        }
        Stop::SlotRecreated { .. } => Code::SlotMissing,
        Stop::SlotAhead { .. } => Code::SlotAhead,
    };
    let way = match stop {
        Stop::CheckpointLost { .. } => "--adopt",
        _ => "--accept-gap",
    };
    let mend = format!("{}: waltide recover {pipeline} {way}", stop.mend());
    Fault::new(code, stop.to_string(), mend)
}

/// A slot that is gone although the pipeline had one.
pub(in crate::pipeline) fn of_missing_slot(pipeline: &str, slot: &str, checkpoint: Lsn) -> Fault {
    Fault::new(
        Code::SlotMissing,
        format!(
            "slot {slot} is gone; the checkpoint says that everything before {checkpoint} is \
             published"
        ),
        format!(
            "find out who dropped it; if the gap is acceptable: waltide recover {pipeline} \
             --accept-gap"
        ),
    )
}

/// Another daemon is at work.
pub(in crate::pipeline) fn of_successor(instance: &str) -> Fault {
    Fault::new(
        Code::Superseded,
        format!("daemon {instance} has written a checkpoint of this pipeline"),
        "nothing if another daemon runs this pipeline: this one starts over or stands by",
    )
}

/// The checkpoint that there was is there no more.
pub(in crate::pipeline) fn of_lost_checkpoint(topic: &str) -> Fault {
    Fault::new(
        Code::CheckpointLost,
        format!("topic {topic} has lost its checkpoint"),
        "restart the daemon if the topic was deleted by mistake and is back; otherwise see \
         `waltide recover`",
    )
}

/// Kafka and the books do not agree.
pub(in crate::pipeline) fn of_books(behind: &BooksBehind) -> Fault {
    Fault::new(Code::Internal, behind.to_string(), REPORT)
}

/// A topic that no longer holds what was acknowledged.
pub(in crate::pipeline) fn of_lost_topic(lost: &LostTopic) -> Fault {
    let LostTopic { name, what } = lost;
    Fault::new(
        Code::TopicLost,
        format!("topic {name} has lost records of this pipeline: {what}"),
        "restore it if that was a mistake; otherwise tell its consumers and accept the gap with \
         `waltide recover PIPELINE --accept-gap`",
    )
}
