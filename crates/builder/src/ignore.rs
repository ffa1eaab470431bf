//! `.dockerignore`: which files of the context do not exist for a build.

use std::path::Path;

use crate::{
    Error, Result,
    error::Place,
    pattern::{Flavour, Pattern},
};

/// Largest ignore file, in bytes, and most patterns in one.
const MAX_BYTES: u64 = 1024 * 1024;
const MAX_PATTERNS: usize = 5000;

/// The patterns of an ignore file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    pattern: Pattern,
    /// The pattern part by part, for the question whether something in a folder may match.
    parts: Vec<String>,
    /// `!`: what matches is kept.
    keeps: bool,
    /// Line in the file.
    line: usize,
}

impl Ignore {
    /// Parses an ignore file; `name` is how errors call it.
    pub(crate) fn parse(name: &str, bytes: &[u8]) -> Result<Ignore> {
        let fail = |line: usize, text: &str, message: String| Error::Dockerfile {
            place: Box::new(Place {
                file: name.into(),
                line,
                text: vec![text.chars().take(160).filter(|c| !c.is_control()).collect()],
            }),
            message,
            hint: None,
        };
        if bytes.len() as u64 > MAX_BYTES {
            return Err(fail(1, "", format!("the file is larger than {MAX_BYTES} bytes")));
        }
        let text = String::from_utf8_lossy(bytes);
        let mut rules = Vec::new();
        for (at, text) in text.strip_prefix('\u{feff}').unwrap_or(&text).lines().enumerate() {
            if text.starts_with('#') || text.trim().is_empty() {
                continue;
            }
            let (keeps, pattern) = match text.trim().strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, text.trim()),
            };
            if pattern.is_empty() {
                return Err(fail(at + 1, text, "there is a ! without a pattern".into()));
            }
            let clean = clean(pattern);
            if clean.is_empty() {
                // The context itself cannot be left out.
                continue;
            }
            rules.push(Rule {
                pattern: Pattern::parse(&clean, Flavour::Ignore).map_err(|why| fail(at + 1, text, why))?,
                parts: clean.split('/').map(str::to_owned).collect(),
                keeps,
                line: at + 1,
            });
            if rules.len() > MAX_PATTERNS {
                return Err(fail(at + 1, text, format!("the file has more than {MAX_PATTERNS} patterns")));
            }
        }
        Ok(Ignore { rules })
    }

    /// Patterns that stand in an instruction (`--exclude`).
    pub(crate) fn of_patterns<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Ignore, String> {
        let mut rules = Vec::new();
        for (at, text) in patterns.into_iter().enumerate() {
            let clean = clean(text);
            let pattern = Pattern::parse(&clean, Flavour::Ignore)?;
            let parts = clean.split('/').map(str::to_owned).collect();
            rules.push(Rule { pattern, parts, keeps: false, line: at + 1 });
        }
        Ok(Ignore { rules })
    }

    /// The line that leaves out `path`, relative to the context, if one does. The last rule that matches the path or
    /// a folder above it decides.
    pub(crate) fn line(&self, path: &Path) -> Option<usize> {
        let path = path.to_string_lossy();
        let above = path.match_indices('/').map(|(at, _)| &path[..at]);
        let ways: Vec<&str> = above.chain([&*path]).collect();
        let mut ignored = None;
        for rule in &self.rules {
            // Only a rule that would change the verdict needs to be looked at.
            if rule.keeps == ignored.is_some() && ways.iter().any(|p| rule.pattern.matches(p)) {
                ignored = (!rule.keeps).then_some(rule.line);
            }
        }
        ignored
    }

    /// Whether a rule with `!` may keep something inside of this ignored folder.
    pub(crate) fn keeps_within(&self, folder: &Path) -> bool {
        let folder = folder.to_string_lossy();
        self.rules.iter().filter(|r| r.keeps).any(|rule| {
            for (part, name) in rule.parts.iter().zip(folder.split('/')) {
                if part.contains("**") {
                    return true;
                }
                if !Pattern::parse(part, Flavour::Name).is_ok_and(|p| p.matches(name)) {
                    return false;
                }
            }
            rule.parts.len() > folder.split('/').count()
        })
    }
}

