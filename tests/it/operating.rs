//! Commands beside a daemon: slots, its state, probes, completions and the manual.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::{fs, path::Path};

use waltide_stack::serde_json::{self, Value};
use waltide_stack::{Stack, Version};

use crate::cli::waltide;
use crate::support::{Lsn, Pipeline};

const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY, item text)";

/// Runs a command of `waltide slot` for a pipeline, and returns exit status and output.
#[track_caller]
fn slot(pipeline: &Pipeline<'_>, arguments: &[&str]) -> (Option<i32>, String) {
    let file = pipeline.file();
    let path = file.path().to_str().expect("a path in UTF-8");
    let ended = waltide(&[&["slot"], arguments, &["--config", path]].concat());
    (ended.status, ended.everything)
}

#[test]
fn a_slot_that_is_read_is_neither_moved_nor_dropped_and_what_is_lost_is_said() {
    for version in [Version::V14, Version::NEWEST] {
        let database = Stack::shared().database(version, "slot commands");
        database.execute(ORDERS);
        let pipeline = Pipeline::of(&database);
        let name = pipeline.name().to_owned();
        let (status, told) = slot(&pipeline, &["show"]);
        assert_eq!(status, Some(1));
        assert!(told.contains("error: WT212 there is no slot"), "{told}");
        let daemon = pipeline.start();
        database.execute("INSERT INTO orders VALUES (1, 'tea')");
        pipeline.wait_until_delivered();
        let end = pipeline.end_of_log().to_string();
        for command in
            [&["advance", &name, "--to", &end, "--yes"] as &[&str], &["drop", &name, "--yes"]]
        {
            let (status, told) = slot(&pipeline, command);
            assert_eq!(status, Some(1), "{told}");
            assert!(told.contains("error: WT210 process "), "{told}");
        }
        let (status, listed) = slot(&pipeline, &["list", "--json"]);
        assert_eq!(status, Some(0), "{listed}");
        let slots: Vec<Value> =
            listed.lines().filter_map(|it| serde_json::from_str(it).ok()).collect();
        let ours = slots.iter().find(|slot| slot["ours"] == true).expect("our slot");
        assert_eq!(ours["slot"], pipeline.slot());
        assert!(ours["active_pid"].is_u64() && ours["retained_wal_bytes"].is_u64(), "{ours}");
        daemon.terminate();

        // What is not agreed to is not done.
        let before = pipeline.confirmed();
        database.execute("INSERT INTO orders VALUES (2, 'tea')");
        let end = pipeline.end_of_log();
        let (status, told) = slot(&pipeline, &["advance", &name, "--to", &end.to_string()]);
        assert_eq!(status, Some(1), "{told}");
        assert!(told.contains("error: WT105") && told.contains("never published"), "{told}");
        assert_eq!(pipeline.confirmed(), before);
        for beyond in [before, Lsn(end.0 + (1 << 30))] {
            let (status, told) =
                slot(&pipeline, &["advance", &name, "--to", &beyond.to_string(), "--yes"]);
            assert_eq!(status, Some(1), "{told}");
            assert!(told.contains("error: WT211"), "{told}");
        }
        let (status, told) = slot(&pipeline, &["advance", &name, "--to", "here", "--yes"]);
        assert_eq!(status, Some(1), "{told}");
        let (status, told) =
            slot(&pipeline, &["advance", &name, "--to", &end.to_string(), "--yes"]);
        assert_eq!(status, Some(0), "{told}");
        assert!(pipeline.confirmed() >= end);
        // The daemon does not pass over it.
        let daemon = pipeline.launch();
        let stopped = daemon.wait_for_state("stopped");
        assert_eq!(stopped["error"]["code"], "WT224", "{stopped}");
        daemon.terminate();
        let (status, told) = slot(&pipeline, &["drop", &name, "--yes"]);
        assert_eq!(status, Some(0), "{told}");
        assert!(told.contains("can never be read again"), "{told}");
        let sql = "SELECT FROM pg_replication_slots WHERE database = current_database()";
        assert!(database.query(sql).is_empty());
    }
}

