//! YAML, read into a tree that knows where each part of it stands.
//!
//! The tree is built from the parser's events rather than by deserialising into structs, for
//! three reasons. Scalars keep their text, so that `0123` as a password or `1.10` as a version
//! arrives as it was typed and the key, not YAML, decides what it means. Every mistake can be
//! reported, not only the first. And what the environment adds joins the same tree, so that one
//! reader serves both.
//!
//! Hazards of YAML that end here: duplicate keys are errors, aliases are expanded up to a bound,
//! tags that would change a type are refused, a second document is refused.

use std::collections::HashMap;
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::error::{Error, Kind, Place, Problems};
use super::keys::{KeyPath, shown_name};

/// The largest file that is read. The longest plausible one, a table option for each of a
/// thousand tables, has a tenth of it.
pub(super) const MAX_FILE_BYTES: usize = 1024 * 1024;

/// How many nodes a file may have once its aliases are expanded; a few lines of nested
/// aliases could otherwise fill the memory.
const MAX_NODES: usize = 100_000;

/// How deep collections may be nested: four times what the keys need, and far from the stack's
/// end.
const MAX_DEPTH: usize = 32;

/// A value and where it stands.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) value: Value,
    pub(super) mark: Mark,
}

/// A place, and how many columns what stands there takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) place: Place,
    pub(super) width: usize,
}

#[derive(Clone)]
pub(super) enum Value {
    /// Nothing: `key:` alone, `~` or `null`. It counts as not given.
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Something an error has been reported for already.
    Broken,
}

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) mark: Mark,
    pub(super) value: Node,
}

#[derive(Clone)]
pub(super) struct Scalar {
    pub(super) text: String,
    pub(super) style: Style,
    /// Read from a file by `${file:...}`: never shown.
    pub(super) hidden: bool,
}

/// How a scalar came to its text, which decides what it may stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Plain,
    Quoted,
    /// From the environment, or put together from it: text without a notation, so that it may
    /// also be a number, `true`, or a list with commas.
    Outside,
}

impl Node {
    pub(super) fn new(value: Value, mark: Mark) -> Self {
        Self { value, mark }
    }
}

/// Reads a document. What can be reported without stopping goes to `problems`.
pub(super) fn parse(file: &Arc<str>, text: &str, problems: &mut Problems) -> Result<Node, Error> {
    if text.len() > MAX_FILE_BYTES {
        let message = format!("the file is larger than {MAX_FILE_BYTES} bytes");
        return Err(Error::new(Kind::Unreadable, start_of(file), "", message));
    }
    let options = granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let events = Parser::new_from_str_with_options(text, options);
    Builder { events, file, problems, anchors: HashMap::new(), nodes: 0, path: KeyPath::root() }
        .document()
}

fn start_of(file: &Arc<str>) -> Place {
    Place::in_file(file, 1, 1)
}

struct Builder<'a, 'p, E> {
    events: E,
    file: &'a Arc<str>,
    problems: &'p mut Problems,
    /// Finished nodes that an alias may name. A collection joins when it is complete, so an
    /// alias inside its own anchor finds nothing.
    anchors: HashMap<usize, Node>,
    nodes: usize,
    path: KeyPath,
}

