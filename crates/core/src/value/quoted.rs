//! Items of arrays, composites and ranges in text form: quoted where they must be.

use super::Fault;

/// One item, up to a byte outside quotes for which `stop` holds; whether it was quoted tells an
/// empty text from none and the word NULL from a null. What has an escape is put together in
/// `scratch`.
pub(crate) fn item<'s, 'a: 's>(
    rest: &mut &'a [u8],
    scratch: &'s mut Vec<u8>,
    stop: impl Fn(u8) -> bool,
) -> Result<(&'s [u8], bool), Fault> {
    let plain = rest.iter().take_while(|byte| !stop(**byte) && !matches!(byte, b'"' | b'\\'));
    let (head, tail) = rest.split_at_checked(plain.count()).unwrap_or_default();
    if tail.first().is_none_or(|byte| stop(*byte)) {
        *rest = tail;
        return Ok((head, false));
    }
    scratch.clear();
    let mut quoted = false;
    let mut inside = false;
    loop {
        *rest = match *rest {
            [b'\\', byte, tail @ ..] => {
                scratch.push(*byte);
                tail
            }
            [b'"', b'"', tail @ ..] if inside => {
                scratch.push(b'"');
                tail
            }
            [b'"', tail @ ..] => {
                inside = !inside;
                quoted = true;
                tail
            }
            [byte, ..] if !inside && stop(*byte) => return Ok((scratch, quoted)),
            [] if !inside => return Ok((scratch, quoted)),
            [b'\\'] | [] => return Err(Fault::Malformed(&"quoted text")),
            [byte, tail @ ..] => {
                scratch.push(*byte);
                tail
            }
        };
    }
}

/// How a quote or backslash is written inside quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Escape {
    /// Behind a backslash, as in arrays.
    Backslash,
    /// Twice, as in composites and ranges.
    Twice,
}

/// Puts quotes around what `out` holds from `start` on.
pub(crate) fn quote(out: &mut Vec<u8>, start: usize, escape: Escape) {
    let special = |byte: &u8| matches!(byte, b'"' | b'\\');
    let content = out.get(start..).unwrap_or_default();
    let growth = content.iter().filter(|byte| special(byte)).count() + 2;
    let mut from = out.len();
    out.resize(from + growth, b'"');
    // From the end to the front, so that nothing is overwritten before it is moved.
    let mut to = out.len() - 1;
    while from > start {
        from -= 1;
        to -= 1;
        let byte = out.get(from).copied().unwrap_or_default();
        if let Some(slot) = out.get_mut(to) {
            *slot = byte;
        }
        if special(&byte) {
            to -= 1;
            if let Some(slot) = out.get_mut(to) {
                *slot = if escape == Escape::Twice { byte } else { b'\\' };
            }
        }
    }
    if let Some(slot) = out.get_mut(start) {
        *slot = b'"';
    }
}

/// What Postgres takes for white space in these forms.
pub(crate) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_reads_back() {
        for text in ["", "a", "a\"b", "\\", "\"", "a,b \"c\\\"", "NULL"] {
            for escape in [Escape::Backslash, Escape::Twice] {
                let mut out = b"x".to_vec();
                out.extend_from_slice(text.as_bytes());
                quote(&mut out, 1, escape);
                out.push(b',');
                let (mut rest, mut scratch) = (&out[1..], Vec::new());
                let read = item(&mut rest, &mut scratch, |byte| byte == b',').unwrap();
                assert_eq!(read, (text.as_bytes(), true));
                assert_eq!(rest, b",");
            }
        }
    }

    #[test]
    fn an_open_quote_is_refused() {
        for text in [&b"\"a"[..], b"a\\"] {
            let mut rest = text;
            assert!(item(&mut rest, &mut Vec::new(), |byte| byte == b',').is_err());
        }
    }
}
