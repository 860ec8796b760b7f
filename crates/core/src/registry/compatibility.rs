//! Whether a reader with one schema understands what was written with another: Avro's rules of
//! schema resolution, with an answer for each obstacle.

use std::collections::HashMap;

use super::schema::{Field, Kind, Named, Schema, Type};

/// Of what stands in the way, how much is told.
const MAX_OBSTACLES: usize = 20;

/// What hinders a reader from reading what a writer writes, each as a sentence; none where nothing
/// does.
#[must_use]
pub fn obstacles(reader: &Schema, writer: &Schema) -> Vec<String> {
    let (known, readable) = (HashMap::new(), Vec::new());
    let mut resolution = Resolution { reader, writer, known, readable };
    let mut found = resolution.between(&reader.root, &writer.root, "");
    found.truncate(MAX_OBSTACLES);
    found
}

/// Each pair of named types is looked at once, so a schema that names itself has an end and one
/// that names the same type often costs no more.
struct Resolution<'a> {
    reader: &'a Schema,
    writer: &'a Schema,
    known: HashMap<(usize, usize), Vec<String>>,
    /// Pairs without an obstacle, in the order in which that was found.
    readable: Vec<(usize, usize)>,
}

impl<'a> Resolution<'a> {
    fn between(&mut self, reader: &'a Type, writer: &'a Type, path: &str) -> Vec<String> {
        match (reader, writer) {
            (_, Type::Union(branches)) => {
                branches.iter().flat_map(|branch| self.between(reader, branch, path)).collect()
            }
            (Type::Union(branches), _) => {
                let reads = |branch| self.between(branch, writer, path).is_empty();
                match branches.iter().any(reads) {
                    true => Vec::new(),
                    false => vec![format!(
                        "{} may be {}, which no branch of the union reads",
                        place(path),
                        told(self.writer, writer)
                    )],
                }
            }
            (Type::Array(reader), Type::Array(writer)) => {
                self.between(reader, writer, &format!("{path}/items"))
            }
            (Type::Map(reader), Type::Map(writer)) => {
                self.between(reader, writer, &format!("{path}/values"))
            }
            (Type::Named(reader), Type::Named(writer)) => {
                self.between_named(*reader, *writer, path)
            }
            (reader, writer) if promotes(reader, writer) => Vec::new(),
            (reader, writer) => vec![format!(
                "{} was written as {} and is read as {}",
                place(path),
                told(self.writer, writer),
                told(self.reader, reader)
            )],
        }
    }

    fn between_named(&mut self, reader: usize, writer: usize, path: &str) -> Vec<String> {
        if let Some(known) = self.known.get(&(reader, writer)) {
            return known.clone();
        }
        // While it is looked at, it counts as readable: what speaks against it is found anyway.
        self.known.insert((reader, writer), Vec::new());
        let before = self.readable.len();
        let named = self.reader.named(reader).zip(self.writer.named(writer));
        let found = named.map(|(reader, writer)| self.of_named(reader, writer, path));
        let found = found.unwrap_or_default();
        match found.is_empty() {
            true => self.readable.push((reader, writer)),
            // Those were found readable because this one was taken to be.
            false => self.readable.drain(before..).for_each(|pair| {
                self.known.remove(&pair);
            }),
        }
        self.known.insert((reader, writer), found.clone());
        found
    }

    fn of_named(&mut self, reader: &'a Named, writer: &'a Named, path: &str) -> Vec<String> {
        let last = |name: &'a str| name.rsplit('.').next().unwrap_or(name);
        let alike =
            last(&reader.name) == last(&writer.name) || reader.aliases.contains(&writer.name);
        if !alike {
            return vec![format!(
                "{} was written as {} and is read as {}",
                place(path),
                writer.name,
                reader.name
            )];
        }
        match (&reader.kind, &writer.kind) {
            (Kind::Fixed(reader), Kind::Fixed(writer)) if reader == writer => Vec::new(),
            (Kind::Fixed(now), Kind::Fixed(was)) => {
                vec![format!("{} was written with {was} bytes and is read with {now}", place(path))]
            }
            (Kind::Enum { has_default: true, .. }, Kind::Enum { .. }) => Vec::new(),
            (Kind::Enum { symbols: known, .. }, Kind::Enum { symbols, .. }) => {
                let missing: Vec<&str> = symbols
                    .iter()
                    .filter(|symbol| !known.contains(symbol))
                    .map(String::as_str)
                    .collect();
                match missing.is_empty() {
                    true => Vec::new(),
                    false => vec![format!(
                        "{} may be {}, which the reader's enum does not have",
                        place(path),
                        missing.join(", ")
                    )],
                }
            }
            (Kind::Record(reader), Kind::Record(writer)) => {
                reader.iter().flat_map(|field| self.of_field(field, writer, path)).collect()
            }
            _ => vec![format!("{} was written as another kind of type", place(path))],
        }
    }

