//! Colours, where a person looks and has not said no.

use std::io::IsTerminal as _;

/// What is told by a colour.
#[derive(Clone, Copy, Debug)]
pub(super) enum Paint {
    Good,
    Doubtful,
    Bad,
    Aside,
}

/// How text is printed on standard output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    colour: bool,
}

impl Style {
    pub(super) fn of_output() -> Self {
        Self { colour: std::io::stdout().is_terminal() && wants_colour() }
    }

    #[cfg(test)]
    pub(super) const fn plain() -> Self {
        Self { colour: false }
    }

    pub(super) fn paint(self, paint: Paint, text: &str) -> String {
        let code = match paint {
            Paint::Good => 32,
            Paint::Doubtful => 33,
            Paint::Bad => 31,
            Paint::Aside => 2,
        };
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// As no-color.org has it: set and not empty means no.
pub(super) fn wants_colour() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_read_by_a_person_has_no_colour() {
        assert_eq!(Style { colour: false }.paint(Paint::Bad, "x"), "x");
        assert_eq!(Style { colour: true }.paint(Paint::Bad, "x"), "\x1b[31mx\x1b[0m");
    }
}
