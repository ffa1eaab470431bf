//! Why a text is not JSON, in the words of Go's `encoding/json`.
//!
//! Runs only on documents that the quick decoder refused. Source of the wording: `scanner.go` of `encoding/json`.

use std::borrow::Cow;

/// Go's limit on nesting.
const MAX_DEPTH: usize = 10_000;

/// Returns the document with what Go forgives made good: invalid UTF-8 and lone surrogates become U+FFFD.
///
/// # Errors
/// Go's text for the first syntax error, or for a number that no `float64` holds.
pub fn repair(bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    let mut scanner = Scanner { bytes, at: 0, lone: Vec::new() };
    scanner.document()?;
    let text = if scanner.lone.is_empty() {
        Cow::Borrowed(bytes)
    } else {
        let mut fixed = bytes.to_vec();
        for at in scanner.lone {
            if let Some(escape) = fixed.get_mut(at..at + 4) {
                escape.copy_from_slice(b"fffd");
            }
        }
        Cow::Owned(fixed)
    };
    Ok(match String::from_utf8_lossy(&text) {
        Cow::Borrowed(_) => text,
        Cow::Owned(fixed) => Cow::Owned(fixed.into_bytes()),
    })
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the four hexadecimal digits of lone surrogates begin.
    lone: Vec<usize>,
}

/// A list or an object that is open.
#[derive(Clone, Copy, PartialEq)]
enum Open {
    List,
    Object,
}

fn quote(byte: u8) -> String {
    match byte {
        b'\'' => r"'\''".to_owned(),
        b'"' => r#"'"'"#.to_owned(),
        b'\\' => r"'\\'".to_owned(),
        b'\n' => r"'\n'".to_owned(),
        b'\t' => r"'\t'".to_owned(),
        b'\r' => r"'\r'".to_owned(),
        0x07 => r"'\a'".to_owned(),
        0x08 => r"'\b'".to_owned(),
        0x0b => r"'\v'".to_owned(),
        0x0c => r"'\f'".to_owned(),
        0..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
        // Go makes a rune of the byte.
        0x80..=0x9f | 0xad => format!("'\\u{byte:04x}'"),
        0xa0 => r"'\u00a0'".to_owned(),
        _ => format!("'{}'", char::from(byte)),
    }
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn error<T>(&self, context: &str) -> Result<T, String> {
        Err(match self.peek() {
            None => "unexpected end of JSON input".to_owned(),
            Some(byte) => format!("invalid character {} {context}", quote(byte)),
        })
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn document(&mut self) -> Result<(), String> {
        let mut open: Vec<Open> = Vec::new();
        'value: loop {
            self.space();
            let opened = match self.peek() {
                Some(b'{') => Some(Open::Object),
                Some(b'[') => Some(Open::List),
                _ => None,
            };
            if let Some(kind) = opened {
                if open.len() >= MAX_DEPTH {
                    return self.error("exceeded max depth");
                }
                self.at += 1;
                self.space();
                match (kind, self.peek()) {
                    (Open::Object, Some(b'}')) | (Open::List, Some(b']')) => self.at += 1,
                    (Open::Object, _) => {
                        open.push(kind);
                        self.key()?;
                        continue 'value;
                    }
                    (Open::List, _) => {
                        open.push(kind);
                        continue 'value;
                    }
                }
            } else {
                self.scalar()?;
            }
            loop {
                self.space();
                match (open.last(), self.peek()) {
                    (None, None) => return Ok(()),
                    (None, _) => return self.error("after top-level value"),
                    (Some(Open::List), Some(b']')) | (Some(Open::Object), Some(b'}')) => {
                        self.at += 1;
                        open.pop();
                    }
                    (Some(Open::List), Some(b',')) => {
                        self.at += 1;
                        continue 'value;
                    }
                    (Some(Open::Object), Some(b',')) => {
                        self.at += 1;
                        self.space();
                        self.key()?;
                        continue 'value;
                    }
                    (Some(Open::List), _) => return self.error("after array element"),
                    (Some(Open::Object), _) => return self.error("after object key:value pair"),
                }
            }
        }
    }

    fn key(&mut self) -> Result<(), String> {
        if self.peek() != Some(b'"') {
            return self.error("looking for beginning of object key string");
        }
        self.string()?;
        self.space();
        if self.peek() != Some(b':') {
            return self.error("after object key");
        }
        self.at += 1;
        Ok(())
    }

    fn scalar(&mut self) -> Result<(), String> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true"),
            Some(b'f') => self.literal("false"),
            Some(b'n') => self.literal("null"),
            _ => self.error("looking for beginning of value"),
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), String> {
        for wanted in word.chars() {
            if self.peek().map(char::from) != Some(wanted) {
                return self.error(&format!("in literal {word} (expecting '{wanted}')"));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn hex4(&mut self) -> Result<u16, String> {
        let mut value = 0u16;
        for _ in 0..4 {
            let Some(digit) = self.peek().and_then(|b| char::from(b).to_digit(16)) else {
                return self.error("in \\u hexadecimal character escape");
            };
            value = value << 4 | u16::try_from(digit).unwrap_or(0);
            self.at += 1;
        }
        Ok(value)
    }

    fn string(&mut self) -> Result<(), String> {
        self.at += 1;
        // Where a high surrogate waits for its other half.
        let mut high: Option<usize> = None;
        loop {
            let escape = self.bytes.get(self.at..self.at + 2).is_some_and(|b| b == b"\\u");
            if !escape {
                self.lone.extend(high.take());
            }
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"') => self.at += 1,
                        Some(b'u') => {
                            self.at += 1;
                            let digits = self.at;
                            match (self.hex4()?, high.take()) {
                                (0xdc00..=0xdfff, Some(_)) => {}
                                (0xdc00..=0xdfff, None) => self.lone.push(digits),
                                (0xd800..=0xdbff, before) => {
                                    self.lone.extend(before);
                                    high = Some(digits);
                                }
                                (_, before) => self.lone.extend(before),
                            }
                        }
                        _ => return self.error("in string escape code"),
                    }
                }
                None | Some(0..0x20) => return self.error("in string literal"),
                Some(_) => self.at += 1,
            }
        }
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn number(&mut self) -> Result<(), String> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return self.error("in numeric literal"),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            if !matches!(self.peek(), Some(b'0'..=b'9')) {
                return self.error("after decimal point in numeric literal");
            }
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if !matches!(self.peek(), Some(b'0'..=b'9')) {
                return self.error("in exponent of numeric literal");
            }
            self.digits();
        }
        let text = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default();
        match text.parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(()),
            _ => Err(format!("json: cannot unmarshal number {text} into Go value of type float64")),
        }
    }
}
