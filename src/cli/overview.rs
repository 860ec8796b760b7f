//! What `/api/status` answers, as lines for a terminal of some width.

use std::time::Duration;

use serde_json::Value;

use super::Failure;
use super::terminal::{Paint, Style};

/// What is told.
pub(super) struct Overview<'a> {
    /// The last answer.
    pub(super) body: &'a Value,
    /// The one before, and the time in between: rates are known then.
    pub(super) before: Option<(&'a Value, Duration)>,
    /// Why there is no newer one.
    pub(super) error: Option<&'a Failure>,
}

/// State, lag, bytes behind and records, each with two spaces before it.
const COLUMNS: usize = 11 + 10 + 11 + 12;

/// The narrowest that a name is cut to.
const NAME: usize = 12;

impl Overview<'_> {
    pub(super) fn lines(&self, width: usize, style: Style) -> Vec<String> {
        let pipelines = self.body["pipelines"].as_array().map_or(&[][..], Vec::as_slice);
        let mut lines = vec![self.headline(pipelines, style)];
        if let Some(error) = self.error {
            lines.extend(wrapped(&error.to_string(), width, style, Paint::Bad));
        }
        let longest = pipelines.iter().map(|one| word(&one["name"]).chars().count()).max();
        let kept = pipelines.iter().map(|one| kept(one).chars().count()).max();
        // The last column takes what it needs.
        let columns = COLUMNS + 2 + kept.unwrap_or(0).max("WAL KEPT".len());
        let name = longest.unwrap_or(0).max(8).min(width.saturating_sub(columns).max(NAME));
        let records = if self.before.is_some() { "RECORDS/S" } else { "RECORDS" };
        lines.push(cut(
            &format!(
                "{:<name$}  {:<9}  {:>8}  {:>9}  {records:>10}  {}",
                "PIPELINE", "STATE", "LAG", "BEHIND", "WAL KEPT"
            ),
            width,
        ));
        for pipeline in pipelines {
            lines.push(self.pipeline(pipeline, name, width, style));
            lines.extend(troubles(pipeline, width, style));
            lines.extend(snapshots(pipeline, width, style));
        }
        lines.into_iter().map(|line| line + "\n").collect()
    }

    fn headline(&self, pipelines: &[Value], style: Style) -> String {
        let well = pipelines.iter().filter(|one| is_well(&word(&one["state"]))).count();
        let (text, paint) = match (well, pipelines.len()) {
            (well, all) if well == all => ("all is well".to_owned(), Paint::Good),
            (well, all) => (format!("{} of {all} pipelines not well", all - well), Paint::Bad),
        };
        format!("waltide {}  {}", word(&self.body["version"]), style.paint(paint, &text))
    }

    fn pipeline(&self, pipeline: &Value, name: usize, width: usize, style: Style) -> String {
        let state = word(&pipeline["state"]);
        let lag = pipeline["lag_seconds"].as_f64().unwrap_or_default();
        let behind = bytes(pipeline["lag_bytes"].as_u64().unwrap_or_default());
        let kept = kept(pipeline);
        let called = cut(&word(&pipeline["name"]), name);
        let rest = format!(
            "  {:>8}  {behind:>9}  {:>10}  {kept}",
            time(lag),
            self.records(pipeline).to_string()
        );
        let rest = cut(&rest, width.saturating_sub(name + 11));
        let painted = style.paint(paint_of(&state), &format!("{state:<9}"));
        format!("{called:<name$}  {painted}{rest}")
    }

    /// Each second where that is known, or all there were.
    fn records(&self, pipeline: &Value) -> u64 {
        let of = |pipeline: &Value| pipeline["records"].as_u64().unwrap_or_default();
        let Some((before, passed)) = self.before else { return of(pipeline) };
        let all = before["pipelines"].as_array().into_iter().flatten();
        let same = all.into_iter().find(|one| one["name"] == pipeline["name"]);
        let more = of(pipeline).saturating_sub(same.map_or(0, of));
        let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1);
        more.saturating_mul(1_000) / millis
    }
}

/// What the slot keeps, and of how much it may.
fn kept(pipeline: &Value) -> String {
    let slot = &pipeline["slot"];
    match (slot["retained_wal_bytes"].as_u64(), slot["safe_wal_bytes"].as_u64()) {
        (Some(kept), Some(safe)) => format!("{} of {}", bytes(kept), bytes(kept + safe)),
        (Some(kept), None) => bytes(kept),
        (None, _) => "-".to_owned(),
    }
}

