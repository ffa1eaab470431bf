//! Processes that are tasks, and ports that are pipes.

use std::{future::Future, sync::Mutex};

use async_trait::async_trait;
use runtime::streaming::{Backend, Duplex, Process, TerminalSize, Wanted};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::{mpsc, oneshot, watch},
};
use tonic::Status;

/// One container, `box`, in one sandbox, `pod`.
#[derive(Default)]
pub struct Fake {
    pub execs: Mutex<Vec<(Vec<String>, Wanted)>>,
    /// How many processes have been let go of before their end.
    pub dropped: watch::Sender<usize>,
}

struct Pipes {
    stdin: DuplexStream,
    stdout: DuplexStream,
    stderr: DuplexStream,
    sizes: mpsc::Receiver<TerminalSize>,
}

/// Counts, unless the process has ended.
struct Watched {
    dropped: watch::Sender<usize>,
    ended: bool,
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.ended {
            self.dropped.send_modify(|n| *n += 1);
        }
    }
}

impl Fake {
    fn spawn<F>(&self, wanted: Wanted, run: impl FnOnce(Pipes) -> F) -> Process
    where
        F: Future<Output = i32> + Send + 'static,
    {
        let (stdin, stdin_in) = duplex(16);
        let (stdout, stdout_in) = duplex(500);
        let (stderr, stderr_in) = duplex(16);
        let (resize, sizes) = mpsc::channel(1);
        let (ended, exit) = oneshot::channel();
        let work = run(Pipes { stdin: stdin_in, stdout: stdout_in, stderr: stderr_in, sizes });
        tokio::spawn(async move {
            let mut ended = ended;
            tokio::select! {
                code = work => { let _ = ended.send(code); }
                () = ended.closed() => {}
            }
        });
        let mut watched = Watched { dropped: self.dropped.clone(), ended: false };
        Process {
            stdin: wanted.stdin.then(|| Box::new(stdin) as _),
            stdout: wanted.stdout.then(|| Box::new(stdout) as _),
            stderr: wanted.stderr.then(|| Box::new(stderr) as _),
            resize: wanted.tty.then_some(resize),
            exit: Box::pin(async move {
                let code = exit.await;
                let watched = &mut watched;
                watched.ended = true;
                code.map_err(std::io::Error::other)
            }),
        }
    }
}

#[async_trait]
impl Backend for Fake {
    async fn exec(&self, container: &str, command: &[String], wanted: Wanted) -> Result<Process, Status> {
        self.execs.lock().unwrap().push((command.to_vec(), wanted));
        if container != "box" {
            return Err(Status::not_found(format!("container {container:?} is not there")));
        }
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        Ok(match words.as_slice() {
            ["cat"] => self.spawn(wanted, |mut p| async move {
                tokio::io::copy(&mut p.stdin, &mut p.stdout).await.unwrap();
                0
            }),
            ["both", out, err] => {
                let (out, err) = (out.to_string(), err.to_string());
                self.spawn(wanted, |mut p| async move {
                    p.stdout.write_all(out.as_bytes()).await.unwrap();
                    p.stderr.write_all(err.as_bytes()).await.unwrap();
                    0
                })
            }
            ["exit", code] => {
                let code = code.parse().unwrap();
                self.spawn(wanted, move |_| async move { code })
            }
            ["size"] => self.spawn(wanted, |mut p| async move {
                let size = p.sizes.recv().await.unwrap();
                p.stdout.write_all(format!("{}x{}", size.width, size.height).as_bytes()).await.unwrap();
                0
            }),
            ["yes", bytes] => {
                let bytes: usize = bytes.parse().unwrap();
                self.spawn(wanted, move |mut p| async move {
                    for _ in 0..bytes / 1000 {
                        p.stdout.write_all(&[b'y'; 1000]).await.unwrap();
                    }
                    0
                })
            }
            ["deaf"] => self.spawn(wanted, |p| async move {
                drop(p.stdin);
                let mut sizes = p.sizes;
                sizes.recv().await;
                0
            }),
            ["sleep"] => self.spawn(wanted, |p| async move {
                let _pipes = p;
                std::future::pending().await
            }),
            _ => return Err(Status::unknown("no such program")),
        })
    }

    async fn attach(&self, container: &str, wanted: Wanted) -> Result<Process, Status> {
        if container != "box" {
            return Err(Status::not_found(format!("container {container:?} is not there")));
        }
        Ok(self.spawn(wanted, |mut p| async move {
            p.stdout.write_all(b"attached").await.unwrap();
            7
        }))
    }

    async fn port_forward(&self, sandbox: &str, port: u16) -> Result<Box<dyn Duplex>, Status> {
        assert_eq!(sandbox, "pod");
        let (ours, mut theirs) = duplex(16);
        match port {
            // echoes until the client has ended
            7 => {
                tokio::spawn(async move {
                    let (mut read, mut write) = tokio::io::split(theirs);
                    tokio::io::copy(&mut read, &mut write).await.unwrap();
                    write.shutdown().await.unwrap();
                });
            }
            // a greeting and the end, whatever the client does
            21 => {
                tokio::spawn(async move {
                    theirs.write_all(b"220 ready").await.unwrap();
                });
            }
            // answers once it has read all
            80 => {
                tokio::spawn(async move {
                    let mut request = Vec::new();
                    theirs.read_to_end(&mut request).await.unwrap();
                    theirs.write_all(format!("{} bytes", request.len()).as_bytes()).await.unwrap();
                });
            }
            // reads nothing
            9 => {
                tokio::spawn(async move {
                    let _kept = theirs;
                    std::future::pending::<()>().await
                });
            }
            _ => return Err(Status::unavailable("connection refused")),
        }
        Ok(Box::new(ours))
    }
}
