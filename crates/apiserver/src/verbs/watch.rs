//! WATCH: the one way changes are streamed, for every kind and form.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use apimachinery::ApiError;
use bytes::{BufMut, Bytes, BytesMut};
use futures::FutureExt as _;
use kinds::protobuf::encode_watch_event;
use rand::Rng as _;
use serde_json::{Value, json};
use store::{Event, Revision, Store, Watch, WatchItem};
use tokio::time::Instant;

use crate::{
    Response,
    body::Body,
    catalogue::{Served, View, Watching},
    encoding,
    negotiate::{Form, Media, Offer, Transform},
    options::List,
    respond,
    selection::Selection,
    server::{Call, Inner},
    table,
};

/// How often a quiet watch that asked for bookmarks gets one.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A last bookmark comes so long before the watch ends by its timeout.
const BOOKMARK_BEFORE_END: Duration = Duration::from_secs(2);

/// WATCH. What goes wrong after the request was understood is told in the stream, as an ERROR event.
pub(crate) async fn watch(
    inner: &Arc<Inner>,
    call: &Call,
    served: &Arc<Served>,
) -> Result<Response, ApiError> {
    let media = call.media(Offer::Watch)?;
    let options = List::parse(&call.query, true)?;
    let include = table::Include::parse(call.query.text("includeObject"))?;
    let timeout =
        options.timeout.unwrap_or_else(|| Duration::from_secs(rand::rng().random_range(1800..3600)));
    let begin = Begin {
        since: options.since,
        initial: options.initial_events,
        mark: options.mark_initial_events && options.bookmarks,
        namespace: call.info.namespace.clone(),
        name: call.info.named_by_path.then(|| call.info.name.clone()),
    };
    let format = Format { served: served.clone(), media, include, defined: false };
    let bookmarks = options.bookmarks;
    let selection = Selection::new(options.labels, options.fields, &served.resource)?;
    let converts = matches!(&served.view, View::Custom { versions, .. } if versions.converter.is_some());
    let end = Instant::now() + timeout;
    let state = Stream {
        store: inner.config.store.clone(),
        _counted: Watching::new(served.clone()),
        converts: converts.then(|| inner.clone()),
        format,
        selection,
        only: None,
        watch: None,
        begin: Some(begin),
        ready: VecDeque::new(),
        done: false,
        end,
        bookmark: bookmarks
            .then(|| (Instant::now() + BOOKMARK_EVERY).min(end - BOOKMARK_BEFORE_END.min(timeout))),
    };
    let stream = futures::stream::unfold(state, |mut state| async move {
        let piece = state.next().await?;
        Some((piece, state))
    });
    let content_type = match media.form {
        Form::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        Form::Json | Form::Yaml => "application/json",
    };
    Ok(respond::plain(200, content_type, Body::chunks(stream)))
}

struct Begin {
    since: Option<Revision>,
    initial: bool,
    mark: bool,
    namespace: String,
    name: Option<String>,
}

struct Stream {
    store: Arc<dyn Store>,
    _counted: Watching,
    /// Who converts what is stored in another version, if that needs anybody.
    converts: Option<Arc<Inner>>,
    format: Format,
    selection: Selection,
    /// A watch of one object sees only this key.
    only: Option<String>,
    watch: Option<Box<dyn Watch>>,
    begin: Option<Begin>,
    ready: VecDeque<Bytes>,
    done: bool,
    end: Instant,
    bookmark: Option<Instant>,
}

