//! What RUN steps see of the machine while they run, and what no layer keeps.

use std::path::{Path, PathBuf};

/// The machine's network settings and certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// `/etc/resolv.conf`
    pub resolver: Option<PathBuf>,
    /// `/etc/hosts`
    pub hosts: Option<PathBuf>,
    /// The bundle of certificate authorities, PEM.
    pub certificates: Option<PathBuf>,
    /// Java's store of them.
    pub java_certificates: Option<PathBuf>,
    /// `http_proxy` and its like.
    pub proxies: Vec<(String, String)>,
}

/// Names of proxy variables, which every step sees and no cache key or history holds.
pub(crate) const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Where distributions keep the bundle.
pub(crate) const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/ssl/cert.pem",
];
/// Where Debian keeps Java's store; its JDKs link there.
pub(crate) const JAVA_STORE: &str = "/etc/ssl/certs/java/cacerts";

/// Variables by which programs find a bundle.
pub(crate) const BUNDLE_VARIABLES: [&str; 6] = [
    "SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
];

impl Host {
    /// This machine, with this environment (name, value).
    pub fn read(environment: impl IntoIterator<Item = (String, String)>) -> Host {
        let there = |path: &str| Some(PathBuf::from(path)).filter(|p| p.is_file());
        let environment: Vec<_> = environment.into_iter().collect();
        let named = environment.iter().find(|(name, _)| name == "SSL_CERT_FILE").and_then(|(_, v)| there(v));
        Host {
            resolver: there("/etc/resolv.conf"),
            hosts: there("/etc/hosts"),
            certificates: named.or_else(|| BUNDLES.into_iter().find_map(there)),
            java_certificates: there(JAVA_STORE),
            proxies: environment.into_iter().filter(|(name, _)| is_proxy(name)).collect(),
        }
    }

    /// A machine that shows nothing.
    pub fn none() -> Host {
        Host::default()
    }
}

pub(crate) fn is_proxy(name: &str) -> bool {
    PROXIES.contains(&name)
}

/// A secret for RUN steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret {
    /// Its name.
    pub id: String,
    /// Where its value is.
    pub source: SecretSource,
}

/// Where a secret's value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file.
    File(PathBuf),
    /// In an environment variable of the builder.
    Env(String),
}

/// Largest secret, in bytes.
const MAX_SECRET: u64 = 500 * 1024;

impl Secret {
    /// Parses `id=NAME,src=FILE` and `id=NAME,env=VARIABLE`; with the id alone, the variable or else the file of that
    /// name.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Secret, String> {
        let (mut id, mut source) = (None, None);
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("id", value)) => id = Some(value.to_owned()),
                Some(("src" | "source", value)) => source = Some(SecretSource::File(value.into())),
                Some(("env", value)) => source = Some(SecretSource::Env(value.to_owned())),
                Some(("type", "file" | "env")) => {}
                _ => return Err(format!("\"{field}\" is not id=NAME, src=FILE or env=VARIABLE")),
            }
        }
        let id = id.filter(|id| !id.is_empty()).ok_or("a secret needs an id: id=NAME,src=FILE")?;
        let source = source.unwrap_or_else(|| match std::env::var_os(&id) {
            Some(_) => SecretSource::Env(id.clone()),
            None => SecretSource::File(PathBuf::from(&id)),
        });
        Ok(Secret { id, source })
    }

    pub(crate) fn value(&self) -> Result<Vec<u8>, String> {
        match &self.source {
            SecretSource::Env(name) => {
                let value =
                    std::env::var_os(name).ok_or_else(|| format!("the variable {name} is not set"))?;
                Ok(std::os::unix::ffi::OsStringExt::into_vec(value))
            }
            SecretSource::File(path) => read_limited(path, MAX_SECRET),
        }
    }
}

fn read_limited(path: &Path, most: u64) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(most + 1).read_to_end(&mut bytes))
        .map_err(|e| format!("{}: {e}", path.display()))?;
    match bytes.len() as u64 > most {
        true => Err(format!("{} is larger than {most} bytes", path.display())),
        false => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_parsed_as_docker_writes_them() {
        let secret = |id: &str, source| Ok(Secret { id: id.into(), source });
        assert_eq!(Secret::parse("id=a,src=/x"), secret("a", SecretSource::File("/x".into())));
        assert_eq!(Secret::parse("type=env,id=a,env=B"), secret("a", SecretSource::Env("B".into())));
        assert_eq!(
            Secret::parse("id=no-such-variable"),
            secret("no-such-variable", SecretSource::File("no-such-variable".into()))
        );
        assert!(Secret::parse("src=/x").unwrap_err().contains("needs an id"));
        assert!(Secret::parse("a").unwrap_err().contains("is not id=NAME"));
    }
}
