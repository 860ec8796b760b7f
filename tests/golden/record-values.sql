-- Records what a server writes for values of every type, in text and in binary:
--   psql -X -At -f record-values.sql postgresql://... > values.json
-- Run it on a scratch database of the newest server, with hstore, citext, ltree, isn, cube and seg.
\set ON_ERROR_STOP on
\set QUIET on
\ir types-of.sql
set client_min_messages = warning;
set datestyle = 'ISO'; set timezone = 'UTC'; set intervalstyle = 'postgres';
set bytea_output = 'hex'; set extra_float_digits = 1; set lc_monetary = 'C';
drop schema if exists golden cascade;
create schema golden;
set search_path = golden, public;
create extension if not exists hstore schema public; create extension if not exists citext schema public;
create extension if not exists ltree schema public; create extension if not exists isn schema public;
create extension if not exists cube schema public; create extension if not exists seg schema public;
create type mood as enum ('sad', 'in between', 'happy', 'ünï"x');
create domain positive as int check (value > 0);
create domain price as numeric(12, 3);
create domain prices as price[];
create type address as (street text, "zip-code" varchar(10), geo point, paid numeric(8, 2), due timestamptz);
create domain home as address;
create type person as (name text, home address, others address[], moods mood[], age positive);
create type floatrange as range (subtype = float8);
create type one as (only_field int);

create function golden.emit(type text, variadic texts text[]) returns setof json language plpgsql as $$
declare
  send text; oid oid; modifier int; shown text; sent bytea; value text; base oid;
begin
  execute format('create temp table probe (v %s)', type);
  select atttypid, atttypmod into oid, modifier from pg_attribute
    where attrelid = 'pg_temp.probe'::regclass and attname = 'v';
  base := oid;
  while (select typtype from pg_type t where t.oid = base) = 'd' loop
    select typbasetype into base from pg_type t where t.oid = base;
  end loop;
  select typsend::oid::regproc::text into send from pg_type t where t.oid = base;
  foreach value in array texts loop
    delete from probe;
    execute format('insert into probe values (%L)', value);
    if send = '-' then
      execute 'select format(''%s'', v), null from probe' into shown, sent;
    elsif send = 'enum_send' or base <> oid or send like '%range_send' then
      execute format('select format(''%%s'', v), %s(v::%s) from probe', send, format_type(base, -1)) into shown, sent;
    else
      execute format('select format(''%%s'', v), %s(v) from probe', send) into shown, sent;
    end if;
    return next json_build_object('type', format_type(oid, modifier), 'oid', oid::bigint,
      'modifier', modifier, 'text', shown, 'binary', encode(sent, 'hex'));
  end loop;
  drop table probe;
end $$;

