//! cgroup v1: a hierarchy for each controller.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{Cgroups, Resources, Usage, check_path, keyed, read_number, retried, write};

/// Controllers a container is always put into. The rest is only used where it is asked for.
const ALWAYS: [&str; 4] = ["cpu", "cpuacct", "memory", "pids"];
/// What a container sees. Language runtimes that look for their limits (the JVM among them) want all of these.
const VISIBLE: [&str; 5] = ["cpu", "cpuacct", "memory", "pids", "cpuset"];
/// Devices that may be used, for those who could get around `nodev` mounts; and making nodes, which alone does nothing.
const DEVICES: [&str; 10] = [
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",
    "c 1:5 rwm",
    "c 1:7 rwm",
    "c 1:8 rwm",
    "c 1:9 rwm",
    "c 5:0 rwm",
    "c 5:2 rwm",
    "c 136:* rwm",
];

/// The hierarchies of a machine.
#[derive(Clone, Debug)]
pub struct V1 {
    /// Controller and mount point.
    mounts: Vec<(String, PathBuf)>,
}

impl V1 {
    /// From the lines of `/proc/mounts`.
    ///
    /// # Errors
    /// When a controller that is needed is missing.
    pub fn from_mounts(text: &str) -> io::Result<V1> {
        let mut mounts = Vec::new();
        for line in text.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            let [_, at, "cgroup", options, ..] = fields.as_slice() else { continue };
            for controller in options.split(',') {
                const KNOWN: [&str; 8] =
                    ["cpu", "cpuacct", "memory", "pids", "devices", "cpuset", "hugetlb", "freezer"];
                if KNOWN.contains(&controller) && !mounts.iter().any(|(c, _)| c == controller) {
                    mounts.push((controller.to_owned(), PathBuf::from(at)));
                }
            }
        }
        let v1 = V1 { mounts };
        for controller in ["cpu", "memory"] {
            if v1.mount(controller).is_none() {
                let text =
                    format!("the cgroup controller {controller} is not mounted; mount cgroup v1 or v2");
                return Err(io::Error::new(io::ErrorKind::NotFound, text));
            }
        }
        Ok(v1)
    }

    fn mount(&self, controller: &str) -> Option<&Path> {
        self.mounts.iter().find(|(c, _)| c == controller).map(|(_, p)| p.as_path())
    }

    fn directory(&self, controller: &str, path: &str) -> Option<PathBuf> {
        Some(self.mount(controller)?.join(path.trim_matches('/')))
    }

    fn needed(&self, resources: &Resources, guard_devices: bool) -> Vec<&str> {
        let mut list = ALWAYS.to_vec();
        if guard_devices {
            list.push("devices");
        }
        if !resources.cpuset_cpus.is_empty() || !resources.cpuset_mems.is_empty() {
            list.push("cpuset");
        }
        if !resources.hugepages.is_empty() {
            list.push("hugetlb");
        }
        list.retain(|c| self.mount(c).is_some());
        list
    }

    fn create_once(
        &self,
        path: &str,
        resources: &Resources,
        guard_devices: bool,
    ) -> io::Result<Vec<PathBuf>> {
        let mut directories: Vec<PathBuf> = Vec::new();
        for controller in self.needed(resources, guard_devices) {
            let Some(root) = self.mount(controller) else { continue };
            let directory = root.join(path);
            if directories.contains(&directory) {
                continue;
            }
            // most often only the last part is missing
            if controller == "cpuset" || fs::create_dir(&directory).is_err() {
                make(root, path, controller == "cpuset")?;
            }
            directories.push(directory);
        }
        self.set(path, resources)?;
        if guard_devices && let Some(devices) = self.directory("devices", path).filter(|d| d.is_dir()) {
            write(&devices, "devices.deny", "a")?;
            for rule in DEVICES {
                write(&devices, "devices.allow", rule)?;
            }
        }
        Ok(directories)
    }

    fn set(&self, path: &str, r: &Resources) -> io::Result<()> {
        let dir = |controller| self.directory(controller, path).filter(|d| d.is_dir());
        if let Some(cpu) = dir("cpu") {
            if r.cpu_shares > 0 {
                write(&cpu, "cpu.shares", &r.cpu_shares.to_string())?;
            }
            if r.cpu_period > 0 && r.cpu_quota != 0 {
                write(&cpu, "cpu.cfs_period_us", &r.cpu_period.to_string())?;
            }
            if r.cpu_quota != 0 {
                write(&cpu, "cpu.cfs_quota_us", &r.cpu_quota.max(-1).to_string())?;
            }
        }
        if let Some(memory) = dir("memory") {
            set_memory(&memory, r)?;
        }
        if let (Some(pids), true) = (dir("pids"), r.pids != 0) {
            let text = if r.pids < 0 { "max".to_owned() } else { r.pids.to_string() };
            write(&pids, "pids.max", &text)?;
        }
        if let Some(cpuset) = dir("cpuset") {
            for (file, value) in [("cpuset.cpus", &r.cpuset_cpus), ("cpuset.mems", &r.cpuset_mems)] {
                if !value.is_empty() {
                    write(&cpuset, file, value)?;
                }
            }
        }
        if let Some(hugetlb) = dir("hugetlb") {
            for (size, limit) in &r.hugepages {
                write(&hugetlb, &format!("hugetlb.{size}.limit_in_bytes"), &limit.to_string())?;
            }
        }
        Ok(())
    }
}

