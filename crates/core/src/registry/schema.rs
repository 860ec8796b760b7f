//! An Avro schema, as far as readers and writers have to agree about it.
//!
//! Logical types are notes on top of a type: resolution does not look at them, here as in the
//! registries that others run.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

/// A schema that was read. Named types stand once, and are pointed at.
#[derive(Clone, Debug)]
pub struct Schema {
    pub(super) root: Type,
    pub(super) named: Vec<Named>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Array(Box<Type>),
    Map(Box<Type>),
    Union(Vec<Type>),
    /// The index of a named type.
    Named(usize),
}

#[derive(Clone, Debug)]
pub(super) struct Named {
    /// With its namespace.
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Fixed(u64),
    Enum { symbols: Vec<String>, has_default: bool },
    Record(Vec<Field>),
}

#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) of: Type,
    pub(super) has_default: bool,
}

impl Schema {
    /// Reads a schema's text.
    ///
    /// # Errors
    /// What about it is no Avro, as the end of a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        // A bare name is taken for the type, as others do.
        let json: Value = match serde_json::from_str(text) {
            Ok(json) => json,
            Err(error) => return Err(format!("it is not JSON: {error}")),
        };
        let mut parser = Parser { named: Vec::new(), places: HashMap::new() };
        let root = parser.read(&json, "")?;
        Ok(Self { root, named: parser.named })
    }

    pub(super) fn named(&self, index: usize) -> Option<&Named> {
        self.named.get(index)
    }
}

impl Type {
    fn primitive(name: &str) -> Option<Self> {
        Some(match name {
            "null" => Self::Null,
            "boolean" => Self::Boolean,
            "int" => Self::Int,
            "long" => Self::Long,
            "float" => Self::Float,
            "double" => Self::Double,
            "bytes" => Self::Bytes,
            "string" => Self::Text,
            _ => return None,
        })
    }
}

