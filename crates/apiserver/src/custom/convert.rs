//! From one version of a custom resource to another, by a webhook.
//!
//! Whoever reads asks [`Inner::view`] for the entries at its version, whoever writes asks [`Inner::to_store`]; both do
//! nothing where no webhook is needed. Everything behind them sees one version only.
//!
//! Source: `k8s.io/apiextensions-apiserver/pkg/apiserver/conversion`.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use apimachinery::{ApiError, FieldError, FieldPath, Object, meta};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use store::{Entry, Event, Key, Revision};

use super::Versions;
use crate::{
    catalogue::{CONVERTED, Served, View},
    encoding,
    extension::Target,
    selection,
    server::Inner,
    shape,
};

/// A webhook that does not answer for so long has failed.
const LIMIT: Duration = Duration::from_secs(30);
/// One call takes no more objects, and no more bytes of them, so that question and answer stay below what a body may be.
const MOST: (usize, usize) = (500, 1 << 20);
/// Converted entries that watches share; beyond it they are forgotten.
const KEPT: usize = 4096;

/// One entry, by the version it is shown in.
type Views = Vec<(String, Arc<Entry>)>;

/// The conversion webhook of a definition.
pub struct Converter {
    /// Why it cannot be called: its configuration makes no sense.
    target: Result<Target, String>,
    /// `apiextensions.k8s.io/v1`, or the beta version if the webhook prefers it.
    review: Option<&'static str>,
    /// What watches have seen, by key, revision and version.
    seen: Mutex<HashMap<(Key, Revision), Views>>,
}

impl fmt::Debug for Converter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Converter").field("review", &self.review).finish_non_exhaustive()
    }
}

impl Converter {
    /// The webhook of a definition, if it has one.
    pub fn of(definition: &Object) -> Option<Self> {
        let conversion = &definition["spec"]["conversion"];
        if conversion["strategy"] != "Webhook" {
            return None;
        }
        let webhook = &conversion["webhook"];
        let known = |version: &Value| match version.as_str() {
            Some("v1") => Some("apiextensions.k8s.io/v1"),
            Some("v1beta1") => Some("apiextensions.k8s.io/v1beta1"),
            _ => None,
        };
        Some(Self {
            target: Target::of_client_config(&webhook["clientConfig"]),
            review: webhook["conversionReviewVersions"].as_array().into_iter().flatten().find_map(known),
            seen: Mutex::default(),
        })
    }

    /// The objects at version `to`, in their order. All of them have another version.
    async fn convert(&self, inner: &Inner, objects: Vec<Object>, to: &str) -> Result<Vec<Object>, ApiError> {
        let Some(first) = objects.first() else { return Ok(objects) };
        let text = |field: &str| first[field].as_str().unwrap_or_default();
        let whose = format!("conversion webhook for {}, Kind={}", text("apiVersion"), text("kind"));
        let fail = |why: String| ApiError::other(500, "", format!("{whose} {why}"));
        let Some(review) = self.review else {
            return Err(ApiError::other(500, "", "no supported conversion review versions"));
        };
        let target = self.target.as_ref().map_err(|why| fail(format!("failed: {why}")))?;
        let uid = uuid::Uuid::new_v4().to_string();
        let question = json!({
            "kind": "ConversionReview", "apiVersion": review,
            "request": {"uid": uid, "desiredAPIVersion": to, "objects": objects},
        });
        let mut answer = target
            .post(inner, "", &question, LIMIT)
            .await
            .map_err(|error| fail(format!("failed: {error}")))?;
        let made = converted(&mut answer, review, &uid).map_err(|why| fail(format!("failed: {why}")))?;
        if made.len() != objects.len() {
            return Err(fail(format!("returned {} objects, expected {}", made.len(), objects.len())));
        }
        let many = objects.len() > 1;
        let pairs = objects.iter().zip(made).enumerate();
        pairs
            .map(|(index, (from, mut made))| {
                let place =
                    if many { format!(" converted object at index {index}") } else { " object".to_owned() };
                same(from, &made, to).map_err(|why| fail(format!("returned invalid{place}: {why}")))?;
                restore(from, &mut made)
                    .map_err(|why| fail(format!("returned invalid metadata in{place}: {why}")))?;
                Ok(made)
            })
            .collect()
    }
}

