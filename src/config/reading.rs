//! Reading typed values out of the tree: every value keeps the place it was given at, and a
//! mistake is collected while reading goes on.

use super::document::{Entry, Mark, Node, Scalar, Style, Value};
use super::error::{Error, Excerpt, Kind, Place, Problems};
use super::keys::{self, KeyPath, Naming, Shape, shown_name, shown_value};

/// Where a value was given, and how that can be shown.
#[derive(Clone, Debug)]
pub(super) struct At {
    pub(super) path: KeyPath,
    /// The key's name; empty for the file itself and for an item of a list.
    name: String,
    pub(super) key: Mark,
    pub(super) value: Mark,
    /// The value as it may be shown; `None` where it is secret or not a scalar.
    pub(super) shown: Option<String>,
    /// Whether it was read from a file by `${file:...}`.
    pub(super) hidden: bool,
}

impl At {
    pub(super) fn root(node: &Node) -> Self {
        Self::of(KeyPath::root(), "", &node.mark, node, false)
    }

    fn of(path: KeyPath, name: &str, key: &Mark, node: &Node, secret: bool) -> Self {
        let (shown, hidden) = match &node.value {
            Value::Scalar(Scalar { text, style: Style::Quoted, hidden }) => {
                (Some(format!("\"{}\"", shown_value(text))), *hidden)
            }
            Value::Scalar(Scalar { text, hidden, .. }) => (Some(shown_value(text)), *hidden),
            Value::Null | Value::List(_) | Value::Map(_) | Value::Broken => (None, false),
        };
        Self {
            path,
            name: name.to_owned(),
            key: key.clone(),
            value: node.mark.clone(),
            shown: shown.filter(|_| !secret && !hidden),
            hidden,
        }
    }

    /// An error about the value.
    pub(super) fn error(&self, kind: Kind, message: impl Into<String>) -> Error {
        self.error_at(&self.value, kind, message)
    }

    /// An error about the key.
    pub(super) fn key_error(&self, kind: Kind, message: impl Into<String>) -> Error {
        self.error_at(&self.key, kind, message)
    }

    /// The error for a key of this group that is not given.
    pub(super) fn missing(&self, name: &str) -> Error {
        let mut error = self.key_error(Kind::MissingKey, format!("`{name}` is missing"));
        error.key = self.path.child(name).as_str().to_owned();
        error
    }

    fn error_at(&self, mark: &Mark, kind: Kind, message: impl Into<String>) -> Error {
        let mut error = Error::new(kind, mark.place.clone(), self.path.as_str(), message);
        error.excerpt = self.excerpt(mark);
        error
    }

    fn excerpt(&self, mark: &Mark) -> Option<Box<Excerpt>> {
        let column_of = |mark: &Mark| mark.place.column().map(|column| column as usize);
        let line = mark.place.line()?;
        let mut text = String::new();
        if !self.name.is_empty() && self.key.place.line() == Some(line) {
            put(&mut text, column_of(&self.key)?, &format!("{}:", shown_name(&self.name)));
        }
        if self.value.place.line() == Some(line) && self.value != self.key {
            let shown = self.shown.as_deref().unwrap_or("...");
            put(&mut text, column_of(&self.value)?, shown);
        }
        let start = column_of(mark)? - 1;
        let length = text.chars().count();
        (length > start)
            .then(|| Box::new(Excerpt { width: mark.width.min(length - start), text, start }))
    }
}

/// Writes at a column, or as near behind it as what stands there allows.
fn put(line: &mut String, column: usize, text: &str) {
    let length = line.chars().count();
    let gap = (column - 1).saturating_sub(length);
    line.extend(std::iter::repeat_n(' ', if length > 0 { gap.max(1) } else { gap }));
    line.push_str(text);
}

/// A value and where it was given.
#[derive(Clone, Debug)]
pub(super) struct Given<T> {
    pub(super) value: T,
    pub(super) at: At,
}

/// A key of a group, as it was typed.
#[derive(Clone, Debug, Default)]
pub(super) enum Key<T> {
    /// Not given, or given without a value.
    #[default]
    Absent,
    /// Given in a way that an error has been collected for.
    Broken,
    /// Given.
    Given(Given<T>),
}

impl<T> Key<T> {
    pub(super) fn given(&self) -> Option<&Given<T>> {
        match self {
            Self::Given(given) => Some(given),
            Self::Absent | Self::Broken => None,
        }
    }

    pub(super) fn value(&self) -> Option<&T> {
        self.given().map(|given| &given.value)
    }

