//! Processes and ports for the streaming server.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
};

use async_trait::async_trait;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf, unix::AsyncFd},
    net::{TcpSocket, unix::pipe},
    sync::mpsc,
};
use tonic::Status;

use super::{Runtime, exec, internal};
use crate::{
    holder::wire::Request,
    launch::sys,
    streaming::{Backend, Duplex, Process, TerminalSize, Wanted},
};

/// Closes a container's input when its first attacher leaves, if it is of that kind.
struct StdinGuard {
    runtime: Weak<Runtime>,
    id: String,
    once: bool,
}

impl Drop for StdinGuard {
    fn drop(&mut self) {
        if let (true, Some(runtime)) = (self.once, self.runtime.upgrade()) {
            runtime.link().ask(Request::CloseStdin { id: self.id.clone() });
        }
    }
}

/// The writing end of a process' input, with what happens when it is dropped.
struct Input<W> {
    inner: W,
    _guard: Option<StdinGuard>,
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Input<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, data)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// The controlling side of a terminal.
struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let read = guard.try_io(|fd| Ok(rustix::io::read(fd.as_fd(), buffer.initialize_unfilled())?));
            match read {
                Ok(Ok(n)) => {
                    buffer.advance(n);
                    return Poll::Ready(Ok(()));
                }
                // the other side is closed: the end
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            if let Ok(result) = guard.try_io(|fd| Ok(rustix::io::write(fd.as_fd(), data)?)) {
                return Poll::Ready(result);
            }
        }
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn terminal(fd: OwnedFd) -> io::Result<Terminal> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    // SAFETY: an owned descriptor stays the same until it is dropped, together with the registration.
    Ok(Terminal(Arc::new(unsafe { AsyncFd::register(fd) }?)))
}

/// Takes sizes and gives them to a terminal, for as long as someone may send one.
fn resizer(fd: OwnedFd) -> mpsc::Sender<TerminalSize> {
    let (sizes, mut wanted) = mpsc::channel::<TerminalSize>(4);
    tokio::spawn(async move {
        while let Some(size) = wanted.recv().await {
            let size = rustix::termios::Winsize {
                ws_row: size.height,
                ws_col: size.width,
                ws_xpixel: 0,
                ws_ypixel: 0,
            };
            if let Err(error) = rustix::termios::tcsetwinsize(&fd, size) {
                tracing::debug!(%error, "a terminal keeps its size");
            }
        }
    });
    sizes
}

fn new_pipe() -> Result<(OwnedFd, OwnedFd), Status> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|e| internal("make a pipe")(e.into()))
}

fn reader(fd: OwnedFd) -> Result<Box<dyn AsyncRead + Send + Unpin>, Status> {
    Ok(Box::new(pipe::Receiver::from_owned_fd(fd).map_err(internal("read a pipe"))?))
}

#[async_trait]
impl Backend for Runtime {
    async fn exec(&self, container: &str, command: &[String], wanted: Wanted) -> Result<Process, Status> {
        if wanted.tty {
            let exec = self.launch_exec(container, command, true, Vec::new()).await?;
            let master = exec.terminal.ok_or_else(|| Status::internal("the process has no terminal"))?;
            let clone = || master.try_clone().map_err(internal("copy a descriptor"));
            let resize = resizer(clone()?);
            let (input, output) = (clone()?, clone()?);
            let stdin =
                wanted.stdin.then(|| terminal(input)).transpose().map_err(internal("use the terminal"))?;
            let stdout = terminal(output).map_err(internal("use the terminal"))?;
            return Ok(Process {
                stdin: stdin.map(|t| Box::new(t) as _),
                stdout: Some(Box::new(stdout)),
                stderr: None,
                resize: Some(resize),
                exit: exit_of(exec.guard, exec.exit),
            });
        }
        let ((in_read, in_write), (out_read, out_write), (err_read, err_write)) =
            (new_pipe()?, new_pipe()?, new_pipe()?);
        let exec = self.launch_exec(container, command, false, vec![in_read, out_write, err_write]).await?;
        let stdin = if wanted.stdin {
            Some(pipe::Sender::from_owned_fd(in_write).map_err(internal("write a pipe"))?)
        } else {
            None
        };
        Ok(Process {
            stdin: stdin.map(|s| Box::new(s) as _),
            stdout: wanted.stdout.then(|| reader(out_read)).transpose()?,
            stderr: wanted.stderr.then(|| reader(err_read)).transpose()?,
            resize: None,
            exit: exit_of(exec.guard, exec.exit),
        })
    }

