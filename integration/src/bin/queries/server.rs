//! The server that is asked: one that runs already, or one that is started here, anew for every cold run.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use vivace_integration::http::Connection;

use crate::options::Options;

/// How long starting and an answer may take.
const PATIENCE: Duration = Duration::from_secs(120);
const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// How the kernel's cache of files is emptied.
#[derive(Debug, Clone)]
pub(crate) enum Emptying {
    /// All of it; needs root.
    All,
    /// The files of one folder.
    Folder(PathBuf),
}

impl Emptying {
    /// The first way that works here.
    pub(crate) fn of(options: &Options) -> anyhow::Result<Self> {
        if std::fs::OpenOptions::new().write(true).open(DROP_CACHES).is_ok() {
            return Ok(Self::All);
        }
        let folder = options.data.clone();
        folder.map(Self::Folder).with_context(|| {
            format!("{DROP_CACHES} cannot be written: run as root, or name the folder of the blocks with --data")
        })
    }

    pub(crate) fn in_words(&self) -> String {
        match self {
            Self::All => format!("sync and echo 1 > {DROP_CACHES}, once the server is ready"),
            Self::Folder(folder) => {
                format!("sync and POSIX_FADV_DONTNEED (dd iflag=nocache) on the files of {}", folder.display())
            }
        }
    }

    fn empty(&self) -> anyhow::Result<()> {
        succeed(&mut Command::new("sync"))?;
        match self {
            Self::All => std::fs::write(DROP_CACHES, "1\n").context("empty the kernel's cache"),
            Self::Folder(folder) => forget(folder),
        }
    }
}

fn forget(folder: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            forget(&path)?;
        } else {
            let mut input = std::ffi::OsString::from("if=");
            input.push(&path);
            succeed(Command::new("dd").arg(input).args(["iflag=nocache", "count=0", "status=none"]))?;
        }
    }
    Ok(())
}

fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("run {command:?}"))?;
    if status.success() { Ok(()) } else { bail!("{command:?}: {status}") }
}

/// A server, by what is known of it.
pub(crate) struct Server {
    http: SocketAddr,
    pid: Option<u32>,
    started: Option<Child>,
    settle: Duration,
    grace: Duration,
    command: Vec<String>,
}

impl Server {
    /// The one that runs, or one started now.
    pub(crate) fn of(options: &Options) -> anyhow::Result<Self> {
        let mut server = Self {
            http: options.http,
            pid: options.pid,
            started: None,
            settle: Duration::from_secs(options.settle),
            grace: Duration::from_secs(options.grace),
            command: options.serve.clone(),
        };
        if !server.command.is_empty() {
            server.start()?;
        }
        Ok(server)
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.pid
    }

    pub(crate) fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(self.http, PATIENCE).with_context(|| format!("connect to {}", self.http))
    }

    /// Nothing of the data is in memory afterwards, neither in the server nor in the kernel.
    pub(crate) fn forget_all(&mut self, emptying: &Emptying) -> anyhow::Result<()> {
        self.stop()?;
        self.start()?;
        emptying.empty()
    }

    fn start(&mut self) -> anyhow::Result<()> {
        let (program, arguments) = self.command.split_first().context("--serve names no program")?;
        let log = std::env::temp_dir().join("queries-server.log");
        let log = std::fs::File::options().create(true).append(true).open(&log).context("open the server's log")?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the server's log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {program}"))?;
        self.pid = Some(child.id());
        let child = self.started.insert(child);
        let begun = Instant::now();
        loop {
            if let Some(status) = child.try_wait().context("look at the server")? {
                bail!(
                    "the server ended: {status}; its output is in queries-server.log of the folder for temporary files"
                );
            }
            let ready = Connection::open(self.http, Duration::from_secs(1))
                .and_then(|mut connection| connection.send("GET", "/ready", &[], &[]));
            if ready.is_ok_and(|answer| answer.status == 200) {
                break;
            }
            if begun.elapsed() > PATIENCE {
                bail!("the server is not ready after {PATIENCE:?}");
            }
            std::thread::park_timeout(Duration::from_millis(50));
        }
        std::thread::park_timeout(self.settle);
        Ok(())
    }

    fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.started.take() else { return Ok(()) };
        succeed(Command::new("kill").arg(child.id().to_string()))?;
        let begun = Instant::now();
        while child.try_wait().context("wait for the server")?.is_none() {
            if begun.elapsed() >= self.grace {
                child.kill().context("kill the server")?;
            }
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("the server was not stopped: {error:#}");
        }
    }
}