/// The objects of an answer.
fn converted(answer: &mut Value, review: &str, uid: &str) -> Result<Vec<Object>, String> {
    let text = |field: &str| answer[field].as_str().unwrap_or_default().to_owned();
    let strict = review.ends_with("/v1");
    if strict && (text("apiVersion") != review || text("kind") != "ConversionReview") {
        return Err(format!(
            "expected webhook response of {review}, Kind=ConversionReview, got {}, Kind={}",
            text("apiVersion"),
            text("kind")
        ));
    }
    if !answer["response"].is_object() {
        return Err("no response provided".to_owned());
    }
    let response = &mut answer["response"];
    let given = response["uid"].as_str().unwrap_or_default();
    if strict && given != uid {
        return Err(format!("expected response.uid={uid:?}, got {given:?}"));
    }
    let result = &response["result"];
    let status = result["status"].as_str().unwrap_or_default();
    if status != "Success" {
        return Err(match result["message"].as_str() {
            Some(message) if !message.is_empty() => message.to_owned(),
            _ => format!("response.result.status was '{status}', not 'Success'"),
        });
    }
    match response["convertedObjects"].take() {
        Value::Array(objects) => Ok(objects),
        _ => Ok(Vec::new()),
    }
}

/// Whether it is still the same object, now at version `to`.
fn same(from: &Object, made: &Object, to: &str) -> Result<(), String> {
    let version = made["apiVersion"].as_str().unwrap_or_default();
    if version != to {
        return Err(format!("invalid groupVersion (expected {to}, received {version})"));
    }
    if made["kind"] != from["kind"] {
        let kind = |object: &Object| object["kind"].as_str().unwrap_or_default().to_owned();
        return Err(format!("invalid kind (expected {}, received {})", kind(from), kind(made)));
    }
    for (name, of) in
        [("name", meta::name as fn(&Object) -> &str), ("namespace", meta::namespace), ("UID", meta::uid)]
    {
        let (before, after) = (of(from), of(made));
        if before != after {
            return Err(format!("must have the same {name}: {before} != {after}"));
        }
    }
    Ok(())
}

/// Puts the metadata back, but for labels and annotations: those are the webhook's to convert.
fn restore(from: &Object, made: &mut Object) -> Result<(), String> {
    let Some(given) = made.get("metadata") else {
        return Err("missing metadata in converted object".to_owned());
    };
    let Some(given) = given.as_object() else {
        return Err("invalid metadata in converted object".to_owned());
    };
    let mut metadata: Map<String, Value> = from["metadata"].as_object().cloned().unwrap_or_default();
    let mut errors: Vec<FieldError> = Vec::new();
    for field in ["labels", "annotations"] {
        let new = match given.get(field) {
            None | Some(Value::Null) => {
                metadata.remove(field);
                continue;
            }
            Some(Value::Object(map)) => map,
            Some(_) => return Err(format!("invalid metadata.{field} in converted object")),
        };
        if let Some((key, _)) = new.iter().find(|(_, value)| !value.is_string()) {
            return Err(format!("metadata.{field}[{key}] must be a string"));
        }
        if metadata.get(field) != given.get(field) {
            let path = FieldPath::root().child("metadata");
            if field == "labels" {
                meta::check_labels(&Value::Object(new.clone()), &path.child(field), &mut errors);
            } else {
                meta::check_annotations(&json!({"metadata": {"annotations": new}}), &mut errors);
            }
        }
        metadata.insert(field.to_owned(), Value::Object(new.clone()));
    }
    if !errors.is_empty() {
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        return Err(if texts.len() == 1 { texts.concat() } else { format!("[{}]", texts.join(", ")) });
    }
    made["metadata"] = Value::Object(metadata);
    Ok(())
}

/// The webhook of what is served, and all its versions.
fn webhook(served: &Served) -> Option<(&Versions, &Converter)> {
    match &served.view {
        View::Custom { versions, .. } => Some((versions, versions.converter.as_ref()?)),
        View::Direct | View::Converted(_) => None,
    }
}