    async fn attach(&self, container: &str, wanted: Wanted) -> Result<Process, Status> {
        let (record, _) = self.find_container(container)?;
        let tty = record.config.tty;
        let (mut fds, mut stdout, mut stderr) = (Vec::new(), None, None);
        if wanted.stdout || tty {
            let (read, write) = new_pipe()?;
            fds.push(write);
            stdout = Some(reader(read)?);
        }
        if wanted.stderr && !tty {
            let (read, write) = new_pipe()?;
            fds.push(write);
            stderr = Some(reader(read)?);
        }
        let request = Request::Attach {
            id: record.id.clone(),
            stdin: tty || (wanted.stdin && record.config.stdin),
            stdout: stdout.is_some(),
            stderr: stderr.is_some(),
        };
        let mut ended = match self.tables.lock().containers.get(&record.id) {
            Some(container) => container.ended.subscribe(),
            None => return Err(super::not_found("container", container)),
        };
        let (_, mut back) = self
            .link()
            .call(request, fds)
            .await
            .map_err(|e| Status::failed_precondition(format!("attach to {}: {e}", record.id)))?;
        let (mut stdin, mut resize): (Option<Box<dyn AsyncWrite + Send + Unpin>>, _) = (None, None);
        if let Some(input) = back.pop() {
            if tty {
                resize = Some(resizer(input.try_clone().map_err(internal("copy a descriptor"))?));
            }
            if wanted.stdin && record.config.stdin {
                let guard = StdinGuard {
                    runtime: self.me.clone(),
                    id: record.id.clone(),
                    once: record.config.stdin_once,
                };
                stdin = Some(if tty {
                    let inner = terminal(input).map_err(internal("use the terminal"))?;
                    Box::new(Input { inner, _guard: Some(guard) })
                } else {
                    let inner = pipe::Sender::from_owned_fd(input).map_err(internal("write a pipe"))?;
                    Box::new(Input { inner, _guard: Some(guard) })
                });
            }
        }
        let (me, id) = (self.me.clone(), record.id);
        let exit = Box::pin(async move {
            let _ = ended.wait_for(|e| *e).await;
            let me = me.upgrade().ok_or_else(|| io::Error::other("the runtime has ended"))?;
            me.find_container(&id).map(|(r, _)| r.exit_code).map_err(io::Error::other)
        });
        Ok(Process { stdin, stdout, stderr, resize, exit })
    }

    async fn port_forward(&self, sandbox: &str, port: u16) -> Result<Box<dyn Duplex>, Status> {
        let (record, _) = self.find_sandbox(sandbox)?;
        if !record.ready {
            return Err(Status::failed_precondition(format!("the sandbox {} is not ready", record.id)));
        }
        let netns = match (record.host_network(), &self.config.netns) {
            (false, _) => Some(self.sandbox_dir(&record.id).join("net")),
            (true, netns) => netns.clone(),
        };
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in
            [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))]
        {
            let socket = match socket_in(netns.clone(), address.is_ipv4()).await {
                Ok(socket) => socket,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            match socket.connect(address).await {
                Ok(stream) => return Ok(Box::new(stream)),
                Err(error) => last = error,
            }
        }
        Err(Status::unavailable(format!("connect to port {port} of the sandbox {}: {last}", record.id)))
    }
}

fn exit_of(
    guard: exec::Guard,
    exit: tokio::sync::oneshot::Receiver<i32>,
) -> futures::future::BoxFuture<'static, io::Result<i32>> {
    Box::pin(async move {
        let code = exit.await.map_err(|_| io::Error::other("the process is lost"));
        drop(guard);
        code
    })
}

/// A socket that lives in a network namespace: it stays there wherever it is used from.
async fn socket_in(netns: Option<PathBuf>, v4: bool) -> io::Result<TcpSocket> {
    let make = move || {
        if let Some(path) = netns {
            sys::setns(std::fs::File::open(path)?.as_fd(), libc::CLONE_NEWNET)?;
        }
        if v4 { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
    };
    let (tell, told) = tokio::sync::oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    // a thread of its own, because its namespace is another one from then on
    std::thread::Builder::new().name("port-forward".into()).spawn(move || {
        let _inside = runtime.enter();
        let _ = tell.send(make());
    })?;
    told.await.map_err(io::Error::other)?
}
