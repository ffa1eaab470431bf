//! Further processes in a running container.

use std::{os::fd::OwnedFd, sync::Weak, time::Duration};

use k8s_cri::v1 as cri;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{io::AsyncReadExt, net::unix::pipe, sync::oneshot};
use tonic::Status;

use super::{Runtime, internal, new_id, record::Phase};
use crate::{
    holder::wire::Request,
    plan::{Launch, Role},
};

/// Most that is kept of a stream; the rest is read and dropped (CVE-2022-1708).
const MAX_OUTPUT: usize = 16 << 20;

/// A process beside a container's main one.
pub(super) struct Exec {
    /// The terminal, if it has one.
    pub terminal: Option<OwnedFd>,
    /// Its exit code.
    pub exit: oneshot::Receiver<i32>,
    /// To be kept until it has ended.
    pub guard: Guard,
}

/// Ends an exec when nobody waits for it any more.
pub(super) struct Guard {
    runtime: Weak<Runtime>,
    id: String,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.upgrade() {
            runtime.tables.lock().waiting.remove(&self.id);
            // one that has ended is not known any more
            runtime.link().ask(Request::Signal { id: self.id.clone(), signal: libc::SIGKILL });
        }
    }
}

impl Runtime {
    /// Starts a process in a container. `fds` are its standard input, output and error.
    pub(super) async fn launch_exec(
        &self,
        container: &str,
        command: &[String],
        terminal: bool,
        fds: Vec<OwnedFd>,
    ) -> Result<Exec, Status> {
        let (record, _) = self.find_container(container)?;
        if record.phase != Phase::Running {
            return Err(Status::failed_precondition(format!("the container {} is not running", record.id)));
        }
        if command.is_empty() {
            return Err(Status::invalid_argument("no command specified"));
        }
        let (sandbox, _) = self.find_sandbox(&record.sandbox)?;
        let (image_id, cgroup) = (record.image_id.clone(), record.cgroup.clone());
        let (image, cgroups) = self
            .blocking(move |me| (me.config.images.get(&image_id), me.cgroups.directories(&cgroup)))
            .await?;
        let image = image.map_err(|e| Status::internal(e.to_string()))?;
        let mut process = self.process(&record, &sandbox, &image)?;
        process.args = command.iter().map(|a| a.clone().into_bytes()).collect();
        process.terminal = terminal;
        let id = format!("exec-{}", new_id());
        let launch = Launch {
            id: id.clone(),
            role: Role::Exec { target: record.id.clone() },
            cgroups,
            process,
            ..Launch::default()
        };
        let (tell, exit) = oneshot::channel();
        self.tables.lock().waiting.insert(id.clone(), tell);
        // before the call: the caller may give up while it waits for the answer
        let guard = Guard { runtime: self.me.clone(), id };
        match self.link().call(Request::Launch(Box::new(launch)), fds).await {
            Ok((_, mut fds)) => Ok(Exec { terminal: fds.pop(), exit, guard }),
            Err(error) => Err(Status::unknown(format!("failed to exec in container: {error}"))),
        }
    }

    pub(super) async fn exec_sync(
        &self,
        request: cri::ExecSyncRequest,
    ) -> Result<cri::ExecSyncResponse, Status> {
        let pair = || pipe_with(PipeFlags::CLOEXEC).map_err(|e| internal("make a pipe")(e.into()));
        let (out_read, out_write) = pair()?;
        let (err_read, err_write) = pair()?;
        let (in_read, in_write) = pair()?;
        drop(in_write);
        let reader = |fd| pipe::Receiver::from_owned_fd(fd).map_err(internal("read a pipe"));
        let (mut stdout, mut stderr) = (reader(out_read)?, reader(err_read)?);
        let exec = self
            .launch_exec(&request.container_id, &request.cmd, false, vec![in_read, out_write, err_write])
            .await?;
        let _guard = exec.guard;
        let limit = u64::try_from(request.timeout).ok().filter(|t| *t > 0).map(Duration::from_secs);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let work = async {
            let mut exit = exec.exit;
            let mut code = None;
            let (mut out_open, mut err_open) = (true, true);
            while code.is_none() {
                tokio::select! {
                    ended = &mut exit => code = Some(ended),
                    more = take(&mut stdout, &mut out), if out_open => out_open = more,
                    more = take(&mut stderr, &mut err), if err_open => err_open = more,
                }
            }
            // What it has written is in the pipes; descendants that still hold them are not waited for.
            drain(&mut stdout, &mut out);
            drain(&mut stderr, &mut err);
            code.and_then(Result::ok).ok_or_else(|| Status::unavailable("the holder of the process is lost"))
        };
        let code = match limit {
            None => work.await?,
            Some(limit) => match tokio::time::timeout(limit, work).await {
                Ok(code) => code?,
                Err(_) => {
                    let text = format!(
                        "failed to exec in container: timeout {}s exceeded: context deadline exceeded",
                        limit.as_secs()
                    );
                    return Err(Status::deadline_exceeded(text));
                }
            },
        };
        Ok(cri::ExecSyncResponse { stdout: out, stderr: err, exit_code: code })
    }
}

fn keep(buffer: &[u8], into: &mut Vec<u8>) {
    let room = MAX_OUTPUT.saturating_sub(into.len());
    into.extend_from_slice(&buffer[..buffer.len().min(room)]);
}

/// Reads once; false at the end.
async fn take(from: &mut pipe::Receiver, into: &mut Vec<u8>) -> bool {
    let mut buffer = [0u8; 16_384];
    match from.read(&mut buffer).await {
        Ok(0) | Err(_) => false,
        Ok(n) => {
            keep(&buffer[..n], into);
            true
        }
    }
}

/// Takes what is there.
fn drain(from: &mut pipe::Receiver, into: &mut Vec<u8>) {
    use std::os::fd::AsFd;
    let mut buffer = [0u8; 16_384];
    loop {
        // past the reactor, which may not have noticed yet
        match rustix::io::read(from.as_fd(), &mut buffer) {
            Ok(0) => return,
            Ok(n) => keep(&buffer[..n], into),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return,
        }
    }
}
