//! Variables in words: `$x`, `${x:-y}`, `${x#pattern}`; and the quotes around them.

use crate::pattern::{Flavour, Pattern};

/// Longest result in bytes; a longer argument could not be given to a process.
const MAX_RESULT: usize = 128 * 1024;
/// How deep `${a:-${b:-…}}` may go.
const MAX_DEPTH: usize = 50;
/// Longest text and pattern of `${x#…}`, `${x%…}` and `${x/…}`.
const MAX_MATCHED: usize = 2048;

/// Replaces the variables in a word and removes its quotes. `lookup` gives a variable's value.
pub(crate) fn expand<'a>(
    word: &str,
    escape: char,
    lookup: &dyn Fn(&str) -> Option<&'a str>,
) -> Result<String, String> {
    let mut expander = Expander { chars: word.chars().peekable(), escape, lookup };
    expander.until(None, 0)
}

struct Expander<'w, 'a> {
    chars: std::iter::Peekable<std::str::Chars<'w>>,
    escape: char,
    lookup: &'w dyn Fn(&str) -> Option<&'a str>,
}

impl Expander<'_, '_> {
    /// Up to `stop`, which is taken, or to the end if there is none.
    fn until(&mut self, stop: Option<char>, depth: usize) -> Result<String, String> {
        if depth > MAX_DEPTH {
            return Err(format!("variables are nested more than {MAX_DEPTH} deep"));
        }
        let mut out = String::new();
        while let Some(c) = self.chars.next() {
            match c {
                c if Some(c) == stop => return Ok(out),
                '\'' => self.single(&mut out)?,
                '"' => self.double(&mut out, depth)?,
                '$' => out.push_str(&self.dollar(depth)?),
                c if c == self.escape => out.extend(self.chars.next()),
                c => out.push(c),
            }
            if out.len() > MAX_RESULT {
                return Err(format!(
                    "becomes longer than {MAX_RESULT} bytes when its variables are replaced"
                ));
            }
        }
        match stop {
            Some(stop) => Err(format!("a \"${{\" has no \"{stop}\"")),
            None => Ok(out),
        }
    }

    fn single(&mut self, out: &mut String) -> Result<(), String> {
        loop {
            match self.chars.next() {
                Some('\'') => return Ok(()),
                Some(c) => out.push(c),
                None => return Err("a single quote is not closed".into()),
            }
        }
    }

