//! Random histories against the simplest model there is: the whole state after every revision.

use std::{collections::BTreeMap, sync::Arc};

use futures::FutureExt;
use proptest::prelude::*;
use store::{Attributes, CommitError, Embedded, Expect, Op, Options, Revision, Store, WatchItem};

#[derive(Clone, Debug)]
enum Action {
    /// Puts or deletes keys; `right` says whether the expectation is the right one.
    Commit(Vec<(u8, bool)>, bool),
    /// Compacts at this many 256ths of the revisions.
    Compact(u8),
    Reopen,
}

fn action() -> impl Strategy<Value = Action> {
    let changes = prop::collection::btree_map(0u8..6, prop::bool::weighted(0.7), 1..4);
    prop_oneof![
        12 => (changes, prop::bool::weighted(0.9)).prop_map(|(c, right)| Action::Commit(c.into_iter().collect(), right)),
        1 => any::<u8>().prop_map(Action::Compact),
        1 => Just(Action::Reopen),
    ]
}

type Model = BTreeMap<String, (u64, u64, String)>;

fn key(n: u8) -> String {
    ["/p/a", "/p/ab", "/p/b/c", "/q/a", "/q/b", "/r"][n as usize].to_owned()
}

fn state(store: &Embedded, prefix: &str, at: u64) -> Model {
    let page = store.list(prefix, None, 0, Some(Revision(at))).unwrap();
    let text = |e: &store::Entry| String::from_utf8(e.value.to_vec()).unwrap();
    page.entries.iter().map(|e| (e.key.to_string(), (e.created.0, e.modified.0, text(e)))).collect()
}

async fn run(actions: Vec<Action>) {
    let dir = tempfile::tempdir().unwrap();
    let open = || {
        let options = Options { segment_bytes: 300, rewrite_bytes: 300, ..Options::default() };
        Embedded::open(dir.path(), options, Arc::new(|_, _| Attributes::default())).unwrap()
    };
    let mut store = open();
    let (mut states, mut floor) = (vec![Model::new()], 0);
    let mut live = store.watch("/p/", Revision(0)).unwrap();
    let mut mirror = Model::new();
    for action in actions {
        let newest = states.len() as u64 - 1;
        match action {
            Action::Commit(changes, right) => {
                let now = &states[newest as usize];
                let mut next = now.clone();
                let mut ops = Vec::new();
                for (n, is_put) in changes {
                    let known = now.get(&key(n));
                    let expect = match (known, right) {
                        (Some((_, modified, _)), true) => Expect::At(Revision(*modified)),
                        (Some(_), false) if is_put => Expect::Absent,
                        (None, true) if is_put => Expect::Absent,
                        _ => Expect::At(Revision(newest + 5)),
                    };
                    let key: store::Key = key(n).into();
                    let (value, revision_at) = (bytes::Bytes::from_static(b"<>"), Some(1));
                    if is_put {
                        let created = known.map_or(newest + 1, |k| k.0);
                        next.insert(key.to_string(), (created, newest + 1, format!("<{}>", newest + 1)));
                        ops.push(Op::Put { key, value, revision_at, expect });
                    } else {
                        next.remove(&*key);
                        ops.push(Op::Delete { key, last: value, revision_at, expect });
                    }
                }
                let holds = ops.iter().all(|op| {
                    let (Op::Put { key, expect, .. } | Op::Delete { key, expect, .. }) = op;
                    match (expect, now.get(&**key)) {
                        (Expect::Absent, None) => true,
                        (Expect::At(at), Some((_, modified, _))) => at.0 == *modified,
                        _ => false,
                    }
                });
                match store.commit(ops).await {
                    Ok(revision) => {
                        assert!(holds);
                        states.push(next);
                        assert_eq!(revision.0, newest + 1);
                    }
                    Err(CommitError::Conflict { .. }) => assert!(!holds),
                    Err(other) => panic!("{other}"),
                }
                follow(&mut *live, &mut mirror);
            }
            Action::Compact(part) => {
                let at = newest * u64::from(part) / 256;
                store.compact(Revision(at)).await.unwrap();
                floor = floor.max(at);
            }
            Action::Reopen => {
                let cursor = live.progress();
                drop((live, store));
                store = open();
                // As a client does: on from where it was, or from a new list.
                live = match store.watch("/p/", cursor) {
                    Ok(watch) => watch,
                    Err(_) => panic!("{cursor} had seen everything and floor is {floor}"),
                };
            }
        }
        let newest = states.len() - 1;
        assert_eq!(store.revision().0, newest as u64);
        assert_eq!(state(&store, "", newest as u64), states[newest]);
        let under: Model = states[newest].clone().into_iter().filter(|(k, _)| k.starts_with("/p/")).collect();
        assert_eq!(mirror, under);
    }
    for (at, model) in states.iter().enumerate() {
        if (at as u64) < floor {
            assert!(store.list("", None, 0, Some(Revision(at as u64))).is_err());
            assert!(store.watch("", Revision(at as u64)).is_err());
            continue;
        }
        assert_eq!(&state(&store, "", at as u64), model);
        pages(&store, at as u64, model);
        let mut mirror = model.clone();
        follow(&mut *store.watch("", Revision(at as u64)).unwrap(), &mut mirror);
        assert_eq!(Some(&mirror), states.last(), "a watch from {at}");
    }
}

/// The same list in pages of two.
fn pages(store: &Embedded, at: u64, model: &Model) {
    let (mut after, mut found): (Option<String>, Vec<String>) = (None, Vec::new());
    loop {
        let page = store.list("/p/", after.as_deref(), 2, Some(Revision(at))).unwrap();
        found.extend(page.entries.iter().map(|e| e.key.to_string()));
        after = found.last().cloned();
        if page.remaining == 0 {
            break;
        }
    }
    assert_eq!(found, model.keys().filter(|k| k.starts_with("/p/")).cloned().collect::<Vec<_>>());
}

/// Applies everything the watch has, checking that each event fits what is there.
fn follow(watch: &mut dyn store::Watch, mirror: &mut Model) {
    while let Some(item) = watch.next().now_or_never() {
        let WatchItem::Events(events) = item.unwrap() else { continue };
        for event in events.iter() {
            let entry = &event.entry;
            let before = mirror.get(&*entry.key).map(|known| known.1);
            assert_eq!(event.previous.as_ref().map(|p| p.modified.0), before);
            let text = String::from_utf8(entry.value.to_vec()).unwrap();
            assert_eq!(text, format!("<{}>", entry.modified));
            match event.deleted {
                true => drop(mirror.remove(&*entry.key)),
                false => {
                    drop(mirror.insert(entry.key.to_string(), (entry.created.0, entry.modified.0, text)))
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn random_histories_are_what_the_model_says(actions in prop::collection::vec(action(), 1..50)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(run(actions));
    }
}