    fn of_field(&mut self, field: &'a Field, writer: &'a [Field], path: &str) -> Vec<String> {
        let path = format!("{path}/{}", field.name);
        let named = |name: &str| writer.iter().find(|written| written.name == name);
        let written = named(&field.name)
            .or_else(|| field.aliases.iter().find_map(|alias| named(alias.as_str())));
        match written {
            Some(written) => self.between(&field.of, &written.of, &path),
            None if field.has_default => Vec::new(),
            None => vec![format!("{} is not written and has no default to read", place(&path))],
        }
    }
}

/// Whether every value of the writer's type is one of the reader's.
fn promotes(reader: &Type, writer: &Type) -> bool {
    use Type::{Bytes, Double, Float, Int, Long, Text};
    reader == writer && !matches!(reader, Type::Named(_))
        || matches!(
            (writer, reader),
            (Int, Long | Float | Double)
                | (Long, Float | Double)
                | (Float, Double)
                | (Text, Bytes)
                | (Bytes, Text)
        )
}

fn place(path: &str) -> String {
    match path.is_empty() {
        true => "the schema itself".to_owned(),
        false => format!("the field at {path}"),
    }
}

fn told(schema: &Schema, of: &Type) -> String {
    match of {
        Type::Null => "null".to_owned(),
        Type::Boolean => "boolean".to_owned(),
        Type::Int => "int".to_owned(),
        Type::Long => "long".to_owned(),
        Type::Float => "float".to_owned(),
        Type::Double => "double".to_owned(),
        Type::Bytes => "bytes".to_owned(),
        Type::Text => "string".to_owned(),
        Type::Array(_) => "an array".to_owned(),
        Type::Map(_) => "a map".to_owned(),
        Type::Union(_) => "a union".to_owned(),
        Type::Named(index) => {
            schema.named(*index).map_or_else(String::new, |named| named.name.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn between(reader: &str, writer: &str) -> Vec<String> {
        let parse = |text: &str| Schema::parse(text).expect(text);
        obstacles(&parse(reader), &parse(writer))
    }

    fn record(fields: &str) -> String {
        format!(r#"{{"type":"record","name":"shop.R","fields":[{fields}]}}"#)
    }

    #[test]
    fn each_obstacle_is_told_with_its_place() {
        let writer = record(
            r#"{"name":"id","type":"long"},{"name":"tags","type":{"type":"array","items":"string"}},
               {"name":"item","type":["null","string"]},
               {"name":"mood","type":{"type":"enum","name":"Mood","symbols":["fine","sad"]}},
               {"name":"hash","type":{"type":"fixed","name":"Hash","size":8}}"#,
        );
        let reader = record(
            r#"{"name":"id","type":"int"},{"name":"tags","type":{"type":"array","items":"int"}},
               {"name":"item","type":"string"},
               {"name":"mood","type":{"type":"enum","name":"Mood","symbols":["fine"]}},
               {"name":"hash","type":{"type":"fixed","name":"Hash","size":4}},
               {"name":"more","type":"int"},{"name":"less","type":"int","default":0}"#,
        );
        assert_eq!(between(&writer, &writer), [""; 0]);
        assert_eq!(
            between(&reader, &writer),
            [
                "the field at /id was written as long and is read as int",
                "the field at /tags/items was written as string and is read as int",
                "the field at /item was written as null and is read as string",
                "the field at /mood may be sad, which the reader's enum does not have",
                "the field at /hash was written with 8 bytes and is read with 4",
                "the field at /more is not written and has no default to read",
            ]
        );
    }

    #[test]
    fn a_schema_that_names_itself_has_an_end() {
        let node = |of: &str| {
            record(&format!(
                r#"{{"name":"value","type":"{of}"}},
                   {{"name":"next","type":["null","shop.R"],"default":null}}"#
            ))
        };
        assert_eq!(between(&node("long"), &node("int")), [""; 0]);
        assert_eq!(
            between(&node("int"), &node("long")),
            ["the field at /value was written as long and is read as int"]
        );
    }

    #[test]
    fn the_price_does_not_grow_with_the_ways_to_a_type() {
        // Each type names the next one twice: 2^38 ways.
        let mut inner = r#""long""#.to_owned();
        for number in 0..38 {
            let again = match number {
                0 => r#""long""#.to_owned(),
                _ => format!(r#""R{}""#, number - 1),
            };
            inner = format!(
                r#"{{"type":"record","name":"R{number}","fields":[
                   {{"name":"a","type":{inner}}},{{"name":"b","type":["null",{again}]}}]}}"#
            );
        }
        assert_eq!(between(&inner, &inner), [""; 0]);
        let other = inner.replace("long", "int");
        assert!(!between(&other, &inner).is_empty());
    }
}