fn set_memory(memory: &Path, r: &Resources) -> io::Result<()> {
    let limit = |v: i64| v.max(-1).to_string();
    let swap = || match r.memory_swap {
        0 => Ok(()),
        // a kernel without swap accounting has no such file
        _ if !memory.join("memory.memsw.limit_in_bytes").exists() => Ok(()),
        v => write(memory, "memory.memsw.limit_in_bytes", &limit(v)),
    };
    if r.memory == 0 {
        return swap();
    }
    // The limit must never be above that of memory and swap together: raise that one first, lower it last.
    if write(memory, "memory.limit_in_bytes", &limit(r.memory)).is_err() {
        swap()?;
        return write(memory, "memory.limit_in_bytes", &limit(r.memory));
    }
    swap()
}

/// Makes a directory and those above it. A new cpuset is empty: it gets what its parent has.
fn make(root: &Path, path: &str, cpuset: bool) -> io::Result<()> {
    let mut at = root.to_owned();
    for part in path.split('/').filter(|p| !p.is_empty()) {
        let parent = at.clone();
        at.push(part);
        match fs::create_dir(&at) {
            Ok(()) if cpuset => {
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    write(&at, file, fs::read_to_string(parent.join(file))?.trim())?;
                }
            }
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(io::Error::new(e.kind(), format!("make the cgroup {}: {e}", at.display()))),
        }
    }
    Ok(())
}

impl Cgroups for V1 {
    fn create(&self, path: &str, resources: &Resources, guard_devices: bool) -> io::Result<Vec<PathBuf>> {
        let path = check_path(path)?;
        retried(|| self.create_once(path, resources, guard_devices))
    }

    fn update(&self, path: &str, resources: &Resources) -> io::Result<()> {
        self.set(check_path(path)?, resources)
    }

    fn usage(&self, path: &str) -> io::Result<Usage> {
        let path = check_path(path)?;
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let memory = self.directory("memory", path).ok_or_else(missing)?;
        let stat = fs::read_to_string(memory.join("memory.stat"))?;
        let used = read_number(&memory, "memory.usage_in_bytes")?;
        let limit = read_number(&memory, "memory.limit_in_bytes")?;
        let of = |key| keyed(&stat, key).unwrap_or(0);
        Ok(Usage {
            cpu: self.directory("cpuacct", path).map_or(Ok(0), |d| read_number(&d, "cpuacct.usage"))?,
            memory: used,
            working_set: used.saturating_sub(of("total_inactive_file")),
            rss: of("total_rss"),
            // "none" is the largest number of pages
            memory_limit: (limit < 1 << 62).then_some(limit),
            swap: of("total_swap"),
            page_faults: of("total_pgfault"),
            major_page_faults: of("total_pgmajfault"),
            pids: self
                .directory("pids", path)
                .map_or(Ok(0), |d| read_number(&d, "pids.current"))
                .unwrap_or(0),
        })
    }