/// As many lines as there is room for; the last one says how many there are besides.
pub(super) fn fitting(lines: &[String], room: usize) -> Vec<String> {
    if lines.len() <= room {
        return lines.to_vec();
    }
    let shown = room.saturating_sub(1);
    let mut fitting: Vec<String> = lines.iter().take(shown).cloned().collect();
    fitting.push(format!("... and {} more lines", lines.len() - shown));
    fitting
}

fn is_well(state: &str) -> bool {
    matches!(state, "streaming" | "standby")
}

fn paint_of(state: &str) -> Paint {
    match state {
        state if is_well(state) => Paint::Good,
        "stopped" => Paint::Bad,
        _ => Paint::Doubtful,
    }
}

/// What is wrong, and what to do.
fn troubles(pipeline: &Value, width: usize, style: Style) -> Vec<String> {
    let error = &pipeline["error"];
    if error.is_null() {
        return Vec::new();
    }
    let what = format!("{} {}", word(&error["code"]), word(&error["what"]));
    let mut lines = wrapped(&what, width, style, Paint::Bad);
    let mend = format!("What to do: {}", word(&error["mend"]));
    lines.extend(wrapped(&mend, width, style, Paint::Doubtful));
    lines
}

/// Tables whose rows are being read, with how far that is.
fn snapshots(pipeline: &Value, width: usize, style: Style) -> Vec<String> {
    let tables = pipeline["snapshots"].as_object().into_iter().flatten();
    let going_on = tables.filter(|(_, of)| !matches!(&*word(&of["state"]), "done" | "cancelled"));
    going_on.flat_map(|(table, of)| reading(table, of, width, style)).collect()
}

/// How far a table is, which of its rows are read, and what keeps it from being read.
pub(super) fn reading(table: &str, of: &Value, width: usize, style: Style) -> Vec<String> {
    let part = of["part"].as_f64();
    let bar = part.map_or_else(|| " ".repeat(22), bar);
    let percent = part.map_or_else(|| "    ".to_owned(), |part| format!("{:>3.0}%", part * 100.0));
    let rows = of["rows"].as_u64().unwrap_or_default();
    let state = word(&of["state"]);
    let mut told = format!("{table}, ");
    // First what a narrow terminal must not cut off.
    if !state.is_empty() && state != "reading" {
        told += &format!("{state}, ");
    }
    if let Some(left) = of["left_seconds"].as_f64() {
        told += &format!("{} left, ", time(left));
    }
    told += &rows.to_string();
    if let Some(all) = of["rows_expected"].as_u64().filter(|all| *all > rows && state != "done") {
        told += &format!(" of {all}");
    }
    told += " rows";
    if let (Some(read), Some(all)) = (of["bytes"].as_u64(), of["bytes_expected"].as_u64()) {
        told += &format!(", {} of {}", bytes(read), bytes(all));
    }
    if let Some(rate) = of["rows_per_second"].as_f64() {
        told += &format!(", {rate:.0}/s");
    }
    let mut lines = vec![cut(&format!("  {bar} {percent}  {told}"), width)];
    if let Some(condition) = of["where"].as_str() {
        lines.push(cut(&format!("      where {condition}"), width));
    }
    lines.extend(troubles(of, width, style));
    lines
}

fn bar(part: f64) -> String {
    // Between nothing and all of it, whatever the answer says.
    let done = (0..20).filter(|step| f64::from(*step) + 0.5 <= part * 20.0).count();
    format!("[{}{}]", "#".repeat(done), ".".repeat(20 - done))
}

/// At words, with two spaces before each line.
fn wrapped(text: &str, width: usize, style: Style, paint: Paint) -> Vec<String> {
    let room = width.saturating_sub(2).max(20);
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split_whitespace() {
        let fits = lines.last().is_some_and(|line| {
            line.is_empty() || line.chars().count() + 1 + word.chars().count() <= room
        });
        if !fits {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            let space = if line.is_empty() { "" } else { " " };
            line.push_str(space);
            line.push_str(&cut(word, room));
        }
    }
    lines.iter().map(|line| format!("  {}", style.paint(paint, line))).collect()
}