impl Inner {
    /// The entries as `served` shows them: those that lie there in another version are converted, the rest is as it was.
    ///
    /// # Errors
    /// The webhook failed; then there is none of them.
    pub async fn view(
        &self,
        served: &Served,
        mut entries: Vec<Arc<Entry>>,
    ) -> Result<Vec<Arc<Entry>>, ApiError> {
        let Some((versions, converter)) = webhook(served) else { return Ok(entries) };
        let (mut places, mut objects, mut bytes) = (Vec::new(), Vec::new(), 0);
        for index in 0..entries.len() {
            let Some(entry) = entries.get(index).filter(|entry| served.is_foreign(entry)) else { continue };
            let object = versions.read(entry, &served.resource.kind)?;
            if object["apiVersion"] == *served.api_version {
                continue;
            }
            bytes += entry.value.len();
            places.push(index);
            objects.push(object);
            if objects.len() >= MOST.0 || bytes >= MOST.1 {
                bytes = 0;
                let objects = std::mem::take(&mut objects);
                let made = converter.convert(self, objects, &served.api_version).await?;
                replace(served, &mut entries, places.drain(..), made)?;
            }
        }
        let made = converter.convert(self, objects, &served.api_version).await?;
        replace(served, &mut entries, places.drain(..), made)?;
        Ok(entries)
    }

    /// One entry; see [`Inner::view`].
    ///
    /// # Errors
    /// The webhook failed.
    pub async fn view_one(&self, served: &Served, entry: Arc<Entry>) -> Result<Arc<Entry>, ApiError> {
        if !served.is_foreign(&entry) {
            return Ok(entry);
        }
        let mut one = self.view(served, vec![entry]).await?;
        one.pop().ok_or_else(|| ApiError::internal("nothing was converted"))
    }

    /// The events as `served` shows them. All watches share what was converted for one of them.
    ///
    /// # Errors
    /// The webhook failed.
    pub async fn view_events(&self, served: &Served, events: &[Event]) -> Result<Vec<Event>, ApiError> {
        let mut events = events.to_vec();
        let Some((_, converter)) = webhook(served) else { return Ok(events) };
        let known = |entry: &Entry| {
            let seen = converter.seen.lock();
            let found = seen.get(&(entry.key.clone(), entry.modified))?;
            found.iter().find(|(version, _)| *version == served.api_version).map(|(_, entry)| entry.clone())
        };
        let (mut missing, mut places) = (Vec::new(), Vec::new());
        for (index, event) in events.iter_mut().enumerate() {
            for entry in std::iter::once(&mut event.entry).chain(event.previous.as_mut()) {
                if !served.is_foreign(entry) {
                    continue;
                }
                match known(entry) {
                    Some(found) => *entry = found,
                    None => {
                        places.push((index, entry.modified));
                        missing.push(entry.clone());
                    }
                }
            }
        }
        let made = self.view(served, missing).await?;
        for ((index, revision), made) in places.into_iter().zip(made) {
            let Some(event) = events.get_mut(index) else { continue };
            let mut seen = converter.seen.lock();
            if seen.len() >= KEPT {
                seen.clear();
            }
            let kept = seen.entry((made.key.clone(), revision)).or_default();
            kept.push((served.api_version.clone(), made.clone()));
            if event.entry.modified == revision {
                event.entry = made;
            } else {
                event.previous = Some(made);
            }
        }
        Ok(events)
    }

    /// What the resource's webhook makes of an object at the version of `served`; `None`: there is no webhook, or it has
    /// that version.
    ///
    /// # Errors
    /// The webhook failed.
    pub async fn converted(&self, served: &Served, object: &Object) -> Result<Option<Object>, ApiError> {
        let Some((_, converter)) = webhook(served) else { return Ok(None) };
        if object["apiVersion"] == *served.api_version {
            return Ok(None);
        }
        let mut made = converter.convert(self, vec![object.clone()], &served.api_version).await?;
        let mut made = made.pop().unwrap_or_default();
        shape::converted(&served.resource, &mut made);
        Ok(Some(made))
    }

    /// The bytes to store for an object of `served`'s version.
    ///
    /// # Errors
    /// The webhook failed.
    pub async fn to_store(&self, served: &Served, object: &Object) -> Result<Bytes, ApiError> {
        match webhook(served) {
            Some((versions, converter)) if versions.storage != served.api_version => {
                let resource = versions.resource(&versions.storage)?;
                let mut made = converter.convert(self, vec![object.clone()], &versions.storage).await?;
                let mut made = made.pop().unwrap_or_default();
                shape::converted(resource, &mut made);
                encoding::encode(&made, &encoding::tail(&versions.storage, &resource.kind))
            }
            _ => served.stored(object),
        }
    }

