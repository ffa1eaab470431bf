//! What the cluster's names mean: pre-encoded answers by name (Kubernetes DNS specification 1.1).
//!
//! The zone is changed a service at a time; a question costs one hash lookup.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;

use super::wire::{ASKED, Name, Question, Reply, code, kind, labels, record};
use crate::cluster::{Cluster, Key};

/// Seconds a client may keep a cluster name; endpoints change fast.
pub const TTL: u32 = 5;

/// Encoded records of one type.
#[derive(Debug, Clone, Default)]
struct Set {
    count: u16,
    bytes: Vec<u8>,
}

impl Set {
    fn add(&mut self, kind: u16, data: &[u8]) {
        // More than an answer could ever hold over TCP.
        if self.bytes.len() < 60_000 {
            self.count += 1;
            record(&mut self.bytes, &ASKED, kind, TTL, data);
        }
    }
}

/// What one name has. A name with nothing is an inner node of the tree: it exists, without data.
#[derive(Debug, Clone, Default)]
struct Entry {
    a: Set,
    srv: Set,
    other: BTreeMap<u16, Set>,
    cname: Option<Name>,
}

#[derive(Default)]
struct Names {
    entries: HashMap<Name, Entry>,
    /// Which names a service has put in.
    of: HashMap<Key, Vec<Name>>,
    /// How many services live below an inner name (namespaces).
    inner: HashMap<Name, usize>,
    reverse: HashMap<Ipv4Addr, BTreeMap<Key, BTreeSet<Name>>>,
    reverse_of: HashMap<Key, Vec<Ipv4Addr>>,
}

/// The cluster's zone, shared between whoever changes it and the servers that answer from it.
pub struct Zone {
    origin: Name,
    services: Name,
    pods: Name,
    soa: Vec<u8>,
    names: RwLock<Names>,
    turn: AtomicUsize,
}

/// What the zone says of a question.
pub enum Verdict {
    /// Answered; the reply is complete.
    Answered,
    /// The name is another name for this one.
    Alias(Name),
    /// In the zone, and there is no such name.
    NoSuchName,
    /// Not the cluster's business.
    Foreign,
}

impl Zone {
    /// An empty zone of this domain, e.g. `cluster.local`. `None` if that is no domain name.
    pub fn new(domain: &str) -> Option<Self> {
        let origin = Name::new(domain)?;
        let services = origin.child("svc")?;
        let pods = origin.child("pod")?;
        let mut data = origin.child("dns")?.child("ns")?.wire().to_vec();
        data.extend_from_slice(origin.child("hostmaster")?.wire());
        // serial, refresh, retry, expire, time for negative answers
        for n in [1u32, 7200, 1800, 86_400, TTL] {
            data.extend(n.to_be_bytes());
        }
        let mut soa = Vec::new();
        record(&mut soa, origin.wire(), kind::SOA, TTL, &data);
        let mut names = Names::default();
        let mut apex = Entry::default();
        apex.other.entry(kind::SOA).or_default().add(kind::SOA, &data);
        apex.other.entry(kind::NS).or_default().add(kind::NS, origin.child("dns")?.child("ns")?.wire());
        names.entries.insert(origin.clone(), apex);
        names.entries.insert(services.clone(), Entry::default());
        names.entries.insert(pods.clone(), Entry::default());
        let mut version = Entry::default();
        version.other.entry(kind::TXT).or_default().add(kind::TXT, b"\x051.1.0");
        names.entries.insert(origin.child("dns-version")?, version);
        Some(Self { origin, services, pods, soa, names: RwLock::new(names), turn: AtomicUsize::new(0) })
    }

    /// `<namespace>.svc.<domain>`: the first search domain of that namespace's pods.
    pub fn search_domain(&self, namespace: &str) -> Option<Name> {
        self.services.child(namespace)
    }

    /// `svc.<domain>` and `<domain>`: the other search domains.
    pub fn wider_search_domains(&self) -> [&Name; 2] {
        [&self.services, &self.origin]
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.names.read().entries.len()
    }

