//! Patterns with wildcards: of `.dockerignore` (with `**`), of COPY sources, and of the shell's `${name#pattern}`.
//!
//! Matching simulates an automaton: its time is the product of the lengths of pattern and text, whatever they are.

/// Longest pattern, in characters.
const MAX_LENGTH: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`: one character but `/`.
    One,
    /// `*`: any characters but `/`.
    Some,
    /// `[a-z]`
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
    /// `**/`: any folders, also none.
    Folders,
    /// A `**` at the end, or a `*` of the shell: anything.
    Rest,
    /// A `?` of the shell: any character.
    Any,
}

/// A compiled pattern.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    tokens: Vec<Token>,
}

/// Which rules a pattern is written by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// Paths; `**` spans folders.
    Ignore,
    /// One part of a path.
    Name,
    /// The shell's text.
    Shell,
}

impl Pattern {
    pub(crate) fn parse(text: &str, flavour: Flavour) -> Result<Pattern, String> {
        if text.chars().count() > MAX_LENGTH {
            return Err(format!("a pattern is longer than {MAX_LENGTH} characters"));
        }
        let mut chars = text.chars().peekable();
        let mut tokens = Vec::new();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' if flavour == Flavour::Shell => Token::Rest,
                '?' if flavour == Flavour::Shell => Token::Any,
                '*' if flavour == Flavour::Ignore && chars.peek() == Some(&'*') => {
                    chars.next();
                    chars.next_if_eq(&'/');
                    if chars.peek().is_none() { Token::Rest } else { Token::Folders }
                }
                '*' => Token::Some,
                '?' => Token::One,
                '\\' => Token::Char(chars.next().ok_or("a pattern ends with a lone backslash")?),
                '[' if flavour != Flavour::Shell => class(&mut chars)?,
                c => Token::Char(c),
            });
        }
        Ok(Pattern { tokens })
    }

    /// True if the whole text matches.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let mut states = States::new(self);
        text.chars().all(|c| states.step(c)) && states.accepts()
    }

    /// Lengths in bytes of all beginnings of `text` that match, shortest first.
    pub(crate) fn prefixes(&self, text: &str) -> Vec<usize> {
        let mut states = States::new(self);
        let mut found = Vec::new();
        if states.accepts() {
            found.push(0);
        }
        for (at, c) in text.char_indices() {
            if !states.step(c) {
                break;
            }
            if states.accepts() {
                found.push(at + c.len_utf8());
            }
        }
        found
    }
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, String> {
    let open = || "a pattern has a [ without ]".to_owned();
    let negated = chars.next_if(|c| matches!(c, '^' | '!')).is_some();
    let mut ranges = Vec::new();
    let one = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| match chars.next() {
        Some('\\') => chars.next().ok_or_else(open),
        Some(c) => Ok(c),
        None => Err(open()),
    };
    loop {
        if chars.peek() == Some(&']') && !ranges.is_empty() {
            chars.next();
            return Ok(Token::Class { negated, ranges });
        }
        let from = one(chars)?;
        let to = match chars.next_if_eq(&'-') {
            Some(_) => one(chars)?,
            None => from,
        };
        ranges.push((from, to));
    }
}

/// Which tokens may come next (`at`), and which `Folders` are in the middle of a name (`inside`).
struct States<'a> {
    tokens: &'a [Token],
    at: Vec<bool>,
    inside: Vec<bool>,
}

impl<'a> States<'a> {
    fn new(pattern: &'a Pattern) -> States<'a> {
        let n = pattern.tokens.len() + 1;
        let mut states = States { tokens: &pattern.tokens, at: vec![false; n], inside: vec![false; n] };
        states.at[0] = true;
        states.close();
        states
    }

    /// Follows what needs no character.
    fn close(&mut self) {
        for (i, token) in self.tokens.iter().enumerate() {
            if self.at[i] && matches!(token, Token::Some | Token::Folders | Token::Rest) {
                self.at[i + 1] = true;
                self.inside[i] |= *token == Token::Folders;
            }
        }
    }

    /// Takes a character; false if nothing can match any more.
    fn step(&mut self, c: char) -> bool {
        let n = self.at.len();
        let (mut at, mut inside) = (vec![false; n], vec![false; n]);
        for (i, token) in self.tokens.iter().enumerate() {
            if self.inside[i] {
                inside[i] = true;
                at[i + 1] |= c == '/';
            }
            if !self.at[i] {
                continue;
            }
            match token {
                Token::Char(wanted) => at[i + 1] |= *wanted == c,
                Token::One => at[i + 1] |= c != '/',
                Token::Any => at[i + 1] = true,
                Token::Some => at[i] |= c != '/',
                Token::Rest => at[i] = true,
                Token::Class { negated, ranges } => {
                    let within = ranges.iter().any(|(from, to)| (*from..=*to).contains(&c));
                    at[i + 1] |= c != '/' && within != *negated;
                }
                // Taken care of by `inside`.
                Token::Folders => {}
            }
        }
        (self.at, self.inside) = (at, inside);
        self.close();
        self.at.iter().chain(&self.inside).any(|s| *s)
    }

    fn accepts(&self) -> bool {
        self.at[self.tokens.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignore(pattern: &str, text: &str) -> bool {
        Pattern::parse(pattern, Flavour::Ignore).unwrap().matches(text)
    }

    #[test]
    fn wildcards_mean_what_docker_says() {
        for (pattern, yes, no) in [
            ("*.md", &["README.md", ".md"][..], &["a/README.md", "README.mdx"][..]),
            ("*/temp*", &["somedir/temporary.txt", "somedir/temp"], &["temp", "a/b/temp"]),
            ("*/*/temp*", &["somedir/subdir/temporary.txt"], &["somedir/temp"]),
            ("temp?", &["tempa", "tempb"], &["temp", "tempab", "temp/"]),
            ("**/*.go", &["a.go", "a/b.go", "a/b/c.go"], &["a.goo", "a.go/b"]),
            ("**", &["a", "a/b"], &[]),
            ("a/**", &["a/b", "a/b/c"], &["b/a"]),
            ("a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["ab", "a/xb"]),
            ("[a-c]x[^0-9]", &["axy", "cxz"], &["dxy", "ax1", "ax/"]),
            ("a\\*", &["a*"], &["ab"]),
            ("a.b+(c)|{d}$", &["a.b+(c)|{d}$"], &["axb+(c)|{d}$"]),
        ] {
            for text in yes {
                assert!(ignore(pattern, text), "{pattern} {text}");
            }
            for text in no {
                assert!(!ignore(pattern, text), "{pattern} {text}");
            }
        }
    }

    #[test]
    fn a_malformed_pattern_is_refused() {
        for bad in ["[", "[a", "a[]", "[^", "a\\", "[a-"] {
            assert!(Pattern::parse(bad, Flavour::Ignore).is_err(), "{bad}");
        }
        assert!(Pattern::parse(&"a".repeat(5000), Flavour::Ignore).is_err());
    }

    #[test]
    fn hostile_patterns_end_soon() {
        let pattern = Pattern::parse(&"*a".repeat(500), Flavour::Name).unwrap();
        assert!(!pattern.matches(&"a".repeat(499)));
        assert!(!pattern.matches(&"b".repeat(4000)));
    }
}
