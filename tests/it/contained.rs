//! The daemon in nothing but what its image holds, as the chart would run it.
//!
//! There is no container engine in between: the same system calls make a root directory that
//! cannot be written to, without a shell, an unprivileged user without capabilities, and a bound
//! of memory. What is run, with which configuration and within which limits, is read from what helm
//! renders.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use waltide_stack::serde_json::{self, Value, json};
use waltide_stack::{Database, Stack, Tools, Version, eventually};

use crate::support::{Daemon, Pipeline, SOON, assert_each_once_and_in_order};

/// Rows of one transaction of the load.
const ROWS: u64 = 50;

/// Between transactions: an endless backlog would only make the test longer.
const PAUSE: Duration = Duration::from_millis(10);

/// From the signal that ends the old pod to the first record of the new one, which docs/deployment.md
/// states: it takes about two seconds, which are the new one's, since it looks for the slot
/// again and again.
const HANDOVER: Duration = Duration::from_secs(10);

/// What the chart makes of a pipeline.
struct Chart {
    spec: Value,
    config: String,
}

impl Chart {
    #[track_caller]
    fn of(pipeline: &Pipeline<'_>) -> Self {
        let file = fs::read_to_string(pipeline.file().path()).expect("the configuration");
        let mut config: Value = serde_json::from_str(&file).expect("JSON");
        // The chart says where to listen.
        config.as_object_mut().expect("keys").remove("http");
        let values = json!({
            "config": config,
            "secrets": [{ "name": "waltide-source", "as": "source" }],
        });
        let place = scratch("values");
        let file = place.join("values.yaml");
        fs::write(&file, values.to_string()).expect("a file");
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/helm/waltide");
        let mut helm = Tools::shared().program("helm");
        helm.args(["template", "shop", "--kube-version", "1.34.0", "--values"]).arg(&file);
        fs::write(place.join("rendered.yaml"), printed(helm.arg(chart))).expect("a file");
        let mut read = Tools::shared().python();
        read.args(["-c", "import json, sys, yaml; print(json.dumps([d for d in yaml.safe_load_all(open(sys.argv[1])) if d]))"]);
        let objects = printed(read.arg(place.join("rendered.yaml")));
        fs::remove_dir_all(&place).expect("removed");
        let objects: Vec<Value> = serde_json::from_str(&objects).expect("JSON");
        let find = |kind: &str| objects.iter().find(|object| object["kind"] == kind).expect(kind);
        let config = &find("ConfigMap")["data"]["waltide.yaml"];
        Self {
            spec: find("Deployment")["spec"]["template"]["spec"].clone(),
            config: config.as_str().expect("a file").to_owned(),
        }
    }

    fn container(&self) -> &Value {
        &self.spec["containers"][0]
    }

    fn memory_bytes(&self) -> u64 {
        mebibytes(&self.container()["resources"]["limits"]["memory"])
    }

    fn grace(&self) -> Duration {
        let seconds = self.spec["terminationGracePeriodSeconds"].as_u64();
        Duration::from_secs(seconds.expect("a grace period"))
    }

