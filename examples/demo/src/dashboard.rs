//! The dashboard as lines of text: made from numbers alone, so that tests can look at it.

use crate::live::{Live, Sample};
use crate::shop::{Op, Table};

/// Events that stay on the screen.
const EVENTS: usize = 2;

/// Where everything is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Addresses {
    pub(crate) http: String,
    pub(crate) kafka: String,
    pub(crate) registry: String,
    pub(crate) postgres: String,
    pub(crate) config: String,
}

/// How a piece of text looks where there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Plain,
    Bold,
    Dim,
    Good,
    Change,
    Bad,
}

impl Look {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\x1b[1m",
            Self::Dim => "\x1b[2m",
            Self::Good => "\x1b[32m",
            Self::Change => "\x1b[33m",
            Self::Bad => "\x1b[31m",
        }
    }
}

/// A line in pieces of one look each.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line(Vec<(Look, String)>);

impl Line {
    fn of(look: Look, text: impl Into<String>) -> Self {
        Self(vec![(look, text.into())])
    }

    fn and(mut self, look: Look, text: impl Into<String>) -> Self {
        self.0.push((look, text.into()));
        self
    }

    /// The text alone.
    pub(crate) fn plain(&self) -> String {
        self.0.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// The text in its colours, at most `width` wide.
    pub(crate) fn render(&self, width: usize, has_colour: bool) -> String {
        if !has_colour {
            return cut(&self.plain(), width);
        }
        let mut left = width;
        let mut rendered = String::new();
        for (look, text) in &self.0 {
            let text = cut(text, left);
            left -= text.chars().count();
            if *look == Look::Plain {
                rendered.push_str(&text);
            } else {
                rendered.extend([look.code(), &text, "\x1b[0m"]);
            }
        }
        rendered
    }
}

/// Cuts a line that is too long, visibly.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(2)).collect();
    kept + &".."[..width.min(2)]
}

/// A count with its thousands apart.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate as a whole number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "never negative")]
pub(crate) fn rate(per_second: f64) -> String {
    grouped(per_second.round() as u64)
}

/// A record in a line.
pub(crate) fn sample(sample: &Sample) -> Line {
    let Sample { table, op, key, text, .. } = sample;
    let look = match op {
        Op::Insert => Look::Good,
        Op::Update => Look::Change,
        Op::Delete => Look::Bad,
    };
    Line::of(look, op.word())
        .and(Look::Bold, format!(" {} {key}", table.name()))
        .and(Look::Plain, format!("  {text}"))
}

/// The screen, at most `height` lines; what matters least gives way.
pub(crate) fn frame(live: &Live, addresses: &Addresses, height: usize) -> Vec<Line> {
    let mut lines = head(live);
    lines.push(Line::default());
    lines.extend(topics(live));
    lines.push(Line::default());
    let mut foot: Vec<Line> = Vec::new();
    for event in live.events.iter().rev().take(EVENTS).rev() {
        let text = format!("{:6.1} s  {}", event.after.as_secs_f64(), event.text);
        foot.push(Line::of(Look::Change, text));
    }
    if !foot.is_empty() {
        foot.push(Line::default());
    }
    foot.extend(places(addresses));
    let room = height.saturating_sub(lines.len() + foot.len() + 1);
    let skipped = live.samples.len().saturating_sub(room);
    let samples = live.samples.iter().skip(skipped).map(sample);
    lines.extend(samples);
    if room > 0 {
        lines.push(Line::default());
    }
    lines.extend(foot);
    lines.truncate(height);
    lines
}

fn head(live: &Live) -> Vec<Line> {
    let seconds = live.elapsed().as_secs();
    let time = format!("{}:{:02}", seconds / 60, seconds % 60);
    let title = format!("{:<61}", format!("Waltide demo  {time}"));
    let delay = live.delay_ms.map_or_else(String::new, |(middle, high)| {
        format!("commit-to-read {middle:.1} ms, p99 {high:.1}")
    });
    let counts = |name: &str, count: u64, per_second: f64| {
        Line::of(Look::Dim, format!("{name:<10}"))
            .and(Look::Bold, format!("{:>12} rows", grouped(count)))
            .and(Look::Plain, format!("{:>8} rows/s  ", rate(per_second)))
    };
    let Live { transactions, rolled_back, rates, .. } = live;
    let (transactions, rolled_back) = (grouped(*transactions), grouped(*rolled_back));
    vec![
        Line::of(Look::Bold, title).and(Look::Dim, "Ctrl-C ends, checks"),
        Line::default(),
        counts("committed", live.committed, rates.committed)
            .and(Look::Dim, format!("in {transactions} tx, {rolled_back} rolled back")),
        counts("consumed", live.read, rates.read).and(Look::Dim, delay),
        daemon(live),
    ]
}

