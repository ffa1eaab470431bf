//! From text to logical lines: parser directives, comments, continued lines, here-documents.

use super::Fault;

/// The parser directives at the top of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directives {
    /// The escape character: `\` or `` ` ``.
    pub escape: char,
    /// `# syntax=…`, as it stands.
    pub syntax: Option<String>,
}

/// One instruction with all the lines that belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Logical {
    /// First line, from 1.
    pub(crate) line: usize,
    /// Last line.
    pub(crate) last: usize,
    /// The continued lines as one.
    pub(crate) text: String,
    pub(crate) heredocs: Vec<Heredoc>,
}

/// A here-document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it.
    pub name: String,
    /// Its lines.
    pub content: String,
    /// Whether variables are replaced in it: the word was not quoted.
    pub expand: bool,
    /// `<<-`: leading tabs do not count.
    pub chomp: bool,
}

impl Heredoc {
    /// The content without the tabs that do not count.
    pub fn text(&self) -> String {
        if !self.chomp {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

/// Splits a file into its logical lines.
pub(crate) fn split(text: &str) -> Result<(Directives, Vec<Logical>), Fault> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let (directives, mut at) = directives(&lines)?;
    let mut logical = Vec::new();
    while at < lines.len() {
        let first = lines[at].trim();
        if first.is_empty() || first.starts_with('#') {
            at += 1;
            continue;
        }
        let mut one = Logical { line: at + 1, last: at + 1, text: String::new(), heredocs: Vec::new() };
        let (mut part, mut more) = continued(lines[at].trim_start(), directives.escape);
        one.text.push_str(part);
        at += 1;
        while more && at < lines.len() {
            let line = lines[at];
            at += 1;
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            one.last = at;
            (part, more) = continued(line, directives.escape);
            one.text.push_str(part);
        }
        one.text.truncate(one.text.trim_end().len());
        for word in heredoc_words(&one.text, directives.escape) {
            at = one.take_heredoc(word, &lines, at)?;
        }
        logical.push(one);
    }
    Ok((directives, logical))
}

impl Logical {
    fn take_heredoc(&mut self, word: Word, lines: &[&str], mut at: usize) -> Result<usize, Fault> {
        let mut content = String::new();
        while let Some(line) = lines.get(at) {
            at += 1;
            let bare = line.trim_end_matches(['\n', '\r']);
            if if word.chomp { bare.trim_start_matches('\t') } else { bare } == word.name {
                self.last = at;
                let Word { name, expand, chomp } = word;
                self.heredocs.push(Heredoc { name, content, expand, chomp });
                return Ok(at);
            }
            content.push_str(line);
        }
        Err(Fault::new(self.line, format!("the here-document \"{}\" does not end", word.name))
            .hint(format!("Write {} on a line of its own after it.", word.name)))
    }
}

fn directives(lines: &[&str]) -> Result<(Directives, usize), Fault> {
    let mut found = Directives { escape: '\\', syntax: None };
    let mut seen = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some((key, value)) = directive(line) else { return Ok((found, at)) };
        if seen.contains(&key) {
            return Err(Fault::new(at + 1, format!("the directive \"{key}\" stands here twice")));
        }
        match key.as_str() {
            "syntax" => found.syntax = Some(value.to_owned()),
            "escape" => {
                found.escape = match value {
                    "\\" => '\\',
                    "`" => '`',
                    other => {
                        return Err(Fault::new(
                            at + 1,
                            format!("the escape character \"{other}\" is not \\ or `"),
                        ));
                    }
                };
            }
            // Settings of Docker's own checks.
            "check" => {}
            _ => return Ok((found, at)),
        }
        seen.push(key);
    }
    Ok((found, lines.len()))
}

fn directive(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.trim().strip_prefix('#')?.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let is_key = key.bytes().all(|b| b.is_ascii_alphanumeric()) && !key.is_empty();
    (is_key && !value.is_empty()).then(|| (key.to_ascii_lowercase(), value))
}

/// The line without its end and its continuation mark, and whether it had one.
fn continued(line: &str, escape: char) -> (&str, bool) {
    let bare = line.trim_end_matches(['\n', '\r']);
    match bare.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        // A doubled mark is a literal one.
        Some(rest) if !rest.ends_with(escape) => (rest, true),
        _ => (bare, false),
    }
}

struct Word {
    name: String,
    expand: bool,
    chomp: bool,
}

