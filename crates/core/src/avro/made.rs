//! How a value that is made of others is written. On the row path: nothing here allocates but
//! buffers that are kept.

use super::codec::{ArrayStyle, Attribute, Slot};
use super::notes::{Notes, Path};
use super::wire;
use crate::value::geometric::Shape;
use crate::value::hstore::Part;
use crate::value::vector::Width;
use crate::value::{
    Datum, Fault, array as arrays, bytes, composite as composites, vector as vectors,
};

/// The numbers one after the other, which is what nested records of them are in Avro; those of a
/// path and a polygon are an array of points.
pub(super) fn geometric(shape: Shape, datum: Datum<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let geometry = shape.parse(datum)?;
    let points = match shape {
        Shape::Path | Shape::Polygon => geometry.count / 2,
        _ => 0,
    };
    if shape == Shape::Path {
        wire::boolean(out, geometry.closed);
    }
    if points > 0 {
        wire::size(out, points);
    }
    geometry.each(|number| wire::double(out, number));
    if matches!(shape, Shape::Path | Shape::Polygon) {
        out.push(0);
    }
    Ok(())
}

pub(super) fn hstore(datum: Datum<'_>, notes: &mut Notes, out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut scratch = notes.borrow();
    let written = wire::block(out, |out| {
        crate::value::hstore::pairs(datum, &mut scratch, |part| match part {
            Part::Key(key) => wire::bytes(out, key),
            Part::Value(None) => out.push(0),
            Part::Value(Some(value)) => {
                out.push(2);
                wire::bytes(out, value);
            }
        })
    });
    notes.give_back(scratch);
    written
}

pub(super) fn vector(width: Width, datum: Datum<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    wire::block(out, |out| vectors::dense(datum, width, |number| wire::float(out, number)))
}

pub(super) fn sparsevec(datum: Datum<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    let sparse = vectors::sparse(datum)?;
    wire::long(out, sparse.dimensions.into());
    wire::block(out, |out| {
        sparse.each(|index, _| wire::long(out, index.into()));
        Ok(sparse.count)
    })?;
    wire::block(out, |out| {
        sparse.each(|_, value| wire::float(out, value));
        Ok(sparse.count)
    })
}

pub(super) fn ewkb(datum: Datum<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    match datum {
        Datum::Binary(bytes) => {
            wire::bytes(out, bytes);
            Ok(())
        }
        Datum::Text(hex) => wire::sized(out, |out| bytes::unhex(hex, out)),
    }
}

pub(super) fn array(
    element: &Slot,
    style: ArrayStyle,
    datum: Datum<'_>,
    path: &Path<'_>,
    notes: &mut Notes,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let mut scratch = notes.borrow();
    let parsed = match style {
        ArrayStyle::Delimited(delimiter) => arrays::parse(datum, delimiter, &mut scratch),
        ArrayStyle::Vector => arrays::parse_vector(datum),
    };
    let written = parsed.and_then(|array| {
        if !array.shape.is_plain() {
            notes.note_shape(path, |out| array.shape.write(out));
        }
        let mut index = 0;
        wire::block(out, |out| {
            array.each(&mut scratch, |value| {
                let path = Path::index(path, index);
                index += 1;
                match value {
                    Some(value) => element.write(value, &path, notes, out),
                    // An element that may not be null has no place in the array.
                    None => element.write_null(out).map_err(|_| Fault::Unrepresentable),
                }
            })
        })
    });
    notes.give_back(scratch);
    written
}

pub(super) fn composite(
    attributes: &[Attribute],
    datum: Datum<'_>,
    path: &Path<'_>,
    notes: &mut Notes,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let mut scratch = notes.borrow();
    let is = |at, oid| attributes.get(at).is_some_and(|known: &Attribute| known.type_oid == oid);
    let written = composites::attributes(datum, attributes.len(), &mut scratch, is, |at, value| {
        let Some(Attribute { name, slot, .. }) = attributes.get(at) else { return Ok(()) };
        match value {
            Some(value) => slot.write(value, &Path::name(Some(path), name), notes, out),
            None => slot.write_null(out),
        }
    });
    notes.give_back(scratch);
    written
}

pub(super) fn range(
    bound: &Slot,
    datum: Datum<'_>,
    path: &Path<'_>,
    notes: &mut Notes,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let mut scratch = notes.borrow();
    let mut name = "lower";
    let written = composites::range(datum, &mut scratch, |value| {
        let path = Path::name(Some(path), std::mem::replace(&mut name, "upper"));
        match value {
            Some(value) => bound.write(value, &path, notes, out),
            None => bound.write_null(out),
        }
    });
    notes.give_back(scratch);
    wire::bytes(out, written?.as_str().as_bytes());
    Ok(())
}

pub(super) fn multirange(
    bound: &Slot,
    datum: Datum<'_>,
    path: &Path<'_>,
    notes: &mut Notes,
    out: &mut Vec<u8>,
) -> Result<(), Fault> {
    let mut index = 0;
    wire::block(out, |out| {
        composites::ranges(datum, |value| {
            let path = Path::index(path, index);
            index += 1;
            range(bound, value, &path, notes, out)
        })
    })
}
