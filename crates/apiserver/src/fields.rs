//! `metadata.managedFields`: not tracked yet, so what a client sends is not believed.

use apimachinery::Object;

/// Keeps what the stored object says about its managers: a client cannot forge it.
pub fn keep(new: &mut Object, old: Option<&Object>) {
    let Some(metadata) = new.get_mut("metadata").and_then(|m| m.as_object_mut()) else { return };
    match old.and_then(|o| o["metadata"].get("managedFields")) {
        Some(managed) => metadata.insert("managedFields".to_owned(), managed.clone()),
        None => metadata.remove("managedFields"),
    };
}
