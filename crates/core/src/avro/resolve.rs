//! What a type is once domains are taken off it.

use crate::catalog::{Attribute, Kind, PgType, Types};
use crate::value::form::Form;
use crate::value::scalar::Scalar;

/// How many domains, arrays, composites and ranges may stand in one another. Postgres lets no
/// type hold itself, so this only bounds what a broken catalog could do.
pub(crate) const MAX_DEPTH: usize = 64;

/// A type without its domains, and the modifier that counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resolved<'a> {
    pub(crate) kind: Resolution<'a>,
    pub(crate) modifier: i32,
}

/// What a type is once domains are taken off it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Resolution<'a> {
    Scalar(Scalar),
    Enum(&'a [String]),
    Array {
        element: u32,
        delimiter: u8,
    },
    Composite(&'a PgType, &'a [Attribute]),
    Range {
        of: &'a PgType,
        subtype: u32,
    },
    Multirange {
        range: u32,
    },
    /// Nothing is known of it.
    Opaque {
        has_send: bool,
    },
}

/// Looks a type up; what is built in is known whether or not the catalog lists it.
pub(crate) fn resolve(types: &Types, mut oid: u32, mut modifier: i32) -> Resolved<'_> {
    for _ in 0..MAX_DEPTH {
        if let Some(scalar) = Scalar::of_oid(oid) {
            return Resolved { kind: Resolution::Scalar(scalar), modifier };
        }
        let Some(found) = types.get(oid) else { break };
        let kind = match &found.kind {
            Kind::Domain { base, modifier: of_domain } => {
                (oid, modifier) = (*base, *of_domain);
                continue;
            }
            Kind::Enum(labels) => Resolution::Enum(labels),
            Kind::Array { element, delimiter } => {
                Resolution::Array { element: *element, delimiter: *delimiter }
            }
            Kind::Composite(attributes) => Resolution::Composite(found, attributes),
            Kind::Range { subtype } => Resolution::Range { of: found, subtype: *subtype },
            Kind::Multirange { range } => Resolution::Multirange { range: *range },
            Kind::Base | Kind::Pseudo => found
                .extension
                .as_deref()
                .and_then(|extension| Scalar::of_extension(extension, &found.name))
                .map_or(Resolution::Opaque { has_send: found.has_send }, Resolution::Scalar),
        };
        return Resolved { kind, modifier };
    }
    Resolved { kind: Resolution::Opaque { has_send: true }, modifier }
}

/// What a type's bytes are made of, for its text form.
pub(crate) fn form(types: &Types, oid: u32) -> Form {
    form_within(types, oid, MAX_DEPTH)
}

fn form_within(types: &Types, oid: u32, depth: usize) -> Form {
    let Some(depth) = depth.checked_sub(1) else { return Form::Scalar(Scalar::Opaque) };
    let inner = |oid| Box::new(form_within(types, oid, depth));
    match resolve(types, oid, -1).kind {
        Resolution::Scalar(scalar) => Form::Scalar(scalar),
        Resolution::Enum(_) => Form::Scalar(Scalar::Label),
        Resolution::Array { element, delimiter } => {
            Form::Array { element: inner(element), delimiter }
        }
        Resolution::Composite(_, attributes) => {
            let attributes = attributes.iter().map(|attribute| attribute.type_oid);
            Form::Composite(attributes.map(|oid| form_within(types, oid, depth)).collect())
        }
        Resolution::Range { subtype, .. } => Form::Range(inner(subtype)),
        Resolution::Multirange { range } => match resolve(types, range, -1).kind {
            Resolution::Range { subtype, .. } => Form::Multirange(inner(subtype)),
            _ => Form::Scalar(Scalar::Opaque),
        },
        Resolution::Opaque { .. } => Form::Scalar(Scalar::Opaque),
    }
}

/// A type's name for people: `int4`, `int4[]`, `public.mood`.
pub(crate) fn display_name(types: &Types, oid: u32) -> String {
    let Some(found) = types.get(oid) else { return format!("oid {oid}") };
    match found.kind {
        Kind::Array { element, .. } if found.name.starts_with('_') && element != oid => {
            format!("{}[]", display_name(types, element))
        }
        _ if found.schema == "pg_catalog" => found.name.clone(),
        _ => format!("{}.{}", found.schema, found.name),
    }
}

/// `numeric(p,s)` out of a modifier.
pub(crate) fn numeric_modifier(modifier: i32) -> Option<(u32, i32)> {
    let bits = modifier.checked_sub(4).filter(|bits| *bits >= 0)?;
    let precision = u32::try_from(bits >> 16 & 0xFFFF).ok()?;
    // Eleven bits with a sign since PostgreSQL 15; before it, never above 1000.
    let scale = ((bits & 0x7FF) ^ 1024) - 1024;
    Some((precision, scale))
}

#[cfg(test)]
mod tests {
    use super::super::recorded;
    use super::*;
    use crate::value::Datum;

    #[test]
    fn the_text_form_of_every_type_is_what_the_server_writes() {
        let (types, values) = recorded::load();
        let mut checked = 0;
        for value in values {
            let Some(binary) = &value.binary else { continue };
            let mut out = Vec::new();
            form(&types, value.oid).write_text(Datum::Binary(binary), &mut out).unwrap();
            let written = String::from_utf8(out).unwrap();
            assert_eq!(written, value.text, "{}", value.type_name);
            checked += 1;
        }
        assert!(checked > 300, "{checked} values were recorded");
    }

    #[test]
    fn a_numeric_modifier_holds_precision_and_scale() {
        let modifier = |precision: i32, scale: i32| (precision << 16 | scale & 0x7FF) + 4;
        assert_eq!(numeric_modifier(-1), None);
        for (precision, scale) in [(10, 2), (1000, 1000), (3, -2), (1, 0), (1000, -1000)] {
            let expected = (u32::try_from(precision).unwrap(), scale);
            assert_eq!(numeric_modifier(modifier(precision, scale)), Some(expected));
        }
    }
}
