//! What a record's own envelope has no place for, as headers: `waltide.unrepresentable`,
//! `waltide.unchanged` and `waltide.shapes`, in JSON. Rare: most rows have nothing to say.

use waltide_core::avro::{Notes, Plan};

use crate::kafka::Headers;

/// Adds a header for each kind of note that there is.
#[cold]
pub(super) fn write(plan: &Plan, notes: &Notes, headers: &mut Headers) {
    if notes.unrepresentable().next().is_some() {
        headers.push("waltide.unrepresentable", |out| object(notes.unrepresentable(), out));
    }
    if notes.unchanged().len() > 0 {
        let names = notes.unchanged().filter_map(|column| plan.field_name(column));
        headers.push("waltide.unchanged", |out| list(names, out));
    }
    if notes.shapes().next().is_some() {
        headers.push("waltide.shapes", |out| object(notes.shapes(), out));
    }
}

fn object<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>, out: &mut Vec<u8>) {
    separated(b"{}", pairs, out, |(path, text), out| {
        string(path, out);
        out.push(b':');
        string(text, out);
    });
}

fn list<'a>(names: impl Iterator<Item = &'a str>, out: &mut Vec<u8>) {
    separated(b"[]", names, out, string);
}

fn separated<T>(
    [open, close]: &[u8; 2],
    items: impl Iterator<Item = T>,
    out: &mut Vec<u8>,
    write: impl Fn(T, &mut Vec<u8>),
) {
    out.push(*open);
    for (index, item) in items.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(*close);
}

fn string(text: &str, out: &mut Vec<u8>) {
    // Neither a text nor writing to memory can fail.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_and_lists_are_json_whatever_they_say() {
        let (mut pairs, mut names) = (Vec::new(), Vec::new());
        object([("a.b[1]", "NaN"), ("q\"", "back\\slash\n")].into_iter(), &mut pairs);
        list(["body", "ü"].into_iter(), &mut names);
        assert_eq!(pairs, br#"{"a.b[1]":"NaN","q\"":"back\\slash\n"}"#);
        assert_eq!(names, r#"["body","ü"]"#.as_bytes());
    }
}
