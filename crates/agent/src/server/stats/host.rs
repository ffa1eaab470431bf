//! What the node uses, from `/proc`, or from its cgroup where it has only a share of its machine.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use super::summary::{Cpu, Interface, Memory, Network, Rlimit, Swap, Time};

/// Nanoseconds of a tick in `/proc/stat`: USER_HZ is 100 on every architecture that Linux still runs Kubernetes on.
const TICK: u64 = 10_000_000;

/// Where the kernel shows itself.
pub(super) struct Kernel {
    proc: PathBuf,
    cgroup: PathBuf,
}

impl Default for Kernel {
    fn default() -> Self {
        Self { proc: "/proc".into(), cgroup: "/sys/fs/cgroup".into() }
    }
}

/// Processor time and memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// Nanoseconds on all processors.
    cpu: Option<u64>,
    /// Bytes, with caches …
    usage: Option<u64>,
    /// … and those of them that could be dropped at once.
    inactive_file: Option<u64>,
    rss: Option<u64>,
    page_faults: Option<u64>,
    major_page_faults: Option<u64>,
}

impl Used {
    pub(super) fn cpu(&self, at: i64, time: &Time) -> Option<Cpu> {
        let usage_core_nano_seconds = Some(self.cpu?);
        Some(Cpu { time: time.clone(), usage_core_nano_seconds, usage_nano_cores: None, at })
    }

    /// `capacity` in bytes.
    pub(super) fn memory(&self, capacity: u64, at: i64, time: &Time) -> Option<Memory> {
        let working_set = self.usage?.saturating_sub(self.inactive_file.unwrap_or(0));
        Some(Memory {
            time: time.clone(),
            available_bytes: Some(capacity.saturating_sub(working_set)),
            usage_bytes: self.usage,
            working_set_bytes: Some(working_set),
            rss_bytes: self.rss,
            page_faults: self.page_faults,
            major_page_faults: self.major_page_faults,
            at,
        })
    }
}

impl Kernel {
    fn proc(&self, file: &str) -> io::Result<String> {
        fs::read_to_string(self.proc.join(file))
    }

    /// The whole machine, and its memory in bytes.
    pub(super) fn machine(&self) -> io::Result<(Used, u64)> {
        let memory = table(&self.proc("meminfo")?, ":");
        let faults = table(&self.proc("vmstat").unwrap_or_default(), "");
        let bytes = |name: &str| memory.get(name).map(|kib| kib * 1024);
        let total = bytes("MemTotal").unwrap_or(0);
        let used = Used {
            cpu: busy(&self.proc("stat")?),
            usage: bytes("MemFree").map(|free| total.saturating_sub(free)),
            inactive_file: bytes("Inactive(file)"),
            rss: bytes("AnonPages"),
            page_faults: faults.get("pgfault").copied(),
            major_page_faults: faults.get("pgmajfault").copied(),
        };
        Ok((used, total))
    }

    /// What is in this cgroup, `/plimsoll/node-1`, of either version.
    pub(super) fn group(&self, cgroup: &str) -> Used {
        let cgroup = cgroup.trim_start_matches('/');
        if self.cgroup.join("cgroup.controllers").exists() {
            let dir = self.cgroup.join(cgroup);
            let memory = table(&read(&dir, "memory.stat"), "");
            let get = |name: &str| memory.get(name).copied();
            return Used {
                cpu: table(&read(&dir, "cpu.stat"), "").get("usage_usec").map(|us| us * 1000),
                usage: number(&dir, "memory.current"),
                inactive_file: get("inactive_file"),
                rss: get("anon"),
                page_faults: get("pgfault"),
                major_page_faults: get("pgmajfault"),
            };
        }
        let dir = self.cgroup.join("memory").join(cgroup);
        let memory = table(&read(&dir, "memory.stat"), "");
        let get = |name: &str| memory.get(name).copied();
        // The controllers may be mounted together, or each by itself.
        let cpu = ["cpuacct", "cpu,cpuacct", "cpu"].iter();
        Used {
            cpu: cpu.filter_map(|c| number(&self.cgroup.join(c).join(cgroup), "cpuacct.usage")).next(),
            usage: number(&dir, "memory.usage_in_bytes"),
            inactive_file: get("total_inactive_file"),
            rss: get("total_rss"),
            page_faults: get("total_pgfault"),
            major_page_faults: get("total_pgmajfault"),
        }
    }

