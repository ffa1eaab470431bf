//! The server on a node's cluster DNS address.
//!
//! UDP is served by one thread with `recvmmsg`/`sendmmsg`: a burst of questions costs two system calls, an idle
//! server none. What the cluster cannot answer goes to the runtime, so that a slow resolver outside never delays
//! a name inside.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME};
use hickory_proto::rr::{Name as FullName, RData, Record, RecordType};
use ipnet::Ipv4Net;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::upstream::Upstream;
use super::wire::{Name, Question, Reply, UDP_PAYLOAD, code, error_reply, kind, labels};
use super::zone::{TTL, Verdict, Zone};
use crate::error::{Error, Result};
use crate::netlink::{Messages, Socket};
use crate::netns;

/// Packets taken and sent at once.
const BATCH: usize = 32;
/// Questions that wait for resolvers outside; more are refused with SERVFAIL.
const FORWARDS: usize = 512;
/// TCP connections at once, and how long one may be idle.
const CONNECTIONS: usize = 128;
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Aliases that point to aliases.
const ALIAS_DEPTH: usize = 8;
/// The index of the loopback device in every network namespace.
const LOOPBACK: u32 = 1;

/// Which namespace a pod address belongs to, for the search path: the first search domain of a pod is that of
/// its namespace. `None` if unknown.
pub type NamespaceOf = Arc<dyn Fn(Ipv4Addr) -> Option<Arc<str>> + Send + Sync>;

/// Where and for whom to serve.
#[derive(Clone)]
pub struct Config {
    /// The cluster DNS address (`clusterDNS` of the kubelet, the ClusterIP of the Service `kube-dns`).
    pub address: Ipv4Addr,
    /// 53, or another port for tests.
    pub port: u16,
    /// The node's network namespace; `None`: the one of this process.
    pub netns: Option<PathBuf>,
    /// Give the address to the node's loopback device. Off if it is there already.
    pub assign: bool,
    /// Which namespace a client is in.
    pub namespace_of: NamespaceOf,
}

/// A running server; it stops when dropped.
pub struct Server {
    stop: Arc<AtomicBool>,
    udp: Arc<std::net::UdpSocket>,
    thread: Option<std::thread::JoinHandle<()>>,
    tcp: JoinHandle<()>,
    address: SocketAddr,
}

struct Shared {
    zone: Arc<Zone>,
    upstream: Arc<Upstream>,
    namespace_of: NamespaceOf,
    forwards: Arc<Semaphore>,
}

