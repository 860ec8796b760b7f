//! What Prometheus and its tools make of `/metrics`.

use std::fs;
use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;

use waltide_stack::serde_json::{self, Value};
use waltide_stack::{Process, Stack, Tools, Version, eventually};

use crate::support::{Pipeline, SOON};

const ORDERS: &str = "CREATE TABLE orders (id int PRIMARY KEY, item text)";

#[test]
fn promtool_has_no_complaint_and_prometheus_reads_what_happened() {
    let database = Stack::shared().database(Version::NEWEST, "prometheus");
    database.execute(ORDERS);
    let pipeline = Pipeline::of(&database);
    let daemon = pipeline.start();
    database.execute("INSERT INTO orders SELECT g, 'tea' FROM generate_series(1, 7) g");
    pipeline.wait_until_delivered();
    database.execute("ALTER TABLE orders ADD COLUMN more int");
    database.execute("DELETE FROM orders WHERE id = 1");
    pipeline.wait_until_delivered();
    let url = daemon.url();
    let read = |name: &str| {
        let (_, metrics) = daemon.get("/metrics").expect("an answer");
        let line = metrics.lines().find(|line| line.starts_with(name)).map(str::to_owned);
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
    };
    eventually("the slot was looked at", SOON, || read("waltide_slot_retained_wal_bytes"));
    assert_eq!(read("waltide_schema_changes_total"), Some(1.0));
    assert!(read("waltide_end_to_end_seconds_count") >= Some(2.0));
    assert!(read("waltide_registry_requests_total") >= Some(3.0));
    assert_eq!(read("waltide_outages_total"), Some(0.0));

    let (_, metrics) = daemon.get("/metrics").expect("an answer");
    let mut promtool = Tools::shared().program("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut promtool =
        promtool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("promtool");
    promtool.stdin.take().expect("its input").write_all(metrics.as_bytes()).expect("it reads");
    let said = promtool.wait_with_output().expect("it ends");
    let words = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.status.success() && words.is_empty(), "{words}\n{metrics}");

    let home =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("prometheus-{}", database.name()));
    fs::create_dir_all(&home).expect("a directory");
    let target = url.trim_start_matches("http://");
    let config = format!(
        "global: {{ scrape_interval: 200ms }}\nscrape_configs:\n- job_name: waltide\n  static_configs:\n  - targets: ['{target}']\n"
    );
    let file = home.join("prometheus.yml");
    fs::write(&file, config).expect("a file");
    let port =
        TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
    let mut command = Tools::shared().program("prometheus");
    command
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.tsdb.path={}", home.join("data").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"));
    let prometheus = Process::start("prometheus", &command);
    eventually("Prometheus listens", SOON, || TcpStream::connect(("127.0.0.1", port)).ok());
    let ask = |query: &str| -> Option<f64> {
        let at = format!("http://127.0.0.1:{port}/api/v1/query?query={query}");
        let answer = ureq::get(&at).call().ok()?.body_mut().read_to_string().ok()?;
        let answer: Value = serde_json::from_str(&answer).ok()?;
        answer["data"]["result"][0]["value"][1].as_str()?.parse().ok()
    };
    let inserts = "waltide_events_total%7Bop=%22c%22,table=%22public.orders%22%7D";
    eventually("Prometheus has scraped it", SOON, || {
        assert_eq!(prometheus.exit_status(), None, "{}", prometheus.log());
        (ask(inserts)? == 7.0).then_some(())
    });
    assert_eq!(ask("up"), Some(1.0));
    let quantile = "histogram_quantile(0.99,waltide_end_to_end_seconds_bucket)";
    let seconds = ask(quantile).expect("a quantile");
    assert!(seconds > 0.0 && seconds < 30.0, "{seconds}");
    assert_eq!(ask("sum(waltide_pipeline_state)"), Some(1.0));
    prometheus.kill();
    daemon.terminate();
    let _ = fs::remove_dir_all(home);
}
