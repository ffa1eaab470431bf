//! Old pods give way to new ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::{apps::v1::DaemonSet, core::v1::Pod},
    apimachinery::pkg::util::intstr::IntOrString,
};

use super::View;

/// The strategy is RollingUpdate.
pub fn is_rolling(set: &DaemonSet) -> bool {
    let strategy = set.spec.update_strategy.as_ref().and_then(|s| s.type_.as_deref());
    strategy.unwrap_or("RollingUpdate") == "RollingUpdate"
}

/// A number, or a share of `total` rounded up; 0 when it is not given or the set does not roll.
fn scaled(set: &DaemonSet, total: usize, surge: bool) -> usize {
    use apimachinery::intstr::IntOrString as Scaled;
    let rolling = set.spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let value = rolling.and_then(|r| if surge { r.max_surge.as_ref() } else { r.max_unavailable.as_ref() });
    let value = match value.filter(|_| is_rolling(set)) {
        Some(IntOrString::Int(number)) => Scaled::Int(*number),
        Some(IntOrString::String(text)) => Scaled::Text(text.clone()),
        None => return 0,
    };
    let total = i32::try_from(total).unwrap_or(i32::MAX);
    value.scaled(total, true).ok().and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
}

/// Two pods may be on one node during an update.
pub fn may_surge(set: &DaemonSet) -> bool {
    scaled(set, 1, true) > 0
}

/// New and old pod of a node; `Err` when there are several of one sort.
type Pair = Result<(Option<Arc<Pod>>, Option<Arc<Pod>>), ()>;

fn pair(view: &View<'_>, pods: &[Arc<Pod>]) -> Pair {
    let (mut new, mut old) = (None, None);
    for pod in pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
        let place = if view.is_updated(pod) { &mut new } else { &mut old };
        if place.replace(pod.clone()).is_some() {
            return Err(());
        }
    }
    Ok((new, old))
}

/// Nodes that get a pod, and pods that go.
pub fn roll(view: &View<'_>) -> (Vec<String>, Vec<Arc<Pod>>) {
    let wanted: BTreeSet<&str> = view
        .nodes
        .iter()
        .filter(|node| view.placement.on(node).should_run)
        .filter_map(|node| node.metadata.name.as_deref())
        .collect();
    let surge = scaled(view.set, wanted.len(), true);
    let mut unavailable = scaled(view.set, wanted.len(), false);
    if !wanted.is_empty() && surge == 0 && unavailable == 0 {
        unavailable = 1;
    }
    let mut pairs: BTreeMap<&str, Pair> =
        view.pods.iter().map(|(node, pods)| (node.as_str(), pair(view, pods))).collect();
    for node in &wanted {
        pairs.entry(node).or_insert(Ok((None, None)));
    }
    if surge == 0 {
        (Vec::new(), replace(view, pairs.into_values(), unavailable))
    } else {
        surge_over(view, pairs, &wanted, surge)
    }
}

/// Deletes old pods, so that the nodes get new ones: those that are unavailable anyway, and others as far as may be missing.
fn replace(view: &View<'_>, pairs: impl Iterator<Item = Pair>, most: usize) -> Vec<Arc<Pod>> {
    let mut unavailable = 0;
    let (mut useless, mut candidates) = (Vec::new(), Vec::new());
    for pair in pairs {
        match pair {
            Ok((Some(new), None)) => unavailable += usize::from(!view.is_available(&new)),
            Ok((None, Some(old))) if !view.is_available(&old) => {
                useless.push(old);
                unavailable += 1;
            }
            Ok((None, Some(old))) => candidates.push(old),
            // None, or more than should be: what keeps the pods sees to that first.
            Ok(_) | Err(()) => unavailable += 1,
        }
    }
    useless.extend(candidates.into_iter().take(most.saturating_sub(unavailable)));
    useless
}

/// Makes new pods beside old ones, and deletes old ones whose new one is available.
fn surge_over(
    view: &View<'_>,
    pairs: BTreeMap<&str, Pair>,
    wanted: &BTreeSet<&str>,
    most: usize,
) -> (Vec<String>, Vec<Arc<Pod>>) {
    let (mut surging, mut available) = (0, 0);
    let (mut needed, mut candidates) = (Vec::new(), Vec::new());
    let (mut doomed, mut leaving) = (Vec::new(), Vec::new());
    for (node, pair) in pairs {
        let Ok((new, old)) = pair else {
            surging += 1;
            continue;
        };
        available += usize::from(old.as_ref().or(new.as_ref()).is_some_and(|pod| view.is_available(pod)));
        let Some(old) = old else { continue };
        let old_serves = view.is_available(&old);
        match new {
            Some(new) if view.is_available(&new) => doomed.push(old),
            Some(_) => surging += 1,
            None if !wanted.contains(node) && old_serves => leaving.push(old),
            None if !wanted.contains(node) => doomed.push(old),
            None if old_serves => candidates.push(node.to_owned()),
            None => needed.push(node.to_owned()),
        }
    }
    // A pod on a node that shall have none any more serves until another one is available elsewhere.
    doomed.extend(leaving.into_iter().take(available.saturating_sub(wanted.len())));
    needed.extend(candidates.into_iter().take(most.saturating_sub(surging)));
    (needed, doomed)
}
