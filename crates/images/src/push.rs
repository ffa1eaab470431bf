//! Pushing: the blobs a registry lacks, then the manifest.

use bytes::Bytes;
use futures::TryStreamExt;
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, LOCATION, RANGE},
};

use crate::{
    Credentials, Digest, Error, Event, Images, Progress, Reference, Result,
    manifest::{self, Descriptor, Document},
    registry::{Body, Request, Session},
    store::find,
};

/// Blobs up to this size go in one request, larger ones in chunks of it, so that a broken upload can be taken up.
const CHUNK: u64 = 32 * 1024 * 1024;
/// Times an upload may fall back to asking the registry how far it is.
const RESUMES: u32 = 5;

impl Images {
    /// Sends an image to a registry under the name `target`; gives the digest of its manifest.
    ///
    /// # Errors
    /// Each names the registry and the next step; see [`Error`].
    pub async fn push(
        &self,
        name: &str,
        target: &str,
        credentials: Option<&Credentials>,
        progress: &dyn Progress,
    ) -> Result<Digest> {
        let target = Reference::parse(target)?;
        let lease = self.lease(name)?;
        let index = self.store.index.read()?;
        let id = find(&index, name)?;
        let record = &index.images[&id];
        let bytes = self.store.blobs.document(&record.manifest)?;
        let Document::Manifest(manifest) = manifest::parse(&bytes, None, name)? else {
            return Err(Error::invalid(name, "the store names an index as its manifest"));
        };
        if let Some(wanted) = target.digest()
            && wanted != &record.manifest
        {
            return Err(Error::DigestMismatch {
                what: name.to_owned(),
                expected: wanted.to_string(),
                actual: record.manifest.to_string(),
            });
        }
        let mut sessions = self.store.client.sessions(&target, credentials, true)?;
        let Some(mut session) = sessions.pop() else { return Err(Error::NotFound(target.to_string())) };
        // Repositories of the same registry that have these layers too: it can link them instead of receiving them.
        let others: Vec<(String, Vec<Digest>)> = index
            .names
            .iter()
            .filter_map(|(n, i)| Some((Reference::parse(n).ok()?, index.images.get(i)?)))
            .filter(|(r, _)| r.domain() == target.domain() && r.path() != target.path())
            .map(|(r, image)| (r.path().to_owned(), image.blobs.clone()))
            .collect();
        let from = |blob: &Digest| {
            others.iter().find(|(_, blobs)| blobs.contains(blob)).map(|(path, _)| path.as_str())
        };
        session.scopes.extend(
            manifest.layers.iter().filter_map(|l| from(&l.digest)).map(|p| format!("repository:{p}:pull")),
        );
        session.scopes.sort_unstable();
        session.scopes.dedup();
        progress.event(Event::Resolved {
            manifest: record.manifest.clone(),
            layers: manifest.layers.iter().map(|l| (l.digest.clone(), l.size)).collect(),
        });
        let mut blobs = manifest.layers.clone();
        blobs.push(manifest.config.clone());
        blobs.sort_by(|a, b| a.digest.cmp(&b.digest));
        blobs.dedup_by(|a, b| a.digest == b.digest);
        futures::stream::iter(blobs.iter().map(Ok))
            .try_for_each_concurrent(self.store.options.parallel.max(1), |blob| {
                self.send_blob(&session, blob, from(&blob.digest), progress)
            })
            .await?;
        let media_type: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let media_type = media_type["mediaType"].as_str().unwrap_or(manifest::OCI_MANIFEST).to_owned();
        let reference = target.digest().map_or(target.tag().unwrap_or("latest"), Digest::as_str);
        let mut request = Request::new(Method::PUT, session.url(&format!("manifests/{reference}"))?);
        request.headers.insert(CONTENT_TYPE, header(&session, &media_type)?);
        request.body = Body::Bytes(Bytes::from(bytes));
        let response = session.send(request).await?;
        if !response.status().is_success() {
            let why = session.words(response).await;
            return Err(session.fail(format!("it refuses the manifest: {why}")));
        }
        drop(lease);
        Ok(record.manifest.clone())
    }