/// The words `<<NAME` in an instruction that may have here-documents.
fn heredoc_words(text: &str, escape: char) -> Vec<Word> {
    let Some((keyword, rest)) = text.split_once([' ', '\t']) else { return Vec::new() };
    let keyword = keyword.to_ascii_uppercase();
    let rest = match keyword.as_str() {
        "ONBUILD" => {
            let trigger = rest.trim_start();
            let takes = |k: &str| trigger.get(..k.len()).is_some_and(|t| t.eq_ignore_ascii_case(k));
            if !["RUN ", "COPY ", "ADD "].into_iter().any(takes) {
                return Vec::new();
            }
            trigger
        }
        "RUN" | "COPY" | "ADD" => rest,
        _ => return Vec::new(),
    };
    words(rest, escape).iter().filter_map(|w| heredoc_word(w, escape)).collect()
}

/// True if the word opens a here-document.
pub(crate) fn is_heredoc(word: &str, escape: char) -> bool {
    heredoc_word(word, escape).is_some()
}

fn heredoc_word(word: &str, escape: char) -> Option<Word> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    if rest.contains('<') {
        return None;
    }
    let mut name = String::new();
    let mut chars = rest.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' | '\'' => {}
            c if c == escape => name.extend(chars.next()),
            c => name.push(c),
        }
    }
    (!name.is_empty()).then(|| Word { expand: name == rest, name, chomp })
}

/// Words as a shell separates them, with their quotes still on.
pub(crate) fn words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == escape && quote != Some('\'') {
            word.push(c);
            word.extend(chars.next());
            continue;
        }
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> Vec<(usize, usize, String)> {
        split(text).unwrap().1.into_iter().map(|l| (l.line, l.last, l.text)).collect()
    }

    #[test]
    fn continued_lines_are_one_and_comments_between_them_vanish() {
        let text = "\u{feff}# a comment\n\nFROM x\r\nRUN a && \\\n  # not this\n\n    b \\  \n  && c\nCMD d\\\\\nUSER e";
        assert_eq!(
            texts(text),
            [
                (3, 3, "FROM x".into()),
                (4, 8, "RUN a &&     b   && c".into()),
                (9, 9, "CMD d\\\\".into()),
                (10, 10, "USER e".into()),
            ]
        );
        assert_eq!(texts("RUN x \\"), [(1, 1, "RUN x".into())]);
    }

    #[test]
    fn directives_stand_only_at_the_top() {
        let (directives, lines) =
            split("# syntax = docker/dockerfile:1\n#escape=`\nRUN a `\n b\\\n").unwrap();
        assert_eq!(directives, Directives { escape: '`', syntax: Some("docker/dockerfile:1".into()) });
        assert_eq!(lines[0].text, "RUN a  b\\");
        assert_eq!(split("# comment\n# escape=`\nRUN a").unwrap().0.escape, '\\');
        assert_eq!(split("\n# escape=`\nRUN a").unwrap().0.escape, '\\');
        assert!(split("# escape=x\n").unwrap_err().message.contains("is not \\ or `"));
        assert!(split("# escape=`\n# escape=`\n").unwrap_err().message.contains("twice"));
    }

    #[test]
    fn here_documents_are_read_to_their_end() {
        let text = "RUN <<EOF cat > /x && <<-'B' cat\n a $x\n# kept\n\nEOF\n\t\tb\n\tB\nCOPY <<\"A\" /y\nc\\\nA\nUSER z\n";
        let (_, lines) = split(text).unwrap();
        let heredoc = |name: &str, content: &str, expand, chomp| Heredoc {
            name: name.into(),
            content: content.into(),
            expand,
            chomp,
        };
        assert_eq!(
            lines[0].heredocs,
            [heredoc("EOF", " a $x\n# kept\n\n", true, false), heredoc("B", "\t\tb\n", false, true)]
        );
        assert_eq!((lines[0].line, lines[0].last), (1, 7));
        assert_eq!(lines[0].heredocs[1].text(), "b\n");
        assert_eq!(lines[1].heredocs, [heredoc("A", "c\\\n", false, false)]);
        assert_eq!(lines[2].text, "USER z");
    }

    #[test]
    fn what_is_no_here_document_is_left_alone() {
        for text in ["RUN a <<<b", "RUN \"<<EOF\" x", "RUN a<<b", "CMD <<EOF", "RUN << x"] {
            assert_eq!(split(text).unwrap().1[0].heredocs, [], "{text}");
        }
        let fault = split("FROM x\nRUN <<EOF\necho\n").unwrap_err();
        assert_eq!((fault.line, fault.message.as_str()), (2, "the here-document \"EOF\" does not end"));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(RUN|COPY|ADD|ONBUILD|#|escape|=|<<-?|[\"'`\\\\ \n\t]|E|\\PC){0,40}") {
            let _ = split(&text);
        }
    }
}
