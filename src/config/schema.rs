//! The keys as a JSON Schema, for editors and for checks in a repository.

use serde_json::{Map, Value, json};

use super::keys::{Fallback, Group, KeyInfo, Naming, Shape, Word, flowed};
use super::typed;

/// The schema of a configuration file.
#[must_use]
pub fn json_schema() -> Value {
    let mut schema = of_shape(&typed::shape());
    if let Value::Object(root) = &mut schema {
        root.insert("$schema".to_owned(), json!("https://json-schema.org/draft/2020-12/schema"));
        root.insert("title".to_owned(), json!("Configuration of Waltide"));
    }
    schema
}

fn of_shape(shape: &Shape) -> Value {
    match shape {
        Shape::Text => json!({ "type": ["string", "number", "boolean"] }),
        Shape::Secret => json!({ "type": ["string", "number", "boolean"], "writeOnly": true }),
        Shape::Flag => or_substitution(json!({ "type": "boolean" })),
        Shape::Integer { min, max } => {
            or_substitution(json!({ "type": "integer", "minimum": min, "maximum": max }))
        }
        Shape::Choice(words) => or_substitution(of_words(words)),
        Shape::List(item) => or_substitution(json!({ "type": "array", "items": of_shape(item) })),
        Shape::Map { naming, value } => of_map(*naming, value),
        Shape::Group(group) => of_group(group),
        Shape::Short(words, group) => {
            json!({ "anyOf": [or_substitution(of_words(words)), of_group(group)] })
        }
    }
}

fn of_words(words: &[Word]) -> Value {
    let words: Vec<_> = words
        .iter()
        .map(|word| json!({ "const": word.text, "description": flowed(word.about) }))
        .collect();
    json!({ "oneOf": words })
}

/// A value that is not a text may be given by a substitution, which is one.
fn or_substitution(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "string", "pattern": "\\$\\{" }] })
}

fn of_map(naming: Naming, value: &Shape) -> Value {
    let names = match naming {
        Naming::Pipeline => json!({ "pattern": "^[a-z0-9]+([-_][a-z0-9]+)*$", "maxLength": 55 }),
        Naming::Property => json!({ "pattern": "^[a-z0-9._]+$" }),
        Naming::Table => json!({ "pattern": "\\." }),
    };
    json!({
        "type": ["object", "null"],
        "propertyNames": names,
        "additionalProperties": of_shape(value),
    })
}

fn of_group(group: &Group) -> Value {
    let keys: Map<_, _> = group.keys.iter().map(|key| (key.name.to_owned(), of_key(key))).collect();
    json!({
        "type": ["object", "null"],
        "description": flowed(group.about),
        "additionalProperties": false,
        "properties": keys,
    })
}

fn of_key(key: &KeyInfo) -> Value {
    let mut schema = of_shape(&key.shape);
    if let Value::Object(fields) = &mut schema {
        fields.insert("description".to_owned(), json!(flowed(key.about)));
        if let Fallback::Is(default) = key.fallback {
            let default = match key.shape {
                Shape::Flag => json!(default == "true"),
                _ => json!(default),
            };
            fields.insert("default".to_owned(), default);
        }
    }
    schema
}
