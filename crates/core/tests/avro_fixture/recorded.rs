//! Values of every type as a real server wrote them, see `tests/golden/record-values.sql`.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "it is only for tests"
)]

use crate::catalog::{Attribute, Kind, PgType, Types};
use serde_json::Value;

/// A value in both of its forms.
#[derive(Debug)]
pub struct Recorded {
    pub type_name: String,
    pub oid: u32,
    pub modifier: i32,
    pub text: String,
    /// None where the type has no send function.
    pub binary: Option<Vec<u8>>,
}

pub fn load() -> (Types, Vec<Recorded>) {
    let recorded: Value =
        serde_json::from_str(include_str!("../../../../tests/golden/values.json")).unwrap();
    (types(&recorded), recorded["values"].as_array().unwrap().iter().map(value).collect())
}

pub fn types(recorded: &Value) -> Types {
    let mut types = Types::default();
    recorded["types"].as_array().unwrap().iter().for_each(|of| types.insert(pg_type(of)));
    types
}

pub fn unhex(hex: &str) -> Vec<u8> {
    let pairs = hex.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).unwrap());
    pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
}

fn value(of: &Value) -> Recorded {
    Recorded {
        type_name: string(&of["type"]),
        oid: oid(&of["oid"]),
        modifier: modifier(&of["modifier"]),
        text: string(&of["text"]),
        binary: of["binary"].as_str().map(unhex),
    }
}

fn pg_type(of: &Value) -> PgType {
    let (name, kind) = of["kind"].as_object().unwrap().iter().next().unwrap();
    let kind = match name.as_str() {
        "enum" => Kind::Enum(kind.as_array().unwrap().iter().map(string).collect()),
        "domain" => Kind::Domain { base: oid(kind), modifier: modifier(&of["kind"]["modifier"]) },
        "composite" => Kind::Composite(kind.as_array().unwrap().iter().map(attribute).collect()),
        "range" => Kind::Range { subtype: oid(kind) },
        "multirange" => Kind::Multirange { range: oid(kind) },
        "array" => Kind::Array {
            element: oid(kind),
            delimiter: of["kind"]["delimiter"].as_str().unwrap().as_bytes()[0],
        },
        _ => Kind::Base,
    };
    PgType {
        oid: oid(&of["oid"]),
        schema: string(&of["schema"]),
        name: string(&of["name"]),
        kind,
        has_send: of["has_send"].as_bool().unwrap(),
        extension: of["extension"].as_str().map(str::to_owned),
    }
}

fn attribute(of: &Value) -> Attribute {
    Attribute {
        name: string(&of["name"]),
        type_oid: oid(&of["oid"]),
        modifier: modifier(&of["modifier"]),
    }
}

fn string(of: &Value) -> String {
    of.as_str().unwrap().to_owned()
}

fn oid(of: &Value) -> u32 {
    of.as_u64().unwrap().try_into().unwrap()
}

fn modifier(of: &Value) -> i32 {
    of.as_i64().unwrap().try_into().unwrap()
}
