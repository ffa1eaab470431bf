//! How fast the number of pods may change: windows over what was recommended, and rates over what was done.
//!
//! Source: `pkg/controller/podautoscaler/horizontal.go`, `normalizeDesiredReplicas` and `normalizeDesiredReplicasWithBehaviors`.

use k8s_openapi::{
    api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior},
    jiff::{SignedDuration, Timestamp},
};

use super::memory::{Dated, Memory};

/// `--horizontal-pod-autoscaler-downscale-stabilization`, in seconds.
const DOWNSCALE_WINDOW: i32 = 300;

/// Reason and message of a condition.
pub type Words = (&'static str, &'static str);

const READY: Words = ("ReadyForNewScale", "recommended size matches current size");
const HIGHER: Words = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const LOWER: Words = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const WITHIN: Words = ("DesiredWithinRange", "the desired count is within the acceptable range");
const UP_LIMIT: Words =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: Words =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");
const TOO_MANY: Words =
    ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: Words = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");

/// What is to be brought within limits.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    /// How many there are.
    pub current: i32,
    /// How many the metrics ask for.
    pub desired: i32,
    /// How many there have to be.
    pub least: i32,
    /// How many there may be.
    pub most: i32,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// So many pods.
    pub replicas: i32,
    /// The condition AbleToScale, which is True.
    pub able: Words,
    /// The condition ScalingLimited.
    pub limited: (bool, Words),
}

/// Brings a wish within what the autoscaler allows, and remembers it.
pub fn grant(
    wish: Wish,
    behavior: Option<&HorizontalPodAutoscalerBehavior>,
    memory: &mut Memory,
    now: Timestamp,
) -> Granted {
    let nothing = HPAScalingRules::default();
    let (stabilized, able, bound) = match behavior {
        None => {
            let stabilized = highest_of_late(wish, memory, now);
            (stabilized, HIGHER, capped(Wish { desired: stabilized, ..wish }))
        }
        Some(behavior) => {
            let up = behavior.scale_up.as_ref().unwrap_or(&nothing);
            let down = behavior.scale_down.as_ref().unwrap_or(&nothing);
            let (stabilized, words) = stabilized(wish, up, down, memory, now);
            let wish = Wish { desired: stabilized, ..wish };
            (stabilized, words, rated(wish, up, down, memory, now))
        }
    };
    let able = if stabilized == wish.desired { READY } else { able };
    Granted { replicas: bound.0, able, limited: (bound.0 != stabilized, bound.1) }
}

fn before(now: Timestamp, seconds: i32) -> Timestamp {
    now.saturating_sub(SignedDuration::from_secs(i64::from(seconds))).unwrap_or(Timestamp::MIN)
}

/// Without a behavior: the highest recommendation of the window.
fn highest_of_late(wish: Wish, memory: &mut Memory, now: Timestamp) -> i32 {
    let cutoff = before(now, DOWNSCALE_WINDOW);
    let recent = memory.recommendations.iter().filter(|r| r.at() >= cutoff);
    let highest = recent.map(|r| r.number).fold(wish.desired, i32::max);
    Memory::replace(&mut memory.recommendations, Dated::new(wish.desired, now), |r| r.at() < cutoff);
    highest
}

/// With a behavior: up no further than the lowest, down no further than the highest recommendation of each window.
fn stabilized(
    wish: Wish,
    up: &HPAScalingRules,
    down: &HPAScalingRules,
    memory: &mut Memory,
    now: Timestamp,
) -> (i32, Words) {
    let up_cutoff = before(now, up.stabilization_window_seconds.unwrap_or(0));
    let down_cutoff = before(now, down.stabilization_window_seconds.unwrap_or(DOWNSCALE_WINDOW));
    let since = |cutoff| memory.recommendations.iter().filter(move |r| r.at() > cutoff).map(|r| r.number);
    let lowest = since(up_cutoff).fold(wish.desired, i32::min);
    let highest = since(down_cutoff).fold(wish.desired, i32::max);
    let stabilized = wish.current.max(lowest).min(highest);
    Memory::replace(&mut memory.recommendations, Dated::new(wish.desired, now), |r| {
        r.at() < up_cutoff && r.at() < down_cutoff
    });
    (stabilized, if wish.desired >= wish.current { LOWER } else { HIGHER })
}

