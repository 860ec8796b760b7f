//! What the runbook tells people to type into `psql` and the shell, on a pipeline as it describes.

use std::fs;
use std::path::Path;
use std::process::Command;

use waltide_stack::{Process, Stack, Version, eventually};

use crate::cli::waltide;
use crate::support::{Pipeline, SOON, on_each_version};

/// The code blocks of the runbook in a language, with the heading that each stands under.
pub(crate) fn blocks(language: &str) -> Vec<(String, String)> {
    blocks_of("docs/runbook.md", language)
}

/// Those of a page.
fn blocks_of(page: &str, language: &str) -> Vec<(String, String)> {
    let path = format!("{}/{page}", env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(path).expect("a page");
    let (mut heading, mut blocks, mut open) = (String::new(), Vec::new(), None::<(usize, String)>);
    for line in page.lines() {
        let bare = line.trim_start();
        match &mut open {
            Some((_, block)) if bare == "```" => {
                blocks.push((heading.clone(), std::mem::take(block)));
                open = None;
            }
            Some((indent, block)) => {
                block.push_str(line.get(*indent..).unwrap_or_default());
                block.push('\n');
            }
            None if bare == format!("```{language}") => {
                open = Some((line.len() - bare.len(), String::new()));
            }
            None if bare.starts_with('#') => {
                heading = bare.trim_start_matches(['#', ' ']).to_owned()
            }
            None => {}
        }
    }
    blocks
}

/// The oldest version that has what a section is about.
fn is_for(heading: &str, version: Version) -> bool {
    !heading.contains("17 and later") || version >= Version::V17
}

on_each_version! { the_sql_of_the_runbook_runs_and_removing_a_pipeline_leaves_nothing_behind }

fn the_sql_of_the_runbook_runs_and_removing_a_pipeline_leaves_nothing_behind(version: Version) {
    let shop = Stack::shared().database(version, "runbook");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    let mut statements = 0;
    let mut removal = Vec::new();
    for (heading, block) in blocks("sql") {
        if !is_for(&heading, version) {
            continue;
        }
        for statement in block.replace("waltide_shop", &pipeline.slot()).split_inclusive(';') {
            let statement = statement.trim().to_owned();
            if statement.is_empty() {
                continue;
            }
            if heading == "Removing a pipeline" {
                removal.push(statement);
            } else if statement.starts_with("ALTER SYSTEM") {
                // The server is everybody's: that it is understood is enough.
                let setting = statement.split_whitespace().nth(3).expect("a setting");
                let known = format!("SELECT count(*) FROM pg_settings WHERE name = '{setting}'");
                assert_eq!(shop.value(&known), "1", "{statement}");
            } else {
                // While the daemon has the slot, what would drop it finds nothing to drop.
                eprintln!("{heading}: {statement}");
                shop.query(&statement);
            }
            statements += 1;
        }
    }
    assert!(statements >= 15, "{statements}");
    assert!(daemon.status()["state"] == "streaming", "{}", daemon.log());
    daemon.terminate();
    assert!(removal.len() >= 4, "{removal:?}");
    let left_behind = removal.pop().expect("a question");
    assert_eq!(shop.value(&left_behind), "1");
    for statement in removal {
        shop.query(&statement);
    }
    assert_eq!(shop.value(&left_behind), "0");
    assert_eq!(shop.value("SELECT count(*) FROM pg_publication"), "0");
}

#[test]
fn the_commands_of_the_first_look_answer() {
    let shop = Stack::shared().database(Version::NEWEST, "first look");
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    shop.execute("INSERT INTO orders VALUES (1)");
    pipeline.wait_until_delivered();
    let file = pipeline.file();
    let file = file.path().to_str().expect("UTF-8");
    let mut commands = 0;
    for (heading, block) in blocks("sh") {
        for line in block.lines() {
            let line = line
                .replace("waltide.yaml", file)
                .replace(" shop ", &format!(" {} ", pipeline.name()));
            let words: Vec<&str> = line.split_whitespace().collect();
            if let ["curl", .., url] = words.as_slice() {
                if let Some(path) = url.strip_prefix("http://localhost:9464") {
                    assert_eq!(daemon.get(path).map(|(code, _)| code), Some(200), "{url}");
                } else {
                    loosens_a_rule(&line, &pipeline);
                }
            } else if let ["waltide", arguments @ ..] = words.as_slice() {
                let ended = waltide(arguments);
                // There is nothing to recover, and it says so rather than do it.
                let recover = arguments[0] == "recover";
                assert_eq!(
                    ended.status,
                    Some(i32::from(recover)),
                    "{heading}: {line}\n{}",
                    ended.everything
                );
            } else {
                panic!("{heading}: what is {line}?");
            }
            commands += 1;
        }
    }
    assert!(commands >= 8, "{commands}");
    daemon.terminate();
}

/// A subject's rule is changed as the runbook says, by curl, and only that of the subject.
#[track_caller]
fn loosens_a_rule(line: &str, pipeline: &Pipeline<'_>) {
    let registry = Stack::shared().registry();
    let subject = format!("{}-value", pipeline.topic("public.orders").name());
    let level = |subject: &str| registry.call("GET", &format!("/config/{subject}"), None).body;
    registry.set_compatibility(&subject, "FULL");
    let line = line.replace("shop.public.orders-value", &subject);
    let line = line.replace("REGISTRY", &registry.url());
    let said = shell(&line);
    assert_eq!(level(&subject)["compatibilityLevel"], "NONE", "{line}\n{said}");
}

/// Runs a line as it stands, with our program on the path. Returns what it printed.
#[track_caller]
fn shell(line: &str) -> String {
    let output = in_shell(line).output().expect("a shell");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(output.status.success(), "{line} ended with {}:\n{said}", output.status);
    said
}

fn in_shell(line: &str) -> Command {
    let ours = Path::new(env!("CARGO_BIN_EXE_waltide")).parent().expect("a directory");
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new("sh");
    command.args(["-c", line]).env("PATH", format!("{}:{path}", ours.display()));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("WALTIDE_") || name.starts_with("PG") {
            command.env_remove(&*name);
        }
    }
    command
}

