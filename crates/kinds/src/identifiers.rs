//! What drivers, their devices and the pools of those go by.
//!
//! Source: `ValidateCSIDriverName` of `k8s.io/kubernetes/pkg/apis/core/validation`,
//! `k8s.io/kubernetes/pkg/apis/resource/validation`, `k8s.io/apimachinery/pkg/api/validate/strfmt.go`.

use apimachinery::{FieldError, FieldPath, names};

use crate::checks::Checks;

/// The longest name of a driver.
const LONGEST_DRIVER: usize = 63;
/// The longest name of a pool, slashes included.
const LONGEST_POOL: usize = 253;
/// The longest name of an attribute or a capacity, without its domain.
const LONGEST_ID: usize = 32;

impl Checks {
    /// A string over its limit in bytes.
    pub fn longest(&mut self, path: &FieldPath, value: &str, most: usize) {
        if value.len() > most {
            self.errors.push(FieldError::too_long(path, most));
        }
    }

    /// Whether a list is over its limit; its items are not looked at then.
    pub fn too_many(&mut self, path: &FieldPath, count: usize, most: usize) -> bool {
        if count > most {
            self.errors.push(FieldError::too_many(path, count, most));
        }
        count > most
    }

    /// The name of a driver, as written by hand: a subdomain in any case.
    pub fn driver_name(&mut self, path: &FieldPath, name: &str) {
        if name.is_empty() {
            return self.required(path, "");
        }
        self.longest(path, name, LONGEST_DRIVER);
        self.each(path, name, names::is_dns1123_subdomain(&name.to_lowercase()));
    }

    /// The same, as upstream's generated rules say it.
    pub fn driver_name_declared(&mut self, path: &FieldPath, name: &str) {
        if name.is_empty() {
            return self.required(path, "");
        }
        self.each(path, name, names::is_dns1123_subdomain_any_case(name));
        if name.chars().count() > LONGEST_DRIVER {
            self.errors.push(FieldError::too_long_characters(path, LONGEST_DRIVER));
        }
    }

    /// The name of a pool, as written by hand: subdomains divided by slashes.
    pub fn pool_name(&mut self, path: &FieldPath, name: &str) {
        if name.is_empty() {
            return self.required(path, "");
        }
        self.longest(path, name, LONGEST_POOL);
        name.split('/').for_each(|part| self.dns_subdomain(path, part));
    }

    /// The same, as upstream's generated rules say it.
    pub fn pool_name_declared(&mut self, path: &FieldPath, name: &str) {
        if name.is_empty() {
            return self.required(path, "");
        }
        self.longest(path, name, LONGEST_POOL);
        for (index, part) in name.split('/').enumerate() {
            if part.is_empty() {
                self.invalid(path, name, &format!("segment {index}: must not be empty"));
                continue;
            }
            for message in names::is_dns1123_subdomain(part) {
                self.invalid(path, part, &format!("segment {index}: {message}"));
            }
        }
    }

    /// The name of an attribute or a capacity: an identifier of C, in a domain or not. More slashes go unseen, as they
    /// do upstream.
    pub fn device_name(&mut self, path: &FieldPath, name: &str) {
        match name.split('/').collect::<Vec<_>>()[..] {
            [id] => self.identifier(path, id),
            [domain, id] => {
                if domain.is_empty() {
                    self.invalid(path, "", "the domain must not be empty");
                } else {
                    self.driver_name(path, domain);
                }
                if id.is_empty() {
                    self.invalid(path, "", "the name must not be empty");
                } else {
                    self.identifier(path, id);
                }
            }
            _ => {}
        }
    }

    /// An attribute with its domain, as upstream's generated rules say it.
    pub fn attribute_reference(&mut self, path: &FieldPath, name: &str) {
        match name.split('/').collect::<Vec<_>>()[..] {
            [id] => {
                self.identifier(path, id);
                let detail = "a fully qualified name must be a domain and a name separated by a slash";
                self.invalid(path, name, detail);
            }
            [domain, id] => {
                if domain.is_empty() {
                    self.invalid(path, "", "prefix must not be empty");
                } else {
                    self.longest(path, domain, LONGEST_DRIVER);
                    for message in names::is_dns1123_subdomain(domain) {
                        self.invalid(path, domain, &format!("prefix: {message}"));
                    }
                }
                if id.is_empty() {
                    self.invalid(path, "", "name must not be empty");
                } else {
                    self.identifier(path, id);
                }
            }
            _ => {}
        }
    }

    fn identifier(&mut self, path: &FieldPath, id: &str) {
        self.longest(path, id, LONGEST_ID);
        let letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
        let fine = id.as_bytes().first().is_some_and(letter)
            && id.bytes().all(|byte| letter(&byte) || byte.is_ascii_digit());
        if !fine {
            let words = "a valid C identifier must start with alphabetic character or '_', followed by a string of \
                         alphanumeric characters or '_'";
            let pattern = "[A-Za-z_][A-Za-z0-9_]*";
            self.invalid(path, id, &names::pattern_words(words, pattern, &["my_name", "MY_NAME", "MyName"]));
        }
    }

    /// A UUID of RFC 4122 in lower case.
    pub fn uuid(&mut self, path: &FieldPath, value: &str) {
        let fine = value.len() == 36
            && value.bytes().enumerate().all(|(index, byte)| match index {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            });
        if !fine {
            self.invalid(path, value, "must be a lowercase UUID in 8-4-4-4-12 format");
        }
    }
}