impl Server {
    /// Starts to serve. Must be called within a tokio runtime. Sockets outside the cluster (to the resolvers)
    /// are opened in this process' own network namespace.
    pub fn start(config: Config, zone: Arc<Zone>, upstream: Arc<Upstream>) -> Result<Self> {
        if config.assign {
            let mut m = Messages::new();
            m.address(LOOPBACK, Ipv4Net::new_assert(config.address, 32));
            Socket::route(config.netns.as_deref())?
                .request(m)
                .map_err(Error::netlink(format!("give {} to the loopback device", config.address)))?;
        }
        let at = SocketAddr::from((config.address, config.port));
        let (udp, tcp) = netns::within(config.netns.as_deref(), || -> io::Result<_> {
            let udp = std::net::UdpSocket::bind(at)?;
            let tcp = std::net::TcpListener::bind(udp.local_addr()?)?;
            tcp.set_nonblocking(true)?;
            Ok((udp, tcp))
        })?
        .map_err(Error::io(format!("listen for DNS on {at}")))?;
        let address = udp.local_addr().map_err(Error::io("DNS socket"))?;
        // A burst of a node's pods must fit while the thread is not running.
        let _ = socket2::SockRef::from(&udp).set_recv_buffer_size(4 << 20);
        let tcp = TcpListener::from_std(tcp).map_err(Error::io("listen for DNS over TCP"))?;
        let forwards = Arc::new(Semaphore::new(FORWARDS));
        let shared = Arc::new(Shared { zone, upstream, namespace_of: config.namespace_of, forwards });
        let (udp, stop) = (Arc::new(udp), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (shared, udp, stop, runtime) = (shared.clone(), udp.clone(), stop.clone(), Handle::current());
            std::thread::Builder::new()
                .name("dns".into())
                .spawn(move || serve_udp(&shared, &udp, &stop, &runtime))
                .map_err(Error::io("start the DNS thread"))?
        };
        let tcp = tokio::spawn(serve_tcp(shared, tcp));
        Ok(Self { stop, udp, thread: Some(thread), tcp, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Takes the cluster DNS address from a node's loopback device again; its not being there is fine.
pub fn release(address: Ipv4Addr, netns: Option<&Path>) -> Result<()> {
    let mut m = Messages::new();
    m.delete_address(LOOPBACK, Ipv4Net::new_assert(address, 32));
    match Socket::route(netns)?.request(m) {
        Err(e) if e.raw_os_error() == Some(libc::EADDRNOTAVAIL) => Ok(()),
        done => done.map_err(Error::netlink(format!("take {address} from the loopback device"))),
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.tcp.abort();
        // Wakes the thread from recvmmsg; Linux does so although an unconnected socket makes shutdown(2) fail.
        let _ = socket2::SockRef::from(&*self.udp).shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What is left to do after the cluster was asked.
enum Next {
    /// The reply is ready.
    Send,
    /// Say nothing.
    Silence,
    /// Ask outside for `name` and answer with it.
    Ask { name: Name, why: Why },
}

/// Why a name outside is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It is what the client wants.
    Asked,
    /// The cluster says that the client's name is an alias for it.
    Alias,
    /// The client's name does not exist, and this is what its search path would come to.
    Completed,
}

impl Shared {
    /// Answers a packet from memory if possible.
    fn answer(
        &self,
        packet: &[u8],
        from: IpAddr,
        limit: impl Fn(&Question<'_>) -> usize,
        out: &mut Vec<u8>,
    ) -> Next {
        let q = match Question::parse(packet) {
            Ok(q) => q,
            Err(None) => return Next::Silence,
            Err(Some(code)) => {
                error_reply(out, packet, code);
                return Next::Send;
            }
        };
        let limit = limit(&q);
        if q.edns.is_some_and(|(_, version)| version != 0) {
            Reply::new(out, &q, code::BAD_VERSION, false, limit).finish();
            return Next::Send;
        }
        // Internet class only; no zone transfers (they are for TCP, and nobody's business).
        if q.class != 1 || (251..=254).contains(&q.kind) {
            Reply::new(out, &q, code::REFUSED, false, limit).finish();
            return Next::Send;
        }
        match self.zone.answer(&q, q.name(), limit, out) {
            Verdict::Answered => Next::Send,
            Verdict::Foreign => Next::Ask { name: Name::from_wire(q.name()), why: Why::Asked },
            Verdict::Alias(name) => Next::Ask { name, why: Why::Alias },
            Verdict::NoSuchName => {
                if let Some(name) = self.completed(&q, from) {
                    return Next::Ask { name, why: Why::Completed };
                }
                self.zone.no_such_name(&q, limit, out);
                Next::Send
            }
        }
    }

    /// The search path, walked for the client: its resolver tries `name.<namespace>.svc.<domain>` first, and
    /// would come back for each further search domain. If a wider one has the name, or the bare name has a dot
    /// and may exist outside, that is the answer to go for.
    fn completed(&self, q: &Question<'_>, from: IpAddr) -> Option<Name> {
        let IpAddr::V4(from) = from else { return None };
        if !matches!(q.kind, kind::A | kind::AAAA) {
            return None;
        }
        let namespace = (self.namespace_of)(from)?;
        let search = self.zone.search_domain(&namespace)?;
        let bare = q.name().strip_suffix(search.wire())?;
        for wider in self.zone.wider_search_domains() {
            let name = [bare, wider.wire()].concat();
            if self.zone.addresses(&name).is_some() {
                return Some(Name::from_wire(&name));
            }
        }
        let name = [bare, &[0]].concat();
        (labels(&name).count() > 1).then(|| Name::from_wire(&name))
    }

    /// Answers with the help of the resolvers outside.
    async fn ask(&self, packet: &[u8], name: Name, why: Why, udp: bool) -> Option<Vec<u8>> {
        let q = Question::parse(packet).ok()?;
        let asked = text(q.name())?;
        let kind = RecordType::from(q.kind);
        let mut answers = Vec::new();
        let (mut owner, mut name) = (asked.clone(), name);
        let mut result = ResponseCode::ServFail;
        let mut authorities = Vec::new();
        for depth in 0..ALIAS_DEPTH {
            let target = text(name.wire())?;
            if why != Why::Asked || depth > 0 {
                answers.push(Record::from_rdata(owner, TTL, RData::CNAME(CNAME(target.clone()))));
            }
            if self.zone.contains(name.wire()) {
                // An alias for another name of the cluster.
                result = ResponseCode::NoError;
                if q.kind == kind::A {
                    let list = self.zone.addresses(name.wire()).unwrap_or_default();
                    answers.extend(
                        list.into_iter().map(|a| Record::from_rdata(target.clone(), TTL, RData::A(A(a)))),
                    );
                }
                break;
            }
            let Some(answer) = self.upstream.ask(&target, kind).await else { break };
            result = answer.code;
            authorities = answer.authorities;
            // An outside alias that leads into the cluster is followed; everything else is as the resolvers say.
            let last = answer.answers.last().and_then(|r| match &r.data {
                RData::CNAME(to) => Name::new(&to.0.to_ascii()),
                _ => None,
            });
            answers.extend(answer.answers);
            match last.filter(|n| self.zone.contains(n.wire())) {
                Some(inside) => {
                    answers.pop();
                    owner = text(name.wire())?;
                    name = inside;
                }
                None => break,
            }
        }
        if why == Why::Completed && result != ResponseCode::NoError {
            // The name the client asked for does not exist, whatever became of the one it was completed to.
            result = ResponseCode::NXDomain;
            answers.clear();
        }
        let mut m = Message::new(q.id, MessageType::Response, OpCode::Query);
        m.metadata.recursion_desired = q.flags & 0x0100 != 0;
        m.metadata.recursion_available = true;
        m.metadata.response_code = result;
        m.add_query(Query::query(asked, kind));
        m.answers = answers;
        m.authorities = authorities;
        if q.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_PAYLOAD);
            m.set_edns(edns);
        }
        let limit = if udp { q.udp_limit() } else { usize::from(u16::MAX) };
        match m.to_vec() {
            Ok(bytes) if bytes.len() <= limit => Some(with_question(bytes, &q)),
            _ => {
                let mut cut = Vec::new();
                let mut reply = Reply::new(&mut cut, &q, code::NO_ERROR, false, 0);
                reply.answers(0, &[]);
                reply.finish();
                Some(cut)
            }
        }
    }
}

/// Restores the case of the question, which some clients use as a nonce.
fn with_question(mut bytes: Vec<u8>, q: &Question<'_>) -> Vec<u8> {
    if let Some(place) = bytes.get_mut(12..12 + q.raw.len()) {
        place.copy_from_slice(q.raw);
    }
    bytes
}

fn text(wire: &[u8]) -> Option<FullName> {
    FullName::from_labels(labels(wire).map(|(_, l)| l)).ok()
}

fn serve_udp(shared: &Arc<Shared>, socket: &Arc<std::net::UdpSocket>, stop: &AtomicBool, runtime: &Handle) {
    let mut packets = Packets::new();
    let mut out = Vec::with_capacity(usize::from(u16::MAX));
    while !stop.load(Ordering::Relaxed) {
        let count = match packets.receive(socket) {
            Ok(n) => n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            // An ICMP error of an earlier reply; the socket is fine.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => continue,
            Err(e) => {
                if !stop.load(Ordering::Relaxed) {
                    tracing::error!(error = %e, "DNS: receive");
                }
                return;
            }
        };
        for i in 0..count {
            let (packet, from) = packets.received(i);
            let Some(from) = from else { continue };
            match shared.answer(packet, from.ip(), |q| q.udp_limit(), &mut out) {
                Next::Silence => {}
                Next::Send => packets.reply(i, &out),
                Next::Ask { name, why } => {
                    let packet = packet.to_vec();
                    let (shared, socket) = (shared.clone(), socket.clone());
                    let Ok(permit) = shared.forwards.clone().try_acquire_owned() else {
                        if let Ok(q) = Question::parse(&packet) {
                            Reply::new(&mut out, &q, code::SERVER_FAILURE, false, 512).finish();
                            packets.reply(i, &out);
                        }
                        continue;
                    };
                    runtime.spawn(async move {
                        let _permit = permit;
                        if let Some(reply) = shared.ask(&packet, name, why, true).await {
                            // A reply that does not fit the socket's buffer is lost like any UDP packet.
                            let _ = socket.send_to(&reply, from);
                        }
                    });
                }
            }
        }
        packets.send(socket);
    }
}

/// Buffers for a batch of questions and their replies.
struct Packets {
    questions: Vec<[u8; 1500]>,
    lengths: [usize; BATCH],
    from: Vec<libc::sockaddr_in>,
    replies: Vec<Vec<u8>>,
    ready: Vec<usize>,
}

impl Packets {
    fn new() -> Self {
        // SAFETY: all-zero bytes are a valid `sockaddr_in`.
        let nowhere = unsafe { std::mem::zeroed() };
        Self {
            questions: vec![[0; 1500]; BATCH],
            lengths: [0; BATCH],
            from: vec![nowhere; BATCH],
            replies: vec![Vec::new(); BATCH],
            ready: Vec::with_capacity(BATCH),
        }
    }

    /// Waits for at least one packet.
    fn receive(&mut self, socket: &std::net::UdpSocket) -> io::Result<usize> {
        // SAFETY: all-zero bytes are valid for these plain C structures.
        let (mut headers, mut parts): ([libc::mmsghdr; BATCH], [libc::iovec; BATCH]) =
            unsafe { std::mem::zeroed() };
        for (i, part) in parts.iter_mut().enumerate() {
            part.iov_base = self.questions[i].as_mut_ptr().cast();
            part.iov_len = self.questions[i].len();
            headers[i].msg_hdr.msg_iov = part;
            headers[i].msg_hdr.msg_iovlen = 1;
            headers[i].msg_hdr.msg_name = (&raw mut self.from[i]).cast();
            headers[i].msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
        }
        // SAFETY: `headers` holds BATCH headers whose pointers lead to buffers of `self` and to `parts`, all of
        // which outlive the call.
        let n = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        for (length, header) in self.lengths.iter_mut().zip(&headers[..n as usize]) {
            *length = header.msg_len as usize;
        }
        Ok(n as usize)
    }

    fn received(&self, i: usize) -> (&[u8], Option<SocketAddr>) {
        let from = &self.from[i];
        let address = Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr));
        let known = i32::from(from.sin_family) == libc::AF_INET;
        let from = known.then(|| SocketAddr::from((address, u16::from_be(from.sin_port))));
        (&self.questions[i][..self.lengths[i].min(1500)], from)
    }

    fn reply(&mut self, i: usize, bytes: &[u8]) {
        self.replies[i].clear();
        self.replies[i].extend_from_slice(bytes);
        self.ready.push(i);
    }

    /// Sends what is ready. A reply that cannot be sent is lost like any UDP packet.
    fn send(&mut self, socket: &std::net::UdpSocket) {
        // SAFETY: all-zero bytes are valid for these plain C structures.
        let (mut headers, mut parts): ([libc::mmsghdr; BATCH], [libc::iovec; BATCH]) =
            unsafe { std::mem::zeroed() };
        for (slot, &i) in self.ready.iter().enumerate() {
            parts[slot].iov_base = self.replies[i].as_mut_ptr().cast();
            parts[slot].iov_len = self.replies[i].len();
            headers[slot].msg_hdr.msg_iov = &raw mut parts[slot];
            headers[slot].msg_hdr.msg_iovlen = 1;
            headers[slot].msg_hdr.msg_name = (&raw mut self.from[i]).cast();
            headers[slot].msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
        }
        let mut done = 0;
        while done < self.ready.len() {
            // SAFETY: the headers from `done` to the number of ready replies were filled above; what they point
            // to outlives the call.
            let n = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    &raw mut headers[done],
                    (self.ready.len() - done) as u32,
                    0,
                )
            };
            // A refused packet stops the batch before it: go on behind it.
            done += if n > 0 { n as usize } else { 1 };
        }
        self.ready.clear();
    }
}