    /// Whether there are no names.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes the names of these services what the cluster's state says.
    pub fn update<'a>(&self, cluster: &Cluster, keys: impl IntoIterator<Item = &'a Key>) {
        for key in keys {
            let fresh = self.build(cluster, key);
            let mut names = self.names.write();
            names.forget(key);
            if let Some(fresh) = fresh {
                names.put(key, self.services.child(&key.0), fresh);
            }
        }
    }

    /// Answers from the zone into `out`. `limit` bounds the reply's length.
    pub fn answer(&self, q: &Question<'_>, name: &[u8], limit: usize, out: &mut Vec<u8>) -> Verdict {
        if !name.ends_with(self.origin.wire()) || !at_label(name, self.origin.wire().len()) {
            return self.answer_reverse(q, name, limit, out);
        }
        let names = self.names.read();
        let Some(entry) = names.entries.get(name) else {
            if names.inner.contains_key(name) {
                self.no_data(q, limit, out);
                return Verdict::Answered;
            }
            return self.answer_pod(q, name, limit, out);
        };
        if let Some(target) = &entry.cname
            && q.kind != kind::CNAME
        {
            return Verdict::Alias(target.clone());
        }
        let mut reply = Reply::new(out, q, code::NO_ERROR, true, limit);
        let set = match q.kind {
            kind::A | kind::ANY => &entry.a,
            kind::SRV => &entry.srv,
            other => match entry.other.get(&other) {
                Some(set) => set,
                None => &Set::default(),
            },
        };
        match (set.count, q.kind) {
            (0, _) => reply.authority(&self.soa),
            (count, kind::A) => {
                reply.answers_rotated(count, &set.bytes, self.turn.fetch_add(1, Ordering::Relaxed));
            }
            (count, _) => reply.answers(count, &set.bytes),
        }
        reply.finish();
        Verdict::Answered
    }

    /// The reply for a name that does not exist.
    pub fn no_such_name(&self, q: &Question<'_>, limit: usize, out: &mut Vec<u8>) {
        let mut reply = Reply::new(out, q, code::NX_DOMAIN, true, limit);
        reply.authority(&self.soa);
        reply.finish();
    }

    fn no_data(&self, q: &Question<'_>, limit: usize, out: &mut Vec<u8>) {
        let mut reply = Reply::new(out, q, code::NO_ERROR, true, limit);
        reply.authority(&self.soa);
        reply.finish();
    }

    /// The addresses a cluster name has, for answers that start elsewhere (aliases, search paths).
    pub fn addresses(&self, name: &[u8]) -> Option<Vec<Ipv4Addr>> {
        let names = self.names.read();
        let set = &names.entries.get(name)?.a;
        let size = set.bytes.len() / usize::from(set.count.max(1));
        let octets =
            set.bytes.chunks_exact(size.max(4)).filter_map(|r| <[u8; 4]>::try_from(&r[r.len() - 4..]).ok());
        Some(octets.map(Ipv4Addr::from).collect())
    }

    /// Whether a name belongs to the cluster's domain.
    pub fn contains(&self, name: &[u8]) -> bool {
        name.ends_with(self.origin.wire()) && at_label(name, self.origin.wire().len())
    }

    /// `a-b-c-d.<namespace>.pod.<domain>` is a.b.c.d.
    fn answer_pod(&self, q: &Question<'_>, name: &[u8], limit: usize, out: &mut Vec<u8>) -> Verdict {
        let pods = self.pods.wire();
        if !name.ends_with(pods) || !at_label(name, pods.len()) {
            return Verdict::NoSuchName;
        }
        let mut own = labels(&name[..name.len() - pods.len()]);
        let (Some((_, first)), namespace, None) = (own.next(), own.next(), own.next()) else {
            return Verdict::NoSuchName;
        };
        if namespace.is_none() {
            self.no_data(q, limit, out);
            return Verdict::Answered;
        }
        let address =
            std::str::from_utf8(first).ok().and_then(|t| t.replace('-', ".").parse::<Ipv4Addr>().ok());
        let Some(address) = address else { return Verdict::NoSuchName };
        if matches!(q.kind, kind::A | kind::ANY) {
            let mut set = Set::default();
            set.add(kind::A, &address.octets());
            let mut reply = Reply::new(out, q, code::NO_ERROR, true, limit);
            reply.answers(1, &set.bytes);
            reply.finish();
        } else {
            self.no_data(q, limit, out);
        }
        Verdict::Answered
    }

    fn answer_reverse(&self, q: &Question<'_>, name: &[u8], limit: usize, out: &mut Vec<u8>) -> Verdict {
        let Some(address) = reverse_address(name) else { return Verdict::Foreign };
        let names = self.names.read();
        let Some(owners) = names.reverse.get(&address) else { return Verdict::Foreign };
        if q.kind != kind::PTR && q.kind != kind::ANY {
            self.no_data(q, limit, out);
            return Verdict::Answered;
        }
        let mut set = Set::default();
        owners.values().flatten().for_each(|target| set.add(kind::PTR, target.wire()));
        let mut reply = Reply::new(out, q, code::NO_ERROR, true, limit);
        reply.answers(set.count, &set.bytes);
        reply.finish();
        Verdict::Answered
    }

    /// The names of one service; `None` if it has none. Names that would be too long are left out.
    fn build(&self, cluster: &Cluster, key: &Key) -> Option<Built> {
        let service = cluster.services.get(key)?;
        let own = self.services.child(&key.0)?.child(&key.1)?;
        let mut built = Built::default();
        if let Some(target) = &service.external_name {
            let target = Name::new(target)?;
            let entry = built.entry(&own);
            entry.other.entry(kind::CNAME).or_default().add(kind::CNAME, target.wire());
            entry.cname = Some(target);
            return Some(built);
        }
        if let Some(address) = service.cluster_ip {
            built.entry(&own).a.add(kind::A, &address.octets());
            built.reverse.push((address, own.clone()));
            for port in service.ports.iter().filter(|p| !p.name.is_empty()) {
                built.srv(&own, &port.name, port.protocol, port.port, &own);
            }
            return Some(built);
        }
        if !service.headless {
            return None;
        }
        let mut seen = BTreeSet::new();
        for slice in cluster.slices.get(key)?.values() {
            for endpoint in slice.endpoints.iter().filter(|e| e.ready) {
                let dashed = endpoint.address.to_string().replace('.', "-");
                let Some(host) = own.child(endpoint.hostname.as_deref().unwrap_or(&dashed)) else { continue };
                if seen.insert((own.clone(), endpoint.address)) {
                    built.entry(&own).a.add(kind::A, &endpoint.address.octets());
                }
                if seen.insert((host.clone(), endpoint.address)) {
                    built.entry(&host).a.add(kind::A, &endpoint.address.octets());
                    built.reverse.push((endpoint.address, host.clone()));
                }
                for (name, protocol, port) in slice.ports.iter().filter(|(n, _, _)| !n.is_empty()) {
                    built.srv(&own, name, *protocol, *port, &host);
                }
            }
        }
        (!built.entries.is_empty()).then_some(built)
    }
}

