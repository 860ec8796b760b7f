//! What a database is made of, as the statements that make it again, empty.
//!
//! The server writes most of them itself (`pg_get_constraintdef` and its like); names are whole,
//! because the session's search path is empty.

use crate::postgres::{Connection, Error};

/// One object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Definition {
    /// What it is, for a person.
    pub(super) object: String,
    /// What makes it.
    pub(super) sql: String,
}

/// What extensions own they make themselves.
macro_rules! own {
    ($catalog:literal, $oid:literal) => {
        concat!(
            "NOT EXISTS (SELECT FROM pg_depend x WHERE x.classid = '",
            $catalog,
            "'::regclass AND x.objid = ",
            $oid,
            " AND x.deptype = 'e')"
        )
    };
}

/// Schemas of users.
const OURS: &str = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'";

const SCHEMAS: &str = concat!(
    "SELECT format('schema %I', n.nspname), format('CREATE SCHEMA IF NOT EXISTS %I', n.nspname)
     FROM pg_namespace n WHERE {ours} AND ",
    own!("pg_namespace", "n.oid")
);

const EXTENSIONS: &str = "\
SELECT format('extension %I', e.extname),
       format('CREATE EXTENSION IF NOT EXISTS %I SCHEMA %I CASCADE', e.extname, n.nspname)
FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname <> 'plpgsql'";

const ENUMS: &str = concat!(
    "SELECT format('type %I.%I', n.nspname, t.typname),
       format('CREATE TYPE %I.%I AS ENUM (%s)', n.nspname, t.typname,
              (SELECT string_agg(quote_literal(enumlabel), ', ' ORDER BY enumsortorder)
               FROM pg_enum WHERE enumtypid = t.oid))
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE t.typtype = 'e' AND {ours} AND ",
    own!("pg_type", "t.oid")
);

const COMPOSITES: &str = concat!(
    "SELECT format('type %I.%I', n.nspname, c.relname),
       format('CREATE TYPE %I.%I AS (%s)', n.nspname, c.relname,
              (SELECT string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', '
                                 ORDER BY attnum)
               FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped))
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'c' AND {ours} AND ",
    own!("pg_class", "c.oid")
);