    pub(super) fn swap(&self, time: &Time) -> Option<Swap> {
        let memory = table(&self.proc("meminfo").ok()?, ":");
        let (total, free) = (memory.get("SwapTotal")? * 1024, memory.get("SwapFree")? * 1024);
        Some(Swap {
            time: time.clone(),
            swap_available_bytes: Some(free),
            swap_usage_bytes: Some(total.saturating_sub(free)),
        })
    }

    /// Processes, and how many there may be.
    pub(super) fn processes(&self, time: &Time) -> Option<Rlimit> {
        // 0.15 0.10 0.05 2/1234 5678: the second number of the fourth word counts threads
        let load = self.proc("loadavg").ok()?;
        let curproc = load.split(' ').nth(3)?.split('/').nth(1)?.parse().ok();
        let one = |file: &str| self.proc(file).ok()?.trim().parse::<i64>().ok();
        let maxpid = one("sys/kernel/pid_max").into_iter().chain(one("sys/kernel/threads-max")).min();
        Some(Rlimit { time: time.clone(), maxpid, curproc })
    }

    /// When the machine was started, seconds since 1970.
    pub(super) fn boot_time(&self) -> Option<i64> {
        let stat = self.proc("stat").ok()?;
        stat.lines().find_map(|l| l.strip_prefix("btime "))?.trim().parse().ok()
    }

    /// Interfaces but for loopback and those that lead to pods.
    pub(super) fn network(&self, time: &Time) -> Option<Network> {
        let interfaces = interfaces(&self.proc("net/dev").ok()?);
        let way_out = default_interface(&self.proc("net/route").unwrap_or_default());
        let default = interfaces.iter().find(|i| Some(&i.name) == way_out.as_ref()).or(interfaces.first());
        Some(Network { time: time.clone(), default: default.cloned().unwrap_or_default(), interfaces })
    }
}

fn read(dir: &Path, file: &str) -> String {
    fs::read_to_string(dir.join(file)).unwrap_or_default()
}

fn number(dir: &Path, file: &str) -> Option<u64> {
    read(dir, file).trim().parse().ok()
}