    /// Starts a pod, as it were.
    #[track_caller]
    fn start(&self, pipeline: &Pipeline<'_>) -> Contained {
        let place = scratch("pod");
        let at = |name: &str| place.join(name);
        for name in ["root", "config", "secrets"] {
            fs::create_dir(at(name)).expect("a directory");
        }
        fs::write(at("config/waltide.yaml"), &self.config).expect("a file");
        fs::write(at("secrets/password"), "not asked for\n").expect("a file");
        let root = fs::metadata(&place).expect("ours").uid() == 0;
        let user = if root { self.spec["securityContext"]["runAsUser"].as_u64() } else { Some(0) };
        let user = user.expect("a user").to_string();
        if root {
            printed(Command::new("chown").arg(format!("0:{user}")).arg(at("secrets/password")));
        }
        let mode = self.spec["volumes"].as_array().expect("volumes").iter();
        let mode = mode.filter_map(|volume| volume["secret"]["defaultMode"].as_u64()).next();
        let mode = u32::try_from(mode.expect("a mode")).expect("a mode");
        fs::set_permissions(at("secrets/password"), fs::Permissions::from_mode(mode))
            .expect("ours");
        let mut command = Command::new("unshare");
        command.args(if root { &["--mount"] as &[&str] } else { &["--map-root-user", "--mount"] });
        command.args(["--propagation", "private", "sh"]);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/contained/enter.sh"));
        command.arg(at("root")).arg(env!("CARGO_BIN_EXE_waltide"));
        command.arg(at("config")).arg(at("secrets"));
        let mut volumes = self.spec["volumes"].as_array().expect("volumes").iter();
        let spool = volumes.find(|volume| volume["name"] == "spool").expect("a spool");
        let spool = mebibytes(&spool["emptyDir"]["sizeLimit"]);
        command.arg(spool.to_string()).arg(self.memory_bytes().to_string()).arg(user);
        for variable in self.container()["env"].as_array().expect("variables") {
            let text = |key: &str| variable[key].as_str().expect("a text").to_owned();
            // Two pods have the same port; here they are on one host.
            let value = text("value").replace(":9464", ":0");
            command.arg(format!("{}={value}", text("name")));
        }
        command.arg("--");
        for argument in self.container()["args"].as_array().expect("arguments") {
            command.arg(argument.as_str().expect("a text"));
        }
        Contained { daemon: Daemon::of(&command, pipeline.file()), place }
    }
}

/// A daemon in what its image holds.
struct Contained {
    daemon: Daemon,
    place: PathBuf,
}

impl Contained {
    /// A file of the kernel's about the process.
    #[track_caller]
    fn status(&self, line: &str) -> String {
        let file = format!("/proc/{}/status", self.daemon.process().pid());
        let text = fs::read_to_string(file).expect("a process");
        let found = text.lines().find_map(|one| one.strip_prefix(line)?.strip_prefix(":\t"));
        found.unwrap_or_else(|| panic!("no {line}")).to_owned()
    }

    /// What it sees as a path.
    fn seen(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.daemon.process().pid()))
    }

    fn peak_bytes(&self) -> u64 {
        let peak = self.status("VmHWM");
        let kibibytes: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
        kibibytes * 1024
    }

    /// Ends in order, within what Kubernetes would wait. Returns how long it took.
    #[track_caller]
    fn end(self, grace: Duration) -> Duration {
        let from = Instant::now();
        self.daemon.process().signal("TERM");
        let status = self.daemon.process().wait(grace);
        assert_eq!(status, Some(0), "within {grace:?}:\n{}", self.daemon.log());
        from.elapsed()
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        // Its groups are empty once it is dead; it was made in one of the two, or in none.
        self.daemon.process().kill();
        let pid = self.daemon.process().pid();
        let _ = fs::remove_dir(format!("/sys/fs/cgroup/memory/waltide-{pid}"));
        let _ = fs::remove_dir(format!("/sys/fs/cgroup/waltide-{pid}"));
        let _ = fs::remove_dir_all(&self.place);
    }
}

fn scratch(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("{name}-{}-{number}", std::process::id());
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir(&place).expect("a directory");
    place
}

#[track_caller]
fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}:\n{said}", output.status);
    String::from_utf8(output.stdout).expect("a text")
}

/// Bytes of a quantity of Kubernetes.
#[track_caller]
fn mebibytes(quantity: &Value) -> u64 {
    let text = quantity.as_str().expect("a quantity");
    let (number, unit) = text.split_at(text.len() - 2);
    let number: u64 = number.parse().expect("a number");
    number
        * match unit {
            "Mi" => 1 << 20,
            "Gi" => 1 << 30,
            _ => panic!("{text}"),
        }
}

