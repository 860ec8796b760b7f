//! What a look found, and what mends it.

use serde_json::{Value, json};

use crate::fault::Fault;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Ok,
    /// A pipeline runs, and somebody should know.
    Warning,
    /// A pipeline does not run, or the application fails.
    Error,
}

impl Level {
    /// As it is printed.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One step of what mends a finding, to be followed as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A statement for the source's database, for a superuser or whoever owns the object.
    Sql(String),
    /// The PostgreSQL server must be restarted.
    Restart,
    /// A command line.
    Command(String),
    /// A key of the pipeline's configuration, and its value.
    Configure(String, Value),
    /// What cannot be said as a command.
    Advice(String),
}

impl Step {
    /// Its kind, as a program is told it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Sql(_) => "sql",
            Self::Restart => "restart",
            Self::Command(_) => "command",
            Self::Configure(..) => "config",
            Self::Advice(_) => "advice",
        }
    }

    /// What is printed of it.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Sql(text) => format!("{text};"),
            Self::Restart => "restart the PostgreSQL server".to_owned(),
            Self::Command(text) | Self::Advice(text) => text.clone(),
            Self::Configure(key, value) => format!("{key}: {value}"),
        }
    }

    fn json(&self) -> Value {
        match self {
            Self::Configure(key, value) => {
                json!({ "kind": self.kind(), "text": self.text(), "key": key, "value": value })
            }
            _ => json!({ "kind": self.kind(), "text": self.text() }),
        }
    }
}

/// What was found of one precondition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which precondition; the same name in every version.
    pub check: &'static str,
    /// How bad it is.
    pub level: Level,
    /// Of what, where there are several: a table, a topic, a slot.
    pub of: Option<String>,
    /// What is so.
    pub what: String,
    /// The code of the failure that the daemon would report, where it would.
    pub code: Option<&'static str>,
    /// What mends it, in order; empty where nothing has to be.
    pub mend: Vec<Step>,
}

impl Finding {
    fn new(level: Level, check: &'static str, what: impl Into<String>) -> Self {
        Self { check, level, of: None, what: what.into(), code: None, mend: Vec::new() }
    }

    pub(super) fn ok(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(Level::Ok, check, what)
    }

    pub(super) fn warning(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(Level::Warning, check, what)
    }

    pub(super) fn error(check: &'static str, what: impl Into<String>) -> Self {
        Self::new(Level::Error, check, what)
    }

    /// What the daemon would stop or wait with.
    pub(super) fn fault(check: &'static str, fault: &Fault) -> Self {
        let mut finding = Self::error(check, fault.what.as_str());
        finding.code = Some(fault.code.id());
        finding
    }

    pub(super) fn of(mut self, of: impl Into<String>) -> Self {
        self.of = Some(of.into());
        self
    }

    pub(super) fn step(mut self, step: Step) -> Self {
        self.mend.push(step);
        self
    }

    pub(super) fn sql(self, text: impl Into<String>) -> Self {
        self.step(Step::Sql(text.into()))
    }

    pub(super) fn command(self, text: impl Into<String>) -> Self {
        self.step(Step::Command(text.into()))
    }

    pub(super) fn configure(self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.step(Step::Configure(key.into(), value.into()))
    }

    pub(super) fn advice(self, text: impl Into<String>) -> Self {
        self.step(Step::Advice(text.into()))
    }

    /// For programs.
    #[must_use]
    pub fn json(&self, pipeline: &str) -> Value {
        json!({
            "pipeline": pipeline,
            "check": self.check,
            "level": self.level.as_str(),
            "of": self.of,
            "what": self.what,
            "code": self.code,
            "mend": self.mend.iter().map(Step::json).collect::<Vec<_>>(),
        })
    }
}
