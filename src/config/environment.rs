//! Every key from the environment: `WALTIDE_PIPELINES__SHOP__SOURCE__URL` is
//! `pipelines.shop.source.url`, and wins over the file.
//!
//! Variables are matched against the keys' description, because a name in capitals has lost
//! what a key may hold: pipelines and Kafka's properties are found again by comparing folded
//! names. Values are taken literally: no YAML, no `${...}`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::document::{Entry, Mark, Node, Scalar, Style, Value};
use super::error::{Error, Kind, Place, Problems};
use super::keys::{KeyInfo, KeyPath, Naming, Shape, listed, nearest};
use super::typed;

/// What all of our variables begin with.
pub const PREFIX: &str = "WALTIDE_";

/// Variables that are read elsewhere.
const NOT_KEYS: [&str; 5] =
    ["WALTIDE_CA_FILE", "WALTIDE_CONFIG", "WALTIDE_SOURCE", "WALTIDE_TOKEN_FILE", "WALTIDE_URL"];

/// A snapshot of environment variables.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Environment {
    /// The environment of this process. A variable that is not UTF-8 counts as not set.
    #[must_use]
    pub fn of_process() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Self(variables.collect())
    }

    /// The value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Variables that stand for keys. Empty ones count as not set, as they do in a Compose file
    /// that passes on what is not there.
    fn keys(&self) -> impl Iterator<Item = (&str, &str)> {
        self.ours().filter(|(name, value)| name.contains("__") && !value.is_empty())
    }

    fn ours(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .filter(|(name, _)| name.starts_with(PREFIX) && !NOT_KEYS.contains(&name.as_str()))
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Variables that look like ours and stand for nothing. Kubernetes puts some into every
    /// container of a namespace that has a service called `waltide`; those are no mistake.
    pub(super) fn strays(&self) -> impl Iterator<Item = &str> {
        self.ours().map(|(name, _)| name).filter(|name| {
            let of_a_service = name.ends_with("_SERVICE_HOST")
                || name.contains("_SERVICE_PORT")
                || name.ends_with("_PORT")
                || name.contains("_PORT_");
            !name.contains("__") && !of_a_service
        })
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

/// Puts what the environment says into the tree.
pub(super) fn overlay(root: &mut Node, environment: &Environment, problems: &mut Problems) {
    let shape = typed::shape();
    for (name, value) in environment.keys() {
        let segments: Vec<&str> = name[PREFIX.len()..].split("__").collect();
        let variable = Variable { name: Arc::from(name), value };
        if let Err(error) = variable.place(root, &shape, &segments, &KeyPath::root()) {
            problems.add(error);
        }
    }
}

struct Variable<'a> {
    name: Arc<str>,
    value: &'a str,
}

impl Variable<'_> {
    /// Walks down the tree as the segments say, and sets the value at their end.
    fn place(
        &self,
        node: &mut Node,
        shape: &Shape,
        segments: &[&str],
        path: &KeyPath,
    ) -> Result<(), Error> {
        match shape {
            Shape::Short(..) if segments.is_empty() => self.set(node, segments, path),
            Shape::Group(group) | Shape::Short(_, group) => {
                let Some((first, rest)) = segments.split_first() else {
                    return Err(self.ends_early(&group.keys, path));
                };
                let name = first.to_lowercase();
                let Some(key) = group.keys.iter().find(|key| key.name == name) else {
                    return Err(self.unknown(&name, &group.keys, path));
                };
                match self.child(node, |key| key == name, || name.clone()) {
                    Some(child) => {
                        self.place(&mut child.value, &key.shape, rest, &path.child(&name))
                    }
                    None => Ok(()),
                }
            }
            Shape::Map { naming, value } => {
                if segments.len() < naming.segments() {
                    return Err(self.ends_early(&[], path));
                }
                let (own, rest) = segments.split_at(naming.segments());
                let wanted = match naming {
                    Naming::Table => naming.folded(&own.join(".")),
                    Naming::Pipeline | Naming::Property => naming.folded(&own.concat()),
                };
                match self.child(node, |key| naming.folded(key) == wanted, || naming.made(own)) {
                    Some(child) => {
                        let path = path.child(&child.key);
                        self.place(&mut child.value, value, rest, &path)
                    }
                    None => Ok(()),
                }
            }
            Shape::Text
            | Shape::Secret
            | Shape::Flag
            | Shape::Integer { .. }
            | Shape::Choice(_)
            | Shape::List(_) => self.set(node, segments, path),
        }
    }

    fn set(&self, node: &mut Node, rest: &[&str], path: &KeyPath) -> Result<(), Error> {
        if !rest.is_empty() {
            let message = format!("{} goes on where `{}` is a value", self.name, path.as_str());
            return Err(self
                .error(Kind::UnknownKey, path, message)
                .help("two underscores stand between levels, one is part of a name"));
        }
        if matches!(node.mark.place, Place::Variable(_)) && !matches!(node.value, Value::Null) {
            let message = format!("`{}` is given by two variables", path.as_str());
            return Err(self
                .error(Kind::DuplicateKey, path, message)
                .help(format!("the other is {}; unset one of them", node.mark.place)));
        }
        let scalar = Scalar { text: self.value.to_owned(), style: Style::Outside, hidden: false };
        *node = Node::new(Value::Scalar(scalar), self.mark());
        Ok(())
    }

    /// The entry of a mapping that matches, made where there is none. Nothing where the file
    /// has something else in the mapping's place, which is an error of its own.
    fn child<'n>(
        &self,
        node: &'n mut Node,
        matches: impl Fn(&str) -> bool,
        make: impl Fn() -> String,
    ) -> Option<&'n mut Entry> {
        if matches!(node.value, Value::Null) {
            node.value = Value::Map(Vec::new());
        }
        let Value::Map(entries) = &mut node.value else { return None };
        match entries.iter().position(|entry| matches(&entry.key)) {
            Some(index) => entries.get_mut(index),
            None => {
                let value = Node::new(Value::Null, self.mark());
                entries.push(Entry { key: make(), mark: self.mark(), value });
                entries.last_mut()
            }
        }
    }

    fn mark(&self) -> Mark {
        Mark { place: Place::Variable(Arc::clone(&self.name)), width: 1 }
    }

    fn error(&self, kind: Kind, path: &KeyPath, message: String) -> Error {
        Error::new(kind, Place::Variable(Arc::clone(&self.name)), path.as_str(), message)
    }

    fn ends_early(&self, keys: &[KeyInfo], path: &KeyPath) -> Error {
        let message = format!("{} names a group of keys, not a key", self.name);
        let error = self.error(Kind::UnknownKey, path, message);
        match keys.first() {
            Some(key) => {
                error.help(format!("go on to a key: {}__{}", self.name, key.name.to_uppercase()))
            }
            None => error.help("go on to a key"),
        }
    }

    fn unknown(&self, name: &str, keys: &[KeyInfo], path: &KeyPath) -> Error {
        let path = path.child(name);
        let message = format!("{} stands for `{}`, which is no key", self.name, path.as_str());
        let error = self.error(Kind::UnknownKey, &path, message);
        match nearest(name, keys.iter().map(|key| key.name)) {
            Some(near) => error.help(format!("did you mean `{}`?", near.to_uppercase())),
            None => {
                error.help(format!("there it can be {}", listed(keys.iter().map(|key| key.name))))
            }
        }
    }
}