    async fn send_blob(
        &self,
        session: &Session<'_>,
        blob: &Descriptor,
        from: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let response =
            session.send(Request::new(Method::HEAD, session.url(&format!("blobs/{}", blob.digest))?)).await?;
        if response.status().is_success() {
            progress.event(Event::Present(blob.digest.clone()));
            return Ok(());
        }
        let mut start = session.url("blobs/uploads/")?;
        if let Some(from) = from {
            start.query_pairs_mut().append_pair("mount", blob.digest.as_str()).append_pair("from", from);
        }
        let response = session.send(Request::new(Method::POST, start)).await?;
        match response.status() {
            StatusCode::CREATED => {
                progress.event(Event::Present(blob.digest.clone()));
                return Ok(());
            }
            StatusCode::ACCEPTED => {}
            _ => {
                let why = session.words(response).await;
                return Err(session.fail(format!("it refuses an upload to {}: {why}", session.path)));
            }
        }
        let minimum = number(&response, "oci-chunk-min-length").unwrap_or(0);
        let mut location = location(session, &response)?;
        let path = self.store.blobs.path(&blob.digest);
        let (mut done, mut resumes) = (0, 0);
        let chunk = CHUNK.max(minimum);
        while blob.size > chunk && done < blob.size {
            let length = chunk.min(blob.size - done);
            let mut request = Request::new(Method::PATCH, location.clone());
            request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
            request.headers.insert(CONTENT_RANGE, header(session, &format!("{done}-{}", done + length - 1))?);
            request.body = Body::File { path: path.clone(), from: done, length };
            match session.send(request).await {
                Ok(response) if response.status().is_success() => {
                    done = received(&response).unwrap_or(done + length).min(blob.size);
                    location = self::location(session, &response)?;
                    progress.event(Event::Bytes { blob: blob.digest.clone(), done, total: blob.size });
                }
                Ok(response) if response.status() != StatusCode::RANGE_NOT_SATISFIABLE => {
                    let why = session.words(response).await;
                    return Err(session.fail(format!("it refuses a chunk: {why}")));
                }
                // Out of step, after a broken request: ask how far it is.
                result => {
                    resumes += 1;
                    if resumes > RESUMES {
                        result?;
                        return Err(session.fail("the upload broke too often; try again later"));
                    }
                    let response = session.send(Request::new(Method::GET, location.clone())).await?;
                    done = received(&response).unwrap_or(0).min(blob.size);
                    if let Ok(next) = self::location(session, &response) {
                        location = next;
                    }
                }
            }
        }
        location.query_pairs_mut().append_pair("digest", blob.digest.as_str());
        let mut request = Request::new(Method::PUT, location);
        request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if done == blob.size {
            request.headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        } else {
            request.body = Body::File { path, from: 0, length: blob.size };
        }
        let response = session.send(request).await?;
        if !response.status().is_success() {
            let why = session.words(response).await;
            return Err(session.fail(format!("it refuses blob {}: {why}", blob.digest)));
        }
        progress.event(Event::Done(blob.digest.clone()));
        Ok(())
    }
}

fn header(session: &Session<'_>, value: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(value).map_err(|e| session.fail(e.to_string()))
}

fn location(session: &Session<'_>, response: &Response) -> Result<Url> {
    let location = response.headers().get(LOCATION).and_then(|l| session.base.join(l.to_str().ok()?).ok());
    location.ok_or_else(|| session.fail("an upload without a usable Location"))
}

fn number(response: &Response, name: &str) -> Option<u64> {
    response.headers().get(name)?.to_str().ok()?.parse().ok()
}

/// Bytes received so far, from `Range: 0-LAST`. An upload with nothing yet says `0-0` as well, or leaves it out.
fn received(response: &Response) -> Option<u64> {
    let last: u64 = response
        .headers()
        .get(RANGE)?
        .to_str()
        .ok()?
        .trim_start_matches("bytes=")
        .strip_prefix("0-")?
        .parse()
        .ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}
