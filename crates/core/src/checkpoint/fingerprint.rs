//! CRC-64-AVRO, which tells whether two texts are the same without keeping them.

/// What Avro's specification calls the fingerprint of nothing.
const EMPTY: u64 = 0xC15D_213A_A4D7_A795;

/// The fingerprint of some bytes. Not a defence against anybody who means to deceive.
#[must_use]
pub fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(EMPTY, |so_far, byte| {
        let low = (so_far ^ u64::from(*byte)) & 0xFF;
        let mixed = (0..8).fold(low, |bits, _| (bits >> 1) ^ (EMPTY & 0u64.wrapping_sub(bits & 1)));
        (so_far >> 8) ^ mixed
    })
}

#[cfg(test)]
mod tests {
    use apache_avro::Schema;
    use apache_avro::rabin::Rabin;

    use super::*;

    #[test]
    fn it_is_that_of_the_specification() {
        for text in [r#""int""#, r#""string""#, r#"{"type":"array","items":"long"}"#] {
            let schema = Schema::parse_str(text).unwrap();
            let canonical = schema.canonical_form();
            let expected = schema.fingerprint::<Rabin>();
            assert_eq!(fingerprint(canonical.as_bytes()).to_le_bytes(), *expected.bytes);
        }
    }
}