fn daemon(live: &Live) -> Line {
    let daemon = &live.daemon;
    let line = Line::of(Look::Dim, format!("{:<10}", "daemon"));
    if let Some(error) = &daemon.error {
        return line.and(Look::Bad, format!("{}: {error}", daemon.state));
    }
    let look = if daemon.state == "streaming" { Look::Good } else { Look::Bad };
    let lag = format!("{:>8.0} ms lag", daemon.lag_ms);
    let more = format!("{} bytes, {} in flight", grouped(daemon.lag_bytes), daemon.in_flight);
    line.and(look, format!("{:>12}     ", daemon.state))
        .and(Look::Plain, format!("{lag}     "))
        .and(Look::Dim, more)
}

fn topics(live: &Live) -> Vec<Line> {
    let head = format!(
        "{:<27}{:>12}{:>14}{:>12}{:>12}",
        "topic", "records", "records/s", "partitions", "schema id"
    );
    let mut lines = vec![Line::of(Look::Dim, head)];
    for (place, table) in Table::ALL.into_iter().enumerate() {
        let topic = &live.topics[place];
        let schema = topic.schema.map_or_else(|| "-".to_owned(), |id| id.to_string());
        lines.push(Line::of(
            Look::Plain,
            format!(
                "{:<27}{:>12}{:>14}{:>12}{schema:>12}",
                table.topic(),
                grouped(topic.records),
                rate(live.rates.records[place]),
                topic.partitions,
            ),
        ));
    }
    lines
}

fn places(addresses: &Addresses) -> Vec<Line> {
    let Addresses { http, kafka, registry, postgres, config } = addresses;
    let line = |name: &str, text: String| {
        Line::of(Look::Dim, format!("{name:<10}")).and(Look::Plain, text)
    };
    vec![
        line("browser", format!("{http}   {http}metrics")),
        line("consumer", format!("{kafka}   registry {registry}")),
        line("psql", postgres.clone()),
        line("config", config.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::live::{Shared, Topic};

    fn addresses() -> Addresses {
        Addresses {
            http: "http://127.0.0.1:31999/".to_owned(),
            kafka: "127.0.0.1:31999".to_owned(),
            registry: "http://127.0.0.1:31999/apis/ccompat/v7".to_owned(),
            postgres: "postgres://postgres@127.0.0.1:31999/shop".to_owned(),
            config: "target/demo/waltide.yaml".to_owned(),
        }
    }

    /// A shop that has been open for hours.
    fn busy() -> Shared {
        let shared = Shared::new(Duration::ZERO);
        let mut live = shared.live();
        live.opened = Instant::now().checked_sub(Duration::from_secs(7_000));
        (live.transactions, live.rolled_back) = (2_345_678, 98_765);
        (live.committed, live.read) = (12_345_678, 12_345_670);
        (live.rates.committed, live.rates.read) = (12_345.6, 12_345.6);
        live.delay_ms = Some((12.3, 456.7));
        live.daemon.state = "streaming".to_owned();
        (live.daemon.lag_ms, live.daemon.lag_bytes) = (1234.0, 12_345_678);
        for topic in &mut live.topics {
            let (records, schema) = (12_345_678, Some(12));
            *topic = Topic { partitions: 3, records, schema, columns: Vec::new() };
        }
        for number in 0..10 {
            let text = "customer_id=17 status=placed ".repeat(4);
            live.sample(Table::OrderItems, Op::Update, format!("{number}/1"), text);
        }
        live.event("ALTER TABLE orders ADD COLUMN coupon text".to_owned());
        live.event("shop.public.orders-value: schema 12 -> 15, + coupon".to_owned());
        drop(live);
        shared
    }

    #[test]
    fn a_busy_screen_fits_into_80_columns_and_24_lines() {
        let shared = busy();
        let lines = frame(&shared.live(), &addresses(), 24);
        assert_eq!(lines.len(), 24);
        for line in &lines {
            let text = line.plain();
            let is_sample = text.starts_with("update");
            assert!(is_sample || text.chars().count() <= 80, "{text}");
            assert!(line.render(80, false).chars().count() <= 80);
        }
        let text: Vec<String> = lines.iter().map(Line::plain).collect();
        assert!(text.iter().any(|line| line.starts_with("update order_items 9/1")), "{text:#?}");
        assert!(text.iter().any(|line| line.contains("schema 12 -> 15")), "{text:#?}");
        assert!(text.iter().any(|line| line.contains("/metrics")), "{text:#?}");
    }

    #[test]
    fn a_screen_of_any_size_is_drawn_and_never_overflows() {
        let shared = busy();
        for height in 1..60 {
            let lines = frame(&shared.live(), &addresses(), height);
            assert!(lines.len() <= height);
            for (width, line) in (1..90).zip(lines.iter().cycle()) {
                assert!(line.render(width, false).chars().count() <= width);
            }
        }
    }

    #[test]
    fn without_colour_there_is_no_control_sequence() {
        let shared = busy();
        for line in frame(&shared.live(), &addresses(), 24) {
            assert!(!line.render(80, false).contains('\x1b'));
        }
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(rate(1499.6), "1,500");
        assert_eq!(cut("abcdef", 4), "ab..");
    }
}