/// Writes until it is told that it is enough; returns how many rows there are.
fn write(shop: &Database, enough: &AtomicBool) -> u64 {
    let session = shop.session();
    let mut rows = 0;
    while !enough.load(Ordering::Relaxed) {
        let last = rows + ROWS;
        session.execute(&format!(
            "INSERT INTO orders SELECT n, repeat(md5(n::text), 8) FROM generate_series({}, {last}) n",
            rows + 1
        ));
        rows = last;
        thread::sleep(PAUSE);
    }
    rows
}

#[test]
fn in_what_the_image_holds_it_rolls_out_under_load_without_a_gap_or_a_repetition() {
    rolls_out("at_least_once");
}

#[test]
fn a_roll_out_of_exactly_once_neither_skips_nor_repeats() {
    rolls_out("exactly_once");
}

#[track_caller]
fn rolls_out(delivery: &str) {
    let shop = Stack::shared().database(Version::NEWEST, "contained");
    shop.execute("CREATE TABLE orders (id bigint PRIMARY KEY, item text)");
    let pipeline = Pipeline::of(&shop)
        .with("source.password_file", "/run/secrets/waltide/source/password")
        .with("delivery", delivery);
    let chart = Chart::of(&pipeline);
    let old = chart.start(&pipeline);
    old.daemon.wait_for_state("streaming");
    is_contained(&old, &chart);
    let enough = AtomicBool::new(false);
    let (new, rows) = thread::scope(|scope| {
        let writer = scope.spawn(|| write(&shop, &enough));
        let rolled = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for_rows(&pipeline, 10 * ROWS);
            // As the chart's strategy says: one more, and none less before it is ready.
            let new = chart.start(&pipeline);
            new.daemon.wait_for_state("standby");
            new.daemon.wait_ready();
            let from = Instant::now();
            let took = old.end(chart.grace());
            let records = || new.daemon.status()["records"].as_u64().filter(|records| *records > 0);
            let before = eventually("changes flow again", SOON, records);
            let pause = from.elapsed();
            eprintln!(
                "{delivery}: the old one ended in {took:?}; changes flowed again after {pause:?}"
            );
            assert!(pause < HANDOVER, "changes flowed again after {pause:?}");
            let goes_on = || records().filter(|records| *records >= before + 10 * ROWS);
            eventually("it goes on", SOON, goes_on);
            new
        }));
        enough.store(true, Ordering::Relaxed);
        let rows = writer.join().expect("the writer");
        (rolled.unwrap_or_else(|panic| std::panic::resume_unwind(panic)), rows)
    });
    pipeline.wait_until_delivered();
    let peak = new.peak_bytes();
    eprintln!("{rows} rows, at most {} MiB resident", peak >> 20);
    assert!(peak < chart.memory_bytes(), "{peak} bytes");
    new.end(chart.grace());
    let changes = pipeline.changes("public.orders");
    assert_each_once_and_in_order(&changes);
    assert_eq!(changes.len() as u64, rows, "nothing is missing, and nothing is there twice");
}

#[track_caller]
fn wait_for_rows(pipeline: &Pipeline<'_>, rows: u64) {
    let rows = usize::try_from(rows).expect("a number");
    pipeline.topic("public.orders").wait_for(rows, SOON);
}

/// That what was asked for is so, and the test not an easier one than it seems.
#[track_caller]
fn is_contained(pod: &Contained, chart: &Chart) {
    assert_eq!(chart.container()["securityContext"]["readOnlyRootFilesystem"], true);
    assert!(fs::write(pod.seen("/here"), "x").is_err(), "its root can be written to");
    assert!(pod.seen("/usr/local/bin/waltide").exists());
    for shell in ["/bin/sh", "/bin/bash", "/usr/bin/env"] {
        assert!(!pod.seen(shell).exists(), "{shell}");
    }
    assert_eq!(pod.status("NoNewPrivs"), "1");
    if fs::metadata(&pod.place).expect("ours").uid() == 0 {
        let user = chart.spec["securityContext"]["runAsUser"].as_u64().expect("a user").to_string();
        assert!(pod.status("Uid").split('\t').all(|id| id == user), "{}", pod.status("Uid"));
        assert_eq!(pod.status("CapEff"), "0000000000000000");
    }
}
