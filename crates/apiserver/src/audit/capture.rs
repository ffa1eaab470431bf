//! The object of an answer, read back from its body: answers are written as they are sent, and stored objects are not even
//! decoded for that.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use http::HeaderValue;
use serde_json::Value;

use super::trail::Trail;
use crate::{
    body::{BoxError, MAX_BODY},
    negotiate::PROTOBUF,
};

/// A larger answer is not told: as much as a request may be. Upstream has no limit but `--audit-log-truncate-enabled`,
/// whose mark on the event this has too.
const MOST: usize = MAX_BODY;

/// Tells an answer that is there as a whole.
pub(super) fn told(trail: &Trail, content_type: &HeaderValue, body: &[u8]) {
    if body.len() > MOST {
        return trail.truncated();
    }
    if let Some(object) = read(content_type, body) {
        trail.shown(object);
    }
}

/// The document in a body; `None` if it is none.
fn read(content_type: &HeaderValue, body: &[u8]) -> Option<Value> {
    let kind = content_type.to_str().ok()?.split(';').next()?.trim();
    let value: Value = match kind {
        "application/json" => serde_json::from_slice(body).ok()?,
        "application/yaml" => serde_yaml_ng::from_slice(body).ok()?,
        PROTOBUF => kinds::protobuf::decode(body).ok()?,
        _ => return None,
    };
    value.get("kind").is_some_and(Value::is_string).then_some(value)
}

/// An answer's body with the trail that it is part of.
pub(super) struct Followed {
    stream: Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>,
    trail: Arc<Trail>,
    /// What has passed, if it is to be told.
    kept: Option<(HeaderValue, BytesMut)>,
}

impl Followed {
    pub fn new(
        stream: Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>,
        trail: Arc<Trail>,
        kept: Option<HeaderValue>,
    ) -> Self {
        Self { stream, trail, kept: kept.map(|kind| (kind, BytesMut::new())) }
    }
}

impl Stream for Followed {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.stream.as_mut().poll_next(cx);
        match &polled {
            Poll::Ready(Some(Ok(piece))) => {
                let full = self.kept.as_mut().is_some_and(|(_, bytes)| {
                    bytes.extend_from_slice(piece);
                    bytes.len() > MOST
                });
                if full {
                    self.kept = None;
                    self.trail.truncated();
                }
            }
            Poll::Ready(None) => {
                if let Some((kind, bytes)) = self.kept.take() {
                    told(&self.trail, &kind, &bytes);
                }
            }
            Poll::Ready(Some(Err(_))) => self.kept = None,
            Poll::Pending => {}
        }
        polled
    }
}
