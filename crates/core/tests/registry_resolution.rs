//! What we call readable, `apache-avro` calls readable, over random schemas.
//!
//! Every case has a seed, and a failure prints it; `WALTIDE_SEED=<seed>` runs that case alone.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "it is only for tests")]

use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use serde_json::{Value, json};
use waltide_core::registry::{Schema, obstacles};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ mixed >> 31) % u64::try_from(end).unwrap()).unwrap()
    }
}

const PRIMITIVES: [&str; 8] =
    ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];

/// A type that is no union, whose named types are called by their depth and kind.
fn plain(random: &mut Random, depth: usize, place: &str) -> Value {
    match random.below(if depth == 0 { 9 } else { 13 }) {
        8 => {
            let symbols = &["a", "b", "c"][..=random.below(3)];
            json!({ "type": "enum", "name": format!("E{place}"), "symbols": symbols })
        }
        9 => json!({ "type": "array", "items": any(random, depth - 1, &format!("{place}i")) }),
        10 => json!({ "type": "map", "values": any(random, depth - 1, &format!("{place}v")) }),
        11 => {
            let size = 1 + random.below(2);
            json!({ "type": "fixed", "name": format!("F{place}"), "size": size })
        }
        12 => record(random, depth - 1, place),
        at => PRIMITIVES[at].into(),
    }
}

fn any(random: &mut Random, depth: usize, place: &str) -> Value {
    match random.below(4) {
        0 => json!(["null", without_null(random, depth, place)]),
        1 => json!([without_null(random, depth, place), "null"]),
        _ => plain(random, depth, place),
    }
}

fn without_null(random: &mut Random, depth: usize, place: &str) -> Value {
    loop {
        let found = plain(random, depth, place);
        if found != "null" {
            return found;
        }
    }
}

fn record(random: &mut Random, depth: usize, place: &str) -> Value {
    let mut fields = Vec::new();
    for name in ["a", "b", "c"] {
        if random.below(4) == 0 {
            continue;
        }
        let of = any(random, depth, &format!("{place}{name}"));
        let mut field = json!({ "name": name, "type": of });
        if of[0] == "null" && random.below(2) == 0 {
            field["default"] = Value::Null;
        }
        fields.push(field);
    }
    json!({ "type": "record", "name": format!("R{place}"), "fields": fields })
}

/// The same schema, changed at one or two places.
fn changed(random: &mut Random, schema: &Value) -> Value {
    let mut schema = schema.clone();
    for _ in 0..=random.below(2) {
        let fields = schema["fields"].as_array_mut().unwrap();
        if fields.is_empty() {
            return schema;
        }
        let at = random.below(fields.len());
        match random.below(5) {
            0 => drop(fields.remove(at)),
            1 => {
                let name = fields[at]["name"].as_str().unwrap().to_owned();
                fields[at]["type"] = any(random, 1, &name);
                fields[at].as_object_mut().unwrap().remove("default");
            }
            2 => fields.push(json!({
                "name": "new", "type": ["null", PRIMITIVES[1 + random.below(7)]], "default": null,
            })),
            3 => fields.push(json!({ "name": "must", "type": "int" })),
            _ => fields[at]["type"] = PRIMITIVES[random.below(8)].into(),
        }
        let mut seen = Vec::new();
        fields.retain(|field| {
            let name = field["name"].to_string();
            let new = !seen.contains(&name);
            seen.push(name);
            new
        });
        // A default of null stands only before a union that begins with it.
        for field in fields {
            if field["type"][0] != "null" {
                field.as_object_mut().unwrap().remove("default");
            }
        }
    }
    schema
}

#[test]
fn we_call_readable_what_apache_avro_calls_readable() {
    #[expect(clippy::disallowed_methods, reason = "the test is asked for one seed, not core")]
    let only = std::env::var("WALTIDE_SEED").ok().map(|seed| seed.parse().unwrap());
    let seeds = only.map_or(0..4_000, |seed: u64| seed..seed + 1);
    let (mut readable, mut not) = (0, 0);
    for seed in seeds {
        let mut random = Random(seed);
        let writer = record(&mut random, 2, "");
        let reader = match random.below(4) {
            0 => record(&mut random, 2, ""),
            _ => changed(&mut random, &writer),
        };
        let parse = |schema: &Value| apache_avro::Schema::parse(schema).unwrap();
        let theirs = SchemaCompatibility::can_read(&parse(&writer), &parse(&reader));
        let parse = |schema: &Value| Schema::parse(&schema.to_string()).unwrap();
        let ours = obstacles(&parse(&reader), &parse(&writer));
        assert_eq!(
            ours.is_empty(),
            matches!(theirs, Ok(Compatibility::Full)),
            "seed {seed}\nwriter {writer}\nreader {reader}\n{ours:?}\n{theirs:?}"
        );
        *if ours.is_empty() { &mut readable } else { &mut not } += 1;
    }
    assert!(only.is_some() || readable > 300 && not > 300, "{readable} and {not}");
}
