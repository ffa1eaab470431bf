//! Giving up rights: capabilities, users, and the seccomp filter.

use std::io;

use base64::Engine as _;
use rustix::thread::set_keep_capabilities;

use super::{Context, Failure};
use crate::plan::{Capabilities, Identity};

/// `struct sock_filter`, eight bytes.
#[repr(C)]
#[derive(Clone, Copy)]
struct SockFilter {
    code: u16,
    jt: u8,
    jf: u8,
    k: u32,
}

/// A seccomp program, as the kernel wants it.
pub struct Filter(Vec<SockFilter>);

/// Reads a program from a plan.
pub fn decode_filter(text: &str) -> Result<Filter, Failure> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).doing("read the seccomp filter")?;
    let instruction = |c: &[u8]| match *c {
        [a, b, jt, jf, k0, k1, k2, k3] => Some(SockFilter {
            code: u16::from_le_bytes([a, b]),
            jt,
            jf,
            k: u32::from_le_bytes([k0, k1, k2, k3]),
        }),
        _ => None,
    };
    let program: Option<Vec<_>> = bytes.chunks(8).map(instruction).collect();
    match program {
        Some(program) if !program.is_empty() && program.len() <= 4096 => Ok(Filter(program)),
        _ => Err(Failure("the seccomp filter is damaged".into())),
    }
}

/// From here on the filter judges every system call.
pub fn install_filter(filter: &Filter) -> Result<(), Failure> {
    let program =
        libc::sock_fprog { len: filter.0.len() as u16, filter: filter.0.as_ptr().cast_mut().cast() };
    // SAFETY: the program outlives the call; the layout is the kernel's.
    let done =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()).doing("install the seccomp filter") }
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

fn set_capabilities(effective: u64, inheritable: u64) -> io::Result<()> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = CapHeader { version: VERSION_3, pid: 0 };
    let part = |shift: u32| CapData {
        effective: (effective >> shift) as u32,
        permitted: (effective >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [part(0), part(32)];
    // SAFETY: both structs outlive the call and have the layout of version 3.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What this process may have at most, after it has become another user.
fn permitted() -> io::Result<u64> {
    let header = CapHeader { version: 0x2008_0522, pid: 0 };
    let mut data = [CapData::default(), CapData::default()];
    // SAFETY: both structs outlive the call and have the layout of version 3.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) };
    if done != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(u64::from(data[0].permitted) | u64::from(data[1].permitted) << 32)
}

fn prctl(option: i32, a: u64, b: u64) -> io::Result<()> {
    // SAFETY: numbers only.
    if unsafe { libc::prctl(option, a, b, 0, 0) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Becomes the user, with these capabilities and no others.
pub fn give_up(capabilities: &Capabilities, who: &Identity) -> Result<(), Failure> {
    for bit in 0..64u64 {
        if capabilities.bounding >> bit & 1 == 0 {
            match prctl(libc::PR_CAPBSET_DROP, bit, 0) {
                Ok(()) => {}
                // beyond the last capability that this kernel knows
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
                Err(error) => return Err(error).doing("drop a capability"),
            }
        }
    }
    set_keep_capabilities(true).doing("keep capabilities")?;
    let groups: Vec<libc::gid_t> = who.groups.clone();
    // SAFETY: a pointer and the length of a vector that outlives the calls; this process has one thread.
    unsafe {
        if libc::setgroups(groups.len(), groups.as_ptr()) != 0 {
            return Err(io::Error::last_os_error()).doing("set the groups");
        }
        if libc::setresgid(who.gid, who.gid, who.gid) != 0 {
            return Err(io::Error::last_os_error()).doing("set the group");
        }
        if libc::setresuid(who.uid, who.uid, who.uid) != 0 {
            return Err(io::Error::last_os_error()).doing("set the user");
        }
    }
    set_keep_capabilities(false).doing("keep no capabilities")?;
    // a nested host may lack some itself: "all" is all that there is
    let permitted = permitted().doing("look at the capabilities")?;
    let ambient = capabilities.ambient & permitted;
    set_capabilities(capabilities.bounding & permitted, ambient).doing("set the capabilities")?;
    for bit in (0..64u64).filter(|bit| ambient >> bit & 1 == 1) {
        prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, bit)
            .doing("raise an ambient capability")?;
    }
    Ok(())
}
