//! Brokers that go away, networks that fail in the middle of a commit, logs that are compacted.

use waltide_stack::{KafkaOptions, eventually};

use super::tap::{Commits, Tap};
use super::*;

/// Kafka's answers to a producer of an older epoch.
const FENCED: [i16; 2] = [47, 90];

async fn on(bootstrap: String, name: &str) -> CheckpointTopic {
    CheckpointTopic::open(&admin(bootstrap), name, Some(1)).await.unwrap()
}

fn is_unknown(outcome: &Result<(), Error>) -> bool {
    matches!(outcome, Err(Error::UnknownOutcome { .. }))
}

#[tokio::test]
async fn a_broker_that_is_away_is_an_error_in_time_and_never_no_checkpoint() {
    let kafka = KafkaOptions::new().start();
    let topic = on(kafka.bootstrap(), "away").await;
    let mut first = writer(&topic).await;
    first.write(KEY, b"kept", SOON).await.unwrap();

    // It does not answer.
    kafka.pause();
    let begun = Instant::now();
    let (read, written) =
        tokio::join!(topic.read_last(KEY, BRIEFLY), first.write(KEY, b"lost", BRIEFLY));
    let begun_again = Instant::now();
    let init = CheckpointWriter::init(&topic, &id(&topic), BRIEFLY).await;
    for late in [begun_again - begun, begun_again.elapsed()] {
        assert!(late < BRIEFLY + TOLERANCE, "{late:?}");
    }
    assert!(matches!(read, Err(Error::NotInTime { .. } | Error::Unreachable { .. })), "{read:?}");
    assert!(matches!(written, Err(Error::NotInTime { .. })), "{written:?}");
    assert!(
        matches!(init, Err(Error::NotInTime { .. } | Error::Unreachable { .. })),
        "{:?}",
        init.err()
    );
    kafka.resume();
    let mut second = writer(&topic).await;
    assert_eq!(last(&topic).await.as_deref(), Some("kept"));
    second.write(KEY, b"goes on", SOON).await.unwrap();

    // It is gone.
    kafka.kill();
    let begun = Instant::now();
    let read = topic.read_last(KEY, BRIEFLY).await;
    assert!(matches!(read, Err(Error::NotInTime { .. } | Error::Unreachable { .. })), "{read:?}");
    assert!(begun.elapsed() < BRIEFLY + TOLERANCE);
    kafka.start_again();
    assert_eq!(last(&topic).await.as_deref(), Some("goes on"));
    second.write(KEY, b"and on", SOON).await.unwrap();
    assert_eq!(last(&topic).await.as_deref(), Some("and on"));
}

#[tokio::test]
async fn a_broker_that_makes_topics_by_itself_does_not_make_this_one() {
    let kafka = KafkaOptions::new()
        .setting("auto.create.topics.enable", "true")
        .setting("num.partitions", "3")
        .start();
    let topic = on(kafka.bootstrap(), "on-purpose").await;
    let mut writer = writer(&topic).await;
    writer.write(KEY, b"there", SOON).await.unwrap();
    kafka.delete_topic(topic.name());
    let written = writer.write(KEY, b"gone", BRIEFLY).await;
    assert!(written.is_err(), "{written:?}");
    let read = topic.read_last(KEY, BRIEFLY).await;
    assert!(read.is_err(), "{read:?}");
    assert!(!kafka.topics().contains(&topic.name().to_owned()));
}

#[tokio::test]
async fn a_commit_still_on_its_way_when_a_successor_takes_over_is_refused() {
    let kafka = KafkaOptions::new().behind_proxy().start();
    let tap = Tap::on(&kafka);
    let (ours, theirs) = (on(kafka.bootstrap(), "late").await, on(kafka.direct(), "late").await);
    let mut frozen = writer(&ours).await;
    frozen.write(KEY, b"before", SOON).await.unwrap();
    tap.commits(Commits::Hold);
    let outcome = frozen.write(KEY, b"older", BRIEFLY).await;
    assert!(is_unknown(&outcome), "{outcome:?}");
    let mut successor = writer(&theirs).await;
    assert_eq!(last(&theirs).await.as_deref(), Some("before"));
    successor.write(KEY, b"newer", SOON).await.unwrap();
    let code = tap.release();
    assert!(FENCED.contains(&code), "the broker answered {code}");
    assert_eq!(last(&theirs).await.as_deref(), Some("newer"));
    successor.write(KEY, b"newest", SOON).await.unwrap();
}

#[tokio::test]
async fn a_commit_without_an_answer_may_still_come_to_be() {
    let kafka = KafkaOptions::new().behind_proxy().start();
    let tap = Tap::on(&kafka);
    let (ours, theirs) = (on(kafka.bootstrap(), "maybe").await, on(kafka.direct(), "maybe").await);
    let mut old = writer(&ours).await;
    old.write(KEY, b"before", SOON).await.unwrap();

    // The request is late, and nobody took over meanwhile.
    tap.commits(Commits::Hold);
    let outcome = old.write(KEY, b"late", BRIEFLY).await;
    assert!(is_unknown(&outcome), "{outcome:?}");
    let begun = Instant::now();
    assert_eq!(old.write(KEY, b"never tried", SOON).await, outcome);
    assert!(begun.elapsed() < BRIEFLY, "a writer that is used up says so at once");
    assert_eq!(tap.release(), 0);
    assert_eq!(last(&theirs).await.as_deref(), Some("late"));

    // The answer is lost. A new writer, then a look, tells.
    tap.commits(Commits::Pass);
    let mut new = writer(&ours).await;
    tap.commits(Commits::LoseAnswer);
    let outcome = new.write(KEY, b"unheard", BRIEFLY).await;
    assert!(is_unknown(&outcome), "{outcome:?}");
    let mut next = writer(&theirs).await;
    assert_eq!(last(&theirs).await.as_deref(), Some("unheard"));
    next.write(KEY, b"heard", SOON).await.unwrap();
    assert_eq!(last(&theirs).await.as_deref(), Some("heard"));
}

#[tokio::test]
async fn a_compacted_and_restarted_log_gives_the_same_answers() {
    let kafka = KafkaOptions::new()
        .setting("log.cleaner.backoff.ms", "50")
        .setting("log.cleaner.delete.retention.ms", "0")
        .start();
    let topic = on(kafka.bootstrap(), "compacted").await;
    let mut writer = writer(&topic).await;
    writer.write(KEY, b"old and alone", SOON).await.unwrap();
    // Several segments of a megabyte.
    let filler = random_bytes(150_000);
    for _ in 0..30 {
        writer.write(b"another", &filler, SOON).await.unwrap();
    }
    eventually("the log is compacted", SOON * 3, || {
        (kafka.topic(topic.name()).read().len() < 20).then_some(())
    });
    assert_eq!(last(&topic).await.as_deref(), Some("old and alone"));
    assert_eq!(topic.read_last(b"another", SOON).await, Ok(Some(filler)));
    assert_eq!(topic.read_last(b"nobody", SOON).await, Ok(None));
    kafka.stop();
    kafka.start_again();
    assert_eq!(last(&topic).await.as_deref(), Some("old and alone"));
    writer.write(KEY, b"new", SOON).await.unwrap();
    assert_eq!(last(&topic).await.as_deref(), Some("new"));
}
