//! What cannot be kept is read again, and said where somebody must do something.

use std::fs;
use std::path::Path;
use std::process::Command;

use waltide_stack::serde_json::Value;
use waltide_stack::{Database, Version, eventually};

use crate::support::{Daemon, Pipeline, SOON};

use super::{begun, ids, insert, one_partition, shop, wait_until_open};

const OUTGROWN: &str = "open transactions have more bytes than may be kept: they are read again once they are committed";

#[test]
fn a_transaction_that_outgrows_the_spool_is_read_again_without_and_the_next_is_kept() {
    let shop = shop(Version::NEWEST, "outgrows the spool");
    let pipeline = one_partition(&shop).with("spool_max_bytes", 1_000_000);
    let daemon = pipeline.start();
    let other = begun(&shop, 5_000..5_100);
    wait_until_open(&daemon, 1);
    let open = begun(&shop, 10_000..13_000);
    daemon.wait_for_event(OUTGROWN, 1);
    wait_until_open(&daemon, 0);
    // It goes on beside it.
    shop.execute("INSERT INTO orders VALUES (1, 'tea')");
    pipeline.wait_until_delivered();
    assert_eq!(ids(&pipeline), [1]);
    assert_eq!(pipeline.spool_files().len(), 0);
    other.execute("COMMIT");
    open.execute("COMMIT");
    pipeline.wait_until_delivered();
    // And now they are sent early again.
    let next = begun(&shop, 20_000..20_400);
    wait_until_open(&daemon, 1);
    next.execute("COMMIT");
    pipeline.wait_until_delivered();
    assert_eq!(daemon.status()["state"], "streaming");
    assert_eq!(daemon.status()["retries"], 0, "it is no failure");
    daemon.terminate();
    let expected = [1].into_iter().chain(5_000..5_100).chain(10_000..13_000).chain(20_000..20_400);
    assert_eq!(ids(&pipeline), expected.collect::<Vec<u64>>());
}

/// A daemon whose spool is a disk of so many bytes, which others do not see.
fn with_a_disk_of(bytes: u32, pipeline: &Pipeline<'_>) -> Daemon {
    let file = pipeline.file();
    let spool = pipeline.spool();
    let parent = spool.parent().expect("a directory");
    fs::create_dir_all(parent).expect("a directory");
    let root = unprivileged().is_none();
    let mut command = Command::new("unshare");
    command.args(if root { &["--mount"] as &[&str] } else { &["--map-root-user", "--mount"] });
    command.args(["--propagation", "private", "sh", "-c"]);
    command.arg("mount -t tmpfs -o size=$1 disk \"$2\" && shift 2 && exec \"$@\"");
    command.arg("sh").arg(bytes.to_string()).arg(parent).arg(env!("CARGO_BIN_EXE_waltide"));
    command.args(["run", "--config"]).arg(file.path());
    Daemon::of(&command, file)
}

/// Who we are, where that is not root.
fn unprivileged() -> Option<String> {
    let status = fs::read_to_string("/proc/self/status").expect("ourselves");
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("a user");
    let user = line.split_whitespace().nth(1).expect("a user");
    (user != "0").then(|| user.to_owned())
}

