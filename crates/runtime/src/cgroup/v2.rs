//! cgroup v2: one hierarchy.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Cgroups, Resources, Usage, check_path, keyed, read_number, retried, write};

const CONTROLLERS: [&str; 5] = ["cpu", "memory", "pids", "cpuset", "hugetlb"];

/// The hierarchy.
#[derive(Clone, Debug)]
pub struct V2 {
    root: PathBuf,
}

/// v1's shares (2…262144) as v2's weight (1…10000), as every runtime converts them.
fn weight(shares: i64) -> i64 {
    let shares = shares.clamp(2, 262_144);
    1 + (shares - 2) * 9999 / 262_142
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".into() } else { value.to_string() }
}

/// Lets the groups below use the controllers that there are.
fn delegate(directory: &Path) -> io::Result<()> {
    let there = fs::read_to_string(directory.join("cgroup.controllers"))?;
    let on = fs::read_to_string(directory.join("cgroup.subtree_control")).unwrap_or_default();
    for controller in CONTROLLERS {
        let listed = |text: &str| text.split_whitespace().any(|c| c == controller);
        if listed(&there) && !listed(&on) {
            write(directory, "cgroup.subtree_control", &format!("+{controller}"))?;
        }
    }
    Ok(())
}

impl V2 {
    /// Of the hierarchy mounted there.
    pub fn new(root: PathBuf) -> V2 {
        V2 { root }
    }

    fn create_once(&self, path: &str, resources: &Resources) -> io::Result<Vec<PathBuf>> {
        let mut at = self.root.clone();
        for part in check_path(path)?.split('/').filter(|p| !p.is_empty()) {
            delegate(&at)?;
            at.push(part);
            match fs::create_dir(&at) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(io::Error::new(e.kind(), format!("make the cgroup {}: {e}", at.display())));
                }
                _ => {}
            }
        }
        self.set(&at, resources)?;
        Ok(vec![at])
    }

    fn set(&self, directory: &Path, r: &Resources) -> io::Result<()> {
        if r.cpu_shares > 0 {
            write(directory, "cpu.weight", &weight(r.cpu_shares).to_string())?;
        }
        if r.cpu_quota != 0 {
            let period = if r.cpu_period > 0 { r.cpu_period } else { 100_000 };
            write(directory, "cpu.max", &format!("{} {period}", or_max(r.cpu_quota)))?;
        }
        if r.memory != 0 {
            write(directory, "memory.max", &or_max(r.memory))?;
        }
        if r.memory_swap != 0 && directory.join("memory.swap.max").exists() {
            // v1 counts both together
            let swap = if r.memory_swap < 0 { -1 } else { (r.memory_swap - r.memory.max(0)).max(0) };
            write(directory, "memory.swap.max", &or_max(swap))?;
        }
        if r.pids != 0 {
            write(directory, "pids.max", &or_max(r.pids))?;
        }
        for (file, value) in [("cpuset.cpus", &r.cpuset_cpus), ("cpuset.mems", &r.cpuset_mems)] {
            if !value.is_empty() {
                write(directory, file, value)?;
            }
        }
        for (size, limit) in &r.hugepages {
            write(directory, &format!("hugetlb.{size}.max"), &limit.to_string())?;
        }
        for (file, value) in &r.unified {
            if file.contains('/') || !file.contains('.') || file.starts_with("cgroup.") {
                let text = format!("{file:?} is no file of a cgroup that may be set");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            write(directory, file, value)?;
        }
        Ok(())
    }
}

impl Cgroups for V2 {
    fn create(&self, path: &str, resources: &Resources, _: bool) -> io::Result<Vec<PathBuf>> {
        retried(|| self.create_once(path, resources))
    }

    fn update(&self, path: &str, resources: &Resources) -> io::Result<()> {
        self.set(&self.root.join(check_path(path)?), resources)
    }