/// Without a behavior: at most twice as many at once, or four.
fn capped(wish: Wish) -> (i32, Words) {
    let limit = wish.current.saturating_mul(2).max(4);
    let (most, words) = if wish.most > limit { (limit, UP_LIMIT) } else { (wish.most, TOO_MANY) };
    if wish.desired < wish.least {
        (wish.least, TOO_FEW)
    } else if wish.desired > most {
        (most, words)
    } else {
        (wish.desired, WITHIN)
    }
}

/// With a behavior: its policies' rates.
fn rated(
    wish: Wish,
    up: &HPAScalingRules,
    down: &HPAScalingRules,
    memory: &Memory,
    now: Timestamp,
) -> (i32, Words) {
    if wish.desired > wish.current {
        let limit = limit(wish.current, up, true, memory, now).max(wish.current);
        let (most, words) = if wish.most > limit { (limit, UP_LIMIT) } else { (wish.most, TOO_MANY) };
        if wish.desired > most {
            return (most, words);
        }
    } else if wish.desired < wish.current {
        let limit = limit(wish.current, down, false, memory, now).min(wish.current);
        let (least, words) = if wish.least < limit { (limit, DOWN_LIMIT) } else { (wish.least, TOO_FEW) };
        if wish.desired < least {
            return (least, words);
        }
    }
    (wish.desired, WITHIN)
}

/// How far the policies let the number go in one direction, from what it was at the start of each one's period.
#[allow(clippy::cast_possible_truncation)]
fn limit(current: i32, rules: &HPAScalingRules, up: bool, memory: &Memory, now: Timestamp) -> i32 {
    let select = rules.select_policy.as_deref().unwrap_or("Max");
    if select == "Disabled" {
        return current;
    }
    let proposals = rules.policies.iter().flatten().map(|policy| {
        let cutoff = before(now, policy.period_seconds);
        let changed = |events: &[Dated]| -> i32 {
            let recent = events.iter().filter(|e| e.at() > cutoff).map(|e| e.number);
            recent.fold(0, i32::saturating_add)
        };
        let start = current.saturating_sub(changed(&memory.ups)).saturating_add(changed(&memory.downs));
        match (&*policy.type_, up) {
            ("Percent", true) => (f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)).ceil() as i32,
            ("Percent", false) => (f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)) as i32,
            (_, true) => start.saturating_add(policy.value),
            (_, false) => start.saturating_sub(policy.value),
        }
    });
    // The policy that lets it change most, or least.
    let found = if (select == "Min") == up { proposals.min() } else { proposals.max() };
    found.unwrap_or(current)
}

/// The longest period over which a behavior's rates in one direction are counted, in seconds.
#[must_use]
pub fn longest_period(behavior: &HorizontalPodAutoscalerBehavior, up: bool) -> i32 {
    let rules = if up { &behavior.scale_up } else { &behavior.scale_down };
    let policies = rules.iter().flat_map(|r| r.policies.iter().flatten());
    policies.map(|p| p.period_seconds).max().unwrap_or(0)
}