    /// The value of a key that must be there; its absence is collected as an error.
    pub(super) fn required<'a>(
        &'a self,
        name: &str,
        group: &At,
        problems: &mut Problems,
    ) -> Option<&'a Given<T>> {
        if matches!(self, Self::Absent) {
            problems.add(group.missing(name));
        }
        self.given()
    }
}

/// A type of value that a node can be read as.
pub(super) trait Read: Sized {
    /// Whether it must never be shown.
    const SECRET: bool = false;

    fn shape() -> Shape;

    /// The value, or nothing where an error has been collected.
    fn read(node: &Node, at: &At, problems: &mut Problems) -> Option<Self>;
}

fn read_key<T: Read>(
    node: &Node,
    path: KeyPath,
    name: &str,
    mark: &Mark,
    problems: &mut Problems,
) -> Key<T> {
    let at = At::of(path, name, mark, node, T::SECRET);
    match &node.value {
        Value::Null => Key::Absent,
        Value::Broken => Key::Broken,
        Value::Scalar(_) | Value::List(_) | Value::Map(_) => match T::read(node, &at, problems) {
            Some(value) => Key::Given(Given { value, at }),
            None => Key::Broken,
        },
    }
}

/// The keys of a group, taken one by one, and what of it is no key.
pub(super) struct Fields<'a> {
    entries: &'a [Entry],
    at: &'a At,
    names: &'static [&'static str],
}

impl<'a> Fields<'a> {
    pub(super) fn open(
        node: &'a Node,
        at: &'a At,
        names: &'static [&'static str],
        problems: &mut Problems,
    ) -> Option<Self> {
        match &node.value {
            Value::Map(entries) => Some(Self { entries, at, names }),
            Value::Null => Some(Self { entries: &[], at, names }),
            _ => {
                problems.add(wrong_type(node, at, "keys, each on a line of its own"));
                None
            }
        }
    }

    pub(super) fn take<T: Read>(&self, name: &'static str, problems: &mut Problems) -> Key<T> {
        let Some(entry) = self.entries.iter().find(|entry| entry.key == name) else {
            // A key that was mistyped is reported as unknown; that is enough.
            let mistyped = self
                .unknown()
                .any(|entry| keys::nearest(&entry.key, self.names.iter().copied()) == Some(name));
            return if mistyped { Key::Broken } else { Key::Absent };
        };
        read_key(&entry.value, self.at.path.child(name), name, &entry.mark, problems)
    }

    fn unknown(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| !self.names.contains(&entry.key.as_str()))
    }

    pub(super) fn close(self, problems: &mut Problems) {
        for entry in self.unknown() {
            let path = self.at.path.child(&entry.key);
            // The value of a key that nobody knows may be a secret.
            let at = At::of(path, &entry.key, &entry.mark, &entry.value, true);
            problems.add(keys::unknown(&at, &entry.key, self.names));
        }
    }
}

/// How a map's keys are named, as a type.
pub(super) trait Named {
    const NAMING: Naming;
}

macro_rules! named {
    ($($name:ident),*) => {$(
        /// The keys of a map.
        #[derive(Clone, Debug, Default)]
        pub(super) struct $name;
        impl Named for $name {
            const NAMING: Naming = Naming::$name;
        }
    )*};
}
named!(Pipeline, Property, Table);

/// Keys that the user names, in the order of the file.
#[derive(Clone, Debug)]
pub(super) struct Map<N, T> {
    pub(super) entries: Vec<MapEntry<T>>,
    naming: std::marker::PhantomData<N>,
}

/// One of them.
#[derive(Clone, Debug)]
pub(super) struct MapEntry<T> {
    pub(super) name: String,
    pub(super) at: At,
    pub(super) value: Key<T>,
}

impl<N: Named, T: Read> Read for Map<N, T> {
    /// A text that stands where keys should may be anything.
    const SECRET: bool = true;

    fn shape() -> Shape {
        Shape::Map { naming: N::NAMING, value: Box::new(T::shape()) }
    }

    fn read(node: &Node, at: &At, problems: &mut Problems) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            problems.add(wrong_type(node, at, "keys, each on a line of its own"));
            return None;
        };
        let entries = entries.iter().map(|Entry { key, mark, value }| {
            let path = at.path.child(key);
            MapEntry {
                name: key.clone(),
                at: At::of(path.clone(), key, mark, value, true),
                value: read_key(value, path, key, mark, problems),
            }
        });
        Some(Self { entries: entries.collect(), naming: std::marker::PhantomData })
    }
}

