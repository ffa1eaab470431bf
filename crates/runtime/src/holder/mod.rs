//! The holder: the one process a node that outlives a restart of the runtime.
//!
//! It is this same program executed anew, with one thread and little memory, and the parent of every container: it makes
//! them (so a start costs no more than copying this small process), reads their output into logs, remembers exit codes
//! until they are recorded, and ends processes whose time is over. It decides nothing; the runtime tells it what to do
//! over a socket, from as many connections as it likes, and may go away and come back.

mod conversation;
mod log;
mod output;
mod process;
mod server;
pub mod wire;

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    process::ExitCode,
};

use rustix::{
    fs::{CWD, FlockOperation, Mode, OFlags, flock},
    mount::{MountAttrFlags, OpenTreeFlags, open_tree},
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with},
};

use crate::launch::sys;

/// Its socket in the folder it is given.
pub const SOCKET: &str = "holder.sock";
/// Locked for as long as a holder lives there.
const LOCK: &str = "holder.lock";
/// Last argument once the program runs from a mount that cannot be written.
const SEALED: &str = "--sealed";

/// An address of a socket in a folder, however long the folder's name is.
pub(crate) fn address(folder: &OwnedFd) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd()))?)
}

/// Runs a holder in this folder. Returns in the caller's process as soon as the holder (a daemon then) can be connected
/// to, or with what is in its way.
///
/// Call it before any thread is started, with the program's arguments as they are.
pub fn main(dir: &Path) -> ExitCode {
    match run(dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // the parent shows it
            let _ = rustix::io::write(rustix::stdio::stderr(), format!("{error}\n").as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn run(dir: &Path) -> io::Result<()> {
    let with = |what: &'static str| move |e: io::Error| io::Error::new(e.kind(), format!("{what}: {e}"));
    if std::env::args_os().next_back().is_none_or(|a| a != SEALED) {
        return seal().map_err(with("execute the holder from a read-only mount"));
    }
    let folder = rustix::fs::open(dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| with("open the holder's folder")(e.into()))?;
    let lock =
        File::options().create(true).append(true).open(dir.join(LOCK)).map_err(with("open the lock"))?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Err(io::Error::new(io::ErrorKind::AddrInUse, "another holder lives in this folder"));
    }
    match std::fs::remove_file(dir.join(SOCKET)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    rustix::process::umask(Mode::from_raw_mode(0o177));
    bind(&listener, &address(&folder)?).map_err(|e| with("bind the holder's socket")(e.into()))?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    listen(&listener, 16)?;
    // SAFETY: this process has one thread.
    match unsafe { sys::clone3(0, None) }? {
        Some(_) => Ok(()),
        None => {
            let code = match daemon() {
                Ok(()) => server::serve(listener, lock),
                Err(_) => 1,
            };
            // SAFETY: ends this process; there is nothing to be cleaned up in it.
            unsafe { libc::_exit(code) }
        }
    }
}

/// Executes this program again from a copy of its mount that nobody can write to: what is executed inside of a container
/// can reach our program as `/proc/PID/exe` (CVE-2019-5736).
fn seal() -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let sealed = open_tree(CWD, "/proc/self/exe", flags)?;
    sys::mount_setattr(sealed.as_fd(), false, MountAttrFlags::MOUNT_ATTR_RDONLY, libc::MS_PRIVATE)?;
    let mut args: Vec<OsString> = std::env::args_os().collect();
    args.push(SEALED.into());
    let args = args.iter().map(|a| sys::c_string(a.as_bytes())).collect::<io::Result<Vec<_>>>()?;
    // It needs no environment; allocator and the like keep their defaults.
    let env: [&std::ffi::CStr; 1] = [c"RUST_BACKTRACE=0"];
    let error = nix::unistd::execveat(&sealed, c"", &args, &env, nix::fcntl::AtFlags::AT_EMPTY_PATH);
    match error {
        Err(error) => Err(error.into()),
        Ok(never) => match never {},
    }
}

fn daemon() -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    rustix::thread::set_name(c"plim-holder")?;
    // SAFETY: numbers only. What is left over by containers in the host's PID namespace becomes ours, to be reaped; and
    // nobody but root of the host may look into our children while they are still us.
    unsafe {
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
    }
    Ok(())
}

/// Starts a holder for this folder, unless one is there, and waits until it can be connected to. `command` is the
/// program with its first arguments; the folder is added.
///
/// # Errors
/// When it cannot be executed or says why it does not start.
pub fn start(command: &[OsString], dir: &Path) -> io::Result<()> {
    let (program, args) = command
        .split_first()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the holder's command is empty"))?;
    let output = std::process::Command::new(program)
        .args(args)
        .arg(dir)
        .stdin(std::process::Stdio::null())
        .output()
        .map_err(|e| io::Error::new(e.kind(), format!("execute {}: {e}", Path::new(program).display())))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("the holder does not start: {}", text.trim())))
}

/// Waits until no holder lives in this folder: it holds a lock for as long as it does.
///
/// # Errors
/// When the lock cannot be opened.
pub fn wait_for_end(dir: &Path) -> io::Result<()> {
    let lock = File::options().create(true).append(true).open(dir.join(LOCK))?;
    Ok(flock(&lock, FlockOperation::LockShared)?)
}

/// The folder in arguments like `__holder DIR [--sealed]`, for the program that has a holder inside.
pub fn dir_of_arguments(mut args: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    args.find(|a| a != OsStr::new(SEALED)).map(PathBuf::from)
}
