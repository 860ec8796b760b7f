//! Nothing is left behind, however the process ends that started the servers.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use waltide_stack::{PostgresOptions, Version, eventually};

const SOON: Duration = Duration::from_secs(30);

/// `waltide-stack up` as a process of its own, with a temporary directory of its own.
struct Victim {
    child: Child,
    directory: PathBuf,
}

impl Victim {
    fn spawn(arguments: &[&str]) -> Self {
        // So that the deadlines below are for starting servers only.
        waltide_stack::fetch().expect("the servers' files");
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let directory = format!("waltide-victim-{}-{number}", std::process::id());
        let directory = std::env::temp_dir().join(directory);
        fs::create_dir(&directory).expect("a temporary directory");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("open to all");
        // Where the tests run in the background, SIGINT is ignored, and a child would inherit
        // that; a shell cannot undo it, Perl can.
        let mut command = Command::new("perl");
        command.args(["-e", "$SIG{INT} = 'DEFAULT'; exec { $ARGV[0] } @ARGV"]);
        command.arg(env!("CARGO_BIN_EXE_waltide-stack"));
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("WALTIDE_TEST_") {
                command.env_remove(variable);
            }
        }
        command.arg("up").args(arguments).env("TMPDIR", &directory).process_group(0);
        let child = command.stdout(Stdio::piped()).spawn().expect("waltide-stack starts");
        Self { child, directory }
    }

    /// Waits until it has printed so many addresses.
    fn wait_for_addresses(&mut self, count: usize) {
        let stdout = self.child.stdout.take().expect("a pipe");
        let lines: Vec<_> = BufReader::new(stdout).lines().take(count).collect();
        assert_eq!(lines.len(), count, "{lines:?}");
    }

    /// The processes that run in its directory or were told of it.
    fn processes(&self) -> Vec<u32> {
        let directory = self.directory.as_os_str().as_encoded_bytes();
        let all = fs::read_dir("/proc").expect("/proc").flatten();
        let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| {
            let process = Path::new("/proc").join(pid.to_string());
            let words = fs::read(process.join("cmdline")).unwrap_or_default();
            let place = fs::read_link(process.join("cwd")).unwrap_or_default();
            words.windows(directory.len()).any(|window| window == directory)
                || place.starts_with(&self.directory)
        })
        .collect()
    }

    fn is_parent_of(&self, pid: u32) -> bool {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
        parent == Some(&self.child.id().to_string())
    }

    /// The System V segments of its Postgres servers.
    fn shared_memory(&self) -> Vec<String> {
        let mut segments = Vec::new();
        for stack in fs::read_dir(&self.directory).expect("its directory").flatten() {
            for server in fs::read_dir(stack.path()).expect("the keeper's directory").flatten() {
                let file = server.path().join("data/postmaster.pid");
                let text = fs::read_to_string(file).unwrap_or_default();
                let words = text.lines().nth(6).and_then(|line| line.split_whitespace().nth(1));
                segments.extend(words.map(str::to_owned));
            }
        }
        segments
    }

    fn signal(&self, signal: &str, whom: &str) {
        assert!(send(signal, whom), "kill -s {signal} -- {whom}");
    }

    /// Stops its servers: all but the keeper, which is the victim's only child. Workers of Postgres
    /// come and go meanwhile, so it looks again until all that are there stand still.
    fn freeze_servers(&self) {
        eventually("all servers frozen", SOON, || {
            let servers = self.processes().into_iter().filter(|pid| !self.is_parent_of(*pid));
            let moving: Vec<u32> = servers.filter(|pid| state_of(*pid) != Some('T')).collect();
            for pid in &moving {
                send("STOP", &pid.to_string());
            }
            moving.is_empty().then_some(())
        });
    }

    fn assert_nothing_is_left(mut self, segments: &[String]) {
        self.child.wait().expect("it has ended");
        eventually("all processes gone", SOON, || self.processes().is_empty().then_some(()));
        eventually("its directory empty", SOON, || {
            fs::read_dir(&self.directory).ok()?.next().is_none().then_some(())
        });
        for segment in segments {
            assert!(!has_segment(segment), "shared memory {segment} is left");
        }
        fs::remove_dir(&self.directory).expect("an empty directory");
    }
}

