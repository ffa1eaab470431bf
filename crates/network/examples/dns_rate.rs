//! How many cluster names a second the DNS server answers on one core:
//! `cargo run --release -p network --example dns_rate -- [services] [seconds]`
//!
//! The server thread is what is measured: its CPU time is read before and after, and the rate is given for each
//! second of it. The clients (threads that keep a window of questions open) take whatever else the machine has.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use network::cluster::Cluster;
use network::dns::{Config, Server, Upstream, Zone};
use serde_json::json;

const WINDOW: usize = 32;
const CLIENTS: usize = 2;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let services: usize = args.next().map_or(Ok(10_000), |a| a.parse())?;
    let seconds: u64 = args.next().map_or(Ok(5), |a| a.parse())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _guard = runtime.enter();

    let zone = Arc::new(Zone::new("cluster.local").ok_or("zone")?);
    let mut cluster = Cluster::default();
    for i in 0..services {
        let service = json!({
            "metadata": {"namespace": format!("ns{}", i % 50), "name": format!("svc{i}")},
            "spec": {"clusterIP": format!("10.{}.{}.{}", 96 + i / 65_536, i / 256 % 256, i % 256),
                     "ports": [{"name": "http", "port": 80}]},
        });
        cluster.put_service(&serde_json::from_value(service)?);
    }
    zone.update(&cluster, cluster.services.keys());
    let config = Config {
        address: Ipv4Addr::LOCALHOST,
        port: 0,
        netns: None,
        assign: false,
        namespace_of: Arc::new(|_| None),
    };
    let server = Server::start(config, zone, Arc::new(Upstream::new(vec![])))?;
    let thread = dns_thread()?;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let (stop, answered, to) = (stop.clone(), answered.clone(), server.address());
            std::thread::spawn(move || client(n, services, to, &stop, &answered))
        })
        .collect();
    let (start, cpu) = (Instant::now(), cpu_ticks(&thread)?);
    std::thread::sleep(Duration::from_secs(seconds));
    let (n, elapsed) = (answered.load(Ordering::Relaxed), start.elapsed().as_secs_f64());
    let cpu = (cpu_ticks(&thread)? - cpu) as f64 / 100.0;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        let _ = client.join();
    }
    println!("{services} services, {n} answers in {elapsed:.1} s: {:.0}/s", n as f64 / elapsed);
    println!("server thread: {cpu:.2} s of CPU: {:.0} answers/s a core", n as f64 / cpu);
    println!("resident memory: {}", status("VmRSS")?);
    Ok(())
}

fn client(n: usize, services: usize, to: std::net::SocketAddr, stop: &AtomicBool, answered: &AtomicU64) {
    let Ok(socket) = UdpSocket::bind("127.0.0.1:0") else { return };
    let _ = socket.connect(to);
    let _ = socket.set_read_timeout(Some(Duration::from_millis(100)));
    let mut i = n * 7919;
    let mut buffer = [0; 1500];
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..WINDOW {
            i = (i + 1) % services;
            let _ = socket.send(&question(i));
        }
        for _ in 0..WINDOW {
            match socket.recv(&mut buffer) {
                Ok(len) if len > 12 && buffer[7] == 1 => answered.fetch_add(1, Ordering::Relaxed),
                _ => break,
            };
        }
    }
}

fn question(i: usize) -> Vec<u8> {
    let mut packet = vec![(i >> 8) as u8, i as u8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [&format!("svc{i}"), &format!("ns{}", i % 50), "svc", "cluster", "local"] {
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend([0, 0, 1, 0, 1]);
    packet
}

/// The thread id of the server's thread.
fn dns_thread() -> std::io::Result<String> {
    for entry in std::fs::read_dir("/proc/self/task")? {
        let id = entry?.file_name().to_string_lossy().into_owned();
        if std::fs::read_to_string(format!("/proc/self/task/{id}/comm"))?.trim() == "dns" {
            return Ok(id);
        }
    }
    Err(std::io::ErrorKind::NotFound.into())
}

/// User and system time of a thread in hundredths of a second (proc(5), fields 14 and 15).
fn cpu_ticks(id: &str) -> Result<u64, Box<dyn std::error::Error>> {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{}/stat", id))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

fn status(field: &str) -> std::io::Result<String> {
    let text = std::fs::read_to_string("/proc/self/status")?;
    Ok(text
        .lines()
        .find_map(|l| l.strip_prefix(field))
        .unwrap_or_default()
        .trim_start_matches(':')
        .trim()
        .to_owned())
}