    fn double(&mut self, out: &mut String, depth: usize) -> Result<(), String> {
        loop {
            match self.chars.next() {
                Some('"') => return Ok(()),
                Some('$') => out.push_str(&self.dollar(depth)?),
                Some(c) if c == self.escape => match self.chars.peek().copied() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => {
                        self.chars.next();
                        out.push(next);
                    }
                    _ => out.push(c),
                },
                Some(c) => out.push(c),
                None => return Err("a double quote is not closed".into()),
            }
            if out.len() > MAX_RESULT {
                return Err(format!(
                    "becomes longer than {MAX_RESULT} bytes when its variables are replaced"
                ));
            }
        }
    }

    fn dollar(&mut self, depth: usize) -> Result<String, String> {
        if self.chars.next_if_eq(&'{').is_none() {
            let name = self.name();
            return Ok(if name.is_empty() {
                "$".into()
            } else {
                (self.lookup)(&name).unwrap_or_default().into()
            });
        }
        let name = self.name();
        if name.is_empty() {
            return Err("a \"${\" is not followed by a name".into());
        }
        let value = (self.lookup)(&name);
        let modifier = self.chars.next().ok_or("a \"${\" has no \"}\"")?;
        let (value, modifier) = match modifier {
            '}' => return Ok(value.unwrap_or_default().to_owned()),
            // With a colon, an empty value is as good as none.
            ':' => (value.filter(|v| !v.is_empty()), self.chars.next().ok_or("a \"${\" has no \"}\"")?),
            '#' | '%' => return self.trim(value.unwrap_or_default(), modifier, depth),
            '/' => return self.replace(value.unwrap_or_default(), depth),
            other => (value, other),
        };
        let word = match modifier {
            '+' | '-' | '?' => self.until(Some('}'), depth + 1)?,
            other => {
                return Err(format!(
                    "\"{other}\" in \"${{{name}…}}\" is not known; there are :- - :+ + :? ? # ## % %% / //"
                ));
            }
        };
        match (modifier, value) {
            ('+', Some(_)) | ('-', None) => Ok(word),
            ('+', None) => Ok(String::new()),
            ('?', None) if word.is_empty() => Err(format!("{name} is not set")),
            ('?', None) => Err(format!("{name}: {word}")),
            (_, value) => Ok(value.unwrap_or_default().to_owned()),
        }
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.chars.peek() {
            Some(c) if c.is_ascii_alphabetic() || *c == '_' => {
                while let Some(c) = self.chars.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
                    name.push(c);
                }
            }
            Some(c) if c.is_ascii_digit() => {
                while let Some(c) = self.chars.next_if(char::is_ascii_digit) {
                    name.push(c);
                }
            }
            Some('@' | '*' | '#') => name.extend(self.chars.next()),
            _ => {}
        }
        name
    }

    fn trim(&mut self, value: &str, kind: char, depth: usize) -> Result<String, String> {
        let longest = self.chars.next_if_eq(&kind).is_some();
        let pattern = self.until(Some('}'), depth + 1)?;
        if kind == '#' {
            let found = shell_pattern(&pattern, value)?.prefixes(value);
            let end = if longest { found.last() } else { found.first() };
            return Ok(value[end.copied().unwrap_or(0)..].to_owned());
        }
        // From the end is from the beginning in the mirror; an escape stands before what it escapes.
        check_length(value)?;
        let mirror: String = value.chars().rev().collect();
        let found = shell_pattern(&mirrored(&pattern), &mirror)?.prefixes(&mirror);
        let end = if longest { found.last() } else { found.first() };
        Ok(value[..value.len() - end.copied().unwrap_or(0)].to_owned())
    }

    fn replace(&mut self, value: &str, depth: usize) -> Result<String, String> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let (pattern, replacement) = self.pattern_and_replacement(depth)?;
        let pattern = shell_pattern(&pattern, value)?;
        let (mut out, mut at) = (String::new(), 0);
        while at < value.len() {
            let rest = &value[at..];
            match pattern.prefixes(rest).last().copied().filter(|n| *n > 0) {
                Some(n) => {
                    out.push_str(&replacement);
                    at += n;
                    if !all {
                        break;
                    }
                }
                None => {
                    let c = rest.chars().next().unwrap_or_default();
                    out.push(c);
                    at += c.len_utf8();
                }
            }
            if out.len() > MAX_RESULT {
                return Err(format!(
                    "becomes longer than {MAX_RESULT} bytes when its variables are replaced"
                ));
            }
        }
        out.push_str(&value[at..]);
        Ok(out)
    }

    /// `pattern/replacement}` or `pattern}`.
    fn pattern_and_replacement(&mut self, depth: usize) -> Result<(String, String), String> {
        let mut pattern = String::new();
        while let Some(c) = self.chars.next() {
            match c {
                '/' => return Ok((pattern, self.until(Some('}'), depth + 1)?)),
                '}' => return Ok((pattern, String::new())),
                '$' => pattern.push_str(&self.dollar(depth + 1)?),
                c if c == self.escape => {
                    pattern.push('\\');
                    pattern.extend(self.chars.next());
                }
                c => pattern.push(c),
            }
        }
        Err("a \"${\" has no \"}\"".into())
    }
}

fn check_length(text: &str) -> Result<(), String> {
    match text.len() > MAX_MATCHED {
        true => Err(format!("text or pattern of a replacement is longer than {MAX_MATCHED} bytes")),
        false => Ok(()),
    }
}

