//! Answers `healthCheckNodePort`: a load balancer asks which nodes have ready endpoints of a service whose
//! `externalTrafficPolicy` is Local (200 with some, 503 with none).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::desired::ServiceRules;
use crate::cluster::Key;
use crate::error::{Error, Result};
use crate::netns;

/// A request that is not complete after this is dropped.
const PATIENCE: Duration = Duration::from_secs(5);
/// Of a request only its end matters.
const REQUEST_LIMIT: usize = 8 * 1024;

/// The health check listeners of one node.
pub struct HealthChecks {
    address: Ipv4Addr,
    netns: Option<PathBuf>,
    ports: BTreeMap<u16, Check>,
}

struct Check {
    service: Key,
    ready: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Check {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HealthChecks {
    /// No listeners yet; they will be on `address` in the namespace at `netns`.
    pub fn new(address: Ipv4Addr, netns: Option<PathBuf>) -> Self {
        Self { address, netns, ports: BTreeMap::new() }
    }

    /// Opens, closes and updates listeners. Must be called within a tokio runtime. A port that cannot be opened
    /// is reported in the log and tried again with the next change.
    pub fn update(&mut self, rules: &BTreeMap<Key, ServiceRules>) {
        let wanted: BTreeMap<u16, (&Key, usize)> =
            rules.iter().filter_map(|(key, r)| r.health.map(|(port, n)| (port, (key, n)))).collect();
        self.ports.retain(|port, check| wanted.get(port).is_some_and(|(key, _)| check.service == **key));
        for (port, (key, count)) in wanted {
            if let Some(check) = self.ports.get(&port) {
                check.ready.store(count, Ordering::Relaxed);
                continue;
            }
            match self.open(port, key, count) {
                Ok(check) => {
                    self.ports.insert(port, check);
                }
                Err(e) => tracing::warn!(port, error = %e, "health check port cannot be served"),
            }
        }
    }

    fn open(&self, port: u16, key: &Key, count: usize) -> Result<Check> {
        let at = SocketAddr::from((self.address, port));
        let listener = netns::within(self.netns.as_deref(), || std::net::TcpListener::bind(at))?
            .and_then(|l| l.set_nonblocking(true).map(|()| l))
            .and_then(TcpListener::from_std)
            .map_err(Error::io(format!("listen on {at}")))?;
        let ready = Arc::new(AtomicUsize::new(count));
        let task = tokio::spawn(serve(listener, key.clone(), ready.clone()));
        Ok(Check { service: key.clone(), ready, task })
    }
}

async fn serve(listener: TcpListener, service: Key, ready: Arc<AtomicUsize>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let body = answer(&service, ready.load(Ordering::Relaxed));
                tokio::spawn(tokio::time::timeout(PATIENCE, respond(stream, body)));
            }
            Err(e) => {
                // Out of file descriptors: wait rather than spin.
                tracing::debug!(error = %e, "health check: accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn respond(mut stream: TcpStream, answer: String) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.windows(4).any(|w| w == b"\r\n\r\n") {
        let n = stream.read(&mut chunk).await?;
        if n == 0 || request.len() + n > REQUEST_LIMIT {
            return Ok(());
        }
        request.extend_from_slice(&chunk[..n]);
    }
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

fn answer((namespace, name): &Key, ready: usize) -> String {
    let status = if ready > 0 { "200 OK" } else { "503 Service Unavailable" };
    let body = serde_json::json!({
        "service": {"namespace": &**namespace, "name": &**name},
        "localEndpoints": ready,
        "serviceProxyHealthy": true,
    })
    .to_string();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nX-Load-Balancing-Endpoint-Weight: {ready}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}
