//! Files that ADD fetches by HTTP.

use std::{
    fs::File,
    io::Write,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use images::WorkDir;
use reqwest::{Client, header::LAST_MODIFIED, redirect::Policy};
use sha2::{Digest, Sha256};
use url::Url;

use crate::{Error, Result, error::IoContext, stage::Here};

/// Largest file, in bytes.
const MAX_BYTES: u64 = 16 << 30;
const MAX_REDIRECTS: usize = 10;

/// A fetched file; gone when this is dropped.
pub(super) struct Fetched {
    pub(super) path: PathBuf,
    /// sha256 in hexadecimal digits.
    pub(super) digest: String,
    /// `Last-Modified`, seconds since 1970.
    pub(super) modified: Option<i64>,
    _work: WorkDir,
}

/// The file name in an address.
pub(super) fn name(url: &Url) -> Option<String> {
    let name = url.path_segments()?.next_back()?.to_owned();
    (!name.is_empty() && name != "." && name != "..").then_some(name)
}

/// `sha256:` and 64 digits, as digits.
pub(super) fn checksum(text: &str) -> Option<String> {
    images::Digest::parse(text).ok().map(|d| d.hex().to_owned())
}

impl Here<'_> {
    /// Fetches a file, and makes sure that it has the digest `wanted`.
    pub(super) fn fetch(&self, url: &Url, wanted: Option<&str>) -> Result<Fetched> {
        let session = self.session;
        let fetched = session.handle.block_on(async {
            tokio::select! {
                fetched = self.fetch_now(url) => fetched,
                () = session.cancel.cancelled() => Err(Error::Cancelled),
            }
        })?;
        match wanted {
            Some(wanted) if wanted != fetched.digest => Err(self.fail(
                format!("{url} has the sha256 {}, and --checksum wants {wanted}", fetched.digest),
                Some("It was altered, or the checksum is of another version.".into()),
            )),
            _ => Ok(fetched),
        }
    }

    async fn fetch_now(&self, url: &Url) -> Result<Fetched> {
        let fail = |e: reqwest::Error| {
            let e = e.without_url();
            let causes = std::iter::successors(std::error::Error::source(&e), |cause| cause.source());
            let causes: String = causes.map(|cause| format!(": {cause}")).collect();
            self.fail(format!("fetching {url}: {e}{causes}"), None)
        };
        let client = client().map_err(|why| self.fail(why, None))?;
        let mut response = client.get(url.clone()).send().await.map_err(fail)?;
        if !response.status().is_success() {
            return Err(self.fail(format!("{url} answers {}", response.status()), None));
        }
        let modified = response.headers().get(LAST_MODIFIED).and_then(|v| v.to_str().ok());
        let modified = modified.and_then(|text| chrono::DateTime::parse_from_rfc2822(text).ok());
        let work = self.session.images.work_dir()?;
        let path = work.path().join("fetched");
        let mut file = File::create(&path).at("creating", &path)?;
        let (mut hasher, mut size) = (Sha256::new(), 0);
        while let Some(chunk) = response.chunk().await.map_err(fail)? {
            size += chunk.len() as u64;
            if size > MAX_BYTES {
                return Err(self.fail(format!("{url} is larger than {MAX_BYTES} bytes"), None));
            }
            hasher.update(&chunk);
            file.write_all(&chunk).at("writing", &path)?;
        }
        let digest = hex::encode(hasher.finalize());
        Ok(Fetched { path, digest, modified: modified.map(|t| t.timestamp()), _work: work })
    }
}

fn client() -> Result<Client, String> {
    static CLIENT: OnceLock<Result<Client, String>> = OnceLock::new();
    CLIENT.get_or_init(make_client).clone()
}

fn make_client() -> Result<Client, String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let redirects = Policy::custom(|attempt| {
        let was_safe = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
        if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("it is redirected too often")
        } else if was_safe && attempt.url().scheme() != "https" {
            attempt.error("it is redirected from https to http")
        } else {
            attempt.follow()
        }
    });
    Client::builder()
        .user_agent(concat!("plimsoll/", env!("CARGO_PKG_VERSION")))
        .redirect(redirects)
        .connect_timeout(Duration::from_secs(15))
        .read_timeout(Duration::from_secs(60))
        .use_preconfigured_tls(tls)
        .build()
        .map_err(|e| format!("the HTTP client cannot be made: {e}"))
}