fn shell_pattern(pattern: &str, value: &str) -> Result<Pattern, String> {
    check_length(pattern)?;
    check_length(value)?;
    Pattern::parse(pattern, Flavour::Shell)
}

fn mirrored(pattern: &str) -> String {
    let mut units = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        let mut unit = String::from(c);
        if c == '\\' {
            unit.extend(chars.next());
        }
        units.push(unit);
    }
    units.into_iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<&'static str> {
        static LONG: [u8; 100_000] = [b'z'; 100_000];
        match name {
            "x" => Some("value"),
            "empty" => Some(""),
            "path" => Some("/a/b/c.tar.gz"),
            "long" => std::str::from_utf8(&LONG).ok(),
            _ => None,
        }
    }

    #[test]
    fn words_expand_as_docker_says() {
        for (word, expected) in [
            ("$x", "value"),
            ("${x}s", "values"),
            ("a$x/b", "avalue/b"),
            ("$none|", "|"),
            ("${none:-def}", "def"),
            ("${empty:-def}", "def"),
            ("${empty-def}", ""),
            ("${none-def}", "def"),
            ("${x:-def}", "value"),
            ("${x:+other}", "other"),
            ("${empty:+other}", ""),
            ("${empty+other}", "other"),
            ("${none+other}", ""),
            ("${x:?needed}", "value"),
            ("${none:-${x}-$x}", "value-value"),
            ("\\$x", "$x"),
            ("'$x'", "$x"),
            ("\"$x y\"", "value y"),
            ("\"a\\\"b\\$c\\d\"", "a\"b$c\\d"),
            ("a\\ b", "a b"),
            ("$", "$"),
            ("a$ b", "a$ b"),
            ("$1", ""),
            ("${path#*/}", "a/b/c.tar.gz"),
            ("${path##*/}", "c.tar.gz"),
            ("${path%.*}", "/a/b/c.tar"),
            ("${path%%.*}", "/a/b/c"),
            ("${path%/?.tar.gz}", "/a/b"),
            ("${path/b/X}", "/a/X/c.tar.gz"),
            ("${path//\\//_}", "_a_b_c.tar.gz"),
            ("${x/lu}", "vae"),
            ("${none#x}", ""),
        ] {
            assert_eq!(expand(word, '\\', &lookup).as_deref(), Ok(expected), "{word}");
        }
        assert_eq!(expand("a`$x \\$x", '`', &lookup).as_deref(), Ok("a$x \\value"));
    }

    #[test]
    fn broken_words_are_refused() {
        for (word, why) in [
            ("'a", "single quote"),
            ("\"a", "double quote"),
            ("${x", "has no \"}\""),
            ("${", "not followed by a name"),
            ("${}", "not followed by a name"),
            ("${x:=y}", "is not known"),
            ("${none:?give me one}", "none: give me one"),
            ("${x:-", "has no"),
            ("${x/a", "has no"),
        ] {
            let error = expand(word, '\\', &lookup).unwrap_err();
            assert!(error.contains(why), "{word}: {error}");
        }
    }

    #[test]
    fn expansion_is_bounded() {
        let deep = format!("{}{}", "${none:-".repeat(1000), "}".repeat(1000));
        assert!(expand(&deep, '\\', &lookup).unwrap_err().contains("nested"));
        assert!(expand("$long$long", '\\', &lookup).unwrap_err().contains("longer"));
        assert!(expand("${long%z}", '\\', &lookup).unwrap_err().contains("longer"));
    }

    proptest::proptest! {
        #[test]
        fn no_word_makes_it_panic(word in "[a-z$:{}#%/'\"\\\\ *?+-]{0,60}") {
            let _ = expand(&word, '\\', &lookup);
        }

        #[test]
        fn no_text_makes_it_panic(word in "\\PC{0,60}") {
            let _ = expand(&word, '`', &lookup);
        }
    }
}