    fn oom_kills(&self, path: &str) -> u64 {
        let Some(memory) = self.directory("memory", path) else { return 0 };
        let text = fs::read_to_string(memory.join("memory.oom_control")).unwrap_or_default();
        keyed(&text, "oom_kill").unwrap_or(0)
    }

    fn directories(&self, path: &str) -> Vec<PathBuf> {
        let mut found: Vec<PathBuf> = Vec::new();
        let Ok(path) = check_path(path) else { return found };
        if path.is_empty() {
            return found;
        }
        for (_, root) in &self.mounts {
            let directory = root.join(path);
            if !found.contains(&directory) && directory.is_dir() {
                found.push(directory);
            }
        }
        found
    }

    fn visible(&self, path: &str) -> Vec<(String, PathBuf)> {
        VISIBLE
            .iter()
            .filter_map(|controller| {
                let own = self.directory(controller, path)?;
                // in the root group of a controller that it was not put into
                let directory = if own.is_dir() { own } else { self.mount(controller)?.to_owned() };
                Some(((*controller).to_owned(), directory))
            })
            .collect()
    }

    fn version(&self) -> u8 {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, V1) {
        let dir = tempfile::tempdir().unwrap();
        let mut text = String::new();
        for controllers in ["cpu,cpuacct", "memory", "pids", "cpuset"] {
            let at = dir.path().join(controllers);
            fs::create_dir(&at).unwrap();
            text += &format!("cgroup {} cgroup rw,relatime,{controllers} 0 0\n", at.display());
        }
        (dir, V1::from_mounts(&text).unwrap())
    }

    #[test]
    fn limits_reach_each_controller_once() {
        let (dir, v1) = tree();
        let resources = Resources {
            cpu_shares: 512,
            cpu_quota: 50_000,
            cpu_period: 100_000,
            memory: 1 << 20,
            pids: 9,
            ..Resources::default()
        };
        let directories = v1.create("/a/b", &resources, false).unwrap();
        assert_eq!(directories.len(), 3, "{directories:?}");
        let read = |file: &str| fs::read_to_string(dir.path().join(file)).unwrap();
        assert_eq!(read("cpu,cpuacct/a/b/cpu.shares"), "512");
        assert_eq!(read("cpu,cpuacct/a/b/cpu.cfs_quota_us"), "50000");
        assert_eq!(read("memory/a/b/memory.limit_in_bytes"), "1048576");
        assert_eq!(read("pids/a/b/pids.max"), "9");
    }

    #[test]
    fn a_new_cpuset_has_what_its_parent_has() {
        let (dir, v1) = tree();
        for (file, value) in [("cpuset.cpus", "0-1\n"), ("cpuset.mems", "0\n")] {
            fs::write(dir.path().join("cpuset").join(file), value).unwrap();
        }
        let resources = Resources { cpuset_cpus: "1".into(), ..Resources::default() };
        v1.create("a/b", &resources, false).unwrap();
        let read = |file: &str| fs::read_to_string(dir.path().join("cpuset").join(file)).unwrap();
        assert_eq!((read("a/cpuset.cpus"), read("a/b/cpuset.cpus")), ("0-1".into(), "1".into()));
        assert_eq!(read("a/b/cpuset.mems"), "0");
    }

    #[test]
    fn usage_leaves_out_what_can_be_given_back() {
        let (dir, v1) = tree();
        v1.create("a", &Resources::default(), false).unwrap();
        let put = |file: &str, text: &str| fs::write(dir.path().join(file), text).unwrap();
        put("memory/a/memory.usage_in_bytes", "1000\n");
        put("memory/a/memory.limit_in_bytes", "9223372036854771712\n");
        put("memory/a/memory.stat", "cache 1\ntotal_inactive_file 300\ntotal_rss 600\n");
        put("memory/a/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
        put("cpu,cpuacct/a/cpuacct.usage", "77\n");
        put("pids/a/pids.current", "3\n");
        let usage = v1.usage("a").unwrap();
        assert_eq!((usage.working_set, usage.rss, usage.cpu, usage.pids), (700, 600, 77, 3));
        assert_eq!(usage.memory_limit, None);
        assert_eq!(v1.oom_kills("a"), 2);
    }
}