impl Stream {
    /// The next piece of the stream; `None` at its end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(begin) = self.begin.take()
            && let Err(error) = self.open(begin).await
        {
            self.done = true;
            return Some(self.format.error(&error));
        }
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Some(piece);
            }
            if self.done {
                return None;
            }
            let mut told = Vec::new();
            let watch = self.watch.as_mut()?;
            let wake = self.bookmark.unwrap_or(self.end).min(self.end);
            tokio::select! {
                item = watch.next() => match item {
                    Ok(WatchItem::Events(events)) => told.push(events),
                    Ok(WatchItem::Progress(revision)) => self.ready.extend(self.format.bookmark(revision, false)),
                    Err(error) => {
                        self.done = true;
                        return Some(self.format.error(&super::read_error(error)));
                    }
                },
                () = self.format.served.retired.cancelled() => {
                    // What has happened before is still told.
                    while let Some(Ok(WatchItem::Events(events))) = watch.next().now_or_never() {
                        told.push(events);
                    }
                    self.done = true;
                }
                () = tokio::time::sleep_until(wake) => {
                    if Instant::now() >= self.end {
                        return None;
                    }
                    let revision = watch.progress();
                    self.bookmark = Some(if wake + BOOKMARK_EVERY > self.end - BOOKMARK_BEFORE_END
                        && wake < self.end - BOOKMARK_BEFORE_END
                    {
                        self.end - BOOKMARK_BEFORE_END
                    } else {
                        wake + BOOKMARK_EVERY
                    });
                    self.ready.extend(self.format.bookmark(revision, false));
                }
            }
            for events in told {
                self.tell(&events).await;
            }
        }
    }

    async fn open(&mut self, begin: Begin) -> Result<(), ApiError> {
        let served = self.format.served.clone();
        let name = begin.name.or_else(|| self.selection.name());
        let range = match name {
            Some(name) if !served.resource.namespaced || !begin.namespace.is_empty() => {
                let key = served.key(&begin.namespace, &name);
                self.only = Some(key.clone());
                key
            }
            _ => served.range(&begin.namespace),
        };
        if let Some(since) = begin.since {
            // A revision of the future is waited for, as long as the watch lasts.
            let _ = tokio::time::timeout_at(self.end, self.store.reached(since)).await;
        }
        let from = if begin.initial {
            let mut page = self.store.list(&range, None, 0, None).map_err(super::read_error)?;
            if let Some(inner) = &self.converts {
                page.entries.retain(|entry| self.wanted(&entry.key));
                page.entries = inner.view(&served, page.entries).await?;
            }
            let mut out = BytesMut::new();
            for entry in &page.entries {
                if self.wanted(&entry.key) && self.selection.matches(&served, entry) {
                    self.format.put(&mut out, "ADDED", &served.wire(entry)?)?;
                }
            }
            if !out.is_empty() {
                self.ready.push_back(out.freeze());
            }
            if begin.mark {
                self.ready.extend(self.format.bookmark(page.revision, true));
            }
            page.revision
        } else {
            begin.since.unwrap_or_else(|| self.store.revision())
        };
        self.watch = Some(self.store.watch(&range, from).map_err(super::read_error)?);
        Ok(())
    }

    fn wanted(&self, key: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == key)
    }

    /// Makes the events of one commit ready, at the version of this watch.
    async fn tell(&mut self, events: &[Event]) {
        let Some(inner) = self.converts.clone() else { return self.events(events) };
        let served = self.format.served.clone();
        let wanted: Vec<Event> = events.iter().filter(|e| self.wanted(&e.entry.key)).cloned().collect();
        match inner.view_events(&served, &wanted).await {
            Ok(events) => self.events(&events),
            Err(error) => {
                self.ready.push_back(self.format.error(&error));
                self.done = true;
            }
        }
    }

    fn events(&mut self, events: &[Event]) {
        let mut out = BytesMut::new();
        for event in events {
            if !self.wanted(&event.entry.key) {
                continue;
            }
            if let Err(error) = self.event(&mut out, event) {
                self.ready.push_back(out.freeze());
                self.ready.push_back(self.format.error(&error));
                self.done = true;
                return;
            }
        }
        if !out.is_empty() {
            self.ready.push_back(out.freeze());
        }
    }

    /// What one change is to this watcher: entering the selection is ADDED, leaving it is DELETED with the last content
    /// that was in it.
    fn event(&mut self, out: &mut BytesMut, event: &Event) -> Result<(), ApiError> {
        let served = self.format.served.clone();
        let all = self.selection.is_everything();
        let was = event.previous.as_ref().filter(|p| all || self.selection.matches(&served, p));
        let is = !event.deleted && (all || self.selection.matches(&served, &event.entry));
        match (was, is) {
            (Some(_), true) => self.format.put(out, "MODIFIED", &served.wire(&event.entry)?),
            (None, true) => self.format.put(out, "ADDED", &served.wire(&event.entry)?),
            (Some(_), false) if event.deleted => self.format.put(out, "DELETED", &served.wire(&event.entry)?),
            (Some(previous), false) => {
                let revision = encoding::revision(&event.entry.value).to_owned();
                let last = encoding::without_revision(&served.wire(previous)?);
                self.format.put(out, "DELETED", &encoding::with_revision(&last, &revision))
            }
            (None, false) => Ok(()),
        }
    }
}

