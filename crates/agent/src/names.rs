//! Names within a pod: hostname, `/etc/hosts`, resolver.

use std::fmt::Write as _;

use k8s_cri::v1 as cri;
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use crate::{config::Config, spec};

/// Bytes a kernel's host name may have.
const HOSTNAME_MAX: usize = 63;

/// The pod's hostname and, where it has a subdomain, its full name.
pub fn hostname(pod: &Pod, cluster_domain: &str) -> (String, Option<String>) {
    let spec = spec::spec(pod);
    let (namespace, name, _) = spec::identity(pod);
    if let Some(own) = spec.hostname_override.as_deref().filter(|h| !h.is_empty()) {
        return (own.to_owned(), None);
    }
    let mut host = spec.hostname.clone().filter(|h| !h.is_empty()).unwrap_or_else(|| name.to_owned());
    host.truncate(HOSTNAME_MAX);
    let host = host.trim_end_matches(['-', '.']).to_owned();
    let full = spec
        .subdomain
        .as_deref()
        .filter(|s| !s.is_empty())
        .map(|sub| format!("{host}.{sub}.{namespace}.svc.{cluster_domain}"));
    match full {
        Some(full) if spec.set_hostname_as_fqdn == Some(true) => (full.clone(), Some(full)),
        full => (host, full),
    }
}

/// The managed `/etc/hosts`; `host_file` is the node's own, given to pods in the host's network.
pub fn hosts_file(pod: &Pod, ips: &[String], cluster_domain: &str, host_file: Option<&str>) -> String {
    let spec = spec::spec(pod);
    let mut text = match host_file {
        Some(own) => format!("# Kubernetes-managed hosts file (host network).\n{own}"),
        None => {
            let mut text = String::from(
                "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                 fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
            );
            let (host, full) = hostname(pod, cluster_domain);
            let short = host.split('.').next().unwrap_or_default();
            for ip in ips {
                match &full {
                    Some(full) => text.push_str(&format!("{ip}\t{full}\t{short}\n")),
                    None => text.push_str(&format!("{ip}\t{host}\n")),
                }
            }
            text
        }
    };
    let aliases = spec.host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
        for alias in aliases {
            let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
            let _ = writeln!(text, "{}\t{names}", alias.ip);
        }
    }
    text
}

/// Servers, searches and options of a resolver file.
pub fn parse_resolv_conf(text: &str) -> cri::DnsConfig {
    let mut config = cri::DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let key = words.next().unwrap_or_default();
        let rest = words.map(str::to_owned);
        match key {
            "nameserver" => config.servers.extend(rest.take(1)),
            "search" => {
                config.searches =
                    rest.map(|s| if s == "." { s } else { s.trim_end_matches('.').to_owned() }).collect()
            }
            "options" => config.options = rest.collect(),
            _ => {}
        }
    }
    config
}

/// The resolver of a pod, by its `dnsPolicy` and `dnsConfig`.
pub fn resolver(pod: &Pod, config: &Config, host: &cri::DnsConfig) -> cri::DnsConfig {
    resolver_from(
        pod,
        &config.cluster_dns.iter().map(ToString::to_string).collect::<Vec<_>>(),
        &config.cluster_domain,
        host,
    )
}

fn resolver_from(pod: &Pod, cluster: &[String], domain: &str, host: &cri::DnsConfig) -> cri::DnsConfig {
    let spec: &PodSpec = &spec::spec(pod);
    let namespace = spec::identity(pod).0;
    let mut dns = match spec.dns_policy.as_deref().unwrap_or("ClusterFirst") {
        "None" => cri::DnsConfig::default(),
        policy
            if !cluster.is_empty()
                && (policy == "ClusterFirstWithHostNet"
                    || (policy == "ClusterFirst" && spec.host_network != Some(true))) =>
        {
            let mut searches =
                vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
            for search in &host.searches {
                if !searches.contains(search) {
                    searches.push(search.clone());
                }
            }
            cri::DnsConfig { servers: cluster.to_vec(), searches, options: vec!["ndots:5".into()] }
        }
        _ => host.clone(),
    };
    if let Some(own) = &spec.dns_config {
        let add = |list: &mut Vec<String>, more: Option<&Vec<String>>| {
            for item in more.into_iter().flatten() {
                if !list.contains(item) {
                    list.push(item.clone());
                }
            }
        };
        add(&mut dns.servers, own.nameservers.as_ref());
        add(&mut dns.searches, own.searches.as_ref());
        for option in own.options.iter().flatten() {
            let Some(name) = &option.name else { continue };
            dns.options.retain(|o| o.split(':').next() != Some(name));
            dns.options.push(match &option.value {
                Some(value) if !value.is_empty() => format!("{name}:{value}"),
                _ => name.clone(),
            });
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_subdomain_gives_a_full_name_that_the_hosts_file_shows() {
        let p = pod(json!({"containers": [], "hostname": "web", "subdomain": "sub",
            "hostAliases": [{"ip": "1.2.3.4", "hostnames": ["a", "b"]}]}));
        assert_eq!(hostname(&p, "c.l"), ("web".into(), Some("web.sub.ns.svc.c.l".into())));
        let text = hosts_file(&p, &["10.0.0.9".into()], "c.l", None);
        assert!(text.contains("10.0.0.9\tweb.sub.ns.svc.c.l\tweb\n"), "{text}");
        assert!(text.ends_with("# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
    }

    #[test]
    fn the_resolver_follows_policy_and_config() {
        let host = parse_resolv_conf("nameserver 9.9.9.9\nsearch corp.example. x\noptions ndots:1 rotate\n");
        let of = |spec| resolver_from(&pod(spec), &["10.96.0.10".into()], "c.l", &host);
        let first =
            of(json!({"containers": [], "dnsConfig": {"options": [{"name": "ndots", "value": "2"}]}}));
        assert_eq!(first.servers, ["10.96.0.10"]);
        assert_eq!(first.searches, ["ns.svc.c.l", "svc.c.l", "c.l", "corp.example", "x"]);
        assert_eq!(first.options, ["ndots:2"]);
        assert_eq!(of(json!({"containers": [], "dnsPolicy": "Default"})).servers, ["9.9.9.9"]);
        assert_eq!(of(json!({"containers": [], "hostNetwork": true})).servers, ["9.9.9.9"]);
        let none =
            of(json!({"containers": [], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"]}}));
        assert_eq!((none.servers, none.searches.len()), (vec!["1.1.1.1".to_owned()], 0));
    }
}
