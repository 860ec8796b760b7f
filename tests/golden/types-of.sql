-- Types and all that they reach, one JSON object a line.
create function pg_temp.types_of(wanted oid[]) returns text language sql as $$
with recursive reached(oid) as (
  select distinct w from unnest(wanted) w
  union
  select r from reached, lateral (
    select typelem as r from pg_type t where t.oid = reached.oid
    union all select typbasetype from pg_type t where t.oid = reached.oid
    union all select rngsubtype from pg_range where rngtypid = reached.oid
    union all select rngtypid from pg_range where rngmultitypid = reached.oid
    union all select atttypid from pg_attribute a join pg_type t on a.attrelid = t.typrelid
      where t.oid = reached.oid and t.typtype = 'c' and attnum > 0 and not attisdropped
  ) s where r <> 0
), types as (
  select json_build_object('oid', t.oid::bigint, 'schema', nspname, 'name', typname, 'has_send', typsend <> 0,
    'extension', (select extname from pg_depend d join pg_extension x on x.oid = d.refobjid
      where d.classid = 'pg_type'::regclass and d.objid = t.oid and d.deptype = 'e'),
    'kind', case
      when typtype = 'e' then json_build_object('enum', (select json_agg(enumlabel order by enumsortorder) from pg_enum where enumtypid = t.oid))
      when typtype = 'd' then json_build_object('domain', typbasetype::bigint, 'modifier', typtypmod)
      when typtype = 'c' then json_build_object('composite', (select json_agg(json_build_object('name', attname, 'oid', atttypid::bigint, 'modifier', atttypmod) order by attnum)
        from pg_attribute where attrelid = typrelid and attnum > 0 and not attisdropped))
      when typtype = 'r' then json_build_object('range', (select rngsubtype::bigint from pg_range where rngtypid = t.oid))
      when typtype = 'm' then json_build_object('multirange', (select rngtypid::bigint from pg_range where rngmultitypid = t.oid))
      when typcategory = 'A' and typelem <> 0 and typlen = -1 then json_build_object('array', typelem::bigint, 'delimiter', (select typdelim from pg_type e where e.oid = t.typelem))
      else json_build_object('base', true) end) as of
  from reached join pg_type t on t.oid = reached.oid join pg_namespace n on n.oid = typnamespace order by t.oid
)
select string_agg(of::text, E',\n') from types
$$;
