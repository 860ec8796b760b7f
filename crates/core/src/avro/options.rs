//! What a pipeline's configuration says about a table's records.

/// Whose consumers the records are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// Avro's own logical types, everything nullable that is not key.
    #[default]
    Waltide,
    /// What Debezium with Confluent's Avro converter would have written.
    Debezium,
}

/// What a record says of a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Envelope {
    /// The row before and after, where it comes from and what happened.
    #[default]
    Full,
    /// The row alone; a delete is a tombstone.
    Flat,
}

/// Which columns are captured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ColumnFilter {
    /// Every one.
    #[default]
    All,
    /// These.
    Only(Vec<String>),
    /// All but these.
    Except(Vec<String>),
}

impl ColumnFilter {
    /// Whether a column is captured.
    #[must_use]
    pub fn takes(&self, column: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.iter().any(|name| name == column),
            Self::Except(names) => names.iter().all(|name| name != column),
        }
    }
}

/// What a pipeline's configuration says about a table's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whose consumers the records are for.
    pub profile: Profile,
    /// What a record says of a row.
    pub envelope: Envelope,
    /// The pipeline's name, or Debezium's `topic.prefix`: the first part of every schema's
    /// namespace, and `source.name`.
    pub prefix: String,
    /// The database's name: `source.db`.
    pub database: String,
    /// The version of the program: `source.version`.
    pub version: String,
    /// The key's columns instead of the primary key's; none for the primary key.
    pub key: Vec<String>,
    /// Which columns are captured.
    pub columns: ColumnFilter,
    /// Whether a delete is followed by a tombstone.
    pub tombstones: bool,
    /// Whether values are asked for in binary; what a type is sent as when we know nothing of it
    /// depends on that.
    pub binary: bool,
    /// The largest record value that is written.
    pub max_row_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            profile: Profile::default(),
            envelope: Envelope::default(),
            prefix: "waltide".to_owned(),
            database: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            key: Vec::new(),
            columns: ColumnFilter::default(),
            tombstones: true,
            binary: true,
            // No field of Postgres is larger than a gigabyte; brokers take far less.
            max_row_bytes: 1 << 30,
        }
    }
}
