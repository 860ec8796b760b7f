//! What keys there are, described: one description serves the reader of files, the environment's
//! names, the JSON Schema, the reference page and the hints in errors.

use super::error::{Error, Kind};
use super::reading::At;
use super::secret::{MASK, mask_urls};

/// The longest name of a key or value that is repeated in a message.
const MAX_SHOWN_CHARS: usize = 60;

/// What a value may be.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    Text,
    Secret,
    Flag,
    Integer {
        min: i64,
        max: i64,
    },
    Choice(&'static [Word]),
    List(Box<Shape>),
    Map {
        naming: Naming,
        value: Box<Shape>,
    },
    Group(Group),
    /// Keys, or a word that stands for the first of them alone.
    Short(&'static [Word], Group),
}

/// One of the words a key takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word {
    pub(super) text: &'static str,
    pub(super) about: &'static str,
}

/// Keys that belong together.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) about: &'static str,
    pub(super) keys: Vec<KeyInfo>,
}

/// One key.
#[derive(Clone, Debug)]
pub(super) struct KeyInfo {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) fallback: Fallback,
    pub(super) shape: Shape,
}

/// What holds where a key is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fallback {
    /// Nothing: the key must be given.
    Required,
    /// Nothing: the key may be left out.
    Optional,
    /// This value.
    Is(&'static str),
    /// A value that depends on others, described.
    Derived(&'static str),
}

/// How the keys of a map are named, and found under the names an environment variable can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Naming {
    /// Pipelines: `shop-eu` is `SHOP_EU`.
    Pipeline,
    /// Kafka's properties: `linger.ms` is `LINGER_MS`.
    Property,
    /// Tables: `public.orders` is `PUBLIC__ORDERS`.
    Table,
}

impl Naming {
    /// How many segments of a variable's name make one key.
    pub(super) fn segments(self) -> usize {
        match self {
            Self::Pipeline | Self::Property => 1,
            Self::Table => 2,
        }
    }

    /// The form in which a key and a variable's segments are compared.
    pub(super) fn folded(self, key: &str) -> String {
        let lower = key.to_lowercase();
        match self {
            Self::Pipeline => lower.replace('-', "_"),
            Self::Property => lower.replace(['.', '-'], "_"),
            Self::Table => lower,
        }
    }

    /// The key that a variable's segments make where no key of the file matches them.
    pub(super) fn made(self, segments: &[&str]) -> String {
        match self {
            Self::Pipeline => segments.concat().to_lowercase(),
            Self::Property => segments.concat().to_lowercase().replace('_', "."),
            Self::Table => segments.join(".").to_lowercase(),
        }
    }

    /// How a key of this map is written in the reference.
    pub(super) fn placeholder(self) -> &'static str {
        match self {
            Self::Pipeline => "<pipeline>",
            Self::Property => "<property>",
            Self::Table => "<schema.table>",
        }
    }
}

/// The way to a key, as it is shown: `pipelines.shop.source.tables[0]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct KeyPath(String);

impl KeyPath {
    pub(super) fn root() -> Self {
        Self::default()
    }

    pub(super) fn child(&self, name: &str) -> Self {
        let name = shown_name(name);
        let plain = name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-');
        let dot = if self.0.is_empty() { "" } else { "." };
        if plain {
            Self(format!("{}{dot}{name}", self.0))
        } else {
            Self(format!("{}{dot}\"{name}\"", self.0))
        }
    }

    pub(super) fn item(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A key's name as it may be shown. Keys are no secrets, but what a slip of indentation turns
/// into one may be: anything that does not look like a name is masked.
pub(super) fn shown_name(name: &str) -> String {
    let looks_like_a_name = name.chars().count() <= MAX_SHOWN_CHARS
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '*' | '<'));
    if looks_like_a_name { name.to_owned() } else { MASK.to_owned() }
}

/// A value as it may be shown: on one line, of a bounded length, its URLs without passwords.
pub(super) fn shown_value(value: &str) -> String {
    let masked = mask_urls(value);
    let mut shown: String = masked
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_SHOWN_CHARS)
        .collect();
    if masked.chars().count() > MAX_SHOWN_CHARS {
        shown.push_str("...");
    }
    shown
}

/// The one of `names` that was most probably meant.
pub(super) fn nearest<'a>(
    given: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let folded = given.to_lowercase().replace('-', "_");
    let limit = (given.chars().count() / 3).max(1);
    names
        .into_iter()
        .map(|name| {
            (strsim::damerau_levenshtein(&folded, &name.to_lowercase().replace('-', "_")), name)
        })
        .filter(|(distance, _)| *distance <= limit)
        .min()
        .map(|(_, name)| name)
}

/// `a`, `b` or `c`.
pub(super) fn listed<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => "nothing".to_owned(),
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
    }
}

/// The error for a key that its group does not have.
pub(super) fn unknown(at: &At, name: &str, names: &[&'static str]) -> Error {
    let error = at.key_error(Kind::UnknownKey, format!("unknown key `{}`", shown_name(name)));
    if let Some(near) = nearest(name, names.iter().copied()) {
        return error.help(format!("did you mean `{near}`?"));
    }
    if let Some(home) = home_of(name) {
        return error.help(format!("`{name}` is a key of {home}; mind the indentation"));
    }
    error.help(format!("here it can be {}", listed(names.iter().copied())))
}

/// Where a key of this name belongs.
fn home_of(name: &str) -> Option<String> {
    fn search(shape: &Shape, name: &str, home: &str) -> Option<String> {
        match shape {
            Shape::Group(group) | Shape::Short(_, group) => group.keys.iter().find_map(|key| {
                if key.name == name {
                    return Some(if home.is_empty() {
                        "the file itself".to_owned()
                    } else {
                        format!("`{home}`")
                    });
                }
                search(&key.shape, name, key.name)
            }),
            Shape::Map { value, naming } => search(value, name, naming.placeholder()),
            Shape::List(item) => search(item, name, home),
            Shape::Text
            | Shape::Secret
            | Shape::Flag
            | Shape::Integer { .. }
            | Shape::Choice(_) => None,
        }
    }
    search(&super::typed::shape(), name, "")
}

/// A description without the source's line breaks.
pub(super) fn flowed(about: &str) -> String {
    about.split_whitespace().collect::<Vec<_>>().join(" ")
}
