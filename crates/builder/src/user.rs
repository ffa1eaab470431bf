//! Names of users and groups, looked up in a root file system.

use std::{io, path::Path};

use crate::root::Root;

/// Largest `/etc/passwd` or `/etc/group` that is read.
const MAX_BYTES: u64 = 4 * 1024 * 1024;
/// Most supplementary groups; the kernel takes 65,536.
const MAX_GROUPS: usize = 1024;

/// Who a step runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

struct Table(Vec<Vec<String>>);

impl Table {
    fn read(root: &Root, path: &str) -> Result<Table, String> {
        let bytes = root
            .read(Path::new(path), MAX_BYTES)
            .map_err(|e: io::Error| format!("{path} of the image: {e}"))?;
        let text = bytes.map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
        Ok(Table(text.lines().map(|l| l.split(':').map(str::to_owned).collect()).collect()))
    }

    /// The first line whose field `at` is `value`.
    fn find(&self, at: usize, value: &str) -> Option<&Vec<String>> {
        self.0.iter().find(|line| line.get(at).is_some_and(|f| f == value))
    }
}

fn number(line: &[String], at: usize, what: &str) -> Result<u32, String> {
    let field = line.get(at).map(String::as_str).unwrap_or_default();
    field.parse().map_err(|_| format!("{what} of the image has \"{field}\" where a number belongs"))
}

/// A number that may be an ID: all digits. `Some(Err)` if it is too large.
fn id(text: &str) -> Option<Result<u32, String>> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // The largest one means "leave it as it is" to the kernel.
    let parsed =
        || text.parse().ok().filter(|n| *n != u32::MAX).ok_or(format!("{text} is too large for an ID"));
    digits.then(parsed)
}

/// `USER name`, `USER 1000:100` and so on.
pub(crate) fn identity(root: &Root, user: &str) -> Result<Identity, String> {
    let (user, group) = match user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
        None => (user, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let passwd = Table::read(root, "/etc/passwd")?;
    let line = match id(user) {
        Some(uid) => {
            uid?;
            passwd.find(2, user)
        }
        None => Some(passwd.find(0, user).ok_or_else(|| format!("the image has no user \"{user}\""))?),
    };
    let name = line.and_then(|l| l.first());
    let uid = match (id(user), line) {
        (Some(uid), _) => uid?,
        (None, Some(line)) => number(line, 2, "/etc/passwd")?,
        (None, None) => 0,
    };
    let groups = Table::read(root, "/etc/group")?;
    let gid = match (group, line) {
        (Some(group), _) => group_id(&groups, group)?,
        (None, Some(line)) => number(line, 3, "/etc/passwd")?,
        (None, None) => 0,
    };
    let mut supplementary: Vec<u32> = Vec::new();
    if let (Some(name), None) = (name, group) {
        for line in &groups.0 {
            let member = line.get(3).is_some_and(|members| members.split(',').any(|m| m == name));
            if member && supplementary.len() < MAX_GROUPS {
                supplementary.extend(number(line, 2, "/etc/group").ok().filter(|g| *g != gid));
            }
        }
    }
    let home = line.and_then(|l| l.get(5)).filter(|h| h.starts_with('/')).cloned();
    let home = home.unwrap_or_else(|| if uid == 0 { "/root".into() } else { "/".into() });
    Ok(Identity { uid, gid, groups: supplementary, home })
}

fn group_id(groups: &Table, group: &str) -> Result<u32, String> {
    match id(group) {
        Some(gid) => gid,
        None => {
            let line = groups.find(0, group).ok_or_else(|| format!("the image has no group \"{group}\""))?;
            number(line, 2, "/etc/group")
        }
    }
}

/// `--chown=user:group`: a user without a group takes its own group, a number the same number.
pub(crate) fn owner(root: &Root, text: &str) -> Result<(u32, u32), String> {
    match text.split_once(':') {
        Some((user, group)) => {
            let uid = if user.is_empty() { 0 } else { identity(root, user)?.uid };
            Ok((uid, group_id(&Table::read(root, "/etc/group")?, group)?))
        }
        None => match id(text) {
            Some(uid) => uid.map(|uid| (uid, uid)),
            None => identity(root, text).map(|i| (i.uid, i.gid)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(
            dir.path().join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\napp:x:1000:100:App:/home/app:/bin/sh\nbad:x:y:z::\n",
        )
        .unwrap();
        std::fs::write(dir.path().join("etc/group"), "root:x:0:\nusers:x:100:app\naudio:x:29:x,app\n")
            .unwrap();
        dir
    }

    #[test]
    fn users_are_found_by_name_and_number() {
        let dir = image();
        let root = Root::open(dir.path()).unwrap();
        let who = |uid, gid, groups: &[u32], home: &str| {
            Ok(Identity { uid, gid, groups: groups.to_vec(), home: home.into() })
        };
        assert_eq!(identity(&root, ""), who(0, 0, &[], "/root"));
        assert_eq!(identity(&root, "app"), who(1000, 100, &[29], "/home/app"));
        assert_eq!(identity(&root, "1000"), who(1000, 100, &[29], "/home/app"));
        assert_eq!(identity(&root, "app:audio"), who(1000, 29, &[], "/home/app"));
        assert_eq!(identity(&root, "4242"), who(4242, 0, &[], "/"));
        assert_eq!(owner(&root, "app"), Ok((1000, 100)));
        assert_eq!(owner(&root, "app:29"), Ok((1000, 29)));
        assert_eq!(owner(&root, "7"), Ok((7, 7)));
    }

    #[test]
    fn what_does_not_exist_or_fit_is_refused() {
        let dir = image();
        let root = Root::open(dir.path()).unwrap();
        for (user, why) in [
            ("nobody", "no user \"nobody\""),
            ("app:x", "no group \"x\""),
            ("4294967296", "too large"),
            ("4294967295", "too large"),
            ("bad", "where a number belongs"),
        ] {
            assert!(identity(&root, user).unwrap_err().contains(why), "{user}");
        }
    }
}