/// Notes a change that was made.
pub fn note_change(
    behavior: &HorizontalPodAutoscalerBehavior,
    memory: &mut Memory,
    change: i32,
    at: Timestamp,
) {
    let up = change > 0;
    let cutoff = before(at, longest_period(behavior, up));
    let events = if up { &mut memory.ups } else { &mut memory.downs };
    Memory::replace(events, Dated::new(change.saturating_abs(), at), |e| e.at() < cutoff);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::{at, object};

    fn behavior(up: serde_json::Value, down: serde_json::Value) -> HorizontalPodAutoscalerBehavior {
        object(json!({"scaleUp": up, "scaleDown": down}))
    }

    fn wish(current: i32, desired: i32) -> Wish {
        Wish { current, desired, least: 1, most: 1000 }
    }

    #[test]
    fn without_a_behavior_it_at_most_doubles_and_shrinks_only_to_the_highest_of_five_minutes() {
        let mut memory = Memory::default();
        let first = grant(wish(3, 20), None, &mut memory, at(0));
        assert_eq!((first.replicas, first.limited), (6, (true, UP_LIMIT)));
        assert_eq!(grant(wish(1, 20), None, &mut Memory::default(), at(0)).replicas, 4);
        let second = grant(wish(20, 2), None, &mut memory, at(300));
        assert_eq!((second.replicas, second.able), (20, HIGHER));
        let third = grant(wish(20, 2), None, &mut memory, at(301));
        assert_eq!((third.replicas, third.able), (2, READY));
        assert_eq!(memory.recommendations.len(), 2, "the outdated one is replaced");
    }

    #[test]
    fn the_selected_policy_decides_how_many_may_be_added() {
        let policies = json!([{"type": "Pods", "value": 4, "periodSeconds": 60}, {"type": "Percent", "value": 50, "periodSeconds": 60}]);
        for (select, expected) in [("Max", 15), ("Min", 14), ("Disabled", 10)] {
            let up = json!({"selectPolicy": select, "stabilizationWindowSeconds": 0, "policies": policies});
            let down = json!({"selectPolicy": select, "stabilizationWindowSeconds": 0, "policies": policies});
            let behavior = behavior(up, down);
            let up = grant(wish(10, 100), Some(&behavior), &mut Memory::default(), at(0));
            assert_eq!(up.replicas, expected, "{select}");
            let expected = match select {
                "Max" => 5,
                "Min" => 6,
                _ => 10,
            };
            let down = grant(wish(10, 1), Some(&behavior), &mut Memory::default(), at(0));
            assert_eq!((down.replicas, down.limited), (expected, (true, DOWN_LIMIT)), "{select}");
        }
    }

    #[test]
    fn what_was_added_within_the_period_counts() {
        let up = json!({"selectPolicy": "Max", "stabilizationWindowSeconds": 0,
            "policies": [{"type": "Pods", "value": 4, "periodSeconds": 60}]});
        let behavior = behavior(up, json!({"policies": []}));
        let mut memory = Memory::default();
        note_change(&behavior, &mut memory, 3, at(0));
        assert_eq!(grant(wish(10, 100), Some(&behavior), &mut memory, at(59)).replicas, 11);
        assert_eq!(grant(wish(10, 100), Some(&behavior), &mut memory, at(60)).replicas, 14);
        note_change(&behavior, &mut memory, 2, at(61));
        assert_eq!(memory.ups.len(), 1, "the outdated one is replaced");
    }

    #[test]
    fn windows_hold_the_number_between_the_lowest_and_the_highest_wish() {
        let up = json!({"selectPolicy": "Max", "stabilizationWindowSeconds": 60,
            "policies": [{"type": "Percent", "value": 1000, "periodSeconds": 1}]});
        let down = json!({"selectPolicy": "Max", "stabilizationWindowSeconds": 60,
            "policies": [{"type": "Percent", "value": 100, "periodSeconds": 1}]});
        let behavior = behavior(up, down);
        let mut memory = Memory::default();
        memory.recommendations.push(Dated::new(7, at(0)));
        let up = grant(wish(5, 12), Some(&behavior), &mut memory, at(30));
        assert_eq!((up.replicas, up.able), (7, LOWER));
        let down = grant(wish(15, 3), Some(&behavior), &mut memory, at(40));
        assert_eq!((down.replicas, down.able), (12, HIGHER));
    }
}
