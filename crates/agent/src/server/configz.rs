//! `/configz`: the settings in the words of upstream's `KubeletConfiguration`.

use serde_json::json;

use super::{
    Kubelet,
    reply::{Reply, json},
};

pub(super) fn serve(kubelet: &Kubelet) -> Reply {
    let config = &kubelet.config;
    let listen = config.server.as_ref().and_then(|s| s.listener.local_addr().ok());
    let reserved = config
        .reserved
        .iter()
        .map(|(name, amount)| (name.clone(), json!(crate::quantity::to_quantity(name, *amount).0)));
    let settings = json!({"kubeletconfig": {
        "address": listen.map(|l| l.ip().to_string()),
        "port": listen.map(|l| l.port()),
        "maxPods": config.max_pods,
        "clusterDNS": config.cluster_dns,
        "clusterDomain": config.cluster_domain,
        "resolvConf": config.resolv_conf,
        "podLogsDir": config.log_root,
        "cgroupRoot": config.cgroup_parent,
        "systemReserved": reserved.collect::<serde_json::Map<_, _>>(),
        "crashLoopBackOff": {"maxContainerRestartPeriod": seconds(config.policy.crash.max)},
        "streamingConnectionIdleTimeout": "4h0m0s",
        "authentication": {
            "anonymous": {"enabled": false}, "webhook": {"enabled": true, "cacheTTL": "30s"},
        },
        "authorization": {
            "mode": "Webhook", "webhook": {"cacheAuthorizedTTL": "30s", "cacheUnauthorizedTTL": "30s"},
        },
    }});
    json(settings.to_string())
}

fn seconds(duration: impl TryInto<std::time::Duration>) -> Option<String> {
    duration.try_into().ok().map(|d| format!("{}s", d.as_secs()))
}
