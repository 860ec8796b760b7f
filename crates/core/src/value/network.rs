//! Network addresses, written as Postgres writes them.

use super::read::Reader;
use super::{Fault, put};

/// `inet` or `cidr`: `10.1.2.3`, `10.0.0.0/8`, `::1`. A `cidr` always shows its mask.
pub(crate) fn write_inet(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let mut reader = Reader::new(bytes, &"inet");
    let (family, mask, is_cidr) = (reader.u8()?, reader.u8()?, reader.u8()? != 0);
    let length = usize::from(reader.u8()?);
    let address = reader.take(length)?;
    reader.end()?;
    let full = match (family, address) {
        (2, &[a, b, c, d]) => {
            put!(out, "{a}.{b}.{c}.{d}");
            32
        }
        (3, address) => {
            let address = address.try_into().map_err(|_| reader.fault())?;
            write_v6(address, out);
            128
        }
        _ => return Err(reader.fault()),
    };
    if is_cidr || mask != full {
        put!(out, "/{mask}");
    }
    Ok(())
}

/// The longest run of zeros, where it is two or more, is `::`; the last 32 bits are dotted where
/// the address holds a version 4 one.
fn write_v6(address: [u8; 16], out: &mut Vec<u8>) {
    let mut words = [0_u16; 8];
    for (word, pair) in words.iter_mut().zip(address.chunks_exact(2)) {
        *word = pair.iter().fold(0, |sum, byte| sum << 8 | u16::from(*byte));
    }
    let (mut run_start, mut run_length) = (usize::MAX, 0);
    let mut length = 0;
    for (i, word) in words.iter().enumerate() {
        length = if *word == 0 { length + 1 } else { 0 };
        if length > run_length && length >= 2 {
            (run_start, run_length) = (i + 1 - length, length);
        }
    }
    let [.., w5, _, w7] = words;
    let [.., a, b, c, d] = address;
    let dotted = run_start == 0
        && (run_length == 6 || run_length == 7 && w7 != 1 || run_length == 5 && w5 == 0xFFFF);
    for (i, word) in words.iter().enumerate() {
        if run_start != usize::MAX && (run_start..run_start + run_length).contains(&i) {
            if i == run_start {
                out.push(b':');
            }
            continue;
        }
        if i != 0 {
            out.push(b':');
        }
        if i == 6 && dotted {
            put!(out, "{a}.{b}.{c}.{d}");
            return;
        }
        put!(out, "{word:x}");
    }
    if run_start != usize::MAX && run_start + run_length == 8 {
        out.push(b':');
    }
}

/// `08:00:2b:01:02:03`, of six or eight bytes.
pub(crate) fn write_mac(bytes: &[u8], length: usize, out: &mut Vec<u8>) -> Result<(), Fault> {
    if bytes.len() != length {
        return Err(Fault::Malformed(&"macaddr"));
    }
    for (i, byte) in bytes.iter().enumerate() {
        put!(out, "{}{byte:02x}", if i > 0 { ":" } else { "" });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_prints_as_postgres_prints_it() {
        let v6 = |words: [u16; 8], mask: u8| {
            let mut bytes = vec![3, mask, 0, 16];
            words.iter().for_each(|word| bytes.extend(word.to_be_bytes()));
            bytes
        };
        for (bytes, expected) in [
            (vec![2, 32, 0, 4, 10, 1, 2, 3], "10.1.2.3"),
            (vec![2, 8, 0, 4, 10, 1, 2, 3], "10.1.2.3/8"),
            (vec![2, 32, 1, 4, 10, 1, 2, 3], "10.1.2.3/32"),
            (v6([0, 0, 0, 0, 0, 0, 0, 1], 128), "::1"),
            (v6([0, 0, 0, 0, 0, 0, 0, 0], 0), "::/0"),
            (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32), "2001:db8::/32"),
            (v6([0, 0, 0, 0, 0, 0xffff, 0x0a01, 0x0203], 128), "::ffff:10.1.2.3"),
            (v6([0, 0, 0, 0, 0, 0, 0x0a01, 0x0203], 128), "::10.1.2.3"),
            (v6([1, 0, 0, 2, 0, 0, 0, 3], 128), "1:0:0:2::3"),
            (v6([1, 0, 2, 3, 4, 5, 6, 7], 128), "1:0:2:3:4:5:6:7"),
        ] {
            let mut out = Vec::new();
            write_inet(&bytes, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
