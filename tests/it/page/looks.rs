//! How the page looks: with one pipeline and with many, healthy and broken, by day and by night, on
//! a desk and on a phone. Whoever changes it looks at the pictures, in `target/tmp`.

use std::path::Path;

use waltide_stack::serde_json::{Value, json};
use waltide_stack::{Database, PostgresOptions, Stack, Version, eventually};

use super::Page;
use crate::support::{ConfigFile, Daemon, SOON};

/// As many as a page must still be read with; `test-full` asks for forty.
fn many() -> usize {
    let given = std::env::var("WALTIDE_PAGE_PIPELINES").ok().filter(|text| !text.is_empty());
    given.map_or(10, |text| text.parse().expect("WALTIDE_PAGE_PIPELINES is a number"))
}

/// Takes the pictures; none of them may need scrolling sideways, and a tool finds nothing wrong.
#[track_caller]
fn look(daemon: &Daemon, name: &str) {
    let mut page = Page::open(daemon);
    page.until("its pipelines", |page| {
        page["pipelines"].as_array().is_some_and(|all| !all.is_empty())
    });
    page.assert_everybody_can_use_it();
    for width in [1280, 390] {
        for scheme in ["light", "dark"] {
            let file = format!("look-{name}-{scheme}-{width}.png");
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(file);
            let fits = page.ask(&format!("shot {scheme} {width} {}", path.display()));
            assert_eq!(fits, true, "{}", path.display());
        }
    }
    page.end(daemon);
}

/// A daemon with so many pipelines of one database, of which some are set up wrongly.
fn daemon(shop: &Database, count: usize, broken: usize) -> Daemon {
    let (prefix, stack) = (shop.prefix(), Stack::shared());
    let pipelines: Value = (0..count)
        .map(|number| {
            let (name, url) = (format!("{prefix}_{number:02}"), shop.url());
            // Each in a way of its own, and with a message that is long.
            let (url, kafka, registry) = match number {
                _ if number >= broken => {
                    (url, stack.kafka().bootstrap(), stack.registry().url().to_owned())
                }
                _ if number % 3 == 0 => {
                    let nowhere = url.replace("127.0.0.1", "127.0.0.2");
                    (nowhere, stack.kafka().bootstrap(), stack.registry().url().to_owned())
                }
                _ if number % 3 == 1 => {
                    (url, "127.0.0.1:1".to_owned(), stack.registry().url().to_owned())
                }
                _ => (url, stack.kafka().bootstrap(), "http://127.0.0.1:1".to_owned()),
            };
            let settings = json!({
                "source": { "url": url, "tables": [format!("public.t_{number}")] },
                "kafka": { "bootstrap_servers": kafka, "partitions": 1 },
                "registry": { "url": registry },
                "snapshot": "never",
            });
            (name, settings)
        })
        .collect();
    let config = json!({ "pipelines": pipelines, "http": { "listen": "127.0.0.1:0" } });
    Daemon::launch(ConfigFile::of(prefix, &config.to_string()), &["run"])
}

#[test]
fn the_page_is_readable_with_one_and_with_many_healthy_or_broken() {
    let many = many();
    let room = (many + 10).to_string();
    let server = PostgresOptions::new(Version::NEWEST)
        .setting("max_replication_slots", &room)
        .setting("max_wal_senders", &room)
        .setting("max_connections", &(4 * many + 50).to_string())
        .start();
    let shop = server.database("looks");
    for number in 0..many {
        shop.execute(&format!("CREATE TABLE t_{number} (id int PRIMARY KEY, item text)"));
    }
    for (name, count, broken) in [
        ("one-broken", 1, 1),
        ("one-healthy", 1, 0),
        ("many-broken", many, 6),
        ("many-healthy", many, 0),
    ] {
        let daemon = daemon(&shop, count, broken);
        eventually("the healthy ones stream and the others say why not", 3 * SOON, || {
            let (_, body) = daemon.get("/readyz")?;
            let count_of = |what: &str| body.matches(what).count();
            let well = count_of("\"state\":\"streaming\"") == count - broken;
            (well && count_of("\"code\":") >= broken).then_some(())
        });
        for number in broken..count {
            shop.execute(&format!(
                "INSERT INTO t_{number} SELECT coalesce(max(id), 0) + 1, 'tea' FROM t_{number}"
            ));
        }
        look(&daemon, name);
        daemon.terminate();
    }
}
