//! That a pipeline lives and how far it is, for consumers that see nothing else of it.

use crate::avro::{Profile, wire};
use crate::lsn::DurableLsn;

/// The waltide profile's schema. Its records have no key.
pub const SCHEMA: &str = include_str!("../../../schemas/heartbeat.avsc");

/// The debezium profile's key.
const DEBEZIUM_KEY: &str = r#"{"type":"record","name":"ServerNameKey","namespace":"io.debezium.connector.common","fields":[{"name":"serverName","type":"string"}],"connect.version":1,"connect.name":"io.debezium.connector.common.ServerNameKey"}"#;

/// The debezium profile's value.
const DEBEZIUM_VALUE: &str = r#"{"type":"record","name":"Heartbeat","namespace":"io.debezium.connector.common","fields":[{"name":"ts_ms","type":"long"}],"connect.version":1,"connect.name":"io.debezium.connector.common.Heartbeat"}"#;

/// The schemas of key and value, as they are registered.
#[must_use]
pub const fn schemas(profile: Profile) -> (Option<&'static str>, &'static str) {
    match profile {
        Profile::Waltide => (None, SCHEMA),
        Profile::Debezium => (Some(DEBEZIUM_KEY), DEBEZIUM_VALUE),
    }
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub struct Heartbeat<'a> {
    /// The pipeline's name.
    pub pipeline: &'a str,
    /// The source's database.
    pub database: &'a str,
    /// Everything before is delivered.
    pub position: DurableLsn,
    /// Microseconds since 1970.
    pub at_us: i64,
}

impl Heartbeat<'_> {
    /// Appends the debezium profile's key.
    pub fn write_key(&self, out: &mut Vec<u8>) {
        wire::bytes(out, self.pipeline.as_bytes());
    }

    /// Appends the value.
    pub fn write(&self, profile: Profile, out: &mut Vec<u8>) {
        match profile {
            Profile::Waltide => {
                wire::bytes(out, self.pipeline.as_bytes());
                wire::bytes(out, self.database.as_bytes());
                wire::long(out, self.position.lsn().0.cast_signed());
                wire::long(out, self.at_us);
            }
            Profile::Debezium => wire::long(out, self.at_us.div_euclid(1000)),
        }
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::reader::datum::GenericDatumReader;
    use apache_avro::{Schema, from_value};
    use serde_json::{Value, json};

    use super::*;
    use crate::lsn::Lsn;

    const BEAT: Heartbeat<'_> = Heartbeat {
        pipeline: "shop",
        database: "shop",
        position: DurableLsn::proven(Lsn(97_500_059_768)),
        at_us: 1_767_225_600_123_456,
    };

    /// What an independent reader finds in our bytes.
    fn read(schema: &str, mut bytes: &[u8]) -> Value {
        let schema = Schema::parse_str(schema).unwrap();
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        let value = reader.read_value(&mut bytes).unwrap();
        assert!(bytes.is_empty());
        from_value(&value).unwrap()
    }

    fn value(profile: Profile) -> Value {
        let mut bytes = Vec::new();
        BEAT.write(profile, &mut bytes);
        read(schemas(profile).1, &bytes)
    }

    #[test]
    fn the_example_is_what_a_reader_of_the_schema_finds() {
        let example = include_str!("../../../schemas/heartbeat.example.json");
        assert_eq!(value(Profile::Waltide), serde_json::from_str::<Value>(example).unwrap());
    }

    #[test]
    fn debeziums_reader_finds_its_own_record() {
        assert_eq!(value(Profile::Debezium), json!({ "ts_ms": 1_767_225_600_123_u64 }));
        let mut key = Vec::new();
        BEAT.write_key(&mut key);
        assert_eq!(read(DEBEZIUM_KEY, &key), json!({ "serverName": "shop" }));
    }
}