#[derive(Default)]
struct Built {
    entries: HashMap<Name, Entry>,
    reverse: Vec<(Ipv4Addr, Name)>,
    services: BTreeSet<(Name, u16, Name)>,
}

impl Built {
    fn entry(&mut self, name: &Name) -> &mut Entry {
        self.entries.entry(name.clone()).or_default()
    }

    fn srv(&mut self, own: &Name, port: &str, protocol: crate::Protocol, number: u16, target: &Name) {
        let transport = match protocol {
            crate::Protocol::Tcp => "_tcp",
            crate::Protocol::Udp => "_udp",
            crate::Protocol::Sctp => "_sctp",
        };
        let Some(inner) = own.child(transport) else { return };
        let Some(name) = inner.child(&format!("_{port}")) else { return };
        if !self.services.insert((name.clone(), number, target.clone())) {
            return;
        }
        self.entry(&inner);
        let mut data = vec![0, 0, 0, 100];
        data.extend(number.to_be_bytes());
        data.extend_from_slice(target.wire());
        self.entry(&name).srv.add(kind::SRV, &data);
    }
}

impl Names {
    fn forget(&mut self, key: &Key) {
        let Some(names) = self.of.remove(key) else { return };
        for name in &names {
            self.entries.remove(name);
        }
        for address in self.reverse_of.remove(key).unwrap_or_default() {
            if let Some(owners) = self.reverse.get_mut(&address) {
                owners.remove(key);
                if owners.is_empty() {
                    self.reverse.remove(&address);
                }
            }
        }
        // The namespace's own name is the parent of every service in it: the last label taken off.
        if let Some(parent) = names.iter().map(|n| n.wire()).min_by_key(|n| n.len()).map(parent)
            && let Some(count) = self.inner.get_mut(parent)
        {
            *count -= 1;
            if *count == 0 {
                self.inner.remove(parent);
            }
        }
    }

    fn put(&mut self, key: &Key, namespace: Option<Name>, built: Built) {
        if let Some(namespace) = namespace {
            *self.inner.entry(namespace).or_default() += 1;
        }
        for (address, name) in built.reverse {
            self.reverse.entry(address).or_default().entry(key.clone()).or_default().insert(name);
            self.reverse_of.entry(key.clone()).or_default().push(address);
        }
        self.of.insert(key.clone(), built.entries.keys().cloned().collect());
        self.entries.extend(built.entries);
    }
}

fn parent(name: &[u8]) -> &[u8] {
    labels(name).nth(1).map_or(&[0], |(at, _)| &name[at..])
}

/// Whether the last `len` bytes of a wire name start at a label.
fn at_label(name: &[u8], len: usize) -> bool {
    let start = name.len() - len;
    start == 0 || labels(name).any(|(at, _)| at == start)
}

/// `d.c.b.a.in-addr.arpa`.
fn reverse_address(name: &[u8]) -> Option<Ipv4Addr> {
    if !name.ends_with(b"\x07in-addr\x04arpa\0") {
        return None;
    }
    let mut parts = labels(name).map(|(_, l)| l);
    let mut octets = [0; 4];
    for octet in octets.iter_mut().rev() {
        *octet = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
    }
    (parts.next()? == b"in-addr").then(|| octets.into())
}