#[test]
fn a_yes_on_the_terminal_is_enough_to_drop_a_slot() {
    let database = Stack::shared().database(Version::NEWEST, "slot yes");
    database.execute(ORDERS);
    let pipeline = Pipeline::of(&database);
    pipeline.start().terminate();
    for (answer, status) in [("no\n", Some(1)), ("yes\n", Some(0))] {
        let file = pipeline.file();
        let mut command = Command::new(env!("CARGO_BIN_EXE_waltide"));
        command.args(["slot", "drop", pipeline.name(), "--config"]).arg(file.path());
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it runs");
        child.stdin.take().expect("its input").write_all(answer.as_bytes()).expect("it listens");
        assert_eq!(child.wait().expect("it ends").code(), status, "{answer}");
    }
}

#[test]
fn a_probe_and_a_person_are_told_whether_the_daemon_is_ready() {
    let database = Stack::shared().database(Version::NEWEST, "status");
    database.execute(ORDERS);
    let pipeline = Pipeline::of(&database);
    let daemon = pipeline.start();
    database.execute("INSERT INTO orders VALUES (1, 'tea')");
    pipeline.wait_until_delivered();
    let url = daemon.url();
    for arguments in
        [&["healthcheck", "--url", &url] as &[&str], &["healthcheck", "--live", "--url", &url]]
    {
        let ended = waltide(arguments);
        assert_eq!((ended.status, ended.everything.as_str()), (Some(0), ""));
    }
    let ended = waltide(&["status", "--url", &url]);
    assert_eq!(ended.status, Some(0), "{}", ended.everything);
    assert!(
        ended.out.contains(&format!("pipeline {}  streaming\n", pipeline.name())),
        "{}",
        ended.out
    );
    assert!(ended.out.contains(", 1 records, 0 in flight"), "{}", ended.out);
    assert!(!ended.out.contains('\x1b'));
    let ended = waltide(&["status", "--json", "--url", &url]);
    let status: Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!(status["pipelines"][0]["state"], "streaming");
    daemon.terminate();
    for command in ["status", "healthcheck"] {
        let ended = waltide(&[command, "--url", &url]);
        assert_eq!(ended.status, Some(1));
        assert!(ended.everything.contains("error: WT106 no daemon answers at http://127"));
    }
    // A pipeline that was stopped is not ready, and the process lives: a restart would not help.
    database.execute(&format!("SELECT pg_drop_replication_slot('{}')", pipeline.slot()));
    let daemon = pipeline.launch();
    daemon.wait_for_state("stopped");
    let url = daemon.url();
    let ended = waltide(&["healthcheck", "--url", &url]);
    assert_eq!(ended.status, Some(1));
    for word in ["error: WT107 pipeline ", " is stopped: WT212 "] {
        assert!(ended.everything.contains(word), "{}", ended.everything);
    }
    assert_eq!(waltide(&["healthcheck", "--live", "--url", &url]).status, Some(0));
    let ended = waltide(&["status", "--url", &url]);
    assert!(ended.out.contains("WT212 ") && ended.out.contains("What to do: "), "{}", ended.out);
    daemon.terminate();
}

#[test]
fn shells_complete_it_and_every_command_has_a_page() {
    let script = waltide(&["completions", "bash"]);
    assert_eq!(script.status, Some(0));
    let mut shell = Command::new("bash");
    let check = "source /dev/stdin && complete -p waltide";
    let mut child = shell.args(["-c", check]).stdin(Stdio::piped()).spawn().expect("bash");
    child.stdin.take().expect("its input").write_all(script.out.as_bytes()).expect("it reads");
    assert!(child.wait().expect("it ends").success());
    for shell in ["zsh", "fish"] {
        let script = waltide(&["completions", shell]);
        assert!(script.status == Some(0) && script.out.contains("healthcheck"), "{shell}");
    }
    let directory =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("man-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("a directory");
    let path = directory.to_str().expect("UTF-8");
    let ended = waltide(&["man", path]);
    assert_eq!(ended.status, Some(0), "{}", ended.everything);
    for page in ["waltide", "waltide-run", "waltide-slot-advance", "waltide-config-check"] {
        let text = fs::read_to_string(directory.join(format!("{page}.1"))).expect(page);
        assert!(text.contains(".SH NAME") && text.contains("Example"), "{page}: {text}");
    }
    fs::remove_dir_all(&directory).expect("it is ours");
    assert_eq!(waltide(&["man", path]).status, Some(1));
}