fn cut(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_owned(),
        Some(_) => text.chars().take(width.saturating_sub(1)).chain(['~']).collect(),
    }
}

fn word(of: &Value) -> String {
    of.as_str().unwrap_or_default().to_owned()
}

/// As a person says it.
fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => format!("{:.0} ms", s * 1_000.0),
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3_600.0),
        s => format!("{:.1} d", s / 86_400.0),
    }
}

fn bytes(count: u64) -> String {
    let mut scaled = count as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if scaled < 1_024.0 {
            let digits = usize::from(unit != "B" && scaled < 100.0);
            return format!("{scaled:.digits$} {unit}");
        }
        scaled /= 1_024.0;
    }
    format!("{scaled:.1} TiB")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body(records: u64) -> Value {
        json!({ "version": "1.2.3", "pipelines": [
            { "name": "orders", "state": "streaming", "lag_seconds": 0.006, "lag_bytes": 0,
              "records": records, "error": null,
              "slot": { "retained_wal_bytes": 101_400_000, "safe_wal_bytes": 9_900_000_000_u64 },
              "snapshots": {
                  "public.orders": { "state": "reading", "rows": 1_284_000, "rows_expected": 2_070_967,
                      "rows_per_second": 13_505.4, "part": 0.62, "left_seconds": 58.2, "where": "a > 0",
                      "bytes": 650_117_120_u64, "bytes_expected": 1_048_576_000_u64 },
                  "public.lines": { "state": "done", "rows": 7, "part": 1.0, "left_seconds": null },
              } },
            { "name": "a-pipeline-with-quite-a-long-name", "state": "waiting", "lag_seconds": 360.0,
              "lag_bytes": 734_003_200_u64, "records": 7, "snapshots": {},
              "slot": { "retained_wal_bytes": null, "safe_wal_bytes": null },
              "error": { "code": "WT301", "what": "no broker of kafka-1:9092,kafka-2:9092 answers: \
                         Connection refused", "mend": "start a broker" } },
        ] })
    }

    fn told(width: usize, before: Option<(&Value, Duration)>) -> String {
        let overview = Overview { body: &body(1_500), before, error: None };
        overview.lines(width, Style::plain()).concat()
    }

    #[test]
    fn it_says_how_each_is_and_what_to_do() {
        assert_eq!(
            told(80, None),
            "waltide 1.2.3  1 of 2 pipelines not well
PIPELINE         STATE           LAG     BEHIND     RECORDS  WAL KEPT
orders           streaming      6 ms        0 B        1500  96.7 MiB of 9.3 GiB
a-pipeline-wit~  waiting       6 min    700 MiB           7  -
  WT301 no broker of kafka-1:9092,kafka-2:9092 answers: Connection refused
  What to do: start a broker
"
            .replace(
                "a-pipeline-wit~",
                "  [############........]  62%  public.orders, 58.2 s left, 1284000 of 2070967 r~
      where a > 0\na-pipeline-wit~"
            )
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in 40..140 {
            let told = told(width, None);
            let widest = told.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(width), "{width}:\n{told}");
        }
    }

    #[test]
    fn between_two_answers_there_is_a_rate() {
        let before = body(500);
        let told = told(100, Some((&before, Duration::from_millis(2_000))));
        assert!(told.contains("RECORDS/S") && told.contains("  500  96.7 MiB"), "{told}");
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let lines: Vec<String> = (0..9).map(|line| format!("{line}\n")).collect();
        assert_eq!(fitting(&lines, 9).len(), 9);
        assert_eq!(fitting(&lines, 4), ["0\n", "1\n", "2\n", "... and 6 more lines"]);
    }

    #[test]
    fn figures_are_as_a_person_says_them() {
        let times = [0.0, 0.25, 59.0, 600.0, 7_200.0, 400_000.0].map(time);
        assert_eq!(times, ["0 ms", "250 ms", "59.0 s", "10 min", "2.0 h", "4.6 d"]);
        let sizes = [0, 1_023, 2_048, 734_003_200, 5 << 40].map(bytes);
        assert_eq!(sizes, ["0 B", "1023 B", "2.0 KiB", "700 MiB", "5.0 TiB"]);
    }
}