async fn serve_tcp(shared: Arc<Shared>, listener: TcpListener) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, from)) => {
                let shared = shared.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    if let Err(e) = serve_stream(&shared, stream, from).await {
                        tracing::debug!(%from, error = %e, "DNS over TCP");
                    }
                });
            }
            Err(e) => {
                // Out of file descriptors: wait rather than spin.
                tracing::warn!(error = %e, "DNS over TCP: accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve_stream(shared: &Shared, mut stream: TcpStream, from: SocketAddr) -> io::Result<()> {
    let mut out = Vec::new();
    loop {
        let question = async {
            let len = stream.read_u16().await?;
            let mut packet = vec![0; len.into()];
            stream.read_exact(&mut packet).await?;
            Ok::<_, io::Error>(packet)
        };
        let Ok(packet) = tokio::time::timeout(TCP_IDLE, question).await else { return Ok(()) };
        let packet = match packet {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            packet => packet?,
        };
        match shared.answer(&packet, from.ip(), |_| usize::from(u16::MAX), &mut out) {
            Next::Silence => return Ok(()),
            Next::Send => {}
            Next::Ask { name, why } => match shared.ask(&packet, name, why, false).await {
                Some(reply) => out = reply,
                None => return Ok(()),
            },
        }
        stream.write_all(&[&(out.len() as u16).to_be_bytes(), out.as_slice()].concat()).await?;
    }
}
