//! Commands beside a daemon: slots, its state, probes, completions and the manual.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::{fs, path::Path};

use waltide_stack::serde_json::{self, Value};
use waltide_stack::{Process, Stack, Version, eventually};

use crate::cli::waltide;
use crate::support::{Lsn, Pipeline, SOON};

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
    let row = format!("{} streaming 0 ms 0 B 1 ", pipeline.name());
    // Other databases of the server are written to, which it is told of a moment later.
    eventually("it is behind nothing", SOON, || {
        let ended = waltide(&["status", "--url", &url]);
        assert_eq!(ended.status, Some(0), "{}", ended.everything);
        let told = ended.out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains("all is well PIPELINE STATE LAG BEHIND RECORDS"), "{}", ended.out);
        assert!(!ended.out.contains('\x1b'));
        told.contains(&row).then_some(())
    });
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
fn a_person_can_watch_the_pipelines() {
    let database = Stack::shared().database(Version::NEWEST, "watch");
    database.execute(ORDERS);
    let pipeline = Pipeline::of(&database);
    let daemon = pipeline.start();
    let program = env!("CARGO_BIN_EXE_waltide");
    // Into a file: one page below the other, nothing for terminals, until it is told to end.
    let mut command = Command::new(program);
    command.args(["status", "--watch", "1", "--url", &daemon.url()]);
    let watching = Process::start("watch", &command);
    let pages = || watching.log().matches("RECORDS/S").count();
    eventually("three pages", SOON, || (pages() >= 2).then_some(()));
    // A daemon that is away is said, and looked for again.
    daemon.terminate();
    eventually("it says so", SOON, || watching.log().contains("WT106").then_some(()));
    watching.signal("INT");
    assert_eq!(watching.wait(SOON), Some(0), "{}", watching.log());
    assert!(!watching.log().contains('\x1b'), "{}", watching.log());
    // On a terminal of 60 columns and 8 lines.
    let daemon = pipeline.start();
    let watch = format!("{program} status --watch 1 --url {}", daemon.url());
    let on = format!("stty cols 60 rows 8; exec timeout --preserve-status -s INT 4 {watch}");
    for colours in [true, false] {
        let mut command = Command::new("script");
        command.args(["-qec", &on, "/dev/null"]).env("NO_COLOR", if colours { "" } else { "1" });
        let watching = Process::start("watch on a terminal", &command);
        assert_eq!(watching.wait(SOON), Some(0), "{}", watching.log());
        let shown = watching.log();
        let (begin, end) = ("\x1b[?1049h", "\x1b[?25h\x1b[?1049l");
        assert!(shown.contains(begin) && shown.trim_end().ends_with(end), "{shown:?}");
        assert!(shown.matches("\x1b[H").count() >= 2, "{shown:?}");
        assert_eq!(shown.contains("\x1b[32m"), colours, "{shown:?}");
        let rows = shown.split("\x1b[K").map(|row| row.rsplit("\x1b[H").next().unwrap_or(row));
        let widest = rows.map(|row| visible(row).trim().chars().count()).max();
        assert!(widest <= Some(60), "{shown:?}");
    }
    daemon.terminate();
}

/// What is left without colours.
fn visible(row: &str) -> String {
    let mut parts = row.split('\x1b');
    let first = parts.next().unwrap_or_default().to_owned();
    let rest = parts.map(|part| part.split_once(['m', 'h', 'l', 'J']).map_or("", |(_, text)| text));
    first + &rest.collect::<String>()
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
