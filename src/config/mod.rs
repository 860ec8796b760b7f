//! The configuration: what was typed, in a file and in the environment, and what it means.
//!
//! A file becomes a tree of values that know their place (`document`); `${...}` in it is
//! filled in (`substitution`); variables join it (`environment`); the tree is read into
//! structs in which every key is optional (`typed`); those are checked and completed
//! (`settling`) into what the daemon works with ([`settled`]). Mistakes are collected all the
//! way and come out together, each with its place.
//!
//! Which keys there are stands in one place, `typed.rs`: reader, environment, JSON Schema,
//! reference page and hints are made from it.

mod changes;
mod document;
mod environment;
mod error;
mod keys;
pub mod librdkafka;
mod reading;
#[cfg(test)]
mod reference;
mod scalars;
mod schema;
mod secret;
pub mod settled;
mod settling;
mod show;
mod substitution;
mod tables;
mod topic;
mod typed;
mod url;

use std::path::Path;
use std::sync::Arc;

pub use changes::{Changes, TAKEN, Untaken};
use document::{MAX_FILE_BYTES, Node, Value};
pub use environment::{Environment, PREFIX};
use error::Problems;
pub use error::{Error, Errors, Kind, Place};
use reading::{At, Read as _};
pub use schema::json_schema;
pub use secret::{Credential, MASK, MAX_SECRET_BYTES, Secret, mask_urls};
pub use settled::Config;
pub use settling::Warning;
pub use tables::{TableName, TablePattern};
pub use topic::{MAX_TOPIC_BYTES, TopicTemplate};
pub use url::DatabaseUrl;

/// A configuration that holds, and what is worth knowing about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What it means.
    pub config: Config,
    /// What is allowed and may not be meant.
    pub warnings: Vec<Warning>,
    typed: typed::Config,
    /// What was given, for comparison.
    leaves: changes::Leaves,
}

impl Loaded {
    /// The effective configuration as YAML, secrets masked and defaults marked.
    #[must_use]
    pub fn show(&self) -> String {
        show::show(&self.typed, &self.config)
    }
}

/// Reads a file, or the environment alone.
///
/// # Errors
/// Everything that is wrong.
pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Loaded, Errors> {
    match file {
        None => read(None, environment),
        Some(path) => {
            let name = path.display().to_string();
            let text = read_file(path, &name)?;
            parse(&name, &text, environment)
        }
    }
}

/// Reads a text as if it were a file of this name.
///
/// # Errors
/// Everything that is wrong.
pub fn parse(name: &str, text: &str, environment: &Environment) -> Result<Loaded, Errors> {
    read(Some((name, text)), environment)
}

fn read(file: Option<(&str, &str)>, environment: &Environment) -> Result<Loaded, Errors> {
    let mut problems = Problems::default();
    let mut root = match file {
        None => Node::new(Value::Null, reading::nowhere()),
        Some((name, text)) => document::parse(&Arc::from(name), text, &mut problems)
            .unwrap_or_else(|error| {
                let mark = document::Mark { place: error.place.clone(), width: 1 };
                problems.add(error);
                Node::new(Value::Broken, mark)
            }),
    };
    if matches!(root.value, Value::Broken) {
        return Err(problems.into_errors().unwrap_or_else(unexplained));
    }
    substitution::apply(&mut root, environment, &mut problems);
    environment::overlay(&mut root, environment, &mut problems);
    let mut warnings = Vec::new();
    for name in environment.strays() {
        warnings.push(Warning {
            place: Place::Variable(Arc::from(name)),
            key: String::new(),
            message: format!(
                "{name} stands for no key; two underscores stand between levels, as in \
                 WALTIDE_HTTP__LISTEN"
            ),
        });
    }
    let at = At::root(&root);
    let leaves = changes::leaves(&root);
    let typed = typed::Config::read(&root, &at, &mut problems);
    let config = typed
        .as_ref()
        .and_then(|typed| settling::settle(typed, &at, environment, &mut problems, &mut warnings));
    match (problems.into_errors(), typed, config) {
        (None, Some(typed), Some(config)) => Ok(Loaded { config, warnings, typed, leaves }),
        (errors, ..) => Err(errors.unwrap_or_else(unexplained)),
    }
}

/// A value that is missing without an error is a mistake of ours; it must still be an error.
fn unexplained() -> Errors {
    let message = "the configuration cannot be used, and why was not recorded: please report this";
    Errors::from(Error::new(Kind::InvalidValue, Place::Nowhere, "", message))
}

fn read_file(path: &Path, name: &str) -> Result<String, Errors> {
    use std::io::Read;
    let unreadable = |place: Place, why: String| Error::new(Kind::Unreadable, place, "", why);
    let mut bytes = Vec::new();
    let limit = MAX_FILE_BYTES as u64 + 1;
    std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes)).map_err(
        |error| {
            unreadable(Place::Nowhere, format!("the file {name} cannot be read: {error}"))
                .help("see that it exists and that the daemon's user may read it")
        },
    )?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let line = error.as_bytes().iter().take(valid).filter(|byte| **byte == b'\n').count() + 1;
        let place = Place::in_file(&Arc::from(name), line, 1);
        Errors::from(unreadable(place, "the file is not UTF-8".to_owned()))
    })
}