/// Whether there was whom to send it to.
fn send(signal: &str, whom: &str) -> bool {
    let command = format!("kill -s {signal} -- {whom}");
    let shell = Command::new("sh").args(["-c", &command]).stderr(Stdio::null()).status();
    shell.expect("sh").success()
}

/// As /proc tells it: R, S, T and so on.
fn state_of(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn has_segment(segment: &str) -> bool {
    let all = fs::read_to_string("/proc/sysvipc/shm").expect("the list of segments");
    all.lines().any(|line| line.split_whitespace().nth(1) == Some(segment))
}

#[test]
fn a_killed_process_leaves_no_server_and_no_directory() {
    let mut victim = Victim::spawn(&["--postgres", "14", "--kafka", "--registry"]);
    victim.wait_for_addresses(3);
    let segments = victim.shared_memory();
    assert!(victim.processes().len() > 5, "the servers run");
    assert!(!segments.is_empty(), "Postgres has its segment");
    victim.signal("KILL", &victim.child.id().to_string());
    victim.assert_nothing_is_left(&segments);
}

#[test]
fn a_process_killed_while_its_servers_are_frozen_leaves_nothing_either() {
    let mut victim = Victim::spawn(&["--postgres", "18"]);
    victim.wait_for_addresses(1);
    let segments = victim.shared_memory();
    victim.freeze_servers();
    victim.signal("KILL", &victim.child.id().to_string());
    victim.assert_nothing_is_left(&segments);
}

#[test]
fn a_process_killed_in_the_middle_of_a_start_leaves_nothing_either() {
    let victim = Victim::spawn(&["--postgres", "16"]);
    eventually("initdb at work", SOON, || {
        let stack = fs::read_dir(&victim.directory).ok()?.next()?.ok()?;
        fs::read_dir(stack.path()).ok()?.find_map(|server| {
            let data = server.ok()?.path().join("data/base");
            data.exists().then_some(())
        })
    });
    victim.signal("KILL", &victim.child.id().to_string());
    victim.assert_nothing_is_left(&[]);
}

#[test]
fn a_dropped_server_leaves_no_shared_memory_even_after_a_crash() {
    let postgres = PostgresOptions::new(Version::V15).start();
    let file = fs::read_to_string(postgres.data_directory().join("postmaster.pid"));
    let file = file.expect("a pid file");
    let line = file.lines().nth(6).expect("seven lines");
    let segment = line.split_whitespace().nth(1).expect("a segment").to_owned();
    assert!(has_segment(&segment));
    postgres.kill();
    drop(postgres);
    assert!(!has_segment(&segment));
}

#[test]
fn ctrl_c_leaves_nothing() {
    let mut victim = Victim::spawn(&["--postgres", "17"]);
    victim.wait_for_addresses(1);
    let segments = victim.shared_memory();
    victim.signal("INT", &format!("-{}", victim.child.id()));
    victim.assert_nothing_is_left(&segments);
}

#[test]
fn a_command_gets_the_addresses_and_gives_the_exit_status() {
    let script = "test -n \"$WALTIDE_TEST_PG15_URL\" && exit 7";
    let mut victim = Victim::spawn(&["--postgres", "15", "--", "sh", "-c", script]);
    assert_eq!(victim.child.wait().expect("it ends").code(), Some(7));
    victim.assert_nothing_is_left(&[]);
}

#[test]
fn a_failing_test_keeps_the_log_of_its_server_and_nothing_else() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let failing = std::thread::spawn(move || {
        let postgres = PostgresOptions::new(Version::V16).start();
        sender.send(postgres.data_directory()).expect("the test listens");
        // As a panic, but without its message in the output of this test.
        std::panic::resume_unwind(Box::new("on purpose"));
    });
    assert!(failing.join().is_err());
    let data = receiver.recv().expect("the server's directory");
    assert!(!data.exists());
    let home = data.parent().and_then(Path::file_name).expect("a name").to_string_lossy();
    let target = Path::new(env!("CARGO_BIN_EXE_waltide-stack")).ancestors().nth(2);
    let log = target.expect("target").join(format!("stack-logs/{home}.log"));
    let text = fs::read_to_string(&log).expect("the log is kept");
    assert!(text.contains("database system is ready to accept connections"), "{text}");
    fs::remove_file(log).expect("the log was there");
}