create temp table recorded (i int generated always as identity, value json);
insert into recorded (value)
select e from (values
  ('bool', array['t', 'f']),
  ('int2', array['0', '-32768', '32767']),
  ('int4', array['0', '-2147483648', '2147483647', '64']),
  ('int8', array['0', '-9223372036854775808', '9223372036854775807']),
  ('oid', array['0', '4294967295']), ('xid', array['3', '4294967295']), ('cid', array['7']),
  ('xid8', array['0', '18446744073709551615', '5000000000']),
  ('float4', array['0', '-0', '1.5', '3.4028235e38', '1e-45', 'NaN', 'Infinity', '-Infinity', '123456', '1234567', '0.0001', '0.00001']),
  ('float8', array['0', '-0', '0.1', '1e15', '1e14', '123456789012345678', '5e-324', '1.7976931348623157e308', 'NaN', 'Infinity', '-Infinity', '1e-4', '1e-5', '100']),
  ('numeric', array['0', '0.00', '-0.5', '12345.6789', '1e20', '1e-20', '10000', '100000000.00010', 'NaN', 'Infinity', '-Infinity', '99999999999999999999999999999999999999999999.99', '0.1000', '1e5000', '-1e-5000', '9999', '0.00009999']),
  ('numeric(10,2)', array['0', '10.50', '-0.01', '99999999.99', '-99999999.99', '100', 'NaN']),
  ('numeric(30,10)', array['1234567890.0123456789', '-1', '0']),
  ('numeric(18,0)', array['999999999999999999', '-999999999999999999']),
  ('numeric(38,4)', array['1234567890123456789012345678901234.5678', '-1234567890123456789012345678901234.5678']),
  ('numeric(200,50)', array['1e149', '-1e149', '1e-50', '0', '123456789123456789123456789123456789.5']),
  ('numeric(5,-2)', array['123456', '-9999900', '0']),
  ('numeric(3,5)', array['0.00999', '-0.00001', '0']),
  ('money', array['0', '12.34', '-1234567.89', '92233720368547758.07', '-92233720368547758.08', '-0.05']),
  ('text', array['', 'plain', 'žš漢😀', E'tab\tline\n"quote" ''apos'' \\back']),
  ('varchar(20)', array['', 'vc ']), ('char(5)', array['ab', '', 'abcde']), ('name', array['nm', 'žš']),
  ('"char"', array['a', '', '\200', '''']), ('citext', array['CiText', '']),
  ('bytea', array['', '\x00ff10', '\x5c27']),
  ('bit(1)', array['1', '0']), ('bit(9)', array['101000001', '000000000']), ('bit(8)', array['10000001']),
  ('varbit', array['', '1', '110', '1010101010101010101']), ('varbit(5)', array['10101', '']),
  ('date', array['2016-11-04', '1936-10-25', '0001-01-01', '4714-11-24 BC', '5874897-12-31', 'infinity', '-infinity', '1969-12-31', '10000-01-01']),
  ('time', array['13:51:30.123456', '00:00', '24:00', '23:59:59.999999', '01:02:03.1']), ('time(3)', array['13:51:30.123', '24:00']), ('time(0)', array['13:51:30']),
  ('timetz', array['13:51:30.123789+02', '23:59:59.999999-15:59', '00:00+00', '24:00:00+05:30', '12:00:00-05:53:28', '01:00+02']),
  ('timestamp', array['2016-11-04 13:51:30.123456', '1936-10-25 22:10:12.608', '0001-01-01 00:00', '4714-11-24 00:00 BC', '294276-12-31 23:59:59.999999', '294247-01-10 04:00:54.775807', '294247-01-10 04:00:54.775806', 'infinity', '-infinity', '21016-11-04 06:51:30']),
  ('timestamp(3)', array['2016-11-04 13:51:30.123', '0001-01-01 00:00', '1969-12-31 23:59:59.999']), ('timestamp(0)', array['2016-11-04 13:51:30']),
  ('timestamptz', array['2016-11-04 13:51:30.123456+02', '21016-11-04 13:51:30.5+07', 'infinity', '-infinity', '0044-03-15 12:00 BC', '2020-01-01', '9999-12-31 23:59:59.999999+00', '10000-01-01 00:00+00']), ('timestamptz(3)', array['2016-11-04 13:51:30.123+02']), ('timestamptz(0)', array['2016-11-04 13:51:30+02']),
  ('interval', array['P1Y2M3DT4H5M6.78S', '-1 mons 2 days -03:00', '0', '1 year', '-1 year', '1 day', '-0.000001 s', '178000000 years', 'infinity', '-infinity', '-3 days 04:00', '1 mon -1 day', '2562047788:00:54.775807', '100:00:00']),
  ('interval day to second(3)', array['1 day 02:03:04.567']),
  ('uuid', array['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '00000000-0000-0000-0000-000000000000']),
  ('json', array['{"k": [1, null]}', 'null', '"\u0000"', ' [1 , 2 ] ']), ('jsonb', array['{"k": [1, null]}', '"x"', '1.50', '{"b":1,"a":"ü\"\\"}']),
  ('jsonpath', array['$.a[*] ? (@.b > 1)']), ('xml', array['<a>1</a>', '<?xml version="1.0" encoding="ISO-8859-1"?><a/>', 'text']),
  ('inet', array['10.1.2.3/8', '10.1.2.3', '::1', '2001:db8::1/64', '::ffff:1.2.3.4', '::1.2.3.4', '1:0:0:2::3', '::', '0.0.0.0/0', '1:2:3:4:5:6:7:8', '::2:0', '2001:0:0:1::']),
  ('cidr', array['10.1.2.0/24', '2001:db8::/32', '10.0.0.1/32', '::/0', '::ffff:1.2.3.4/128']),
  ('macaddr', array['08:00:2b:01:02:03', 'ff:ff:ff:ff:ff:ff']), ('macaddr8', array['08:00:2b:01:02:03:04:05']),
  ('point', array['(1,2.5)', '(-0,NaN)', '(1e300,-1e-300)', '(Infinity,0)']), ('line', array['{1,-1,0}', '{0.1,2,3}']), ('lseg', array['[(0,0),(1,1.5)]']),
  ('box', array['(1,1),(0,0)', '(0,0),(3,4)']), ('path', array['((0,0),(1,1))', '[(0,0),(1,1),(2,0)]']), ('polygon', array['((0,0),(1,1),(1,0))', '((0.5,0.25))']), ('circle', array['<(1,2),3.5>']),
  ('tsvector', array['''a'':1A,2B,3C,4 ''b c'':5 ''it''''s'' ''x\\y''', '']),
  ('tsquery', array['''fat'' & (''cat'':*AB | !''dog'')', '''a'' <-> ''b'' <2> ''c''', '''a'' <-> (''b'' <-> ''c'')', '!(''a'' | ''b'')', '''it''''s''', '''a'' & ''b'' & ''c'' | ''d''', '']),
  ('pg_lsn', array['16/B374D848', '0/0', 'FFFFFFFF/FFFFFFFF']), ('txid_snapshot', array['10:20:10,14,15', '1:1:']), ('pg_snapshot', array['10:20:10,14,15']), ('tid', array['(0,1)', '(4294967295,65535)']),
  ('int2vector', array['1 2 3', '']), ('oidvector', array['1 4294967295', '']),
  ('aclitem', array['postgres=arwdDxt/postgres']),
  ('mood', array['sad', 'in between', 'ünï"x']), ('positive', array['5']), ('price', array['12.345', '0']), ('prices', array['{1.5,NULL,2}', '{}']),
  ('one', array['(5)', '()']),
  ('address', array['("High St. ""1""",12345,"(1,2.5)",10.50,2020-01-01)', '(,,,,)', '("",x\\y,,NaN,infinity)', '("a,b (c)",,,,)']), ('home', array['(a,b,"(0,0)",1,2020-01-01)']),
  ('person', array['(Ann,"(s,z,""(1,2)"",1.5,2020-01-01)","{""(s,z,,,)"",NULL}","{sad,NULL}",5)', '(,,,,)']),
  ('int4[]', array['{}', '{1,NULL,3}', '{{1,2,3},{4,5,6}}', '[0:1]={1,2}', '[-1:0][2:3]={{1,2},{3,NULL}}', '{{{1}},{{2}}}']),
  ('int8[]', array['{1,-1}']), ('int2[]', array['{1,NULL}']), ('text[]', array['{"a b",NULL,"","NULL",null2,"q\"\\",žš,"{x}","a,b"}']), ('varchar(5)[]', array['{ab,"c d"}']), ('char(3)[]', array['{ab,c}']),
  ('numeric[]', array['{1.10,2,NaN}']), ('numeric(10,2)[]', array['{1.1,NULL,NaN}']), ('bool[]', array['{t,f,NULL}']), ('float4[]', array['{1.5,NaN}']), ('float8[]', array['{1.5,NaN,-Infinity}']),
  ('uuid[]', array['{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}']), ('mood[]', array['{sad,happy,"in between","ünï\"x"}', '{}']), ('date[]', array['{2020-01-02,infinity}']), ('time[]', array['{01:02:03.5,24:00}']), ('timetz[]', array['{01:02:03.5+02}']),
  ('timestamp[]', array['{"2020-01-02 03:04:05","4714-11-24 00:00:00 BC"}']), ('timestamptz[]', array['{2020-01-02 03:04:05.678901+02,-infinity}']), ('interval[]', array['{1 day,NULL,-00:00:01}']), ('bytea[]', array['{"\\x0102",""}']), ('json[]', array['{"{\"a\": 1}",null}']), ('jsonb[]', array['{"[1, 2]"}']),
  ('inet[]', array['{10.1.2.3/8,::1}']), ('bit(3)[]', array['{101,010}']), ('money[]', array['{1.50,"$1,234.00"}']), ('point[]', array['{"(1,2)",NULL}']), ('box[]', array['{(1,1),(0,0);(2,2),(1,1)}']), ('hstore[]', array['{"\"a\"=>\"1\""}']), ('address[]', array['{"(\"a b\",,,,)",NULL}']), ('int4range[]', array['{"[1,5)",empty}']), ('positive[]', array['{1,2}']), ('citext[]', array['{Ab}']), ('oid[]', array['{1,2}']), ('xml[]', array['{<a/>}']), ('tsvector[]', array['{"''a'':1"}']),
  ('int4range', array['[1,5)', '(,5]', 'empty', '(,)', '[3,3]']), ('int8range', array['[1,9223372036854775807)']), ('numrange', array['[1.5,2.50]', '(,NaN]']), ('tsrange', array['[2020-01-01 00:00,2020-02-01 12:30)', '(-infinity,infinity)']),
  ('tstzrange', array['[2020-01-01 00:00+00,2020-02-01 00:00+02)', '(,)', '[2020-01-01,infinity)']), ('daterange', array['[2020-01-01,2020-02-01)', '(-infinity,infinity)']), ('floatrange', array['(0.1,1e20)']),
  ('int4multirange', array['{}', '{[1,3),[5,)}']), ('tstzmultirange', array['{["2020-01-01 00:00:00+00","2020-01-02 00:00:00+00")}']), ('nummultirange', array['{(,1.5],(2,3)}']),
  ('hstore', array['k=>v, n=>NULL', '', '"a \"q\""=>"\\b", "NULL"=>"NULL", ü=>""']),
  ('ltree', array['Top.Science', '']), ('lquery', array['*.a|b*{1,2}']), ('ltxtquery', array['a & b*']), ('isbn', array['978-0-393-04002-9']), ('ean13', array['978-0-393-04002-9']), ('cube', array['(1, 2),(3, 4.5)', '(1, 2)', '(0)']), ('seg', array['1.5 .. 2.5', '<1'])
) as c(type, texts), golden.emit(c.type, variadic c.texts) e;

select E'{"types": [\n' || pg_temp.types_of((select array_agg((value->>'oid')::oid) from recorded))
  || E'\n], "values": [\n' || (select string_agg(value::text, E',\n' order by i) from recorded) || E'\n]}';
drop schema golden cascade;
