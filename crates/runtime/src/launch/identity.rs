//! Who a process is: users and groups, by number or by the names in the container's own files.

use std::{io::Read, os::fd::AsFd, path::Path};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::{Context, Failure, sys::open_beneath};
use crate::plan::{Identity, User};

/// Larger files are not read further; 1 MiB holds some 20,000 users.
const MAX_FILE: u64 = 1 << 20;
/// User and group numbers end here, as in other runtimes.
const MAX_ID: u32 = i32::MAX as u32;
/// `NGROUPS_MAX` of the kernel.
const MAX_GROUPS: usize = 65_536;

/// An identity, and where it lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolved {
    /// The numbers.
    pub identity: Identity,
    /// Home directory.
    pub home: String,
}

/// Resolves beneath the root that this process has now.
pub fn resolve(user: &User) -> Result<Resolved, Failure> {
    resolve_in(user, &read("etc/passwd")?, || read("etc/group"))
}

/// Reads a file of the container. It may be anything, so: no magic links, only a regular file, and not all of it.
fn read(path: &str) -> Result<String, Failure> {
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .doing("open the root")?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match open_beneath(root.as_fd(), Path::new(path), flags, ResolveFlags::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NXIO) => return Ok(String::new()),
        Err(error) => return Err(error).doing_with(|| format!("open /{path}")),
    };
    let stat = rustix::fs::fstat(&file).doing_with(|| format!("look at /{path}"))?;
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
        return Ok(String::new());
    }
    let mut bytes = Vec::new();
    std::fs::File::from(file)
        .take(MAX_FILE)
        .read_to_end(&mut bytes)
        .doing_with(|| format!("read /{path}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|n| !n.is_empty())?;
        let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Entry { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    })
}

/// Lines `name:password:gid:member,member`.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|n| !n.is_empty())?;
        Some((name, fields.nth(1)?.parse().ok()?, fields.next().unwrap_or_default()))
    })
}

fn number(text: &str) -> Option<Result<u32, Failure>> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(match text.parse() {
        Ok(id) if id <= MAX_ID => Ok(id),
        _ => Err(Failure(format!("{text} is no user or group: numbers end at {MAX_ID}"))),
    })
}

fn resolve_in(
    user: &User,
    passwd: &str,
    group_file: impl FnOnce() -> Result<String, Failure>,
) -> Result<Resolved, Failure> {
    let (name, group) = match user.name.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|g| !g.is_empty())),
        None => (user.name.as_str(), None),
    };
    let name = if name.is_empty() { "0" } else { name };
    // a number is never looked up as a name (CVE-2026-46680)
    let (uid, entry) = match number(name) {
        Some(uid) => {
            let uid = uid?;
            (uid, entries(passwd).find(|e| e.uid == uid))
        }
        None => {
            let entry = entries(passwd).find(|e| e.name == name);
            let entry = entry.ok_or_else(|| {
                Failure(format!("unable to find user {name}: no matching entries in passwd file"))
            })?;
            (entry.uid, Some(entry))
        }
    };
    let wants_file = user.merge_groups && entry.is_some() || group.is_some_and(|g| number(g).is_none());
    let group_text = if wants_file { group_file()? } else { String::new() };
    let gid =
        match (user.group, group) {
            (Some(gid), _) => gid,
            (None, Some(group)) => match number(group) {
                Some(gid) => gid?,
                None => groups(&group_text).find(|(n, ..)| *n == group).map(|(_, gid, _)| gid).ok_or_else(
                    || Failure(format!("unable to find group {group}: no matching entries in group file")),
                )?,
            },
            (None, None) => entry.as_ref().map_or(0, |e| e.gid),
        };
    if uid > MAX_ID || gid > MAX_ID {
        return Err(Failure(format!("user {uid}, group {gid}: numbers end at {MAX_ID}")));
    }
    let mut extra = user.groups.clone();
    if let (true, Some(entry)) = (user.merge_groups, &entry) {
        for (_, id, members) in groups(&group_text) {
            if members.split(',').any(|m| m == entry.name) && !extra.contains(&id) && extra.len() < MAX_GROUPS
            {
                extra.push(id);
            }
        }
    }
    let home = entry.map(|e| e.home).filter(|h| h.starts_with('/')).unwrap_or("/").to_owned();
    Ok(Resolved { identity: Identity { uid, gid, groups: extra }, home })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34:w:/srv/web:/bin/false\n77:x:0:0::/:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nlog:x:40:web,root\nkeys:x:41:web\n";

    fn resolved(name: &str, user: User) -> Result<Resolved, Failure> {
        resolve_in(&User { name: name.into(), ..user }, PASSWD, || Ok(GROUP.into()))
    }

    #[test]
    fn names_lead_to_numbers_group_and_home() {
        let got =
            resolved("web", User { merge_groups: true, groups: vec![2000], ..User::default() }).unwrap();
        assert_eq!(got.identity, Identity { uid: 33, gid: 34, groups: vec![2000, 40, 41] });
        assert_eq!(got.home, "/srv/web");
        let got = resolved("web:log", User::default()).unwrap();
        assert_eq!(got.identity, Identity { uid: 33, gid: 40, groups: vec![] });
    }

    #[test]
    fn the_strict_policy_reads_no_groups_from_the_image() {
        assert!(resolved("web", User::default()).unwrap().identity.groups.is_empty());
    }

    #[test]
    fn a_number_is_not_a_name() {
        assert_eq!(resolved("77", User::default()).unwrap().identity.uid, 77);
        assert_eq!(resolved("33", User::default()).unwrap().identity.gid, 34);
    }

    #[test]
    fn numbers_beyond_the_limit_and_unknown_names_are_refused() {
        assert!(resolved("4294967296", User::default()).is_err());
        assert!(resolved("4294967295", User::default()).is_err());
        assert!(resolved("nobody", User::default()).unwrap_err().0.contains("unable to find user nobody"));
        assert!(resolved("0:none", User::default()).unwrap_err().0.contains("unable to find group none"));
    }
}
