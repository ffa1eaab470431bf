//! `--chmod`: `0755`, or `u=rwX,go=rX`.

/// A change of permissions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Chmod {
    /// These.
    Octal(u32),
    /// One after the other.
    Symbolic(Vec<Clause>),
}

/// `ug+rx`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Clause {
    /// Mask of the classes: 0o700, 0o070, 0o007.
    who: u32,
    operator: char,
    /// Permissions, repeated for each class.
    bits: u32,
    /// `X`: execution, where it makes sense.
    conditional: bool,
    special: u32,
}

impl Chmod {
    pub(crate) fn parse(text: &str) -> Option<Chmod> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o7777).map(Chmod::Octal);
        }
        text.split(',').map(Clause::parse).collect::<Option<Vec<_>>>().map(Chmod::Symbolic)
    }

    /// The new mode of something that has this one.
    pub(crate) fn apply(&self, mode: u32, folder: bool) -> u32 {
        match self {
            Chmod::Octal(mode) => *mode,
            Chmod::Symbolic(clauses) => clauses.iter().fold(mode, |mode, c| c.apply(mode, folder)),
        }
    }
}

impl Clause {
    fn parse(text: &str) -> Option<Clause> {
        let at = text.find(['+', '-', '='])?;
        let mut who = 0;
        for c in text[..at].chars() {
            who |= match c {
                'u' => 0o700,
                'g' => 0o070,
                'o' => 0o007,
                'a' => 0o777,
                _ => return None,
            };
        }
        if who == 0 {
            who = 0o777;
        }
        let operator = text[at..].chars().next()?;
        let (mut bits, mut conditional, mut special) = (0, false, 0);
        for c in text[at + 1..].chars() {
            match c {
                'r' => bits |= 0o444,
                'w' => bits |= 0o222,
                'x' => bits |= 0o111,
                'X' => conditional = true,
                's' => special |= u32::from(who & 0o700 != 0) * 0o4000 + u32::from(who & 0o070 != 0) * 0o2000,
                't' => special |= 0o1000,
                _ => return None,
            }
        }
        Some(Clause { who, operator, bits, conditional, special })
    }

    fn apply(&self, mode: u32, folder: bool) -> u32 {
        let execution = if self.conditional && (folder || mode & 0o111 != 0) { 0o111 } else { 0 };
        let bits = ((self.bits | execution) & self.who) | self.special;
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => (mode & !self.who) | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_and_symbolic_modes_are_applied() {
        for (text, mode, folder, expected) in [
            ("755", 0o600, false, 0o755),
            ("4755", 0o600, false, 0o4755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("go-w", 0o666, false, 0o644),
            ("u+s", 0o755, false, 0o4755),
            ("a=r", 0o755, false, 0o444),
        ] {
            assert_eq!(Chmod::parse(text).unwrap().apply(mode, folder), expected, "{text}");
        }
        for bad in ["", "999", "77777", "u", "z+x", "u+q", "u=rw,"] {
            assert_eq!(Chmod::parse(bad), None, "{bad}");
        }
    }
}
