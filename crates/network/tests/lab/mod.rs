//! What the root tests share: namespaces that remove themselves, and one-line TCP and UDP conversations.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use network::netns;
use network::pods::{Config, PodNet};

/// Whether this test can run here; prints why not.
pub fn root_or_skip() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: network namespaces need root");
    }
    root
}

/// A network namespace with its loopback up, removed when dropped.
pub struct Namespace {
    name: String,
    pub path: PathBuf,
}

impl Namespace {
    pub fn new(name: &str) -> Self {
        let name = format!("plt-{name}-{}", std::process::id());
        let path = netns::create(&name).unwrap();
        Self { name, path }
    }

    pub fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        netns::within(Some(&self.path), f).unwrap()
    }

    /// Runs `ip ARGS…` inside.
    pub fn ip(&self, args: &str) {
        self.within(|| {
            let status = std::process::Command::new("ip").args(args.split_whitespace()).status().unwrap();
            assert!(status.success(), "ip {args}");
        });
    }

    /// A TCP server that tells each client the client's address.
    pub fn tcp_echo_peer(&self, address: Ipv4Addr, port: u16) -> Server {
        self.tcp_server(address, port, |stream| stream.peer_addr().unwrap().ip().to_string())
    }

    /// A TCP server that tells each client its own address.
    pub fn tcp_echo_local(&self, address: Ipv4Addr, port: u16) -> Server {
        self.tcp_server(address, port, |stream| stream.local_addr().unwrap().ip().to_string())
    }

    fn tcp_server(&self, address: Ipv4Addr, port: u16, say: fn(&TcpStream) -> String) -> Server {
        let listener = self.within(|| TcpListener::bind((address, port)).unwrap());
        let at = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, path) = (stop.clone(), self.path.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.unwrap();
                let answer = say(&stream);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Server { at, path, stop, thread: Some(thread) }
    }

    /// Connects and returns what the server says.
    pub fn tcp_ask(&self, address: Ipv4Addr, port: u16) -> Result<String, String> {
        self.within(|| {
            let to = SocketAddr::from((address, port));
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_millis(500))
                .map_err(|e| format!("{:?}", e.kind()))?;
            stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map_err(|e| e.to_string())?;
            Ok(answer)
        })
    }

    /// A UDP socket inside.
    pub fn udp(&self, address: Ipv4Addr, port: u16) -> UdpSocket {
        let socket = self.within(|| UdpSocket::bind((address, port)).unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        socket
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = netns::remove(&self.name);
    }
}

/// A server thread that ends when dropped.
pub struct Server {
    at: SocketAddr,
    path: PathBuf,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let at = self.at;
        // One more connection wakes the accept loop, which then sees the flag.
        let woken =
            netns::within(Some(&self.path), || TcpStream::connect_timeout(&at, Duration::from_secs(1)));
        if let (Ok(Ok(_)), Some(thread)) = (woken, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

/// A node in a namespace: address 192.168.77.1 on a veth of its own, pods in 10.244.1.0/24.
pub fn node(name: &str) -> (Namespace, PodNet, tempfile::TempDir) {
    let ns = Namespace::new(name);
    ns.ip("link set lo up");
    ns.ip("link add uplink type veth peer name outside");
    ns.ip("addr add 192.168.77.1/24 dev uplink");
    ns.ip("link set uplink up");
    ns.ip("link set outside up");
    let dir = tempfile::tempdir().unwrap();
    let net = pod_net(&ns, dir.path());
    (ns, net, dir)
}

pub fn pod_net(ns: &Namespace, state: &Path) -> PodNet {
    PodNet::new(Config {
        node: "test".into(),
        pod_cidr: "10.244.1.0/24".parse().unwrap(),
        cluster_cidr: "10.244.0.0/16".parse().unwrap(),
        node_address: [192, 168, 77, 1].into(),
        state_dir: state.to_owned(),
        netns: Some(ns.path.clone()),
        mtu: 1500,
    })
    .unwrap()
}