    /// The object as it is read after `value` was stored for it at `revision`: a version that is not stored may not
    /// give back all that it was given.
    ///
    /// # Errors
    /// The webhook failed.
    pub async fn stored_as(
        &self,
        served: &Served,
        object: Object,
        key: &Key,
        value: &Bytes,
        revision: Revision,
    ) -> Result<Object, ApiError> {
        match &served.view {
            View::Custom { versions, .. } if versions.storage != served.api_version => {
                let entry = Entry {
                    key: key.clone(),
                    value: encoding::with_revision(value, &revision.to_string()),
                    created: revision,
                    modified: revision,
                    attributes: store::Attributes::default(),
                    derived: store::Derived::default(),
                };
                served.object(&*self.view_one(served, Arc::new(entry)).await?)
            }
            _ => Ok(object),
        }
    }
}

/// Puts converted objects where their entries were.
fn replace(
    served: &Served,
    entries: &mut [Arc<Entry>],
    places: impl Iterator<Item = usize>,
    made: Vec<Object>,
) -> Result<(), ApiError> {
    for (index, mut object) in places.zip(made) {
        let Some(entry) = entries.get_mut(index) else { continue };
        shape::converted(&served.resource, &mut object);
        let value = encoding::with_revision(&served.encode(&object)?, encoding::revision(&entry.value));
        *entry = Arc::new(Entry {
            key: entry.key.clone(),
            created: entry.created,
            modified: CONVERTED,
            attributes: selection::labels(&value),
            derived: store::Derived::default(),
            value,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(version: &str, metadata: Value) -> Object {
        json!({"apiVersion": version, "kind": "K", "metadata": metadata})
    }

    #[test]
    fn only_labels_and_annotations_of_metadata_are_the_webhooks() {
        let from = object("a/v1", json!({"name": "n", "uid": "u", "labels": {"a": "1"}, "generation": 3}));
        let mut made = object(
            "a/v2",
            json!({"name": "n", "uid": "u", "labels": {"b": "2"}, "generation": 9, "finalizers": ["f"]}),
        );
        assert_eq!(same(&from, &made, "a/v2"), Ok(()));
        restore(&from, &mut made).unwrap();
        assert_eq!(made["metadata"], json!({"name": "n", "uid": "u", "labels": {"b": "2"}, "generation": 3}));
        for (metadata, why) in [
            (json!({"labels": {"a": 1}}), "metadata.labels[a] must be a string"),
            (json!({"labels": []}), "invalid metadata.labels in converted object"),
        ] {
            assert_eq!(restore(&from, &mut object("a/v2", metadata)), Err(why.to_owned()));
        }
        assert!(restore(&from, &mut object("a/v2", json!({"labels": {"a b": ""}}))).is_err());
        assert!(restore(&from, &mut json!({"apiVersion": "a/v2"})).is_err());
    }

    #[test]
    fn another_object_is_refused() {
        let from = object("a/v1", json!({"name": "n", "uid": "u"}));
        for (made, why) in [
            (object("a/v1", json!({})), "invalid groupVersion (expected a/v2, received a/v1)"),
            (object("a/v2", json!({"name": "m"})), "must have the same name: n != m"),
            (object("a/v2", json!({"name": "n", "uid": "w"})), "must have the same UID: u != w"),
        ] {
            assert_eq!(same(&from, &made, "a/v2"), Err(why.to_owned()));
        }
    }

    #[test]
    fn an_answer_must_be_to_the_question() {
        let review = "apiextensions.k8s.io/v1";
        let answer =
            |response: Value| json!({"apiVersion": review, "kind": "ConversionReview", "response": response});
        let ask = |mut answer: Value| converted(&mut answer, review, "1");
        let good = json!({"uid": "1", "result": {"status": "Success"}, "convertedObjects": [1]});
        assert_eq!(ask(answer(good.clone())), Ok(vec![json!(1)]));
        let mut other = good.clone();
        other["uid"] = json!("2");
        assert_eq!(ask(answer(other)), Err("expected response.uid=\"1\", got \"2\"".to_owned()));
        let failed = json!({"uid": "1", "result": {"status": "Failure", "message": "no way"}});
        assert_eq!(ask(answer(failed)), Err("no way".to_owned()));
        assert_eq!(ask(answer(Value::Null)), Err("no response provided".to_owned()));
        assert!(ask(json!({"kind": "ConversionReview", "response": good})).is_err());
    }
}
