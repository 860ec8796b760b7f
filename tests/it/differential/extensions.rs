//! The types of pgvector and PostGIS, on servers that have them.

use waltide_stack::{Database, Postgres, PostgresOptions, Version};

use super::form::Form;
use super::kinds::{Kind, array_with, kind};
use super::{assert_values_arrive_in, copied, random_text as text};
use crate::support::Random;

mod pgvectors_values_are_read_as_the_server_has_them {
    #[test]
    fn on_16() {
        super::pgvectors_values_arrive(waltide_stack::Version::V16);
    }
    #[test]
    fn on_18() {
        super::pgvectors_values_arrive(waltide_stack::Version::V18);
    }
}

fn pgvectors_values_arrive(version: Version) {
    let server = PostgresOptions::pgvector(version).start();
    assert_types_arrive(&server, "pgvector", VECTOR, &vectors);
}

#[test]
fn postgis_values_are_read_as_the_server_has_them() {
    let server = PostgresOptions::postgis().start();
    assert_types_arrive(&server, "postgis", POSTGIS, &geometries);
}

/// Streamed in binary and in text, and copied beside both.
fn assert_types_arrive(server: &Postgres, test: &str, types: &str, kinds: &dyn Fn() -> Vec<Kind>) {
    for binary in [true, false] {
        let kinds = kinds();
        let test =
            format!("{test} {} {}", server.version(), if binary { "binary" } else { "text" });
        let mut random = Random::from_environment(&test);
        let shop = database(server, &test, types);
        assert_values_arrive_in(&shop, &kinds, binary, &mut random, &test);
        let shop = database(server, &test, types);
        copied::assert_same_bytes_in(&shop, &kinds, binary, &mut random);
    }
}

fn database(server: &Postgres, test: &str, types: &str) -> Database {
    let shop = server.database(test);
    shop.execute(types);
    shop
}

const VECTOR: &str = "
    CREATE EXTENSION vector;
    CREATE DOMAIN embedding AS vector(3);
    CREATE TYPE placed AS (name text, at vector);";

fn vectors() -> Vec<Kind> {
    let dense = |sql: &str, least, most, make: fn(&mut Random) -> String| {
        kind(sql, Form::Dense, move |random| {
            let numbers: Vec<String> = (0..random.of(least..most)).map(|_| make(random)).collect();
            format!("[{}]", numbers.join(","))
        })
    };
    let composite = Form::Composite(vec![("name", Form::Plain), ("at", Form::Dense)]);
    vec![
        dense("vector", 1, 20, single),
        dense("vector(3)", 3, 4, single),
        dense("embedding", 3, 4, single),
        dense("vector", 500, 2_000, single),
        dense("halfvec", 1, 20, half),
        dense("halfvec(4)", 4, 5, half),
        kind("sparsevec", Form::Sparse, sparse),
        array_with(dense("vector", 1, 4, single), ','),
        array_with(dense("halfvec", 1, 4, half), ','),
        array_with(kind("sparsevec", Form::Sparse, sparse), ','),
        kind("placed", composite, |random| format!("(x,\"[{},1]\")", single(random))),
    ]
}

/// A number that a single-precision float comes near to.
fn single(random: &mut Random) -> String {
    let edges = ["0", "-0", "0.1", "3.4028235e38", "-1.17549435e-38", "1e-45", "16777217"];
    if random.once_in(3) {
        return (*random.pick(&edges)).to_owned();
    }
    format!("{}e-{}", text::whole(random, 1_000_000_000), random.of(0..20))
}

/// A number that a half comes near to.
fn half(random: &mut Random) -> String {
    let edges = ["0", "-0", "0.1", "65504", "-65504", "6e-8", "-0.00006", "1.0009765625"];
    if random.once_in(3) {
        return (*random.pick(&edges)).to_owned();
    }
    format!("{}e-{}", text::whole(random, 65_000), random.of(0..8))
}

/// Some of seven dimensions, or none.
fn sparse(random: &mut Random) -> String {
    let indices = (1..8).filter(|_| random.once_in(3)).collect::<Vec<_>>();
    let elements = indices.iter().map(|index| format!("{index}:{}", single(random)));
    format!("{{{}}}/7", elements.collect::<Vec<_>>().join(","))
}