impl<'a, E> Builder<'a, '_, E>
where
    E: Iterator<Item = Result<(Event<'a>, Span), ScanError>>,
{
    fn document(mut self) -> Result<Node, Error> {
        let mut root = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(..) if root.is_some() => {
                    let message = "the file holds a second document, after `---`";
                    return Err(self
                        .error(Kind::Syntax, &span, message)
                        .help("give each daemon one file with one document"));
                }
                Event::DocumentStart(..) => {}
                Event::StreamEnd => break,
                event => root = Some(self.node(event, span)?),
            }
        }
        let empty = Mark { place: start_of(self.file), width: 1 };
        Ok(root.unwrap_or_else(|| Node::new(Value::Null, empty)))
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Error> {
        match self.events.next() {
            Some(Ok(next)) => Ok(next),
            Some(Err(scan)) => {
                let at = scan.marker();
                let place = Place::in_file(self.file, at.line(), at.col() + 1);
                let message = format!("this is not YAML: {}", scan.info());
                Err(Error::new(Kind::Syntax, place, "", message).help(
                    "look at the indentation (spaces only), the quotes and the brackets of this line \
                     and the one before",
                ))
            }
            // The parser ends with StreamEnd, after which nothing asks again.
            None => {
                Err(Error::new(Kind::Syntax, start_of(self.file), "", "the file ends too soon"))
            }
        }
    }

    /// The node that begins with an event.
    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Node, Error> {
        self.count(1, &span)?;
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tagged_text = tag.as_ref().is_some_and(|tag| tag.core_suffix() == Some("str"));
                let style = match style {
                    ScalarStyle::Plain if !tagged_text => Style::Plain,
                    _ => Style::Quoted,
                };
                let node = Node::new(scalar(text.into_owned(), style), self.mark(&span));
                (anchor, self.refuse_tag(tag.as_deref(), &span, node))
            }
            Event::SequenceStart(_, anchor, tag) => {
                let node = Node::new(Value::List(self.items()?), self.mark(&span));
                (anchor, self.refuse_tag(tag.as_deref(), &span, node))
            }
            Event::MappingStart(_, anchor, tag) => {
                let node = Node::new(Value::Map(self.entries()?), self.mark(&span));
                (anchor, self.refuse_tag(tag.as_deref(), &span, node))
            }
            Event::Alias(id) => return self.alias(id, &span),
            _ => (0, self.unknown_alias(&span)),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn items(&mut self) -> Result<Vec<Node>, Error> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(items),
                (event, span) => items.push(self.node(event, span)?),
            }
        }
    }

    fn entries(&mut self) -> Result<Vec<Entry>, Error> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let key = self.node(event, span)?;
            let value = self.value_of(&key)?;
            match key.value {
                Value::Scalar(Scalar { text, style: Style::Plain, .. }) if text == "<<" => {
                    merged.push(value);
                }
                Value::Scalar(Scalar { text, .. }) => {
                    self.insert(&mut entries, Entry { key: text, mark: key.mark, value });
                }
                Value::Broken => {}
                Value::Null | Value::List(_) | Value::Map(_) => {
                    let message = "a key must be a word";
                    let at = self.path.as_str();
                    self.problems.add(Error::new(Kind::Syntax, key.mark.place, at, message));
                }
            }
        }
        for node in merged {
            self.merge(&mut entries, node);
        }
        Ok(entries)
    }

    fn value_of(&mut self, key: &Node) -> Result<Node, Error> {
        let inner = match &key.value {
            Value::Scalar(scalar) => self.path.child(&scalar.text),
            _ => self.path.child(""),
        };
        let outer = std::mem::replace(&mut self.path, inner);
        let (event, span) = self.next()?;
        let value = self.node(event, span);
        self.path = outer;
        value
    }

    fn insert(&mut self, entries: &mut Vec<Entry>, entry: Entry) {
        match entries.iter().find(|other| other.key == entry.key) {
            Some(first) => self.problems.add(duplicate(first, &entry.mark, &self.path)),
            None => entries.push(entry),
        }
    }

    /// `<<: *anchor`: the entries of another mapping, where this one has none of the name.
    fn merge(&mut self, entries: &mut Vec<Entry>, node: Node) {
        match node.value {
            Value::Map(others) => {
                for other in others {
                    if !entries.iter().any(|entry| entry.key == other.key) {
                        entries.push(other);
                    }
                }
            }
            Value::List(nodes) => {
                for node in nodes {
                    self.merge(entries, node);
                }
            }
            Value::Broken => {}
            Value::Null | Value::Scalar(_) => self.problems.add(
                Error::new(
                    Kind::WrongType,
                    node.mark.place,
                    self.path.as_str(),
                    "`<<` takes a mapping",
                )
                .help("write `<<: *name`, where another mapping is marked `&name`"),
            ),
        }
    }

    fn alias(&mut self, id: usize, span: &Span) -> Result<Node, Error> {
        let Some(node) = self.anchors.get(&id).cloned() else {
            let message = "this alias stands inside what it names";
            self.problems.add(self.error(Kind::Syntax, span, message));
            return Ok(Node::new(Value::Broken, self.mark(span)));
        };
        self.count(size(&node), span)?;
        Ok(node)
    }

    fn unknown_alias(&mut self, span: &Span) -> Node {
        let message = "`*` begins an alias in YAML, and there is no anchor of this name";
        self.problems.add(
            self.error(Kind::Syntax, span, message)
                .help("put a value that begins with `*` in quotes: \"*.*\""),
        );
        Node::new(Value::Broken, self.mark(span))
    }

    /// Core tags say what the keys know anyway; any other would ask for something that is not
    /// there.
    fn refuse_tag(&mut self, tag: Option<&granit_parser::Tag>, span: &Span, node: Node) -> Node {
        match tag {
            Some(tag) if tag.core_suffix().is_none() => {
                let error = self.error(Kind::Syntax, span, "a tag (`!...`) has no meaning here");
                self.problems.add(error.help("take it away, or put the value in quotes"));
                Node::new(Value::Broken, node.mark)
            }
            _ => node,
        }
    }

    fn count(&mut self, nodes: usize, span: &Span) -> Result<(), Error> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            let message = format!("the file has more than {MAX_NODES} values");
            return Err(self.error(Kind::Unreadable, span, &message));
        }
        Ok(())
    }

    fn mark(&self, span: &Span) -> Mark {
        let on_one_line = span.start.line() == span.end.line();
        let width = if on_one_line { span.end.col().saturating_sub(span.start.col()) } else { 1 };
        let place = Place::in_file(self.file, span.start.line(), span.start.col() + 1);
        Mark { place, width: width.max(1) }
    }

    fn error(&self, kind: Kind, span: &Span, message: &str) -> Error {
        Error::new(kind, self.mark(span).place, self.path.as_str(), message)
    }
}

fn scalar(text: String, style: Style) -> Value {
    if style == Style::Plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL") {
        return Value::Null;
    }
    Value::Scalar(Scalar { text, style, hidden: false })
}

fn size(node: &Node) -> usize {
    1 + match &node.value {
        Value::List(nodes) => nodes.iter().map(size).sum(),
        Value::Map(entries) => entries.iter().map(|entry| 1 + size(&entry.value)).sum(),
        Value::Null | Value::Scalar(_) | Value::Broken => 0,
    }
}

/// The error for a key that is given twice.
pub(super) fn duplicate(first: &Entry, second: &Mark, parent: &KeyPath) -> Error {
    let path = parent.child(&first.key);
    let message = format!("`{}` is given twice", shown_name(&first.key));
    Error::new(Kind::DuplicateKey, second.place.clone(), path.as_str(), message)
        .help(format!("the other is at {}; keep one of them", first.mark.place))
}
