//! Thousands of damaged files: none makes the reader panic, every error names a line, nothing
//! secret comes out. `WALTIDE_SEED=n` replays a run.

use std::panic::{AssertUnwindSafe, catch_unwind};

use waltide::config::{Environment, parse};

use super::secrets::MARK;
use super::{DESIGN, MINIMAL};

const FILES: usize = 10_000;

/// A file with a secret in each place that has one.
const SECRETS: &str = "\
pipelines:
  shop:
    source:
      url: postgres://waltide:hunter2@db:5432/shop
      tables: [public.*, \"sales_*.orders\"]
      exclude:
        - public.*_tmp
      binary: true
    kafka: &kafka
      bootstrap_servers: kafka-1:9093,kafka-2:9093
      partitions: 12
      topic_config:
        min.insync.replicas: 2
      properties:
        sasl.username: waltide
        sasl.password: hunter2
        compression.type: zstd
    registry:
      url: https://registry:8081
      username: waltide
      password: 'hunter2'
    snapshot: never
    table_options:
      public.orders:
        topic: orders
        key: [customer_id, id]
        exclude_columns: [card_number]
  two:
    source: {url: \"postgres://waltide:hunter2@db2:5432/two\", tables: [public.*]}
    kafka: {<<: *kafka, partitions: ${N:-6}}
    registry:
      url: http://waltide:hunter2@registry:8081
log:
  level: info
";

const PIECES: &[&str] = &[
    ":",
    ": ",
    "- ",
    "#",
    " #",
    "\"",
    "'",
    "{",
    "}",
    "[",
    "]",
    ",",
    "&a ",
    "*a",
    "!x ",
    "|\n",
    ">\n",
    "\n",
    "\n\n",
    "\t",
    " ",
    "    ",
    "\r\n",
    "---\n",
    "...\n",
    "? ",
    "<<: ",
    "null",
    "~",
    "true",
    "0x1F",
    "-1",
    "999999999999999999999",
    "é",
    "\u{0}",
    "\u{feff}",
    "\u{2028}",
    "🦀",
    "${",
    "${X}",
    "${X:-y}",
    "${file:/nope}",
    "$$",
    "%",
    "@",
    "`",
    "url: ",
    "pipelines:\n",
    "  shop:\n",
    "a: &a [*a]\n",
];

const CHARACTERS: &[u8] = b" %:{}[]'\"#&*!|>-?,@`~azAZ09_.$/\\";

#[test]
fn ten_thousand_damaged_files_are_refused_in_order() {
    let seed = std::env::var("WALTIDE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        now.as_secs() << 30 | u64::from(now.subsec_nanos())
    });
    println!("WALTIDE_SEED={seed}");
    let mut random = Random(seed | 1);
    let (mut held, mut refused) = (0, 0);
    for number in 0..FILES {
        let base = [DESIGN, MINIMAL, SECRETS][random.below(3)];
        let mut text = base.to_owned();
        for _ in 0..=random.below(4) {
            text = damaged(&text, &mut random);
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| judge(&text)));
        match outcome {
            Ok(true) => held += 1,
            Ok(false) => refused += 1,
            Err(_) => panic!("file {number} of WALTIDE_SEED={seed}:\n{text}"),
        }
    }
    println!("{held} held, {refused} refused");
    assert!(held > FILES / 20 && refused > FILES / 2, "{held} held, {refused} refused");
}

/// Reads a file and looks at what comes out; whether it held.
fn judge(text: &str) -> bool {
    match parse("waltide.yaml", text, &Environment::default()) {
        Ok(loaded) => {
            let printed = format!("{}{loaded:?}", loaded.show());
            assert!(!leaks(text, &printed), "leaked:\n{printed}");
            true
        }
        Err(errors) => {
            let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count();
            assert!(errors.count() > 0);
            for error in &errors {
                let line = error.place.line();
                assert!(
                    line.is_some_and(|line| (1..=lines + 1).contains(&(line as usize))),
                    "{error:?}"
                );
                assert!(error.place.column().is_some_and(|column| column >= 1), "{error:?}");
            }
            let printed = format!("{errors}{errors:?}");
            assert!(!leaks(text, &printed), "leaked:\n{printed}");
            false
        }
    }
}

fn leaks(text: &str, printed: &str) -> bool {
    // Where the colon before a URL's password is gone, the password has become part of the user's
    // name, and nobody can know better.
    let count = |pattern: String| text.matches(&pattern).count();
    let part_of_a_name = count(format!("{MARK}@")) > count(format!(":{MARK}@"));
    printed.contains(MARK) && !part_of_a_name
}

fn damaged(text: &str, random: &mut Random) -> String {
    let characters: Vec<char> = text.chars().collect();
    let lines: Vec<&str> = text.lines().collect();
    let at = random.below(characters.len() + 1);
    let line = random.below(lines.len().max(1));
    let spliced = |start: usize, length: usize, piece: &str| -> String {
        let end = (start + length).min(characters.len());
        characters[..start]
            .iter()
            .copied()
            .chain(piece.chars())
            .chain(characters[end..].iter().copied())
            .collect()
    };
    let with_lines = |change: &dyn Fn(&mut Vec<String>)| {
        let mut lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        change(&mut lines);
        lines.join("\n") + "\n"
    };
    match random.below(10) {
        0 => spliced(at, 1, ""),
        1 => spliced(at, 1 + random.below(12), ""),
        2 | 3 => spliced(at, 0, PIECES[random.below(PIECES.len())]),
        4 => {
            let typed = CHARACTERS[random.below(CHARACTERS.len())];
            spliced(at, 1, &char::from(typed).to_string())
        }
        5 => spliced(at, usize::MAX / 2, ""),
        6 if !lines.is_empty() => with_lines(&|lines| {
            lines.remove(line);
        }),
        7 if !lines.is_empty() => with_lines(&|lines| lines.insert(line, lines[line].clone())),
        8 if !lines.is_empty() => {
            let other = random.below(lines.len());
            with_lines(&|lines| lines.swap(line, other))
        }
        _ if !lines.is_empty() => {
            let indent = " ".repeat(random.below(9));
            with_lines(&|lines| lines[line] = format!("{indent}{}", lines[line].trim_start()))
        }
        _ => spliced(at, 0, " "),
    }
}

/// A small generator of pseudo-random numbers (xorshift64*): a seed is all there is to replay.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}
