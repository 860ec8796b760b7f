//! Who may tell the daemon what, and how it is found.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use waltide_stack::serde_json::{self, Value};
use waltide_stack::{Database, Stack, Version};

use super::told;
use crate::cli::waltide;
use crate::support::{Daemon, Pipeline, Request};

const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY, item text)";

fn shop(test: &str) -> Database {
    let database = Stack::shared().database(Version::NEWEST, test);
    database.execute(ORDERS);
    database
}

/// The file that the daemon says its token is in.
#[track_caller]
fn token_file(daemon: &Daemon) -> PathBuf {
    let said = "what changes something needs this token";
    daemon.wait_for_event(said, 1);
    let events = daemon.events();
    let event = events.iter().find(|event| event["message"] == said).expect("it is logged");
    PathBuf::from(event["file"].as_str().expect("a path"))
}

#[test]
fn a_change_needs_the_token_that_only_the_daemons_user_can_read() {
    let database = shop("token");
    let pipeline = Pipeline::of(&database);
    let daemon = pipeline.start();
    let file = token_file(&daemon);
    let mode = |path: &PathBuf| fs::metadata(path).expect("it is there").permissions().mode();
    assert_eq!(mode(&file) & 0o777, 0o600);
    assert_eq!(mode(&file.parent().expect("its directory").to_owned()) & 0o777, 0o700);
    let token = fs::read_to_string(&file).expect("it is ours");
    assert!(token.len() == 64 && !daemon.log().contains(&token));

    let pause = format!("/api/pipelines/{}/pause", pipeline.name());
    let ask = |headers: &[(&str, &str)]| {
        let (status, body) = Request::post(&pause).with(headers).send(&daemon);
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert!(
            status == 200 || !body["error"]["mend"].as_str().unwrap_or("").is_empty(),
            "{body}"
        );
        (status, body["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let right = format!("Bearer {token}");
    let wrong = format!("Bearer {}", token.to_uppercase());
    let is = |status: u16, code: &str| (status, code.to_owned());
    for none in ["", "Bearer", "Bearer ", "Basic d2FsdGlkZTp4", &wrong, &token] {
        assert_eq!(ask(&[("Authorization", none)]), is(401, "WT108"), "{none}");
    }
    assert_eq!(ask(&[]), is(401, "WT108"));
    // A browser that somebody else's page drives, or that was led here under another name.
    for (name, value, status) in [
        ("Sec-Fetch-Site", "cross-site", 403),
        ("Origin", "http://evil.example", 403),
        ("Host", "evil.example", 421),
        ("Host", "127.0.0.1.evil.example:9464", 421),
    ] {
        let refused = ask(&[("Authorization", &right), (name, value)]);
        assert_eq!(refused, is(status, "WT109"), "{name}: {value}");
    }
    assert_eq!(daemon.status()["paused"], false);
    assert_eq!(ask(&[("Authorization", &right)]), is(200, ""));
    assert_eq!(daemon.status()["paused"], true);
    // Reading needs none, but not under another name either.
    let (status, _) = Request::get("/api/status").with(&[("Host", "evil.example")]).send(&daemon);
    assert_eq!(status, 421);
    assert_eq!(Request::get("/nowhere").send(&daemon).0, 404);
    assert_eq!(Request::get(&pause).send(&daemon).0, 405);
    let nobody = Request::post("/api/pipelines/nobody/pause");
    let (status, body) = nobody.with(&[("Authorization", &right)]).send(&daemon);
    assert!(status == 404 && body.contains(pipeline.name()), "{status}: {body}");
    daemon.terminate();
    assert!(!file.exists(), "a token outlives its daemon");
}

#[test]
fn a_token_that_is_configured_counts_and_reading_may_need_it_as_well() {
    let database = shop("reads");
    let pipeline = Pipeline::of(&database);
    let token = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.t", pipeline.name()));
    fs::write(&token, "token-one\n").expect("a file");
    let daemon = pipeline.launch_with_http(&[
        ("token_file", token.to_str().expect("UTF-8").into()),
        ("protect_reads", true.into()),
    ]);
    let config = daemon.config().to_str().expect("UTF-8").to_owned();
    daemon.wait_ready();
    for open in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(Request::get(open).send(&daemon).0, 200, "{open}");
    }
    for closed in ["/", "/api/status", "/nowhere"] {
        assert_eq!(Request::get(closed).send(&daemon).0, 401, "{closed}");
    }
    let with =
        |value: &str| Request::get("/api/status").with(&[("Authorization", value)]).send(&daemon).0;
    // As a browser sends what a person types: `me:token-one`.
    assert_eq!(with("Basic bWU6dG9rZW4tb25l"), 200);
    assert_eq!(with("Bearer token-one"), 200);
    assert_eq!(with("Bearer token-two"), 401);
    fs::write(&token, "token-two").expect("a file");
    assert_eq!(with("Bearer token-two"), 200);
    // No browser may change something with a password that it keeps.
    let pause = format!("/api/pipelines/{}/pause", pipeline.name());
    let basic = Request::post(&pause).with(&[("Authorization", "Basic bWU6dG9rZW4tdHdv")]);
    assert_eq!(basic.send(&daemon).0, 401);

    let ended = told(&daemon, &["status"]);
    assert_eq!(ended.status, Some(1));
    assert!(ended.everything.contains("error: WT108 "), "{}", ended.everything);
    let file = token.to_str().expect("UTF-8");
    let ended = told(&daemon, &["status", "--token-file", file]);
    assert_eq!(ended.status, Some(0), "{}", ended.everything);
    let ended = waltide(&["config", "show", "--config", &config]);
    assert!(!ended.everything.contains("token-two"), "{}", ended.everything);
    fs::remove_file(&token).expect("it is ours");
    assert_eq!(with("Bearer token-two"), 401, "a token that cannot be read lets nobody in");
    daemon.terminate();
}

#[test]
fn the_command_line_finds_the_daemon_of_its_user() {
    let database = shop("find");
    let pipeline = Pipeline::of(&database);
    let daemon = pipeline.start();
    let directory = token_file(&daemon);
    // Of a test of its own: others run beside it.
    let own = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}.run", pipeline.name()));
    let find = |arguments: &[&str]| crate::cli::waltide_in(&own, arguments);
    let ended = find(&["status"]);
    assert!(
        ended.everything.contains("error: WT106 no daemon answers at "),
        "{}",
        ended.everything
    );
    drop(directory);

    let first = pipeline.launch_in(&own);
    first.wait_for_state("standby");
    let ended = find(&["status"]);
    assert!(ended.out.contains("  standby  "), "{}", ended.everything);
    let ended = find(&["pause"]);
    assert!(ended.out.contains("was told to pause, and is still standby"), "{}", ended.everything);
    let second = pipeline.launch_in(&own);
    second.wait_for_state("standby");
    let ended = find(&["status"]);
    assert_eq!(ended.status, Some(1));
    for word in ["WT106 several daemons run here: ", &first.url(), &second.url()] {
        assert!(ended.everything.contains(word), "{word}: {}", ended.everything);
    }
    // What was killed leaves its file behind.
    second.kill();
    let ended = find(&["resume"]);
    assert!(ended.out.contains("was told to resume"), "{}", ended.everything);
    first.terminate();
    daemon.terminate();
    let _ = fs::remove_dir_all(&own);
}
