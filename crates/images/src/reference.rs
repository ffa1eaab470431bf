//! Names of images: `busybox` is `docker.io/library/busybox:latest` (grammar of distribution/reference).

use std::fmt;

use crate::{Digest, Error, Result};

/// A normalised image name with a tag, a digest, or both.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses and normalises; a name without tag and digest gets the tag `latest`.
    ///
    /// # Errors
    /// [`Error::InvalidReference`] with the rule that is broken.
    pub fn parse(text: &str) -> Result<Reference> {
        let fail = |why| Error::InvalidReference { reference: text.to_owned(), why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (
                rest,
                Some(
                    Digest::parse(digest)
                        .map_err(|_| fail("after @ stands sha256: and 64 hexadecimal digits"))?,
                ),
            ),
            None => (text, None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        if name.is_empty() {
            return Err(fail("it has no name"));
        }
        if tag.is_some_and(|t| !valid_tag(t)) {
            return Err(fail(
                "a tag is up to 128 letters, digits, `_`, `.` and `-`, and does not begin with `.` or `-`",
            ));
        }
        let (domain, path) = match name.split_once('/') {
            Some((first, rest))
                if first.contains(['.', ':'])
                    || first == "localhost"
                    || first.bytes().any(|b| b.is_ascii_uppercase()) =>
            {
                (first, rest.to_owned())
            }
            _ => ("docker.io", name.to_owned()),
        };
        if !valid_domain(domain) {
            return Err(fail("the registry is a host name or address with an optional port"));
        }
        let domain = if domain == "index.docker.io" { "docker.io" } else { domain };
        let path =
            if domain == "docker.io" && !path.contains('/') { format!("library/{path}") } else { path };
        if domain.len() + 1 + path.len() > 255 {
            return Err(fail("the name is longer than 255 characters"));
        }
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(fail("the repository must be lower case"));
        }
        if !path.split('/').all(valid_component) {
            return Err(fail(
                "parts of the repository are lower-case letters and digits, separated by one `.`, one or two `_`, or any number of `-`",
            ));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some("latest".to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Reference { domain: domain.to_owned(), path, tag, digest })
    }

    /// The registry's name: `docker.io`, `localhost:5000`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry: `library/busybox`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `docker.io/library/busybox`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The tag, if any.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if any. It wins over the tag.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The name under which the store keeps it: with the digest if there is one, else with the tag.
    pub fn canonical(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => self.with_digest(digest),
            (None, tag) => format!("{}/{}:{}", self.domain, self.path, tag.as_deref().unwrap_or("latest")),
        }
    }

    /// The same repository with this digest.
    pub fn with_digest(&self, digest: &Digest) -> String {
        format!("{}/{}@{digest}", self.domain, self.path)
    }

    /// What stands after the repository in a request for the manifest.
    pub(crate) fn target(&self) -> &str {
        match &self.digest {
            Some(digest) => digest.as_str(),
            None => self.tag.as_deref().unwrap_or("latest"),
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

fn valid_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

fn valid_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((v6, "")) => (v6, None),
            Some((v6, port)) => match port.strip_prefix(':') {
                Some(port) => (v6, Some(port)),
                None => return false,
            },
            None => return false,
        },
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let host_ok = if domain.starts_with('[') {
        host.parse::<std::net::Ipv6Addr>().is_ok()
    } else {
        host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
    };
    host_ok
        && port.is_none_or(|p| {
            !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u16>().is_ok()
        })
}

fn valid_component(component: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alnum(first) || !alnum(last) {
        return false;
    }
    // Runs of separators: `.`, `_`, `__`, or dashes.
    component
        .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        .all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_mean_docker_hub() {
        for (given, wanted) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("bitnami/redis", "docker.io/bitnami/redis:latest"),
            ("index.docker.io/library/x", "docker.io/library/x:latest"),
            ("localhost/x", "localhost/x:latest"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("registry.k8s.io/e2e-test-images/agnhost:2.45", "registry.k8s.io/e2e-test-images/agnhost:2.45"),
            ("a__b/c-----d.e", "docker.io/a__b/c-----d.e:latest"),
        ] {
            assert_eq!(Reference::parse(given).unwrap().to_string(), wanted);
        }
    }

    #[test]
    fn a_digest_wins_over_a_tag() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let reference = Reference::parse(&format!("busybox:1@{digest}")).unwrap();
        assert_eq!(reference.to_string(), format!("docker.io/library/busybox@{digest}"));
        assert_eq!(reference.tag(), Some("1"));
    }

    #[test]
    fn names_outside_the_grammar_are_refused() {
        for bad in [
            "",
            ":x",
            "Busybox",
            "a//b",
            "a/../b",
            "a b",
            "busybox:",
            "busybox:-x",
            "busybox@sha256:12",
            "a___b",
            "-a",
            "a.",
            "host:99999/a",
            "ho_st.x/a",
            "[::g]/a",
            "a\0b",
            "../../etc/passwd",
            "busybox@md5:abc",
        ] {
            assert!(matches!(Reference::parse(bad), Err(Error::InvalidReference { .. })), "{bad}");
        }
    }
}
