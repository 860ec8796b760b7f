-- Records what a server's catalog and its stream (in binary and in text) say of the golden tables and rows:
--   psql -X -At -f record-stream.sql postgresql://... > stream.json
-- Run it on a new database with wal_level = logical.
\set ON_ERROR_STOP on
\set QUIET on
set client_min_messages = warning;
set datestyle = 'ISO'; set timezone = 'UTC'; set intervalstyle = 'postgres';
set bytea_output = 'hex'; set extra_float_digits = 1; set lc_monetary = 'C';
\ir types-of.sql
\ir golden-tables.sql
create publication golden for all tables;
\o /dev/null
select pg_create_logical_replication_slot('golden', 'pgoutput');
\ir golden-rows.sql
\o
create temp table messages as
select f.format, m.n, encode(m.data, 'hex') as data
from (values ('binary', 'true'), ('text', 'false')) f(format, flag),
  lateral (select row_number() over () as n, data
    from pg_logical_slot_peek_binary_changes('golden', null, null, 'proto_version', '1', 'publication_names', 'golden', 'binary', f.flag)) m;
with tables as (
  select c.oid, json_build_object('schema', nspname, 'name', relname, 'comment', obj_description(c.oid, 'pg_class'),
    'columns', (select json_agg(json_build_object('name', attname, 'not_null', attnotnull,
        'default', case when attgenerated = '' then pg_get_expr(adbin, adrelid) end,
        'identity', attidentity <> '', 'generated', attgenerated <> '', 'comment', col_description(c.oid, attnum)) order by attnum)
      from pg_attribute a left join pg_attrdef d on adrelid = attrelid and adnum = attnum
      where attrelid = c.oid and attnum > 0 and not attisdropped),
    'primary_key', coalesce((select json_agg(attname order by k.n) from pg_index i, unnest(indkey) with ordinality k(attnum, n)
      join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum where i.indrelid = c.oid and indisprimary), '[]')) as of
  from pg_class c join pg_namespace n on n.oid = relnamespace where nspname = 'public' and relkind = 'r'
)
select E'{"types": [\n' || pg_temp.types_of((select array_agg(distinct atttypid) from pg_attribute where attrelid in (select oid from tables) and attnum > 0))
  || E'\n], "tables": [\n' || (select string_agg(of::text, E',\n' order by oid) from tables)
  || E'\n], "binary": [\n' || (select string_agg(format('"%s"', data), E',\n' order by n) from messages where format = 'binary')
  || E'\n], "text": [\n' || (select string_agg(format('"%s"', data), E',\n' order by n) from messages where format = 'text') || E'\n]}';
select pg_drop_replication_slot('golden') \g /dev/null