    fn usage(&self, path: &str) -> io::Result<Usage> {
        let directory = self.root.join(check_path(path)?);
        let stat = fs::read_to_string(directory.join("memory.stat"))?;
        let cpu = fs::read_to_string(directory.join("cpu.stat"))?;
        let used = read_number(&directory, "memory.current")?;
        let of = |key| keyed(&stat, key).unwrap_or(0);
        Ok(Usage {
            cpu: keyed(&cpu, "usage_usec").unwrap_or(0).saturating_mul(1000),
            memory: used,
            working_set: used.saturating_sub(of("inactive_file")),
            rss: of("anon"),
            memory_limit: read_number(&directory, "memory.max").ok(),
            swap: read_number(&directory, "memory.swap.current").unwrap_or(0),
            page_faults: of("pgfault"),
            major_page_faults: of("pgmajfault"),
            pids: read_number(&directory, "pids.current").unwrap_or(0),
        })
    }

    fn oom_kills(&self, path: &str) -> u64 {
        let Ok(path) = check_path(path) else { return 0 };
        let text = fs::read_to_string(self.root.join(path).join("memory.events")).unwrap_or_default();
        keyed(&text, "oom_kill").unwrap_or(0)
    }

    fn directories(&self, path: &str) -> Vec<PathBuf> {
        match check_path(path) {
            Ok(path) if !path.is_empty() => {
                [self.root.join(path)].into_iter().filter(|d| d.is_dir()).collect()
            }
            _ => Vec::new(),
        }
    }

    fn visible(&self, _: &str) -> Vec<(String, PathBuf)> {
        Vec::new()
    }

    fn version(&self) -> u8 {
        2
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn tree() -> (tempfile::TempDir, V2) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        let v2 = V2::new(dir.path().to_owned());
        (dir, v2)
    }

    #[test]
    fn shares_become_weights() {
        assert_eq!((weight(2), weight(1024), weight(262_144)), (1, 39, 10_000));
    }

    #[test]
    fn limits_are_written_in_v2_s_form() {
        let (dir, v2) = tree();
        fs::create_dir(dir.path().join("a")).unwrap();
        fs::write(dir.path().join("a/memory.swap.max"), "max").unwrap();
        let resources = Resources {
            cpu_quota: -1,
            memory: 100,
            memory_swap: 150,
            pids: -1,
            unified: BTreeMap::from([("memory.oom.group".to_owned(), "1".to_owned())]),
            ..Resources::default()
        };
        assert_eq!(v2.create("/a", &resources, true).unwrap(), [dir.path().join("a")]);
        let read = |file: &str| fs::read_to_string(dir.path().join("a").join(file)).unwrap();
        assert_eq!(read("cpu.max"), "max 100000");
        assert_eq!((read("memory.max"), read("memory.swap.max")), ("100".into(), "50".into()));
        assert_eq!((read("pids.max"), read("memory.oom.group")), ("max".into(), "1".into()));
        assert_eq!(fs::read_to_string(dir.path().join("cgroup.subtree_control")).unwrap(), "+pids");
    }

    #[test]
    fn a_unified_setting_cannot_move_processes() {
        let (_dir, v2) = tree();
        for file in ["cgroup.procs", "../memory.max", "x"] {
            let resources = Resources {
                unified: BTreeMap::from([(file.to_owned(), "1".to_owned())]),
                ..Resources::default()
            };
            assert!(v2.create("/a", &resources, false).is_err(), "{file}");
        }
    }

    #[test]
    fn usage_is_read_in_v2_s_units() {
        let (dir, v2) = tree();
        let group = dir.path().join("a");
        fs::create_dir(&group).unwrap();
        for (file, text) in [
            ("cpu.stat", "usage_usec 5\nuser_usec 3\n"),
            ("memory.current", "1000\n"),
            ("memory.max", "max\n"),
            ("memory.stat", "anon 400\ninactive_file 100\npgfault 7\n"),
            ("memory.events", "low 0\noom 1\noom_kill 1\n"),
            ("pids.current", "2\n"),
        ] {
            fs::write(group.join(file), text).unwrap();
        }
        let usage = v2.usage("/a").unwrap();
        assert_eq!((usage.cpu, usage.working_set, usage.rss, usage.pids), (5000, 900, 400, 2));
        assert_eq!((usage.memory_limit, v2.oom_kills("a")), (None, 1));
    }
}
