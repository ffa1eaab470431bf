//! Other people's names: asks the host's resolvers, remembers the answers, and falls back on what it remembers
//! when they do not answer (RFC 8767).

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

/// Names remembered; an answer is some hundred bytes.
const CACHE_LIMIT: usize = 4096;
/// Questions under way at once. More are turned away rather than queued.
const IN_FLIGHT: usize = 256;
/// What one resolver gets before the next is asked.
const PATIENCE: Duration = Duration::from_millis(1500);
/// How long after its end an answer may stand in for silent resolvers.
const STALE: Duration = Duration::from_secs(3600);
/// TTL of a stale answer (RFC 8767 §4).
const STALE_TTL: u32 = 30;
/// No answer is kept longer.
const TTL_LIMIT: u32 = 3600;
/// A negative answer without SOA is kept this long.
const NEGATIVE_TTL: u32 = 5;

/// The way to the names of the world.
pub struct Upstream {
    servers: Vec<SocketAddr>,
    cache: Mutex<HashMap<(Name, RecordType), Cached>>,
    flights: Semaphore,
}

#[derive(Clone)]
struct Cached {
    answer: Answer,
    since: Instant,
    ttl: u32,
}

/// What the resolvers say.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Response code.
    pub code: ResponseCode,
    /// Answer section.
    pub answers: Vec<Record>,
    /// Authority section (the SOA of a negative answer).
    pub authorities: Vec<Record>,
}

impl Upstream {
    /// Asks these resolvers, in order.
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, cache: Mutex::default(), flights: Semaphore::new(IN_FLIGHT) }
    }

    /// The resolvers of a `resolv.conf`, without `except` (ourselves).
    pub fn from_resolv_conf(path: &Path, except: Option<IpAddr>) -> Self {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let servers = text.lines().filter_map(|line| {
            let address = line.trim().strip_prefix("nameserver")?.split_whitespace().next()?;
            let address: IpAddr = address.split('%').next()?.parse().ok()?;
            (Some(address) != except).then(|| SocketAddr::new(address, 53))
        });
        Self::new(servers.take(3).collect())
    }

    /// Answers a question; `None` if nobody does and nothing is remembered.
    pub async fn ask(&self, name: &Name, kind: RecordType) -> Option<Answer> {
        let key = (name.to_lowercase(), kind);
        let known = self.cache.lock().get(&key).cloned();
        let now = Instant::now();
        if let Some(known) = &known {
            let age = now.saturating_duration_since(known.since).as_secs() as u32;
            if age < known.ttl {
                return Some(aged(&known.answer, |ttl| ttl.saturating_sub(age).max(1)));
            }
        }
        let fresh = match self.flights.try_acquire() {
            Ok(_permit) => self.ask_servers(&key.0, kind).await,
            Err(_) => None,
        };
        match fresh {
            Some(answer) => {
                self.remember(key, &answer, now);
                Some(answer)
            }
            None => {
                let stale = known.filter(|k| {
                    now.saturating_duration_since(k.since) < STALE + Duration::from_secs(k.ttl.into())
                });
                stale.map(|k| aged(&k.answer, |_| STALE_TTL))
            }
        }
    }

    fn remember(&self, key: (Name, RecordType), answer: &Answer, now: Instant) {
        let positive = answer.answers.iter().map(|r| r.ttl).min();
        let ttl = positive.or_else(|| answer.authorities.iter().map(|r| r.ttl).min()).unwrap_or(NEGATIVE_TTL);
        let mut cache = self.cache.lock();
        if cache.len() >= CACHE_LIMIT && !cache.contains_key(&key) {
            cache.retain(|_, c| now.saturating_duration_since(c.since).as_secs() < u64::from(c.ttl));
            if cache.len() >= CACHE_LIMIT
                && let Some(any) = cache.keys().next().cloned()
            {
                cache.remove(&any);
            }
        }
        cache.insert(key, Cached { answer: answer.clone(), since: now, ttl: ttl.min(TTL_LIMIT) });
    }

    async fn ask_servers(&self, name: &Name, kind: RecordType) -> Option<Answer> {
        for round in 0..2 {
            for server in &self.servers {
                match tokio::time::timeout(PATIENCE, exchange(*server, name, kind)).await {
                    Ok(Ok(answer)) if usable(answer.code) => return Some(answer),
                    Ok(Ok(answer)) => {
                        tracing::debug!(%server, code = %answer.code, round, "upstream cannot answer")
                    }
                    Ok(Err(e)) => tracing::debug!(%server, error = %e, round, "upstream"),
                    Err(_) => tracing::debug!(%server, round, "upstream is silent"),
                }
            }
        }
        None
    }
}

fn usable(code: ResponseCode) -> bool {
    matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
}

fn aged(answer: &Answer, ttl: impl Fn(u32) -> u32) -> Answer {
    let mut answer = answer.clone();
    for record in answer.answers.iter_mut().chain(&mut answer.authorities) {
        record.ttl = ttl(record.ttl);
    }
    answer
}

/// One question to one server: UDP from a socket of its own (so that port and id must be guessed by who wants to
/// forge an answer), TCP if the answer was cut.
async fn exchange(server: SocketAddr, name: &Name, kind: RecordType) -> std::io::Result<Answer> {
    let id = random_id()?;
    let mut query = Message::new(id, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(name.clone(), kind));
    let mut edns = Edns::new();
    edns.set_max_payload(super::wire::UDP_PAYLOAD);
    query.set_edns(edns);
    let query = query.to_vec().map_err(std::io::Error::other)?;
    let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(&query).await?;
    let mut buffer = vec![0; 4096];
    loop {
        let n = socket.recv(&mut buffer).await?;
        if let Some(answer) = matching(&buffer[..n], id, name, kind) {
            return if answer.metadata.truncation {
                over_tcp(server, &query, id, name, kind).await
            } else {
                Ok(parts(answer))
            };
        }
    }
}

async fn over_tcp(
    server: SocketAddr,
    query: &[u8],
    id: u16,
    name: &Name,
    kind: RecordType,
) -> std::io::Result<Answer> {
    let mut stream = TcpStream::connect(server).await?;
    stream.write_u16(query.len() as u16).await?;
    stream.write_all(query).await?;
    let len = stream.read_u16().await?;
    let mut buffer = vec![0; len.into()];
    stream.read_exact(&mut buffer).await?;
    matching(&buffer, id, name, kind)
        .map(parts)
        .ok_or_else(|| std::io::Error::other("an answer to another question"))
}

fn matching(packet: &[u8], id: u16, name: &Name, kind: RecordType) -> Option<Message> {
    let message = Message::from_vec(packet).ok()?;
    let question = message.queries.first()?;
    let ours = message.metadata.id == id
        && message.metadata.message_type == MessageType::Response
        && question.name.to_lowercase() == *name
        && question.query_type == kind;
    ours.then_some(message)
}

fn parts(message: Message) -> Answer {
    let authorities =
        message.authorities.into_iter().filter(|r| r.record_type() == RecordType::SOA).collect();
    Answer { code: message.metadata.response_code, answers: message.answers, authorities }
}

fn random_id() -> std::io::Result<u16> {
    let mut bytes = [0; 2];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u16::from_ne_bytes(bytes))
}
