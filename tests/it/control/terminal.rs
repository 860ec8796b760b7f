//! `waltide status --watch` on a real terminal: tmux is one that can be asked what is on it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use waltide_stack::{KafkaOptions, Process, Stack, Version, eventually};

use crate::support::{Pipeline, SOON};

/// A terminal of some size in which a command runs; both end with the test.
struct Terminal(PathBuf);

impl Terminal {
    #[track_caller]
    fn run(name: &str, width: u16, command: &str) -> Self {
        let name = format!("tmux-{name}-{}", std::process::id());
        let terminal = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        let width = width.to_string();
        // What runs last shows how the command ended, and that the screen is as it was.
        let command = format!("echo before; {command}; echo \"ended with $?\"; exec cat");
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &width,
            "-y",
            "24",
            &command,
        ]);
        terminal
    }

    #[track_caller]
    fn tmux(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.0).args(arguments).env("LC_ALL", "C.UTF-8");
        command.env_remove("TMUX").env_remove("NO_COLOR").env_remove("COLUMNS");
        let output = command.output().expect("tmux is installed: `make deps`");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// What is on it, each line as wide as what is in it.
    fn screen(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Waits until it shows these, and returns the whole of it.
    #[track_caller]
    fn shows(&self, words: &[&str]) -> String {
        let mut screen = String::new();
        let is_so = |screen: &str| words.iter().all(|word| screen.contains(word));
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually(&format!("the terminal shows {words:?}"), SOON, || {
                screen = self.screen();
                is_so(&screen).then_some(())
            });
        }));
        assert!(waited.is_ok(), "{words:?} is not on it:\n{screen}");
        screen
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux").arg("-S").arg(&self.0).arg("kill-server").output();
        let _ = fs::remove_file(&self.0);
    }
}

/// One page that begins at the top and leaves nothing behind of another.
#[track_caller]
fn assert_is_one_page(screen: &str, width: usize) {
    assert!(screen.starts_with("waltide "), "{screen}");
    assert_eq!(screen.matches("PIPELINE").count(), 1, "{screen}");
    let widest = screen.lines().map(|line| line.chars().count()).max();
    assert!(widest <= Some(width), "{widest:?}:\n{screen}");
}

#[test]
fn a_terminal_shows_pipelines_in_its_own_width_and_is_left_as_it_was() {
    let database = Stack::shared().database(Version::NEWEST, "watched");
    database.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let kafka = KafkaOptions::new().start();
    let pipeline = Pipeline::of(&database).into_kafka(&kafka);
    let daemon = pipeline.start();
    let watch =
        format!("{} status --watch 1 --url {}", env!("CARGO_BIN_EXE_waltide"), daemon.url());
    let terminal = Terminal::run("watch", 80, &watch);
    let screen = terminal.shows(&["all is well", "RECORDS/S", "streaming", pipeline.name()]);
    assert_is_one_page(&screen, 80);
    assert!(!screen.contains("before"), "{screen}");
    let coloured = terminal.tmux(&["capture-pane", "-p", "-e"]);
    assert!(coloured.contains("\x1b["), "{coloured}");

    // Narrower, and with a failure whose message needs several lines; then wider than before.
    kafka.pause();
    database.execute("INSERT INTO orders VALUES (1)");
    for width in [50, 120] {
        terminal.tmux(&["resize-window", "-x", &width.to_string(), "-y", "24"]);
        // tmux cuts what was there; what is drawn anew has all it should.
        terminal.shows(&["1 of 1 pipelines not well", "WT30", "What to do", "PIPELINE"]);
        let screen = eventually("a page of this width", SOON, || {
            let screen = terminal.screen();
            let head = screen.lines().find(|line| line.starts_with("PIPELINE"))?;
            (head.ends_with("WAL KEPT") == (width > 80)).then(|| screen.clone())
        });
        assert_is_one_page(&screen, width);
    }
    // One that is not high enough says what is left out.
    terminal.tmux(&["resize-window", "-x", "80", "-y", "3"]);
    terminal.shows(&["waltide ", "more lines"]);
    terminal.tmux(&["resize-window", "-x", "80", "-y", "24"]);
    kafka.resume();
    terminal.shows(&["all is well"]);
    terminal.tmux(&["send-keys", "C-c"]);
    let screen = terminal.shows(&["ended with 0"]);
    assert!(screen.starts_with("before\n") && !screen.contains("PIPELINE"), "{screen}");
    daemon.terminate();
}

#[test]
fn what_is_watched_without_colours_or_into_a_file_is_plain_text() {
    let database = Stack::shared().database(Version::NEWEST, "watched plainly");
    database.execute("CREATE TABLE orders (id int PRIMARY KEY)");
    let pipeline = Pipeline::of(&database);
    let daemon = pipeline.start();
    let program = env!("CARGO_BIN_EXE_waltide");
    let command = format!("NO_COLOR=1 {program} status --watch 1 --url {}", daemon.url());
    let terminal = Terminal::run("plain", 80, &command);
    terminal.shows(&["all is well", "streaming", "RECORDS/S"]);
    let screen = terminal.tmux(&["capture-pane", "-p", "-e"]);
    assert!(!screen.contains('\x1b'), "{screen:?}");

    let mut command = Command::new(program);
    command.args(["status", "--watch", "1", "--url", &daemon.url()]).env("COLUMNS", "");
    let watching = Process::start("status", &command);
    let written = eventually("three pages are in the file", SOON, || {
        let written = watching.log();
        (written.matches("PIPELINE").count() >= 3).then_some(written)
    });
    assert!(!written.contains('\x1b') && !written.contains('\r'), "{written:?}");
    assert!(written.contains(pipeline.name()), "names are not cut: {written}");
    watching.signal("TERM");
    assert_eq!(watching.wait(SOON), Some(0));
    daemon.terminate();
}
