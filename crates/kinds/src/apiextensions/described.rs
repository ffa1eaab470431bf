//! What `kubectl explain` says of the fields that every custom resource has.

use std::sync::Arc;

use apimachinery::Schema;

/// `apiVersion`
pub const API_VERSION: &str = "APIVersion defines the group and version whose schema this object is written in. Servers convert what they know to a version of their own and refuse the rest.";
/// `kind`
pub const KIND: &str =
    "Kind names the REST resource that this object stands for, in CamelCase. It cannot be changed.";
/// `metadata`
pub const METADATA: &str = "Standard object's metadata: what an object of any kind is known by.";

/// The fields of metadata.
const FIELDS: [(&str, &str); 15] = [
    ("annotations", "Annotations are texts by key that tools keep with the object. Nothing selects by them."),
    (
        "creationTimestamp",
        "CreationTimestamp is a timestamp set by the server when the object was made, in RFC 3339 form and UTC. Clients cannot set it.",
    ),
    (
        "deletionGracePeriodSeconds",
        "Seconds that the object has for an orderly end, once it is being deleted. It can only be shortened.",
    ),
    (
        "deletionTimestamp",
        "DeletionTimestamp is when the object will be gone. The server sets it when somebody asks for the deletion; from then on the object cannot be kept.",
    ),
    (
        "finalizers",
        "Finalizers name who has work to do before the object may go. Each takes its entry away when it is done.",
    ),
    (
        "generateName",
        "GenerateName is the beginning of a name that the server completes, if no name is given.",
    ),
    ("generation", "A number that rises with each change of the wanted state. The server sets it."),
    ("labels", "Labels are texts by key that selectors choose objects by."),
    (
        "managedFields",
        "ManagedFields notes which manager owns which fields, for server-side apply. Users rarely need it.",
    ),
    ("name", "Name is unique within a namespace, and cannot be changed."),
    (
        "namespace",
        "Namespace is where the name is unique. It cannot be changed; objects of the whole cluster have none.",
    ),
    (
        "ownerReferences",
        "The objects that this one belongs to. When all of them are gone it is collected; one of them may be its controller.",
    ),
    (
        "resourceVersion",
        "An opaque text that changes with each write. Clients compare it, and give it back to write only what they have seen.",
    ),
    ("selfLink", "Not set any more."),
    (
        "uid",
        "UID tells this object from every other one in time and space, also from one of the same name. The server sets it.",
    ),
];

/// The same field, with words to it.
pub fn described(schema: &Schema, words: &str) -> Arc<Schema> {
    Arc::new(Schema { description: Some(words.into()), ..schema.clone() })
}

/// The schema of metadata with words to each field.
pub fn metadata(schema: &Schema) -> Schema {
    let mut schema = Schema { description: Some(METADATA.into()), ..schema.clone() };
    for (name, words) in FIELDS {
        if let Some(field) = schema.properties.get_mut(name) {
            *field = described(field, words);
        }
    }
    schema
}
