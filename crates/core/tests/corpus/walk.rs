//! A walk over all that a message views.

use waltide_core::pgoutput::{Field, Message, OldTuple, Tuple};

/// Visits every field, column and truncated relation, and holds their number against what was said.
pub(crate) fn walk(message: &Message<'_>, visit: &mut dyn FnMut(Option<&[u8]>)) {
    match message {
        Message::Insert(_, _, new) => tuple(new, visit),
        Message::Update(_, _, old, new) => {
            old.iter().for_each(|old| old_tuple(old, visit));
            tuple(new, visit);
        }
        Message::Delete(_, _, old) => old_tuple(old, visit),
        Message::Relation(_, body) => {
            let mut left = body.columns.len();
            assert_eq!(body.columns.iter().len(), left);
            for column in &body.columns {
                visit(Some(column.name.as_bytes()));
                left -= 1;
            }
            assert_eq!(left, 0, "the walk ended early");
        }
        Message::Truncate(_, of) => of.relations().for_each(|_| visit(None)),
        _ => {}
    }
}

fn old_tuple(old: &OldTuple<'_>, visit: &mut dyn FnMut(Option<&[u8]>)) {
    let (OldTuple::Key(of) | OldTuple::Full(of)) = old;
    tuple(of, visit);
}

fn tuple(of: &Tuple<'_>, visit: &mut dyn FnMut(Option<&[u8]>)) {
    let mut left = of.len();
    assert_eq!(of.fields().len(), left);
    for field in of.fields() {
        visit(match field {
            Field::Text(value) | Field::Binary(value) => Some(value),
            Field::Null | Field::Unchanged => None,
        });
        left -= 1;
    }
    assert_eq!(left, 0, "the walk ended early");
}
