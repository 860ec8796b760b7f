//! Single values: what may stand for a flag, a number, a word, a text or a secret.

use std::path::PathBuf;

use super::document::{Node, Style, Value};
use super::error::{Kind, Problems};
use super::keys::{self, Shape};
use super::reading::{At, Read, wrong_type};
use super::secret::Secret;

/// A scalar that is typed without quotes or comes from the environment: the only notations of
/// numbers, flags and choices.
fn word<'a>(node: &'a Node, at: &At, expected: &str, problems: &mut Problems) -> Option<&'a str> {
    match &node.value {
        Value::Scalar(scalar) if scalar.style != Style::Quoted => Some(&scalar.text),
        Value::Scalar(_) => {
            problems.add(wrong_type(node, at, expected).help("take the quotes away"));
            None
        }
        _ => {
            problems.add(wrong_type(node, at, expected));
            None
        }
    }
}

impl Read for bool {
    fn shape() -> Shape {
        Shape::Flag
    }

    fn read(node: &Node, at: &At, problems: &mut Problems) -> Option<Self> {
        match word(node, at, "`true` or `false`", problems)? {
            "true" => Some(true),
            "false" => Some(false),
            _ => {
                problems.add(wrong_type(node, at, "`true` or `false`"));
                None
            }
        }
    }
}

/// A whole number between two bounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Count<const MIN: i64, const MAX: i64>(pub(super) i64);

impl<const MIN: i64, const MAX: i64> Read for Count<MIN, MAX> {
    fn shape() -> Shape {
        Shape::Integer { min: MIN, max: MAX }
    }

    fn read(node: &Node, at: &At, problems: &mut Problems) -> Option<Self> {
        let expected = format!("a whole number from {MIN} to {MAX}");
        let text = word(node, at, &expected, problems)?;
        match text.parse() {
            Ok(number) if (MIN..=MAX).contains(&number) => Some(Self(number)),
            Ok(_) => {
                problems.add(at.error(Kind::InvalidValue, format!("this takes {expected}")));
                None
            }
            Err(_) => {
                problems.add(wrong_type(node, at, &expected));
                None
            }
        }
    }
}

/// A scalar in any notation, as its text.
fn text<'a>(node: &'a Node, at: &At, problems: &mut Problems) -> Option<&'a str> {
    if let Value::Scalar(scalar) = &node.value {
        return Some(&scalar.text);
    }
    problems.add(wrong_type(node, at, "a single value"));
    None
}

/// A text that stands for something: on one line, and not empty.
fn line<'a>(node: &'a Node, at: &At, problems: &mut Problems) -> Option<&'a str> {
    let text = text(node, at, problems)?;
    let fault = match text {
        "" => "this value is empty",
        _ if text.trim() != text => "this value begins or ends with a space",
        _ if text.contains(char::is_control) => {
            "this value holds a line break or control character"
        }
        _ => return Some(text),
    };
    problems.add(at.error(Kind::InvalidValue, fault));
    None
}

impl Read for String {
    fn shape() -> Shape {
        Shape::Text
    }

    fn read(node: &Node, at: &At, problems: &mut Problems) -> Option<Self> {
        line(node, at, problems).map(str::to_owned)
    }
}

impl Read for PathBuf {
    fn shape() -> Shape {
        Shape::Text
    }

    fn read(node: &Node, at: &At, problems: &mut Problems) -> Option<Self> {
        line(node, at, problems).map(Self::from)
    }
}

impl Read for Secret {
    const SECRET: bool = true;

    fn shape() -> Shape {
        Shape::Secret
    }

    fn read(node: &Node, at: &At, problems: &mut Problems) -> Option<Self> {
        let text = text(node, at, problems)?;
        if text.is_empty() {
            problems.add(at.error(Kind::InvalidValue, "this value is empty"));
            return None;
        }
        Some(Self::new(text))
    }
}

/// A URL that may hold a password.
#[derive(Clone, Debug)]
pub(super) struct Url(pub(super) Secret);

impl Read for Url {
    const SECRET: bool = true;

    fn shape() -> Shape {
        Shape::Text
    }

    fn read(node: &Node, at: &At, problems: &mut Problems) -> Option<Self> {
        line(node, at, problems).map(|text| Self(Secret::new(text)))
    }
}

/// A value for someone else to interpret: any scalar, as it is.
#[derive(Clone, Debug)]
pub(super) struct Verbatim(pub(super) Secret);

impl Read for Verbatim {
    const SECRET: bool = true;

    fn shape() -> Shape {
        Shape::Text
    }

    fn read(node: &Node, at: &At, problems: &mut Problems) -> Option<Self> {
        if matches!(node.value, Value::Map(_)) {
            problems.add(
                wrong_type(node, at, "a single value")
                    .help("names with dots are written out: `linger.ms: 5`"),
            );
            return None;
        }
        text(node, at, problems).map(|text| Self(Secret::new(text)))
    }
}

/// Reads a word out of a fixed set.
pub(super) fn choose(
    words: &'static [keys::Word],
    node: &Node,
    at: &At,
    problems: &mut Problems,
) -> Option<usize> {
    let available = || words.iter().filter(|word| word.available).map(|word| word.text);
    let expected = keys::listed(available());
    let Some(text) = (match &node.value {
        Value::Scalar(scalar) => Some(&scalar.text),
        _ => None,
    }) else {
        problems.add(wrong_type(node, at, &expected));
        return None;
    };
    let found = words.iter().position(|word| word.text == text);
    if found.is_none() {
        let shown = at.shown.as_deref().unwrap_or("this value");
        let error = at.error(Kind::InvalidValue, format!("{shown} is not a value of this key"));
        let help = match keys::nearest(text, available()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("it takes {expected}"),
        };
        problems.add(error.help(help));
    }
    found
}
