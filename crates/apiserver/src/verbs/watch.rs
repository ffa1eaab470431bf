//! WATCH: the one way changes are streamed, for every kind and form.

use std::{collections::VecDeque, pin::Pin, sync::Arc, time::Duration};

use apimachinery::ApiError;
use bytes::{BufMut, Bytes, BytesMut};
use kinds::protobuf::encode_watch_event;
use rand::Rng as _;
use serde_json::{Value, json};
use store::{Entry, Event, Revision, Store, Watch, WatchItem};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::{
    Response,
    body::Body,
    catalogue::{CONVERTED, Served, View, Watching},
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
/// Events that are there already are joined to pieces of about this many bytes.
const PIECE: usize = 32 << 10;
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
    let bookmark = (bookmarks && timeout >= BOOKMARK_BEFORE_END)
        .then(|| (Instant::now() + BOOKMARK_EVERY).min(end - BOOKMARK_BEFORE_END));
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
        bookmark,
        wake: Box::pin(tokio::time::sleep_until(bookmark.unwrap_or(end))),
        retired: Box::pin(served.retired.clone().cancelled_owned()),
    };
    // In a box, since every piece moves the state.
    let stream = futures::stream::unfold(Box::new(state), |mut state| async move {
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
    /// At the next bookmark, or the end.
    wake: Pin<Box<Sleep>>,
    retired: Pin<Box<WaitForCancellationFutureOwned>>,
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
            tokio::select! {
                item = watch.next() => match item {
                    Ok(WatchItem::Events(events)) => told.push(events),
                    Ok(WatchItem::Progress(revision)) => self.ready.extend(self.format.bookmark(revision, false)),
                    Err(error) => {
                        self.done = true;
                        return Some(self.format.error(&super::read_error(error)));
                    }
                },
                () = self.retired.as_mut() => {
                    // What has happened before is still told.
                    told.extend(std::iter::from_fn(|| watch.ready()));
                    self.done = true;
                }
                () = self.wake.as_mut() => {
                    let wake = self.wake.deadline();
                    if wake >= self.end {
                        return None;
                    }
                    let last = self.end - BOOKMARK_BEFORE_END;
                    let next = wake + BOOKMARK_EVERY;
                    let next = if next > last && wake < last { last } else { next };
                    self.bookmark = Some(next);
                    self.wake.as_mut().reset(next.min(self.end));
                    let revision = watch.progress();
                    self.ready.extend(self.format.bookmark(revision, false));
                }
            }
            self.tell(told).await;
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
                    out.put_slice(&self.format.line_of("ADDED", &served.wire(entry)?)?);
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

    /// Makes events ready, at the version of this watch, and those that have come meanwhile, joined to pieces.
    async fn tell(&mut self, told: Vec<Arc<[Event]>>) {
        let mut piece = Piece::default();
        let mut told = VecDeque::from(told);
        while let Some(events) =
            told.pop_front().or_else(|| self.watch.as_mut().filter(|_| piece.size < PIECE)?.ready())
        {
            let outcome = match self.converts.clone() {
                None => self.events(&mut piece, &events),
                Some(inner) => {
                    let served = self.format.served.clone();
                    let wanted: Vec<Event> =
                        events.iter().filter(|e| self.wanted(&e.entry.key)).cloned().collect();
                    let converted = inner.view_events(&served, &wanted).await;
                    converted.and_then(|events| self.events(&mut piece, &events))
                }
            };
            if let Err(error) = outcome {
                self.ready.extend(piece.joined());
                self.ready.push_back(self.format.error(&error));
                self.done = true;
                return;
            }
        }
        self.ready.extend(piece.joined());
    }

    fn events(&mut self, piece: &mut Piece, events: &[Event]) -> Result<(), ApiError> {
        for event in events {
            if self.wanted(&event.entry.key) {
                piece.extend(self.event(event)?);
            }
        }
        Ok(())
    }

    /// What one change is to this watcher: entering the selection is ADDED, leaving it is DELETED with the last content
    /// that was in it.
    fn event(&mut self, event: &Event) -> Result<Option<Bytes>, ApiError> {
        let (format, selection) = (&mut self.format, &self.selection);
        let all = selection.is_everything();
        let shown = |entry: &Entry| all || selection.matches(&format.served, entry);
        let was = event.previous.as_ref().filter(|p| shown(p));
        let is = !event.deleted && shown(&event.entry);
        match (was, is) {
            (Some(_), true) => format.entry("MODIFIED", &event.entry),
            (None, true) => format.entry("ADDED", &event.entry),
            (Some(_), false) if event.deleted => format.entry("DELETED", &event.entry),
            (Some(previous), false) => {
                let revision = encoding::revision(&event.entry.value);
                let last = encoding::without_revision(&format.served.wire(previous)?);
                format.line_of("DELETED", &encoding::with_revision(&last, revision))
            }
            (None, false) => return Ok(None),
        }
        .map(Some)
    }
}

/// Events that go out together. One alone is not copied.
#[derive(Default)]
struct Piece {
    lines: Vec<Bytes>,
    size: usize,
}

impl Piece {
    fn extend(&mut self, line: Option<Bytes>) {
        self.size += line.as_ref().map_or(0, Bytes::len);
        self.lines.extend(line);
    }

    fn joined(self) -> Option<Bytes> {
        match <[Bytes; 1]>::try_from(self.lines) {
            Ok([line]) => Some(line),
            Err(lines) if lines.is_empty() => None,
            Err(lines) => Some(lines.concat().into()),
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
    /// The event about an entry as it lies there: all watches of this form share it.
    fn entry(&mut self, kind: &'static str, entry: &Arc<Entry>) -> Result<Bytes, ApiError> {
        let served = self.served.clone();
        if entry.modified == CONVERTED || self.media.transform == Transform::Table {
            return self.line_of(kind, &served.wire(entry)?);
        }
        served.watches.told();
        served.watches.recent.get(kind, entry, self.media, || self.written(kind, &served.wire(entry)?))
    }

    /// The event about an object, from its wire bytes (see [`Served::wire`]).
    fn line_of(&mut self, kind: &str, wire: &Bytes) -> Result<Bytes, ApiError> {
        self.served.watches.told();
        self.written(kind, wire)
    }

    fn written(&mut self, kind: &str, wire: &Bytes) -> Result<Bytes, ApiError> {
        if let Some(object) = respond::protobuf_of(self.media, &self.served, wire)? {
            return Ok(encode_watch_event(kind, &object).into());
        }
        match self.media.transform {
            Transform::None => {
                let mut out = BytesMut::with_capacity(wire.len() + self.served.head.len() + 40);
                out.put_slice(br#"{"type":""#);
                out.put_slice(kind.as_bytes());
                out.put_slice(br#"","object":"#);
                out.put_slice(&self.served.head);
                out.put_slice(&wire[1..]);
                out.put_slice(b"}\n");
                Ok(out.freeze())
            }
            Transform::Partial | Transform::PartialList => {
                Ok(self.line(kind, &respond::partial(&self.served, wire)?))
            }
            Transform::Table => {
                let served = Arc::clone(&self.served);
                let resource = &served.resource;
                let object = encoding::decode(wire, &served.api_version, &resource.kind)?;
                let mut table = self.table_head(encoding::revision(wire));
                table["rows"] = json!([table::row(resource, &object, self.include, chrono::Utc::now())]);
                Ok(self.line(kind, &table))
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
        let mut empty = json!({
            "kind": &*resource.kind, "apiVersion": self.served.api_version, "metadata": metadata,
        });
        if resource.builtin {
            apimachinery::structure::always(&mut empty, &resource.schema);
        }
        let object = match self.media.transform {
            Transform::None => empty,
            Transform::Partial | Transform::PartialList => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Transform::Table => {
                let mut table = self.table_head(&revision.to_string());
                let mut row = table::row(&resource, &empty, self.include, chrono::Utc::now());
                if row["cells"][0].is_null() {
                    row["cells"][0] = "".into();
                }
                table["rows"] = json!([row]);
                table
            }
        };
        Some(self.line("BOOKMARK", &object))
    }

    fn error(&self, error: &ApiError) -> Bytes {
        self.line("ERROR", &error.to_status())
    }

    fn line(&self, kind: &str, object: &Value) -> Bytes {
        if self.media.form == Form::Protobuf
            && let Some(object) = respond::protobuf(object)
        {
            return encode_watch_event(kind, &object).into();
        }
        format!("{}\n", json!({"type": kind, "object": object})).into()
    }
}