/// A path without leading slash, `.`, empty parts and, where possible, `..`.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|p| *p != "..") => {
                parts.pop();
            }
            // Beyond the context is the context, when the path is absolute.
            ".." if pattern.starts_with('/') => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignored(file: &str, path: &str) -> bool {
        Ignore::parse(".dockerignore", file.as_bytes()).unwrap().line(Path::new(path)).is_some()
    }

    #[test]
    fn the_examples_of_dockers_documentation_hold() {
        let first = "# comment\n*/temp*\n*/*/temp*\ntemp?\n";
        let except = "*.md\n!README.md\n";
        let all_but = "*.md\n!README*.md\nREADME-secret.md\n";
        let useless = "*.md\nREADME-secret.md\n!README*.md\n";
        for (file, path, expected) in [
            (first, "somedir/temporary.txt", true),
            (first, "somedir/temp", true),
            (first, "somedir/temp/inside", true),
            (first, "somedir/subdir/temporary.txt", true),
            (first, "tempa", true),
            (first, "tempb", true),
            (first, "temp", false),
            (first, "a/b/c/temp", false),
            (first, "# comment", false),
            ("**/*.go", "a.go", true),
            ("**/*.go", "x/y/z.go", true),
            (except, "README.md", false),
            (except, "other.md", true),
            (except, "docs/other.md", false),
            (all_but, "README-secret.md", true),
            (all_but, "README.md", false),
            (useless, "README-secret.md", false),
            ("/foo/bar", "foo/bar", true),
            ("foo/bar", "foo/bar", true),
            ("foo/bar/", "foo/bar/baz", true),
            ("*\n!src\n", "src/main.rs", false),
            ("*\n!src\nsrc/secret\n", "src/secret", true),
            ("*\n!src\n", "other", true),
            ("**\n!a/b\n", "a/b", false),
            ("**\n!a/b\n", "a/c", true),
            ("  spaced  ", "spaced", true),
            ("./x/../y", "y", true),
            ("node_modules", "node_modules/a/b", true),
            ("node_modules", "web/node_modules/a", false),
            ("**/node_modules", "web/node_modules/a", true),
            ("a[b-d]", "ac", true),
            ("\\!x", "!x", true),
            (".", "a", false),
            ("\u{feff}a", "a", true),
            ("a\r\nb\r\n", "a", true),
        ] {
            assert_eq!(ignored(file, path), expected, "{file:?} {path}");
        }
    }

    #[test]
    fn an_ignored_folder_is_entered_only_for_exceptions_within() {
        let ignore = |text: &str| Ignore::parse(".dockerignore", text.as_bytes()).unwrap();
        assert!(ignore("*\n!src/main").keeps_within(Path::new("src")));
        assert!(!ignore("*\n!src/main").keeps_within(Path::new("node_modules")));
        assert!(ignore("*\n!**/x").keeps_within(Path::new("node_modules")));
        assert!(ignore("*\n!a/*/c").keeps_within(Path::new("a/b")));
        assert!(!ignore("a\n").keeps_within(Path::new("a")));
    }

    #[test]
    fn errors_name_the_line() {
        let error = Ignore::parse(".dockerignore", b"a\n!\n").unwrap_err().to_string();
        assert!(error.starts_with(".dockerignore:2: there is a ! without a pattern"), "{error}");
        let error = Ignore::parse(".dockerignore", b"[a\n").unwrap_err().to_string();
        assert!(error.starts_with(".dockerignore:1: "), "{error}");
        let many = "x\n".repeat(MAX_PATTERNS + 1);
        assert!(
            Ignore::parse(".dockerignore", many.as_bytes()).unwrap_err().to_string().contains("more than")
        );
        assert_eq!(ignore_line("a\n\n*.log", "x.log"), Some(3));
    }

    fn ignore_line(file: &str, path: &str) -> Option<usize> {
        Ignore::parse(".dockerignore", file.as_bytes()).unwrap().line(Path::new(path))
    }

    proptest::proptest! {
        #[test]
        fn no_file_makes_it_panic(text in "([a-c]|!|\\*|\\?|/|\\[|\\]|\\\\|\\.|\n|\\PC){0,30}", path in "[a-c/.]{0,10}") {
            if let Ok(ignore) = Ignore::parse("x", text.as_bytes()) {
                let _ = (ignore.line(Path::new(&path)), ignore.keeps_within(Path::new(&path)));
            }
        }
    }
}
