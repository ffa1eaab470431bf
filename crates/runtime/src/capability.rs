//! Linux capabilities by name, capabilities(7).

/// Names without `CAP_`, in the order of their numbers.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What containers have unless told otherwise, as Docker and containerd give it.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// All capabilities that have a name.
pub const ALL: u64 = (1 << NAMES.len()) - 1;

/// The bit of a capability, with or without `CAP_`, in any case.
pub fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|n| *n == plain).map(|i| 1 << i)
}

/// A set by names; `ALL` is all.
///
/// # Errors
/// The first name that is none.
pub fn set<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<u64, String> {
    names.into_iter().try_fold(0, |set, name| match name {
        _ if name.eq_ignore_ascii_case("ALL") || name.eq_ignore_ascii_case("CAP_ALL") => Ok(set | ALL),
        name => bit(name).map(|b| set | b).ok_or_else(|| format!("{name:?} is no capability")),
    })
}

/// The default set.
pub fn default_set() -> u64 {
    DEFAULT.iter().filter_map(|n| bit(n)).fold(0, |set, b| set | b)
}

/// The default set with `add` and without `drop`. What is named by itself wins over `ALL`: drop all and add one is one.
///
/// # Errors
/// The first name that is none.
pub fn adjusted(add: &[String], drop: &[String]) -> Result<u64, String> {
    let all = |list: &[String]| list.iter().any(|n| n.eq_ignore_ascii_case("ALL"));
    let named =
        |list: &[String]| set(list.iter().map(String::as_str).filter(|n| !n.eq_ignore_ascii_case("ALL")));
    let mut result = default_set();
    if all(add) {
        result = ALL;
    }
    if all(drop) {
        result = 0;
    }
    Ok((result | named(add)?) & !named(drop)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &[&str]) -> Vec<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn the_default_is_docker_s() {
        // as /proc/self/status of a container shows it
        assert_eq!(default_set(), 0xa804_25fb);
    }

    #[test]
    fn dropping_all_and_adding_one_leaves_one() {
        assert_eq!(adjusted(&list(&["NET_ADMIN"]), &list(&["ALL"])), Ok(1 << 12));
        assert_eq!(adjusted(&list(&["all"]), &list(&["cap_sys_admin"])), Ok(ALL & !(1 << 21)));
        assert_eq!(adjusted(&[], &list(&["KILL"])), Ok(default_set() & !(1 << 5)));
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        assert!(adjusted(&list(&["FLY"]), &[]).unwrap_err().contains("FLY"));
    }
}