/// How events look.
struct Format {
    served: Arc<Served>,
    media: Media,
    include: table::Include,
    /// The column definitions were sent.
    defined: bool,
}

impl Format {
    fn put(&mut self, out: &mut BytesMut, kind: &str, wire: &Bytes) -> Result<(), ApiError> {
        self.served.watches.told();
        if let Some(object) = respond::protobuf_of(self.media, &self.served, wire)? {
            out.put_slice(&encode_watch_event(kind, &object));
            return Ok(());
        }
        match self.media.transform {
            Transform::None => {
                out.reserve(wire.len() + self.served.head.len() + 40);
                out.put_slice(br#"{"type":""#);
                out.put_slice(kind.as_bytes());
                out.put_slice(br#"","object":"#);
                out.put_slice(&self.served.head);
                out.put_slice(&wire[1..]);
                out.put_slice(b"}\n");
                Ok(())
            }
            Transform::Partial | Transform::PartialList => {
                self.line(out, kind, &respond::partial(wire)?);
                Ok(())
            }
            Transform::Table => {
                let served = Arc::clone(&self.served);
                let resource = &served.resource;
                let object = encoding::decode(wire, &served.api_version, &resource.kind)?;
                let mut table = self.table_head(encoding::revision(wire));
                table["rows"] = json!([table::row(resource, &object, self.include, chrono::Utc::now())]);
                self.line(out, kind, &table);
                Ok(())
            }
        }
    }

    fn table_head(&mut self, revision: &str) -> Value {
        let mut table = table::head(&self.served.resource);
        if std::mem::replace(&mut self.defined, true) {
            table["columnDefinitions"] = Value::Null;
        }
        table["metadata"] = json!({"resourceVersion": revision});
        table
    }

    /// A bookmark; `initial`: the one that ends the initial events.
    fn bookmark(&mut self, revision: Revision, initial: bool) -> Option<Bytes> {
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        if initial {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let resource = self.served.resource.clone();
        let object = match self.media.transform {
            Transform::None => {
                let mut object = json!({
                    "kind": &*resource.kind, "apiVersion": self.served.api_version, "metadata": metadata,
                });
                if resource.builtin {
                    apimachinery::structure::always(&mut object, &resource.schema);
                }
                object
            }
            Transform::Partial | Transform::PartialList => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Transform::Table => {
                let partial = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
                let mut table = self.table_head(&revision.to_string());
                table["rows"] = json!([{"cells": [], "object": partial}]);
                table
            }
        };
        let mut out = BytesMut::new();
        self.line(&mut out, "BOOKMARK", &object);
        Some(out.freeze())
    }

    fn error(&self, error: &ApiError) -> Bytes {
        let mut out = BytesMut::new();
        self.line(&mut out, "ERROR", &error.to_status());
        out.freeze()
    }

    fn line(&self, out: &mut BytesMut, kind: &str, object: &Value) {
        if self.media.form == Form::Protobuf
            && let Some(object) = respond::protobuf(object)
        {
            out.put_slice(&encode_watch_event(kind, &object));
            return;
        }
        out.put_slice(json!({"type": kind, "object": object}).to_string().as_bytes());
        out.put_u8(b'\n');
    }
}
