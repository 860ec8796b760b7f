//! What a record says beside key and value. Filled on the row path, where most rows have none.

/// Headers as name and value; made once and reused.
#[derive(Debug, Default)]
pub struct Headers {
    values: Vec<u8>,
    /// Each name, and where its value ends.
    ends: Vec<(&'static str, usize)>,
}

impl Headers {
    /// Takes all away.
    pub fn clear(&mut self) {
        self.values.clear();
        self.ends.clear();
    }

    /// Adds one whose value `write` appends.
    pub fn push(&mut self, name: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.values);
        self.ends.push((name, self.values.len()));
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none, as is the rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Each name with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |(name, end)| {
            let value = self.values.get(start..*end).unwrap_or_default();
            start = *end;
            (*name, value)
        })
    }

    /// Gives back what is larger than ordinary rows need.
    pub fn shrink_to(&mut self, bytes: usize) {
        if self.values.capacity() > bytes {
            self.clear();
            self.values.shrink_to(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_keeps_its_own_value() {
        let mut headers = Headers::default();
        headers.push("a", |out| out.extend_from_slice(b"one"));
        headers.push("b", |_| {});
        headers.push("c", |out| out.push(b'3'));
        let pairs: Vec<_> = headers.iter().collect();
        assert_eq!(pairs, [("a", &b"one"[..]), ("b", b""), ("c", b"3")]);
        assert_eq!(headers.len(), 3);
        headers.clear();
        assert!(headers.is_empty() && headers.iter().next().is_none());
    }
}
