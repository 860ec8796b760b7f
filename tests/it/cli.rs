//! What the command line answers, and with which exit code.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use waltide_stack::{Proxy, Stack, Version};

use crate::support::{Daemon, Pipeline, SOON, runtime_directory};

/// How a command ended, and what it printed.
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) everything: String,
}

/// Runs a command that ends by itself.
pub(crate) fn waltide(arguments: &[&str]) -> Ended {
    waltide_in(&runtime_directory(), arguments)
}

/// The same, with another directory for what only the user shall read.
pub(crate) fn waltide_in(directory: &Path, arguments: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_waltide"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("WALTIDE_") || name.starts_with("PG") {
            command.env_remove(&*name);
        }
    }
    command.env("XDG_RUNTIME_DIR", directory);
    let output = command.args(arguments).output().expect("the program runs");
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    let everything = format!("{out}{}", String::from_utf8_lossy(&output.stderr));
    Ended { status: output.status.code(), out, everything }
}

/// A file that goes away with its owner.
struct File(PathBuf);

impl File {
    fn of(name: &str, text: &str) -> Self {
        let name = format!("{}-{name}", std::process::id());
        let file = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        fs::write(&file.0, text).expect("a file");
        file
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a path in UTF-8")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn misuse_is_exit_code_2_and_names_the_place() {
    let whole = "\
pipelines:
  shop:
    source:
      url: postgres://waltide@127.0.0.1:1/shop
      tables: [public.*]
    kafka:
      bootstrap_servers: 127.0.0.1:1
    registry:
      url: http://127.0.0.1:1
";
    for (name, from, to, words) in [
        ("unknown.yaml", "tables:", "tabels:", ["unknown.yaml:5:7", "did you mean `tables`"]),
        (
            "type.yaml",
            "    registry",
            "      partitions: many\n    registry",
            ["type.yaml:8:19", "whole number"],
        ),
        (
            "weak.yaml",
            "    registry",
            "      properties: { acks: 0 }\n    registry",
            ["weak.yaml:8:21", "acks"],
        ),
        ("missing.yaml", "      tables: [public.*]\n", "", ["missing.yaml:3", "tables"]),
        ("not.yaml", "pipelines:", "pipelines: [", ["not.yaml:", "WT102"]),
    ] {
        let file = File::of(name, &whole.replacen(from, to, 1));
        for command in ["run", "setup"] {
            let ended = waltide(&[command, "--config", file.path()]);
            assert_eq!(ended.status, Some(2), "{command} {name}: {}", ended.everything);
            for word in words {
                assert!(ended.everything.contains(word), "{word}: {}", ended.everything);
            }
        }
    }
    let missing = waltide(&["run", "--config", "/nowhere/waltide.yaml"]);
    assert_eq!(missing.status, Some(2));
    assert!(missing.everything.contains("WT101") && missing.everything.contains("/nowhere/"));
    for arguments in [&["run", "--confg", "x"] as &[&str], &["fly"], &[], &["run", "--config"]] {
        let ended = waltide(arguments);
        assert_eq!(ended.status, Some(2), "{arguments:?}: {}", ended.everything);
        assert_eq!(ended.out, "");
    }
}

#[test]
fn a_taken_http_address_is_exit_code_1() {
    let database = Stack::shared().database(Version::NEWEST, "taken port");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let file = Pipeline::of(&database).file();
    let text = fs::read_to_string(file.path()).expect("the file").replace("127.0.0.1:0", &address);
    fs::write(file.path(), text).expect("the file");
    let daemon = Daemon::launch(file, &["run"]);
    assert_eq!(daemon.process().wait(SOON), Some(1), "{}", daemon.log());
    let log = daemon.log();
    let line = log.lines().last().unwrap_or_default();
    assert!(line.starts_with("error: WT103 ") && line.contains(&address), "{log}");
    assert!(line.contains("http.listen"), "{log}");
    assert!(database.query("SELECT FROM pg_publication").is_empty());
}

#[test]
fn a_signal_ends_the_daemon_with_0_also_while_a_server_is_away() {
    let database = Stack::shared().database(Version::NEWEST, "signals");
    database.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let source = Proxy::to(("127.0.0.1", database.postgres().port()));
    let kafka = Proxy::to(Stack::shared().kafka().bootstrap());
    let registry = Proxy::to(Stack::shared().registry().address());
    let at = |proxy: &Proxy| proxy.addr().to_string();
    let stack = Stack::shared();
    let url = format!("postgres://postgres@{}/{}", at(&source), database.name());
    let pipeline = Pipeline::of(&database)
        .with("source.url", url)
        .with("kafka.bootstrap_servers", at(&kafka))
        .with(
            "registry.url",
            stack.registry().url().replace(&stack.registry().address(), &at(&registry)),
        );
    // No row yet: a daemon that knows the schemas it needs would go on without a registry.
    ends_with_0(pipeline.start(), "INT");
    for (proxy, code) in [(&source, "WT201"), (&kafka, "WT301"), (&registry, "WT401")] {
        for signal in ["INT", "TERM"] {
            proxy.cut();
            let daemon = pipeline.launch();
            daemon.wait_for_state("waiting");
            assert!(daemon.log().contains(code), "{}", daemon.log());
            ends_with_0(daemon, signal);
            // Nobody answers, and the daemon is in the middle of asking.
            proxy.stall();
            let daemon = pipeline.launch();
            daemon.wait_for_state("starting");
            ends_with_0(daemon, signal);
            proxy.restore();
        }
    }
    let daemon = pipeline.start();
    database.execute("INSERT INTO orders VALUES (1)");
    pipeline.wait_until_delivered();
    ends_with_0(daemon, "INT");
}

#[track_caller]
fn ends_with_0(daemon: Daemon, signal: &str) {
    daemon.process().signal(signal);
    let from = std::time::Instant::now();
    assert_eq!(daemon.process().wait(SOON), Some(0), "{}", daemon.log());
    eprintln!("{signal} took {:?}", from.elapsed());
}

#[test]
fn what_setup_prints_is_all_that_a_role_needs() {
    for version in [Version::V14, Version::NEWEST] {
        let database = Stack::shared().database(version, "setup");
        let role = format!("{}_cdc", database.prefix());
        database.execute("CREATE TABLE orders (id int PRIMARY KEY, item text)");
        database.execute("CREATE TABLE \"Odd \"\"name\" (a int)");
        database.execute(&format!("CREATE ROLE {role} LOGIN"));
        let pipeline = Pipeline::of(&database).with("source.url", database.url_as(&role, None));
        let file = pipeline.file();
        let ended = waltide(&["setup", "--config", file.path().to_str().expect("UTF-8")]);
        assert_eq!(ended.status, Some(0), "{}", ended.everything);
        println!("{}", ended.out);
        // As psql does: line by line, each on its own.
        for line in ended.out.lines() {
            database.execute(line);
        }
        database.execute("INSERT INTO orders VALUES (1, 'tea')");
        let daemon = pipeline.start();
        database.execute("INSERT INTO orders VALUES (2, 'tea')");
        database.execute("INSERT INTO \"Odd \"\"name\" VALUES (3)");
        pipeline.wait_until_delivered();
        assert_eq!(pipeline.topic("public.orders").wait_for(2, SOON).len(), 2);
        daemon.terminate();
        // Once it is there, nothing of it is asked for again.
        let ended = waltide(&["setup", "--config", file.path().to_str().expect("UTF-8")]);
        assert!(!ended.out.contains("CREATE"), "{}", ended.out);
    }
}
