//! Connections to pods, made from the node's network namespace.

use std::{
    fmt::Display,
    io,
    net::SocketAddr,
    os::fd::{FromRawFd, IntoRawFd, OwnedFd},
    path::PathBuf,
    time::Duration,
};

use tokio::{
    net::{TcpSocket, TcpStream},
    sync::{mpsc, oneshot},
};

type Wanted = (bool, oneshot::Sender<io::Result<OwnedFd>>);

/// Makes connections. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Dialer {
    /// A thread in the node's network namespace that makes sockets there; `None`: the namespace of this process.
    sockets: Option<mpsc::UnboundedSender<Wanted>>,
}

impl Dialer {
    /// Connections from the network namespace at `path`.
    pub(crate) fn within(path: PathBuf) -> io::Result<Self> {
        let (sender, mut wanted) = mpsc::unbounded_channel::<Wanted>();
        let namespace = std::fs::File::open(&path)?;
        let (entered, ready) = std::sync::mpsc::channel();
        std::thread::Builder::new().name("node-netns".into()).spawn(move || {
            // only this thread changes: a socket stays in the namespace in which it was made
            let moved = nix::sched::setns(&namespace, nix::sched::CloneFlags::CLONE_NEWNET);
            let failed = moved.is_err();
            let _ = entered.send(moved.map_err(io::Error::from));
            if failed {
                return;
            }
            while let Some((v6, reply)) = wanted.blocking_recv() {
                let family =
                    if v6 { rustix::net::AddressFamily::INET6 } else { rustix::net::AddressFamily::INET };
                let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
                let socket = rustix::net::socket_with(family, rustix::net::SocketType::STREAM, flags, None);
                let _ = reply.send(socket.map_err(io::Error::from));
            }
        })?;
        ready.recv().map_err(io::Error::other)??;
        Ok(Self { sockets: Some(sender) })
    }

    async fn socket(&self, v6: bool) -> io::Result<TcpSocket> {
        let Some(sockets) = &self.sockets else {
            return if v6 { TcpSocket::new_v6() } else { TcpSocket::new_v4() };
        };
        let (reply, made) = oneshot::channel();
        sockets.send((v6, reply)).map_err(io::Error::other)?;
        let fd = made.await.map_err(io::Error::other)??;
        // SAFETY: the descriptor was just made, is owned, and is given away here.
        Ok(unsafe { TcpSocket::from_raw_fd(fd.into_raw_fd()) })
    }

    /// A connection to `host`, in words of Go's dialer if there is none.
    pub(crate) async fn connect(
        &self,
        host: &str,
        port: u16,
        timeout: Duration,
    ) -> Result<TcpStream, String> {
        let wanted = |host: &dyn Display| format!("dial tcp {host}:{port}");
        if host.is_empty() {
            return Err(format!("{}: missing address", wanted(&host)));
        }
        let work = async {
            let address = match host.trim_matches(['[', ']']).parse() {
                Ok(ip) => SocketAddr::new(ip, port),
                Err(_) => tokio::net::lookup_host((host, port))
                    .await
                    .map_err(|e| format!("dial tcp: lookup {host}: {e}"))?
                    .next()
                    .ok_or_else(|| format!("dial tcp: lookup {host}: no such host"))?,
            };
            let go = |e: io::Error| {
                let why = match e.kind() {
                    io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
                    io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
                    io::ErrorKind::NetworkUnreachable => "network is unreachable".to_owned(),
                    _ => e.to_string(),
                };
                format!("dial tcp {address}: connect: {why}")
            };
            let socket = self.socket(address.is_ipv6()).await.map_err(go)?;
            socket.connect(address).await.map_err(go)
        };
        match tokio::time::timeout(timeout, work).await {
            Ok(result) => result,
            Err(_) => Err(format!("{}: i/o timeout", wanted(&host))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A thread in a network namespace of its own with a listener on its loopback: the namespace's path, the port, and
    /// what ends the thread when it is dropped. `None` without the right to make one.
    fn namespace() -> Option<(PathBuf, u16, std::sync::mpsc::Sender<()>)> {
        let (told, ready) = std::sync::mpsc::channel();
        let (keep, ended) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
                return;
            }
            let up = std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status();
            if !up.is_ok_and(|s| s.success()) {
                return;
            }
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let port = listener.local_addr().expect("an address").port();
            let thread = nix::unistd::gettid();
            told.send((PathBuf::from(format!("/proc/self/task/{thread}/ns/net")), port)).expect("a listener");
            let _ = ended.recv();
        });
        let (path, port) = ready.recv().ok()?;
        Some((path, port, keep))
    }

    #[tokio::test]
    async fn connections_are_made_from_the_nodes_own_network() {
        let Some((path, port, _keep)) = namespace() else {
            println!("skipped: no right to make a network namespace, or no ip program");
            return;
        };
        let timeout = Duration::from_secs(5);
        let inside = Dialer::within(path).unwrap();
        assert!(inside.connect("127.0.0.1", port, timeout).await.is_ok());
        let outside = Dialer::default().connect("127.0.0.1", port, timeout).await;
        assert!(outside.is_err(), "this process has no such listener in its own network");
    }

    #[tokio::test]
    async fn what_is_not_a_namespace_is_refused() {
        assert!(Dialer::within("/proc/self/status".into()).is_err());
        assert!(Dialer::within("/nowhere".into()).is_err());
    }
}
