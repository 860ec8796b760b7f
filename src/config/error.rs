//! What can be wrong with a configuration, where, and what to do about it.

use std::fmt;
use std::sync::Arc;

/// The width errors are rendered at: a terminal of any age, and a log viewer.
const WIDTH: usize = 80;

/// How many errors are printed; the rest are counted. A file with more is another kind of file.
const MAX_PRINTED: usize = 40;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Which kind of mistake it is.
    pub kind: Kind,
    /// Where it was made.
    pub place: Place,
    /// The key it is about, as a path (`pipelines.shop.source.url`); empty for the file itself.
    pub key: String,
    /// What is wrong, in a sentence without a full stop.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
    pub(super) excerpt: Option<Box<Excerpt>>,
}

/// The kinds of mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The file cannot be read.
    Unreadable,
    /// The file is not YAML.
    Syntax,
    /// A key that does not exist.
    UnknownKey,
    /// A value of another type than the key takes.
    WrongType,
    /// A key given twice.
    DuplicateKey,
    /// A key that must be given.
    MissingKey,
    /// A value of the right type that cannot be used.
    InvalidValue,
    /// Two keys that cannot both be given, or two values that exclude each other.
    Conflict,
    /// A librdkafka property that is not the configuration's to set.
    RefusedProperty,
    /// What this build was made without.
    NotBuilt,
    /// A `${...}` that cannot be filled in.
    Substitution,
}

impl Kind {
    /// The code of the page that explains it: one for a file that cannot be read, and one for
    /// everything that can be wrong in it.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Unreadable => "WT101",
            Self::Syntax
            | Self::UnknownKey
            | Self::WrongType
            | Self::DuplicateKey
            | Self::MissingKey
            | Self::InvalidValue
            | Self::Conflict
            | Self::RefusedProperty
            | Self::NotBuilt
            | Self::Substitution => "WT102",
        }
    }
}

/// Where something was given.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// In the file.
    File {
        /// The file, as it was named.
        file: Arc<str>,
        /// Counted from 1.
        line: u32,
        /// Counted from 1, in characters.
        column: u32,
    },
    /// In an environment variable.
    Variable(Arc<str>),
    /// Nowhere: there is no file, or it cannot be opened.
    Nowhere,
}

impl Place {
    /// A place in a file; a number too large to be held is that of a file too large to be read.
    pub(super) fn in_file(file: &Arc<str>, line: usize, column: usize) -> Self {
        let bounded = |number: usize| u32::try_from(number.max(1)).unwrap_or(u32::MAX);
        Self::File { file: Arc::clone(file), line: bounded(line), column: bounded(column) }
    }

    /// The line, where the place is in a file.
    #[must_use]
    pub fn line(&self) -> Option<u32> {
        match self {
            Self::File { line, .. } => Some(*line),
            Self::Variable(_) | Self::Nowhere => None,
        }
    }

    /// The column, where the place is in a file.
    #[must_use]
    pub fn column(&self) -> Option<u32> {
        match self {
            Self::File { column, .. } => Some(*column),
            Self::Variable(_) | Self::Nowhere => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Variable(name) => write!(f, "environment variable {name}"),
            Self::Nowhere => f.write_str("no file"),
        }
    }
}

/// A line as it is shown under an error. It is put together from the key and, where it is no
/// secret, the value; never copied from the file, whose lines may hold anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Excerpt {
    pub(super) text: String,
    pub(super) start: usize,
    pub(super) width: usize,
}

impl Error {
    pub(super) fn new(kind: Kind, place: Place, key: &str, message: impl Into<String>) -> Self {
        Self {
            kind,
            place,
            key: key.to_owned(),
            message: message.into(),
            help: None,
            excerpt: None,
        }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_wrapped(f, &format!("error[{}]: ", self.kind.code()), &self.message)?;
        let number = self.place.line().map(|line| line.to_string()).unwrap_or_default();
        let gutter = number.len().max(1);
        if self.place != Place::Nowhere {
            write!(f, "\n{:gutter$}--> {}", "", self.place)?;
        }
        if let Some(excerpt) = &self.excerpt {
            excerpt.write(f, &number)?;
        }
        if !self.key.is_empty() {
            write!(f, "\n{:gutter$} = key: {}", "", self.key)?;
        }
        if let Some(help) = &self.help {
            f.write_str("\n")?;
            write_wrapped(f, &format!("{:gutter$} = help: ", ""), help)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

impl Excerpt {
    fn write(&self, f: &mut fmt::Formatter<'_>, number: &str) -> fmt::Result {
        let gutter = number.len();
        let room = WIDTH.saturating_sub(gutter + 3);
        // What is far to the right is shown without what stands before it.
        let skipped = if self.start + self.width.min(8) > room { self.start } else { 0 };
        let shown: String = self.text.chars().skip(skipped).take(room).collect();
        let start = self.start - skipped;
        let width = self.width.min(room.saturating_sub(start)).max(1);
        write!(f, "\n{:gutter$} |\n{number} | {}", "", shown.trim_end())?;
        write!(f, "\n{:gutter$} | {:start$}{:^<width$}", "", "", "")
    }
}

/// Writes a text after a label, broken at spaces and indented to the label.
fn write_wrapped(f: &mut fmt::Formatter<'_>, label: &str, text: &str) -> fmt::Result {
    let indent = label.chars().count();
    f.write_str(label)?;
    let mut column = indent;
    for (index, word) in text.split(' ').enumerate() {
        let width = word.chars().count();
        if index > 0 {
            if column + 1 + width > WIDTH {
                write!(f, "\n{:indent$}", "")?;
                column = indent;
            } else {
                f.write_str(" ")?;
                column += 1;
            }
        }
        f.write_str(word)?;
        column += width;
    }
    Ok(())
}

/// Everything that is wrong, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors(Vec<Error>);

impl Errors {
    /// The errors one by one.
    pub fn iter(&self) -> std::slice::Iter<'_, Error> {
        self.0.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

impl From<Error> for Errors {
    fn from(error: Error) -> Self {
        Self(vec![error])
    }
}

impl<'a> IntoIterator for &'a Errors {
    type Item = &'a Error;
    type IntoIter = std::slice::Iter<'a, Error>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in self.0.iter().take(MAX_PRINTED) {
            write!(f, "{error}\n\n")?;
        }
        match self.0.len() {
            1 => f.write_str("the configuration has 1 error"),
            count if count > MAX_PRINTED => {
                write!(f, "the configuration has {count} errors; the first {MAX_PRINTED} are above")
            }
            count => write!(f, "the configuration has {count} errors"),
        }
    }
}

impl std::error::Error for Errors {}

/// Collects errors while reading goes on.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Error>);

impl Problems {
    pub(super) fn add(&mut self, error: Error) {
        self.0.push(error);
    }

    /// Passes a value on, or collects why there is none.
    pub(super) fn check<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }

    pub(super) fn into_errors(mut self) -> Option<Errors> {
        if self.0.is_empty() {
            return None;
        }
        self.0.sort_by(|a, b| a.place.cmp(&b.place));
        self.0.dedup();
        Some(Errors(self.0))
    }
}