const POSTGIS: &str = "
    CREATE EXTENSION postgis; CREATE EXTENSION postgis_raster;
    CREATE TYPE placed AS (name text, at geometry);";

fn geometries() -> Vec<Kind> {
    let composite = Form::Composite(vec![("name", Form::Plain), ("at", Form::Plain)]);
    vec![
        kind("geometry", Form::Plain, geometry),
        kind("geometry(Point,4326)", Form::Plain, |random| {
            format!("SRID=4326;POINT({} {})", angle(random, 180), angle(random, 90))
        }),
        kind("geography", Form::Plain, geography),
        kind("box2d", Form::Plain, |random| {
            format!("BOX({} 2.5,300 {})", random.of(0..99), random.of(3..99))
        }),
        kind("box3d", Form::Plain, |random| {
            format!("BOX3D({} 2.5 -1,300 {} 7)", random.of(0..99), random.of(3..99))
        }),
        kind("raster", Form::Plain, raster),
        array_with(kind("geometry", Form::Plain, geometry), ':'),
        kind("placed", composite, |random| format!("(x,\"{}\")", geometry(random))),
    ]
}

fn geometry(random: &mut Random) -> String {
    let edges = [
        "POINT EMPTY",
        "GEOMETRYCOLLECTION EMPTY",
        "SRID=3857;GEOMETRYCOLLECTION(POINT(1 2),LINESTRING(0 0,1 1))",
        "MULTIPOLYGON(((0 0,1 0,1 1,0 0)),((5 5,6 5,6 6,5 5)))",
        "CIRCULARSTRING(0 0,1 1,1 0)",
        "TIN(((0 0 0,0 0 1,0 1 0,0 0 0)))",
        "POINTM(1 2 3)",
    ];
    if random.once_in(3) {
        return (*random.pick(&edges)).to_owned();
    }
    let srid = *random.pick(&["", "SRID=4326;", "SRID=3857;"]);
    let (flag, dimensions) = *random.pick(&[("", 2), (" Z", 3), (" M", 3), (" ZM", 4)]);
    let mut spot = || {
        let numbers = (0..dimensions).map(|_| coordinate(random));
        numbers.collect::<Vec<_>>().join(" ")
    };
    let [a, b, c] = [spot(), spot(), spot()];
    match random.of(0..3) {
        0 => format!("{srid}POINT{flag}({a})"),
        1 => format!("{srid}LINESTRING{flag}({a},{b},{c})"),
        _ => format!("{srid}POLYGON{flag}(({a},{b},{c},{a}))"),
    }
}

fn coordinate(random: &mut Random) -> String {
    let edges = ["0", "-0", "0.1", "1e300", "-1e-300"];
    if random.once_in(4) {
        return (*random.pick(&edges)).to_owned();
    }
    format!("{}e-{}", text::whole(random, 1_000_000_000), random.of(0..12))
}

fn geography(random: &mut Random) -> String {
    let mut spot = || format!("{} {}", angle(random, 180), angle(random, 90));
    let [a, b] = [spot(), spot()];
    match random.of(0..3) {
        0 => "POINT EMPTY".to_owned(),
        1 => format!("POINT({a})"),
        _ => format!("LINESTRING({a},{b})"),
    }
}

/// Degrees within a bound, with decimals.
fn angle(random: &mut Random, most: i64) -> String {
    let degrees = text::whole(random, most - 1).clamp(1 - most, most - 1);
    format!("{degrees}.{:06}", random.of(0..1_000_000))
}

/// A raster of one band and one pixel, in the form of its own.
fn raster(random: &mut Random) -> String {
    // Version, bands, scale, corner, skew, SRID, width and height; then a band of one byte.
    let zeros = "0000000000000000";
    let one = "000000000000F03F";
    let head = format!("0100000100{one}{one}{zeros}{zeros}{zeros}{zeros}E610000001000100");
    format!("{head}4400{:02X}", random.of(0..256))
}
