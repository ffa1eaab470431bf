//! A value in a second encoding: made by whoever serves it, kept beside it as long as there is room.

use std::{
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;

/// How many bytes of second encodings may be kept, by all entries together. Cheap to clone.
#[derive(Clone)]
pub struct Room(Arc<AtomicUsize>);

impl Room {
    /// For so many bytes.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(AtomicUsize::new(bytes)))
    }

    fn take(&self, bytes: usize) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

/// See [`Entry::derived`](crate::Entry::derived). It is no part of what an entry is: two that differ in nothing else are
/// equal.
#[derive(Default)]
pub struct Derived(OnceLock<Kept>);

struct Kept {
    bytes: Bytes,
    room: Room,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.room.0.fetch_add(self.bytes.len(), Ordering::Relaxed);
    }
}

impl Derived {
    /// What `make` gives, or gave before. Every caller of one store has to make the same of a value.
    ///
    /// # Errors
    /// Those of `make`; nothing is kept then.
    pub fn get<E>(&self, room: &Room, make: impl FnOnce() -> Result<Bytes, E>) -> Result<Bytes, E> {
        if let Some(kept) = self.0.get() {
            return Ok(kept.bytes.clone());
        }
        let bytes = make()?;
        if room.take(bytes.len()) {
            // Somebody may have been faster: this one then gives back its room.
            let _ = self.0.set(Kept { bytes: bytes.clone(), room: room.clone() });
        }
        Ok(bytes)
    }
}

impl PartialEq for Derived {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for Derived {}

impl fmt::Debug for Derived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Derived").field(&self.0.get().map(|kept| kept.bytes.len())).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn made(text: &'static str) -> impl FnOnce() -> Result<Bytes, Infallible> {
        move || Ok(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn it_is_made_once_as_long_as_there_is_room() {
        let room = Room::new(5);
        let (first, second) = (Derived::default(), Derived::default());
        assert_eq!(first.get(&room, made("abc")).unwrap(), "abc");
        assert_eq!(first.get(&room, made("not asked")).unwrap(), "abc");
        assert_eq!(second.get(&room, made("def")).unwrap(), "def");
        assert_eq!(second.get(&room, made("again")).unwrap(), "again", "nothing was kept");
        drop(first);
        assert_eq!(second.get(&room, made("ghi")).unwrap(), "ghi");
        assert_eq!(second.get(&room, made("not asked")).unwrap(), "ghi");
    }

    #[test]
    fn what_cannot_be_made_is_tried_again() {
        let (room, derived) = (Room::new(5), Derived::default());
        assert_eq!(derived.get(&room, || Err("no")), Err("no"));
        assert_eq!(derived.get(&room, || Ok::<_, &str>(Bytes::from_static(b"x"))).unwrap(), "x");
    }
}
