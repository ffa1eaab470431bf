//! Changes of other objects that are committed together with a write: a quota and what is charged to it.
//!
//! A commit expects every companion as admission has read it. If somebody was faster, admission is asked again: first at
//! once, then in turn with all other writes that need the same object, so that many writers of one namespace do not
//! undo each other's work.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use access::Companion;
use apimachinery::{ApiError, meta};
use parking_lot::Mutex;
use store::{Expect, Key, Op, Revision};
use tokio::sync::OwnedMutexGuard;

use crate::{encoding, server::Inner};

/// How often one write may be too slow for its companions.
pub(crate) const TRIES: usize = 64;

/// The steps of a commit that change the companions.
pub(crate) fn ops(inner: &Inner, companions: &[Companion]) -> Result<Vec<Op>, ApiError> {
    companions.iter().map(|companion| op(inner, companion)).collect()
}

fn op(inner: &Inner, companion: &Companion) -> Result<Op, ApiError> {
    let object = &companion.object;
    let unknown = || ApiError::internal(format!("{} are not served", companion.resource));
    let served = inner.preferred(companion.group, companion.resource).ok_or_else(unknown)?;
    let revision: u64 = meta::resource_version(object).parse().map_err(ApiError::internal)?;
    Ok(Op::Put {
        key: served.key(meta::namespace(object), meta::name(object)).into(),
        value: served.stored(object)?,
        revision_at: Some(encoding::REVISION_AT),
        expect: Expect::At(Revision(revision)),
    })
}

/// What happens when a write has been too slow for its companions too often.
pub(crate) fn contended() -> ApiError {
    let why = "the quota of the namespace is changed too quickly; please try again";
    ApiError::other(500, "ServerTimeout", why).retry_after(1)
}

/// Whose turn it is to change an object that many writes change together with their own.
#[derive(Default)]
pub(crate) struct Turns(Mutex<HashMap<Key, Weak<tokio::sync::Mutex<()>>>>);

impl Turns {
    /// Waits for one's turn, which lasts until the guard is dropped.
    pub async fn take(&self, key: Key) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = self.0.lock();
            match turns.get(&key).and_then(Weak::upgrade) {
                Some(turn) => turn,
                None => {
                    turns.retain(|_, turn| turn.strong_count() > 0);
                    let turn = Arc::<tokio::sync::Mutex<()>>::default();
                    turns.insert(key, Arc::downgrade(&turn));
                    turn
                }
            }
        };
        turn.lock_owned().await
    }
}
