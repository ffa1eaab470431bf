//! How many pods may be missing and how many extra while a Deployment rolls.

use k8s_openapi::{api::apps::v1::Deployment, apimachinery::pkg::util::intstr::IntOrString};

/// Wanted pods.
pub fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

/// The strategy is RollingUpdate.
pub fn is_rolling(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.strategy.as_ref().and_then(|s| s.type_.as_deref());
    strategy.unwrap_or("RollingUpdate") == "RollingUpdate"
}

/// Extra and missing pods that are allowed. Of both zero nothing could ever roll: then one may be missing.
fn fence_posts(deployment: &Deployment) -> (i32, i32) {
    let rolling = deployment.spec.strategy.as_ref().and_then(|s| s.rolling_update.as_ref());
    let total = replicas(deployment);
    let surge = scaled(rolling.and_then(|r| r.max_surge.as_ref()), total, true);
    let unavailable = scaled(rolling.and_then(|r| r.max_unavailable.as_ref()), total, false);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// A number or a share of `total`; nothing, or what is neither, is 0.
pub fn scaled(value: Option<&IntOrString>, total: i32, round_up: bool) -> i32 {
    use apimachinery::intstr::IntOrString as Scaled;
    let value = match value {
        Some(IntOrString::Int(number)) => Scaled::Int(*number),
        Some(IntOrString::String(text)) => Scaled::Text(text.clone()),
        None => return 0,
    };
    value.scaled(total, round_up).unwrap_or(0)
}

/// Pods that may exist beyond the wanted ones.
pub fn max_surge(deployment: &Deployment) -> i32 {
    if is_rolling(deployment) { fence_posts(deployment).0 } else { 0 }
}

/// Pods that may be unavailable.
pub fn max_unavailable(deployment: &Deployment) -> i32 {
    if !is_rolling(deployment) || replicas(deployment) == 0 {
        return 0;
    }
    fence_posts(deployment).1.min(replicas(deployment))
}

/// Seconds until a rollout without progress is called stuck; none for never.
pub fn progress_deadline(deployment: &Deployment) -> Option<i64> {
    deployment.spec.progress_deadline_seconds.filter(|s| *s != i32::MAX).map(i64::from)
}
