//! What the runbook tells people to type into `psql` and the shell, on a pipeline as it describes.

use std::fs;

use waltide_stack::{Stack, Version};

use crate::cli::waltide;
use crate::support::{Pipeline, on_each_version};

/// The code blocks of the runbook in a language, with the heading that each stands under.
pub(crate) fn blocks(language: &str) -> Vec<(String, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbook.md");
    let page = fs::read_to_string(path).expect("the runbook");
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
                let path = url.strip_prefix("http://localhost:9464").expect("the daemon's address");
                assert_eq!(daemon.get(path).map(|(code, _)| code), Some(200), "{url}");
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