impl<T: Read> Read for Vec<Given<T>> {
    const SECRET: bool = T::SECRET;

    fn shape() -> Shape {
        Shape::List(Box::new(T::shape()))
    }

    fn read(node: &Node, at: &At, problems: &mut Problems) -> Option<Self> {
        let split;
        let nodes = match &node.value {
            Value::List(nodes) => nodes,
            Value::Scalar(scalar) if scalar.style == Style::Outside => {
                split = split_at_commas(scalar, &node.mark);
                &split
            }
            _ => {
                let example = at.shown.as_deref().unwrap_or("a, b");
                problems.add(
                    wrong_type(node, at, "a list").help(format!("put it in brackets: [{example}]")),
                );
                return None;
            }
        };
        let mut items = Vec::with_capacity(nodes.len());
        for (index, node) in nodes.iter().enumerate() {
            let path = at.path.item(index);
            match read_key(node, path.clone(), "", &node.mark, problems) {
                Key::Given(item) => items.push(item),
                Key::Broken => {}
                Key::Absent => {
                    let at = At::of(path, "", &node.mark, node, true);
                    problems.add(at.error(Kind::InvalidValue, "this item has no value"));
                }
            }
        }
        (items.len() == nodes.len()).then_some(items)
    }
}

fn split_at_commas(scalar: &Scalar, mark: &Mark) -> Vec<Node> {
    let items = scalar.text.split(',').map(str::trim).filter(|item| !item.is_empty());
    items
        .map(|item| {
            let part =
                Scalar { text: item.to_owned(), style: Style::Outside, hidden: scalar.hidden };
            Node::new(Value::Scalar(part), mark.clone())
        })
        .collect()
}

pub(super) fn wrong_type(node: &Node, at: &At, expected: &str) -> Error {
    let found = match &node.value {
        Value::Map(_) => "keys",
        Value::List(_) => "a list",
        Value::Scalar(Scalar { style: Style::Quoted, .. }) => "a text in quotes",
        Value::Scalar(_) => "a single value",
        Value::Null | Value::Broken => "nothing",
    };
    at.error(Kind::WrongType, format!("this takes {expected}; what is given is {found}"))
}

/// A place to speak of where nothing is given at all.
pub(super) fn nowhere() -> Mark {
    Mark { place: Place::Nowhere, width: 1 }
}

/// Declares a group of keys: the struct that holds what was typed, its reader and its
/// description, from one text.
macro_rules! group {
    ($(#[doc = $about:literal])* $name:ident {
        $($(#[doc = $doc:literal])* $key:ident: $type:ty = $fallback:expr,)*
    }) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, Default)]
        pub(super) struct $name {
            $($(#[doc = $doc])* pub(super) $key: Key<$type>,)*
        }

        impl Read for $name {
            /// A text that stands where keys should may be anything.
            const SECRET: bool = true;

            fn shape() -> Shape {
                Shape::Group(Group {
                    about: concat!($($about, "\n"),*),
                    keys: vec![$(KeyInfo {
                        name: stringify!($key),
                        about: concat!($($doc, "\n"),*),
                        fallback: $fallback,
                        shape: <$type as Read>::shape(),
                    }),*],
                })
            }

            fn read(node: &Node, at: &At, problems: &mut Problems) -> Option<Self> {
                const NAMES: &[&str] = &[$(stringify!($key)),*];
                let fields = Fields::open(node, at, NAMES, problems)?;
                let read = Self { $($key: fields.take(stringify!($key), problems),)* };
                fields.close(problems);
                Some(read)
            }
        }
    };
}
pub(super) use group;

/// Declares a choice between words.
macro_rules! choice {
    ($(#[doc = $about:literal])* $vis:vis $name:ident {
        $($(#[doc = $doc:literal])* $variant:ident = $text:literal,)*
    }) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        $vis enum $name {
            $($(#[doc = $doc])* $variant,)*
        }

        impl $name {
            const WORDS: &'static [Word] = &[$(Word {
                text: $text,
                about: concat!($($doc, "\n"),*),
            }),*];

            /// The word that stands for it.
            #[must_use]
            $vis fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }
        }

        impl Read for $name {
            fn shape() -> Shape {
                Shape::Choice(Self::WORDS)
            }

            fn read(node: &Node, at: &At, problems: &mut Problems) -> Option<Self> {
                const VARIANTS: &[$name] = &[$($name::$variant),*];
                choose(Self::WORDS, node, at, problems).and_then(|index| VARIANTS.get(index).copied())
            }
        }
    };
}
pub(super) use choice;