/// Makes the disk larger, as somebody would who follows the advice.
fn enlarge(daemon: &Daemon, place: &Path) {
    let mut command = Command::new("nsenter");
    command.arg("--mount").arg("--target").arg(daemon.process().pid().to_string());
    if unprivileged().is_some() {
        command.args(["--user", "--preserve-credentials"]);
    }
    command.args(["mount", "-o", "remount,size=64m"]).arg(place);
    let output = command.output().expect("nsenter");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What was logged with a code.
fn told(daemon: &Daemon, code: &str) -> Vec<Value> {
    daemon.events().into_iter().filter(|event| event["code"] == code).collect()
}

#[test]
fn a_full_disk_is_told_and_loses_nothing_and_room_is_all_it_takes() {
    let shop = shop(Version::NEWEST, "full disk");
    let place = format!("{}-{}", env!("CARGO_TARGET_TMPDIR"), shop.name());
    let pipeline = one_partition(&shop).with("spool", place.as_str());
    let daemon = with_a_disk_of(500_000, &pipeline);
    daemon.wait_for_state("streaming");
    shop.execute("INSERT INTO orders VALUES (1, 'tea')");
    let open = begun(&shop, 10_000..12_000);
    let told = eventually("a full disk is told", SOON, || told(&daemon, "WT601").pop());
    for (part, words) in
        [("message", "No space left on device"), ("message", ".spool"), ("mend", "make room")]
    {
        assert!(told[part].as_str().is_some_and(|text| text.contains(words)), "{words}: {told}");
    }
    assert_eq!((&told["level"], &told["class"]), (&"ERROR".into(), &"operator".into()));
    let (_, metrics) = daemon.get("/metrics").expect("the daemon answers");
    assert!(metrics.contains("code=\"WT601\"} 1"), "{metrics}");
    // It goes on by itself, and does not wait for anybody.
    shop.execute("INSERT INTO orders VALUES (2, 'milk')");
    pipeline.wait_until_delivered();
    daemon.wait_for_state("streaming");
    open.execute(&insert(12_000..12_100));
    open.execute("COMMIT");
    pipeline.wait_until_delivered();
    enlarge(&daemon, Path::new(&place));
    let next = begun(&shop, 20_000..22_000);
    wait_until_open(&daemon, 1);
    next.execute("COMMIT");
    pipeline.wait_until_delivered();
    daemon.terminate();
    let expected = [1, 2].into_iter().chain(10_000..12_100).chain(20_000..22_000);
    assert_eq!(ids(&pipeline), expected.collect::<Vec<u64>>());
    let _ = fs::remove_dir_all(&place);
}

/// Streams a large transaction although the spool cannot be used.
fn goes_on_without(shop: &Database, pipeline: &Pipeline<'_>, words: &[&str]) {
    let daemon = pipeline.start();
    let told = eventually("it is told", SOON, || told(&daemon, "WT601").pop());
    assert_eq!(told["level"], "WARN");
    for words in words {
        let said = ["message", "mend"].map(|part| told[part].as_str().expect("a text"));
        assert!(said.iter().any(|text| text.contains(words)), "{words}: {told}");
    }
    let open = begun(shop, 10_000..10_400);
    shop.execute("INSERT INTO orders VALUES (1, 'tea')");
    pipeline.wait_until_delivered();
    assert_eq!(daemon.status()["open_transactions"], 0);
    open.execute("COMMIT");
    pipeline.wait_until_delivered();
    daemon.terminate();
    assert_eq!(ids(pipeline), [1].into_iter().chain(10_000..10_400).collect::<Vec<u64>>());
}

#[test]
fn a_spool_that_cannot_be_made_is_told_and_done_without() {
    let shop = shop(Version::NEWEST, "no spool");
    let pipeline = one_partition(&shop).with("spool", "/dev/null");
    goes_on_without(&shop, &pipeline, &["/dev/null", "give it another directory"]);
}

#[test]
fn a_spool_that_another_process_has_is_told_and_done_without() {
    let shop = shop(Version::NEWEST, "a spool in use");
    let pipeline = one_partition(&shop);
    fs::create_dir_all(pipeline.spool()).expect("a directory");
    let lock = fs::File::create(pipeline.spool().join("lock")).expect("a file");
    lock.lock().expect("a lock");
    let name = pipeline.spool();
    let words = [name.to_str().expect("a text"), "another process uses", "a directory of its own"];
    goes_on_without(&shop, &pipeline, &words);
}

#[test]
fn a_spool_that_the_disk_has_damaged_is_told_and_read_again() {
    let shop = shop(Version::NEWEST, "a damaged spool");
    let pipeline = one_partition(&shop);
    let daemon = pipeline.start();
    let open = begun(&shop, 10_000..10_600);
    wait_until_open(&daemon, 1);
    let files = pipeline.spool_files();
    let path = files.values().next().expect("a file");
    let mut bytes = fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("a file");
    open.execute("COMMIT");
    let told = eventually("it is told", SOON, || told(&daemon, "WT602").pop());
    assert!(told["message"].as_str().is_some_and(|text| text.contains(".spool")), "{told}");
    pipeline.wait_until_delivered();
    daemon.wait_for_state("streaming");
    daemon.terminate();
    // What had been published of it repeats, with the same positions.
    let changes = pipeline.changes("public.orders");
    let (once, _) = crate::support::without_repeats(&changes, 1);
    assert_eq!(once.len(), 600);
}