/// What the README tells people to type, in its order, with its configuration.
#[test]
fn the_commands_of_the_readme_do_what_it_says() {
    let (shop, stack) = (Stack::shared().database(Version::NEWEST, "readme"), Stack::shared());
    shop.execute("CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders VALUES (1)");
    let configurations = blocks_of("README.md", "yaml");
    let (_, yaml) = configurations.first().expect("a configuration");
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(shop.prefix());
    fs::create_dir(&place).expect("a directory");
    fs::write(place.join("password"), "not asked for\n").expect("a file");
    let mut yaml = yaml.clone();
    for (theirs, ours) in [
        ("  shop:", format!("  {}:", shop.prefix())),
        ("postgres://waltide@db:5432/shop", shop.url()),
        ("/run/secrets/waltide", place.join("password").display().to_string()),
        ("kafka:9092", stack.kafka().bootstrap()),
        ("http://registry:8081", stack.registry().url()),
    ] {
        assert!(yaml.contains(theirs), "{theirs} in\n{yaml}");
        yaml = yaml.replace(theirs, &ours);
    }
    let file = place.join("waltide.yaml");
    fs::write(&file, format!("{yaml}http:\n  listen: 127.0.0.1:0\n")).expect("a file");
    let mut seen = Vec::new();
    for (_, block) in blocks_of("README.md", "sh") {
        for line in block.lines() {
            let words: Vec<&str> = line.split_whitespace().take(2).collect();
            let line = line.replace("waltide.yaml", &file.display().to_string());
            let line = line.replace("postgres://me@db:5432/shop", &shop.url());
            match words.as_slice() {
                // Whoever reads this has done it, or another does it.
                ["make" | "cargo", _] => continue,
                ["waltide", "check"] => assert!(!shell(&line).is_empty()),
                ["waltide", "setup"] => {
                    let said = shell(&line);
                    assert!(said.contains("CREATE PUBLICATION") && said.contains("acl"), "{said}");
                }
                ["waltide", "run"] => {
                    let daemon = Process::start("run", &in_shell(&format!("exec {line}")));
                    let topic = stack.kafka().topic(&format!("{}.public.orders", shop.prefix()));
                    topic.wait_for(1, SOON);
                    daemon.signal("TERM");
                    assert_eq!(daemon.wait(SOON), Some(0), "{}", daemon.log());
                }
                ["waltide", "tail"] => {
                    let tail = Process::start("tail", &in_shell(&format!("exec {line}")));
                    let said = |words: &str| tail.log().contains(words).then_some(());
                    eventually("it listens", SOON, || said(" tables, by publication "));
                    shop.execute("INSERT INTO orders VALUES (4711)");
                    eventually("the change is shown", SOON, || said("4711"));
                    tail.signal("INT");
                    assert_eq!(tail.wait(SOON), Some(0), "{}", tail.log());
                }
                _ => panic!("what is {line}?"),
            }
            seen.push(words.join(" "));
        }
    }
    assert_eq!(seen, ["waltide check", "waltide setup", "waltide run", "waltide tail"]);
    let _ = fs::remove_dir_all(place);
}

/// The compose file's own tables and load are what its Postgres is given.
#[test]
fn the_shop_of_the_compose_file_is_captured() {
    let shop = Stack::shared().database(Version::NEWEST, "compose");
    let text = |name: &str| {
        let path = format!("{}/deploy/compose/{name}", env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(path).expect("a file")
    };
    shop.execute(&text("shop.sql"));
    let pipeline = Pipeline::of(&shop);
    let daemon = pipeline.start();
    // pgbench is not among the servers' files; its own variables are filled in here.
    let load = text("orders.sql");
    let load: String =
        load.lines().filter(|line| !line.starts_with('\\')).collect::<Vec<_>>().join("\n");
    for number in 1..=20 {
        let one = load.replace(":customer", &number.to_string()).replace(":cents", "950");
        shop.execute(&one);
    }
    pipeline.wait_until_delivered();
    let orders = pipeline.changes("public.orders");
    assert!(orders.len() >= 20 + 9, "{}", orders.len());
    daemon.terminate();
}
