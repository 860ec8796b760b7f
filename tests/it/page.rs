//! A browser shows what the daemon does: the page of a real daemon in a headless Chromium.

mod cost;
mod looks;

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use waltide_stack::serde_json::{self, Value, json};
use waltide_stack::{Browser, KafkaOptions, Stack, Version, eventually};

use crate::support::{Daemon, Pipeline, SOON};

/// A page in a browser that ends with the test.
struct Page {
    node: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Page {
    #[track_caller]
    fn open(daemon: &Daemon) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/page/look.mjs");
        let mut command = Browser::shared().node();
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut node = command.spawn().expect("node runs");
        let commands = node.stdin.take().expect("its input");
        let answers = BufReader::new(node.stdout.take().expect("its output"));
        let mut page = Self { node, commands, answers };
        page.ask(&format!("open {}/", daemon.url()));
        page
    }

    #[track_caller]
    fn ask(&mut self, command: &str) -> Value {
        writeln!(self.commands, "{command}").expect("it listens");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it answers");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("{command}: {line:?}"))
    }

    /// Waits until the page says so, and returns all that it says then.
    #[track_caller]
    fn until(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        eventually(&format!("the page says {what}"), SOON, || {
            last = self.ask("look");
            is(&last).then(|| last.clone())
        })
    }

    /// Sees to it that a tool finds nothing to complain of, in either scheme of colours.
    #[track_caller]
    fn assert_everybody_can_use_it(&mut self) {
        for of in self.ask("axe").as_array().expect("two schemes") {
            assert!(of["passes"].as_u64() > Some(10), "{of}");
            assert_eq!(of["violations"].as_array().map(Vec::len), Some(0), "{of:#}");
        }
    }

    /// Ends it; nothing has gone wrong in it, and it has asked nobody but the daemon.
    #[track_caller]
    fn end(mut self, daemon: &Daemon) {
        let ended = self.ask("end");
        assert_eq!(ended["errors"].as_array().map(Vec::len), Some(0), "{ended:#}");
        let asked = ended["asked"].as_array().expect("addresses");
        let ours = |url: &Value| {
            url.as_str().is_some_and(|url| url.starts_with(&format!("{}/", daemon.url())))
        };
        assert!(asked.len() >= 3 && asked.iter().all(ours), "{ended:#}");
        assert!(self.node.wait().expect("it ends").success());
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.node.kill();
        let _ = self.node.wait();
    }
}

/// How many records the page says of its one pipeline.
fn records(page: &Value) -> Option<u64> {
    let text = page["pipelines"][0]["text"].as_str()?;
    let (_, after) = text.split_once("\nrecords\n")?;
    let line = after.lines().next()?;
    let digits: String = line.split('(').next()?.chars().filter(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn says(page: &Value, word: &str) -> bool {
    page["pipelines"][0]["text"].as_str().is_some_and(|text| text.contains(word))
}

#[test]
fn the_page_shows_a_load_a_fault_with_its_way_out_and_the_recovery() {
    let database = Stack::shared().database(Version::NEWEST, "page");
    database.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
    database.execute("INSERT INTO orders SELECT n, md5(n::text) FROM generate_series(1, 50000) n");
    let kafka = KafkaOptions::new().start();
    let pipeline = Pipeline::of(&database)
        .with("snapshot", json!({ "mode": "initial", "max_rate": 150_000 }))
        .into_kafka(&kafka);
    let daemon = pipeline.start();
    let mut page = Page::open(&daemon);
    let seen = page.until("that a table is read", |page| says(page, "reading"));
    assert_eq!(seen["verdict"], "The pipeline flows", "{seen}");
    assert_eq!(seen["pipelines"][0]["open"], true);
    let first = records(&seen).unwrap_or_else(|| panic!("no records: {seen}"));
    database.execute("INSERT INTO orders SELECT n, 'tea' FROM generate_series(50001, 51000) n");
    page.until("that more has come", |page| records(page) >= Some(first + 1_000));
    page.until("how far a table is", |page| says(page, "\u{202f}%") && says(page, "1\u{202f}000"));
    page.assert_everybody_can_use_it();

    kafka.pause();
    database.execute("INSERT INTO orders VALUES (0, 'tea')");
    let seen = page.until("what is wrong", |page| page["pipelines"][0]["error"].is_string());
    let error = seen["pipelines"][0]["error"].as_str().expect("an error");
    assert!(error.starts_with("WT30") && error.contains("Way out: "), "{error}");
    assert_eq!(seen["verdict"], "The pipeline is waiting");
    assert!(seen["title"].as_str().is_some_and(|title| title.starts_with('⚠')), "{seen}");
    page.assert_everybody_can_use_it();

    kafka.resume();
    let seen = page.until("that all is well", |page| page["verdict"] == "The pipeline flows");
    assert!(seen["pipelines"][0]["error"].is_null(), "{seen}");
    assert!(says(&seen, "Recent errors"), "{seen}");
    page.until("that the table is read", |page| says(page, "done"));
    // A phone shows it without scrolling sideways.
    for scheme in ["light", "dark"] {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{scheme}.png"));
        let fits = page.ask(&format!("shot {scheme} 390 {}", path.display()));
        assert_eq!(fits, true, "{}", path.display());
    }
    page.end(&daemon);
    daemon.terminate();
}