/// Two texts that say the same have the same identity: order of keys and blanks do not count.
#[must_use]
pub fn identity(json: &Value) -> String {
    match json {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by_key(|(name, _)| *name);
            let members = members
                .into_iter()
                .map(|(name, value)| format!("{}:{}", Value::from(name.as_str()), identity(value)));
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(identity).collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

/// The nesting of what it reads is bounded by that of JSON.
struct Parser {
    named: Vec<Named>,
    places: HashMap<String, usize>,
}

impl Parser {
    fn read(&mut self, json: &Value, space: &str) -> Result<Type, String> {
        match json {
            Value::String(name) => self.reference(name, space),
            Value::Array(branches) => self.union(branches, space),
            Value::Object(object) => self.object(object, space),
            other => Err(format!("{other} is no type")),
        }
    }

    fn reference(&self, name: &str, space: &str) -> Result<Type, String> {
        if let Some(primitive) = Type::primitive(name) {
            return Ok(primitive);
        }
        let found = self.places.get(&full(name, space)).or_else(|| self.places.get(name));
        found.map(|index| Type::Named(*index)).ok_or_else(|| format!("there is no type {name}"))
    }

    fn union(&mut self, branches: &[Value], space: &str) -> Result<Type, String> {
        let mut read: Vec<Type> = Vec::with_capacity(branches.len());
        for branch in branches {
            let branch = self.read(branch, space)?;
            let alike = |other: &Type| match (other, &branch) {
                (Type::Array(_), Type::Array(_)) | (Type::Map(_), Type::Map(_)) => true,
                (one, other) => one == other,
            };
            if matches!(branch, Type::Union(_)) {
                return Err("a union stands in a union".to_owned());
            }
            if read.iter().any(alike) {
                return Err("a union has a branch twice".to_owned());
            }
            read.push(branch);
        }
        Ok(Type::Union(read))
    }

    fn object(&mut self, object: &Map<String, Value>, space: &str) -> Result<Type, String> {
        let part = |name: &str| object.get(name).ok_or_else(|| format!("a type lacks its {name}"));
        match part("type")? {
            Value::String(kind) => match kind.as_str() {
                "array" => Ok(Type::Array(Box::new(self.read(part("items")?, space)?))),
                "map" => Ok(Type::Map(Box::new(self.read(part("values")?, space)?))),
                "fixed" => self.fixed(object, space),
                "enum" => self.enumeration(object, space),
                "record" | "error" => self.record(object, space),
                other => self.reference(other, space),
            },
            inner => self.read(inner, space),
        }
    }

    fn fixed(&mut self, object: &Map<String, Value>, space: &str) -> Result<Type, String> {
        let size = object.get("size").and_then(Value::as_u64).ok_or("a fixed lacks its size")?;
        self.name(object, space, Kind::Fixed(size)).map(|(index, _)| Type::Named(index))
    }

    fn enumeration(&mut self, object: &Map<String, Value>, space: &str) -> Result<Type, String> {
        let symbols = object.get("symbols").and_then(Value::as_array);
        let symbols = texts(symbols.ok_or("an enum lacks its symbols")?)
            .filter(|symbols| symbols.iter().all(|symbol| is_name(symbol)))
            .ok_or("a symbol of an enum is no name")?;
        if symbols.iter().collect::<HashSet<_>>().len() < symbols.len() {
            return Err("an enum has a symbol twice".to_owned());
        }
        let default = object.get("default").and_then(Value::as_str);
        if default.is_some_and(|default| !symbols.iter().any(|symbol| symbol == default)) {
            return Err("an enum's default is none of its symbols".to_owned());
        }
        let kind = Kind::Enum { symbols, has_default: default.is_some() };
        self.name(object, space, kind).map(|(index, _)| Type::Named(index))
    }

    fn record(&mut self, object: &Map<String, Value>, space: &str) -> Result<Type, String> {
        let given = object.get("fields").and_then(Value::as_array);
        let given = given.ok_or("a record lacks its fields")?;
        // Known by its name before its fields are read: they may name it.
        let (index, space) = self.name(object, space, Kind::Record(Vec::new()))?;
        let mut fields: Vec<Field> = Vec::with_capacity(given.len());
        let mut names = HashSet::new();
        for field in given {
            let name = field.get("name").and_then(Value::as_str).filter(|name| is_name(name));
            let name = name.ok_or("a field has no name, or one that Avro does not allow")?;
            let of = field.get("type").ok_or_else(|| format!("the field {name} lacks its type"))?;
            if !names.insert(name) {
                return Err(format!("a record has the field {name} twice"));
            }
            fields.push(Field {
                name: name.to_owned(),
                aliases: aliases(field.get("aliases")),
                of: self.read(of, &space).map_err(|why| format!("the field {name}: {why}"))?,
                has_default: field.get("default").is_some(),
            });
        }
        if let Some(named) = self.named.get_mut(index) {
            named.kind = Kind::Record(fields);
        }
        Ok(Type::Named(index))
    }

    /// Gives a type its name; with the namespace of what is inside it.
    fn name(
        &mut self,
        object: &Map<String, Value>,
        space: &str,
        kind: Kind,
    ) -> Result<(usize, String), String> {
        let name = object.get("name").and_then(Value::as_str).ok_or("a type lacks its name")?;
        let space = object.get("namespace").and_then(Value::as_str).unwrap_or(space);
        let name = full(name, space);
        if !name.split('.').all(is_name) || Type::primitive(&name).is_some() {
            return Err(format!("{name} is no name for a type"));
        }
        let space = name.rsplit_once('.').map_or("", |(space, _)| space).to_owned();
        let index = self.named.len();
        if self.places.insert(name.clone(), index).is_some() {
            return Err(format!("the type {name} stands there twice"));
        }
        let aliases = aliases(object.get("aliases")).iter().map(|one| full(one, &space)).collect();
        self.named.push(Named { name, aliases, kind });
        Ok((index, space))
    }
}

fn full(name: &str, space: &str) -> String {
    match name.contains('.') || space.is_empty() {
        true => name.trim_start_matches('.').to_owned(),
        false => format!("{space}.{name}"),
    }
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn texts(values: &[Value]) -> Option<Vec<String>> {
    values.iter().map(|value| value.as_str().map(str::to_owned)).collect()
}

fn aliases(given: Option<&Value>) -> Vec<String> {
    given.and_then(Value::as_array).and_then(|given| texts(given)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_avro_is_named() {
        for (text, told) in [
            ("{", "not JSON"),
            ("7", "7 is no type"),
            ("\"strong\"", "no type strong"),
            ("[\"null\",[\"int\"]]", "a union stands in a union"),
            ("[\"int\",\"int\"]", "a branch twice"),
            ("{\"name\":\"x\"}", "lacks its type"),
            (r#"{"type":"record","name":"a b","fields":[]}"#, "no name for a type"),
            (r#"{"type":"record","name":"int","fields":[]}"#, "no name for a type"),
            (r#"{"type":"record","name":"R"}"#, "lacks its fields"),
            (r#"{"type":"record","name":"R","fields":[{"name":"f"}]}"#, "f lacks its type"),
            (
                r#"{"type":"record","name":"R","fields":[{"name":"f","type":"int"},{"name":"f","type":"int"}]}"#,
                "the field f twice",
            ),
            (r#"{"type":"enum","name":"E","symbols":["a","a"]}"#, "a symbol twice"),
            (r#"{"type":"enum","name":"E","symbols":["a-b"]}"#, "no name"),
            (r#"{"type":"fixed","name":"F"}"#, "lacks its size"),
            (
                r#"[{"type":"fixed","name":"F","size":1},{"type":"fixed","name":"F","size":2}]"#,
                "stands there twice",
            ),
        ] {
            let error = Schema::parse(text).expect_err(text);
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn a_type_is_found_by_the_namespace_it_is_named_in() {
        let text = r#"{"type":"record","name":"a.R","fields":[
            {"name":"one","type":{"type":"fixed","name":"F","size":1}},
            {"name":"two","type":"F"},{"name":"three","type":["null","a.F","R"]}]}"#;
        let schema = Schema::parse(text).expect("Avro");
        let names: Vec<&str> = schema.named.iter().map(|named| named.name.as_str()).collect();
        assert_eq!(names, ["a.R", "a.F"]);
    }

    #[test]
    fn blanks_and_the_order_of_keys_make_no_other_schema() {
        let of = |text: &str| identity(&serde_json::from_str(text).expect("JSON"));
        assert_eq!(
            of(r#"{"a": [1, {"y":"\n","x":null}], "b": true}"#),
            of(r#"{"b":true,"a":[1,{"x":null,"y":"\n"}]}"#)
        );
        assert_ne!(of(r#"{"a":[1,2]}"#), of(r#"{"a":[2,1]}"#));
    }

    #[test]
    fn no_text_makes_it_panic() {
        let deep = "[".repeat(5000);
        assert!(Schema::parse(&deep).is_err());
        let seed = r#"{"type":"record","name":"R","fields":[{"name":"f","type":["null","R"],"default":null}]}"#;
        for cut in 0..seed.len() {
            let _ = Schema::parse(seed.get(..cut).unwrap_or_default());
            let swapped: String = seed.chars().skip(cut).chain(seed.chars().take(cut)).collect();
            let _ = Schema::parse(&swapped);
        }
    }
}