/// Lines of a name and a number.
fn table(text: &str, after_name: &str) -> BTreeMap<String, u64> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let name = words.next()?;
        let name = name.strip_suffix(after_name).unwrap_or(name);
        Some((name.to_owned(), words.next()?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// Nanoseconds in which the processors were at work: user, nice, system, irq, softirq, steal (proc(5)); time of guests
/// is part of user's.
fn busy(stat: &str) -> Option<u64> {
    let line = stat.lines().find_map(|l| l.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line.split_whitespace().filter_map(|w| w.parse().ok()).collect();
    let sum: u64 = [0, 1, 2, 5, 6, 7].iter().filter_map(|i| ticks.get(*i)).sum();
    (ticks.len() >= 4).then_some(sum * TICK)
}

fn interfaces(dev: &str) -> Vec<Interface> {
    let one = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let name = name.trim();
        if name == "lo" || name.starts_with("veth") {
            return None;
        }
        let counters: Vec<u64> = counters.split_whitespace().filter_map(|w| w.parse().ok()).collect();
        let get = |i: usize| counters.get(i).copied();
        Some(Interface {
            name: name.to_owned(),
            rx_bytes: get(0),
            rx_errors: get(2),
            tx_bytes: get(8),
            tx_errors: get(10),
        })
    };
    dev.lines().filter_map(one).collect()
}

/// The interface of the route to everywhere: destination and mask 0.
fn default_interface(route: &str) -> Option<String> {
    route.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [name, "00000000", _, _, _, _, _, "00000000", ..] => Some((*name).to_owned()),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A `/proc` and a `/sys/fs/cgroup` with these files.
    fn kernel(files: &[(&str, &str)]) -> (tempfile::TempDir, Kernel) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let kernel = Kernel { proc: dir.path().join("proc"), cgroup: dir.path().join("cgroup") };
        (dir, kernel)
    }

    #[test]
    fn the_machine_is_read_from_proc() {
        let (_dir, kernel) = kernel(&[
            ("proc/stat", "cpu  100 10 50 9000 7 1 2 3 40 0\ncpu0 1 1 1 1\nbtime 1700000000\n"),
            (
                "proc/meminfo",
                "MemTotal: 1000 kB\nMemFree: 400 kB\nInactive(file): 100 kB\nAnonPages: 300 kB\n",
            ),
            ("proc/vmstat", "pgfault 9\npgmajfault 2\n"),
        ]);
        let (used, total) = kernel.machine().unwrap();
        assert_eq!(total, 1000 * 1024);
        assert_eq!(used.cpu, Some((100 + 10 + 50 + 1 + 2 + 3) * TICK));
        let memory = used.memory(total, 0, &String::new()).unwrap();
        assert_eq!(memory.usage_bytes, Some(600 * 1024));
        assert_eq!(memory.working_set_bytes, Some(500 * 1024));
        assert_eq!(memory.available_bytes, Some(500 * 1024));
        assert_eq!((memory.page_faults, memory.major_page_faults), (Some(9), Some(2)));
        assert_eq!(kernel.boot_time(), Some(1_700_000_000));
    }

    #[test]
    fn a_nodes_group_is_read_from_either_version_of_cgroups() {
        let expected = Used {
            cpu: Some(5000),
            usage: Some(4096),
            inactive_file: Some(1024),
            rss: Some(2048),
            page_faults: Some(3),
            major_page_faults: Some(1),
        };
        let (_dir, v2) = kernel(&[
            ("cgroup/cgroup.controllers", "cpu memory"),
            ("cgroup/p/n/cpu.stat", "usage_usec 5\nuser_usec 3\n"),
            ("cgroup/p/n/memory.current", "4096\n"),
            ("cgroup/p/n/memory.stat", "anon 2048\ninactive_file 1024\npgfault 3\npgmajfault 1\n"),
        ]);
        assert_eq!(v2.group("/p/n"), expected);
        let (_dir, v1) = kernel(&[
            ("cgroup/cpu,cpuacct/p/n/cpuacct.usage", "5000\n"),
            ("cgroup/memory/p/n/memory.usage_in_bytes", "4096\n"),
            (
                "cgroup/memory/p/n/memory.stat",
                "rss 1\ntotal_rss 2048\ntotal_inactive_file 1024\ntotal_pgfault 3\ntotal_pgmajfault 1\n",
            ),
        ]);
        assert_eq!(v1.group("/p/n"), expected);
        assert_eq!(v1.group("/none").memory(1, 0, &String::new()), None);
    }

    #[test]
    fn the_default_interface_is_the_one_that_leads_out() {
        let dev = "Inter-|   Receive\n face |bytes\n    lo: 1 2 3 4 5 6 7 8 9 10 11\n\
                   cni0: 5 0 0 0 0 0 0 0 6 0 0 0\n  eth0: 100 1 2 0 0 0 0 0 200 3 4 0\n veth12: 1 1 1 1\n";
        let route = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
                     cni0\t00000A0A\t00000000\t0001\t0\t0\t0\t00FFFFFF\n\
                     eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\n";
        let (_dir, kernel) = kernel(&[("proc/net/dev", dev), ("proc/net/route", route)]);
        let network = kernel.network(&String::new()).unwrap();
        assert_eq!(network.interfaces.len(), 2);
        assert_eq!(network.default.name, "eth0");
        assert_eq!((network.default.rx_bytes, network.default.tx_errors), (Some(100), Some(4)));
    }

    #[test]
    fn this_machine_can_be_read() {
        let (used, total) = Kernel::default().machine().unwrap();
        assert!(total > 0 && used.cpu.unwrap() > 0 && used.usage.unwrap() < total);
        assert!(Kernel::default().processes(&String::new()).unwrap().curproc.unwrap() > 0);
    }
}