const DOMAINS: &str = concat!(
    "SELECT format('domain %I.%I', n.nspname, t.typname),
       concat_ws(' ', format('CREATE DOMAIN %I.%I AS %s', n.nspname, t.typname,
                             format_type(t.typbasetype, t.typtypmod)),
                 'DEFAULT ' || pg_get_expr(t.typdefaultbin, 0), CASE WHEN t.typnotnull THEN 'NOT NULL' END,
                 (SELECT string_agg(format('CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)), ' ')
                  FROM pg_constraint WHERE contypid = t.oid AND contype = 'c'))
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE t.typtype = 'd' AND {ours} AND ",
    own!("pg_type", "t.oid")
);

const RANGES: &str = concat!(
    "SELECT format('type %I.%I', n.nspname, t.typname),
       format('CREATE TYPE %I.%I AS RANGE (SUBTYPE = %s, MULTIRANGE_TYPE_NAME = %s)', n.nspname,
              t.typname, format_type(r.rngsubtype, -1), r.rngmultitypid::regtype)
FROM pg_range r JOIN pg_type t ON t.oid = r.rngtypid JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE {ours} AND ",
    own!("pg_type", "t.oid")
);

const FUNCTIONS: &str = concat!(
    "SELECT format('function %s', p.oid::regprocedure), pg_get_functiondef(p.oid)
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace JOIN pg_language l ON l.oid = p.prolang
WHERE p.prokind IN ('f', 'p', 'w') AND l.lanname NOT IN ('c', 'internal') AND {ours} AND ",
    own!("pg_proc", "p.oid")
);

const SEQUENCES: &str = concat!(
    "SELECT format('sequence %s', c.oid::regclass),
       format('CREATE SEQUENCE %s AS %s INCREMENT BY %s MINVALUE %s MAXVALUE %s START WITH %s %s',
              c.oid::regclass, format_type(s.seqtypid, -1), s.seqincrement, s.seqmin, s.seqmax,
              s.seqstart, CASE WHEN s.seqcycle THEN 'CYCLE' ELSE '' END)
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE {ours} AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                             AND d.objid = c.oid AND d.deptype = 'i') AND ",
    own!("pg_class", "c.oid")
);

/// Partitions as tables of their own, attached later. Identity is the partitioned table's.
const TABLES: &str = concat!(
    "SELECT format('table %s', c.oid::regclass),
       format('CREATE %sTABLE %s (%s)%s', CASE c.relpersistence WHEN 'u' THEN 'UNLOGGED ' ELSE '' END,
              c.oid::regclass,
              (SELECT string_agg(concat(
                   format('%I %s', a.attname, format_type(a.atttypid, a.atttypmod)),
                   CASE WHEN a.attcollation <> t.typcollation
                        THEN format(' COLLATE %I.%I', cn.nspname, co.collname) END,
                   CASE WHEN a.attgenerated <> ''
                        THEN format(' GENERATED ALWAYS AS (%s) %s', pg_get_expr(d.adbin, d.adrelid),
                                    CASE a.attgenerated WHEN 's' THEN 'STORED' ELSE 'VIRTUAL' END)
                        WHEN a.attidentity <> '' AND NOT c.relispartition
                        THEN format(' GENERATED %s AS IDENTITY',
                                    CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END)
                        WHEN d.adbin IS NOT NULL THEN ' DEFAULT ' || pg_get_expr(d.adbin, d.adrelid)
                   END,
                   CASE WHEN a.attnotnull THEN ' NOT NULL' END), ', ' ORDER BY a.attnum)
               FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
               LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
               LEFT JOIN pg_collation co ON co.oid = a.attcollation
               LEFT JOIN pg_namespace cn ON cn.oid = co.collnamespace
               WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
              CASE c.relkind WHEN 'p' THEN ' PARTITION BY ' || pg_get_partkeydef(c.oid) ELSE '' END)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relpersistence IN ('p', 'u') AND {ours} AND ",
    own!("pg_class", "c.oid")
);

const OWNED_SEQUENCES: &str = concat!(
    "SELECT format('sequence %s', c.oid::regclass),
       format('ALTER SEQUENCE %s OWNED BY %s.%I', c.oid::regclass, d.refobjid::regclass, a.attname)
FROM pg_depend d JOIN pg_class c ON c.oid = d.objid JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'a'
  AND c.relkind = 'S' AND {ours} AND ",
    own!("pg_class", "c.oid")
);

const CONSTRAINTS: &str = concat!(
    "SELECT format('constraint %I of %s', k.conname, k.conrelid::regclass),
       format('ALTER TABLE %s ADD CONSTRAINT %I %s', k.conrelid::regclass, k.conname,
              pg_get_constraintdef(k.oid))
FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND {which} AND {ours} AND ",
    own!("pg_class", "c.oid")
);

const INDEXES: &str = concat!(
    "SELECT format('index %s', i.indexrelid::regclass),
       replace(pg_get_indexdef(i.indexrelid), ' ON ONLY ', ' ON ')
FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid JOIN pg_class c ON c.oid = i.indrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND NOT x.relispartition AND {ours}
  AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
  AND ",
    own!("pg_class", "c.oid")
);

const FAMILIES: &str = concat!(
    "SELECT format('table %s', c.oid::regclass),
       CASE WHEN c.relispartition
            THEN format('ALTER TABLE %s ATTACH PARTITION %s %s', h.inhparent::regclass, c.oid::regclass,
                        pg_get_expr(c.relpartbound, c.oid))
            ELSE format('ALTER TABLE %s INHERIT %s', c.oid::regclass, h.inhparent::regclass) END
FROM pg_inherits h JOIN pg_class c ON c.oid = h.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND {ours} AND ",
    own!("pg_class", "c.oid")
);

const IDENTITIES: &str = concat!(
    "SELECT format('replica identity of %s', c.oid::regclass),
       format('ALTER TABLE %s REPLICA IDENTITY %s', c.oid::regclass, CASE c.relreplident
              WHEN 'f' THEN 'FULL' WHEN 'n' THEN 'NOTHING' ELSE (SELECT format('USING INDEX %I', x.relname)
                  FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
                  WHERE i.indrelid = c.oid AND i.indisreplident) END)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND c.relreplident <> 'd' AND {ours} AND ",
    own!("pg_class", "c.oid")
);

const VIEWS: &str = concat!(
    "SELECT format('view %s', c.oid::regclass),
       format('CREATE %sVIEW %s AS %s%s', CASE c.relkind WHEN 'm' THEN 'MATERIALIZED ' ELSE '' END,
              c.oid::regclass, rtrim(pg_get_viewdef(c.oid), ';'),
              CASE c.relkind WHEN 'm' THEN ' WITH NO DATA' ELSE '' END)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('v', 'm') AND {ours} AND ",
    own!("pg_class", "c.oid")
);

const TRIGGERS: &str = concat!(
    "SELECT format('trigger %I of %s', t.tgname, t.tgrelid::regclass), pg_get_triggerdef(t.oid)
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND {ours} AND ",
    own!("pg_class", "c.oid")
);

/// Of 14, which has neither lists of columns nor schemas.
const PUBLICATIONS_14: &str = "\
SELECT format('publication %I', p.pubname),
       format('CREATE PUBLICATION %I%s WITH (publish_via_partition_root = %s)', p.pubname,
              CASE WHEN p.puballtables THEN ' FOR ALL TABLES' ELSE
              (SELECT ' FOR TABLE ' || string_agg(r.prrelid::regclass::text, ', ')
               FROM pg_publication_rel r WHERE r.prpubid = p.oid) END, p.pubviaroot)
FROM pg_publication p";

const PUBLICATIONS: &str = "\
SELECT format('publication %I', p.pubname),
       format('CREATE PUBLICATION %I%s WITH (publish_via_partition_root = %s%s)', p.pubname,
              CASE WHEN p.puballtables THEN ' FOR ALL TABLES' ELSE
              (SELECT ' FOR ' || string_agg(item, ', ') FROM (
                   SELECT concat('TABLE ', r.prrelid::regclass,
                       (SELECT format(' (%s)', string_agg(quote_ident(attname), ', ' ORDER BY attnum))
                        FROM pg_attribute WHERE r.prattrs IS NOT NULL AND attrelid = r.prrelid
                             AND attnum = ANY (r.prattrs::int2[]) HAVING count(*) > 0),
                       ' WHERE (' || pg_get_expr(r.prqual, r.prrelid) || ')') AS item
                   FROM pg_publication_rel r WHERE r.prpubid = p.oid
                   UNION ALL
                   SELECT format('TABLES IN SCHEMA %s', s.pnnspid::regnamespace)
                   FROM pg_publication_namespace s WHERE s.pnpubid = p.oid) AS items) END,
              p.pubviaroot,
              CASE to_jsonb(p) ->> 'pubgencols' WHEN 's' THEN ', publish_generated_columns = stored' END)
FROM pg_publication p";

const COMMENTS: &str = concat!(
    "SELECT format('comment on %s', c.oid::regclass),
       CASE d.objsubid WHEN 0 THEN format('COMMENT ON TABLE %s IS %L', c.oid::regclass, d.description)
            ELSE format('COMMENT ON COLUMN %s.%I IS %L', c.oid::regclass, a.attname, d.description) END
FROM pg_description d JOIN pg_class c ON c.oid = d.objoid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = d.objsubid
WHERE d.classoid = 'pg_class'::regclass AND c.relkind IN ('r', 'p') AND {ours} AND ",
    own!("pg_class", "c.oid")
);

/// Those of partitions come with the table they are attached to; checks must be there before, and
/// what refers to another table comes after.
const OF_ONE_TABLE: &str =
    "(k.contype = 'c' OR k.contype IN ('p', 'u', 'x') AND k.conparentid = 0)";
const REFERENCES: &str = "k.contype = 'f' AND k.conparentid = 0";

/// In an order in which most can be made; what comes too early is tried again.
const ALL: [(&str, &str); 19] = [
    (SCHEMAS, ""),
    (EXTENSIONS, ""),
    (ENUMS, ""),
    (COMPOSITES, ""),
    (DOMAINS, ""),
    (RANGES, ""),
    (SEQUENCES, ""),
    (TABLES, ""),
    (FUNCTIONS, ""),
    (OWNED_SEQUENCES, ""),
    (CONSTRAINTS, OF_ONE_TABLE),
    (INDEXES, ""),
    (IDENTITIES, ""),
    (FAMILIES, ""),
    (CONSTRAINTS, REFERENCES),
    (VIEWS, ""),
    (TRIGGERS, ""),
    (PUBLICATIONS, ""),
    (COMMENTS, ""),
];

/// Everything that is copied. Nothing is written: the transaction could not.
pub(super) async fn of(on: &mut Connection) -> Result<Vec<Definition>, Error> {
    on.simple_query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let mut all = Vec::new();
    for (query, which) in ALL {
        let query = match query {
            PUBLICATIONS if on.server_version_num() < 150_000 => PUBLICATIONS_14,
            query => query,
        };
        let rows = on.query(&query.replace("{ours}", OURS).replace("{which}", which), &[]).await?;
        let made = rows.rows.into_iter().filter_map(|row| {
            let [object, sql] = <[Option<String>; 2]>::try_from(row).ok()?;
            Some(Definition { object: object?, sql: sql? })
        });
        all.extend(made);
    }
    on.simple_query("ROLLBACK").await?;
    Ok(all)
}
