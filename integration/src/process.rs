//! One running `vivace` process: started from the built binary, addressed by the ports that it says it bound,
//! stopped or killed, its log watched.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::http;

/// How long anything here may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Path of the binary under test: beside the test binary, or `VIVACE_BIN`.
///
/// # Errors
/// When it has not been built; says how to.
pub fn binary() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("VIVACE_BIN") {
        return Ok(path.into());
    }
    let exe = std::env::current_exe().context("find the test binary")?;
    let profile = exe.ancestors().find(|p| p.join("deps").is_dir()).context("find the target directory")?;
    let path = profile.join("vivace");
    if !path.is_file() {
        bail!(
            "{} is not there: build it first, with the profile of the tests (cargo build --profile ci)",
            path.display()
        );
    }
    Ok(path)
}

/// How to start a node.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Working folder: data, log and configuration live here.
    pub dir: PathBuf,
    /// YAML appended to the harness's own (top-level sections that it does not use).
    pub yaml: String,
    /// Extra command line arguments.
    pub args: Vec<String>,
    /// Program and arguments put before the binary, for instance a tracer.
    pub wrapper: Vec<String>,
    /// Extra environment.
    pub env: Vec<(String, String)>,
}

impl Setup {
    /// A monolithic node that keeps everything below `dir` and binds free ports on 127.0.0.1.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.into(), yaml: String::new(), args: Vec::new(), wrapper: Vec::new(), env: Vec::new() }
    }

    /// Adds YAML sections.
    #[must_use]
    pub fn yaml(mut self, yaml: &str) -> Self {
        self.yaml.push_str(yaml);
        self
    }

    fn write_config(&self) -> anyhow::Result<PathBuf> {
        let data = self.dir.join("data");
        let marker = data.join("shutdown-marker");
        let own = if self.yaml.contains("shutdown_marker_dir") { None } else { Some(marker.display()) };
        let marker = own.map(|dir| format!("  shutdown_marker_dir: {dir}\n")).unwrap_or_default();
        let mut sections: Vec<(String, String)> = vec![
            (
                "server".into(),
                "  http_listen_address: 127.0.0.1\n  http_listen_port: 0\n  grpc_listen_address: 127.0.0.1\n  \
                 grpc_listen_port: 0\n"
                    .into(),
            ),
            (
                "distributor".into(),
                "  receivers:\n    otlp:\n      protocols:\n        grpc:\n          endpoint: 127.0.0.1:0\n        \
                 http:\n          endpoint: 127.0.0.1:0\n"
                    .into(),
            ),
            ("live_store".into(), format!("  wal:\n    path: {}\n{marker}", data.join("wal").display())),
            (
                "storage".into(),
                format!(
                    "  trace:\n    backend: local\n    local:\n      path: {}\n    wal:\n      path: {}\n",
                    data.join("blocks").display(),
                    data.join("wal").display()
                ),
            ),
        ];
        // A section in `yaml` goes below the harness's own of the same name.
        let mut name = String::new();
        let mut extra: HashMap<String, String> = HashMap::new();
        let mut order = Vec::new();
        for line in self.yaml.lines() {
            if let Some(section) = line.strip_suffix(':').filter(|l| !l.starts_with([' ', '#'])) {
                section.clone_into(&mut name);
                order.push(name.clone());
            } else if line.starts_with(' ') {
                extra.entry(name.clone()).or_default().push_str(&format!("{line}\n"));
            } else if !line.trim().is_empty() {
                sections.push((line.to_owned(), String::new()));
            }
        }
        for section in order {
            let body = extra.remove(&section).unwrap_or_default();
            match sections.iter_mut().find(|(n, _)| *n == section) {
                Some((_, own)) => own.push_str(&body),
                None => sections.push((section, body)),
            }
        }
        let mut text = String::new();
        for (section, body) in sections {
            if body.is_empty() {
                text.push_str(&format!("{section}\n"));
            } else {
                text.push_str(&format!("{section}:\n{body}"));
            }
        }
        let path = self.dir.join("vivace.yaml");
        std::fs::write(&path, text).context("write the configuration")?;
        Ok(path)
    }

    /// Starts the process without waiting for anything.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self) -> anyhow::Result<Node> {
        let config = self.write_config()?;
        let binary = binary()?;
        let mut command = match self.wrapper.split_first() {
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(&binary);
                command
            }
            None => Command::new(&binary),
        };
        command.arg(format!("-config.file={}", config.display())).args(&self.args).current_dir(&self.dir);
        command.envs(self.env.iter().cloned());
        Node::of(command)
    }

    /// Starts the process and waits until it is ready.
    ///
    /// # Errors
    /// When it exits or is not ready in time; shows its log.
    pub fn start(&self) -> anyhow::Result<Node> {
        let mut node = self.spawn()?;
        node.wait_ready()?;
        Ok(node)
    }
}

#[derive(Debug, Default)]
struct Log {
    lines: Mutex<(Vec<String>, bool)>,
    grown: Condvar,
}

impl Log {
    fn push(&self, line: String) {
        self.with(|state| state.0.push(line));
    }

    fn close(&self) {
        self.with(|state| state.1 = true);
    }

    fn with<R>(&self, f: impl FnOnce(&mut (Vec<String>, bool)) -> R) -> R {
        let mut guard = self.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let result = f(&mut guard);
        self.grown.notify_all();
        result
    }
}

/// A running node. Dropping it kills the process.
#[derive(Debug)]
pub struct Node {
    child: Child,
    log: Arc<Log>,
    started: Instant,
}

impl Drop for Node {
    fn drop(&mut self) {
        // The process may be gone already; there is nothing to do about a failure here.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Node {
    /// Starts a program and watches what it says on standard error.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn of(mut command: Command) -> anyhow::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let started = Instant::now();
        let program = command.get_program().to_owned();
        let mut child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        let stderr = child.stderr.take().context("stderr was piped")?;
        let log = Arc::new(Log::default());
        let writer = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                writer.push(line);
            }
            writer.close();
        });
        Ok(Self { child, log, started })
    }

    /// Process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Time since its start.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// Everything logged so far.
    #[must_use]
    pub fn log(&self) -> Vec<String> {
        self.log.with(|state| state.0.clone())
    }

    /// Waits for a log line.
    ///
    /// # Errors
    /// When the process ends or time runs out first; shows the log.
    pub fn wait_log(&self, what: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut guard = self.log.lines.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        loop {
            if let Some(line) = guard.0.iter().find(|l| what(l)) {
                return Ok(line.clone());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if guard.1 || left.is_zero() {
                bail!("the expected log line did not come; log:\n{}", guard.0.join("\n"));
            }
            guard = self.log.grown.wait_timeout(guard, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }

    /// The address that the listener of this name bound: `http`, `grpc`, `otlp_grpc`, `otlp_http`.
    ///
    /// # Errors
    /// As [`Node::wait_log`].
    pub fn addr(&self, listener: &str) -> anyhow::Result<SocketAddr> {
        let name = format!("listener={listener}");
        let line = self.wait_log(|l| l.contains("msg=listening") && l.split(' ').any(|w| w == name))?;
        let addr = line.split(' ').find_map(|w| w.strip_prefix("addr=")).context("the line has no addr")?;
        addr.trim_matches('"').parse().with_context(|| format!("parse {addr:?}"))
    }

    /// Waits until `/ready` says so, and returns the time since the start.
    ///
    /// # Errors
    /// When the process ends or time runs out first.
    pub fn wait_ready(&mut self) -> anyhow::Result<Duration> {
        let http = self.addr("http")?;
        self.wait_ready_at(http)
    }

    /// As [`Node::wait_ready`], where its HTTP is known.
    ///
    /// # Errors
    /// When the process ends or time runs out first.
    pub fn wait_ready_at(&mut self, http: SocketAddr) -> anyhow::Result<Duration> {
        self.wait_until("ready", || http::get(http, "/ready").is_ok_and(|a| a.status == 200))?;
        Ok(self.started.elapsed())
    }

    /// Polls a condition every few milliseconds while the process lives.
    ///
    /// # Errors
    /// When the process ends or time runs out first; shows the log.
    pub fn wait_until(&mut self, what: &str, mut condition: impl FnMut() -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            if let Some(status) = self.child.try_wait()? {
                bail!("the process ended ({status}) before: {what}; log:\n{}", self.log().join("\n"));
            }
            if Instant::now() > deadline {
                bail!("not within {PATIENCE:?}: {what}; log:\n{}", self.log().join("\n"));
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
        Ok(())
    }

    /// `kill -9`, waits for the end, and gives what was logged until then, or nearly.
    ///
    /// # Errors
    /// As the system says.
    pub fn kill(mut self) -> anyhow::Result<Vec<String>> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(self.log())
    }

    /// Sends a signal by name (`TERM`, `STOP`, `CONT`…).
    ///
    /// # Errors
    /// When `kill` fails.
    pub fn signal(&self, name: &str) -> anyhow::Result<()> {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status()?;
        if !status.success() {
            bail!("kill -{name} failed: {status}");
        }
        Ok(())
    }

    /// SIGTERM, waits for the end, and gives the exit status and how long it took.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop(self) -> anyhow::Result<(ExitStatus, Duration, Vec<String>)> {
        let from = Instant::now();
        self.signal("TERM")?;
        let (status, log) = self.ended()?;
        Ok((status, from.elapsed(), log))
    }

    fn ended(mut self) -> anyhow::Result<(ExitStatus, Vec<String>)> {
        let from = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok((status, self.log()));
            }
            if from.elapsed() > PATIENCE {
                bail!("SIGTERM did not end the process within {PATIENCE:?}; log:\n{}", self.log().join("\n"));
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// [`Node::stop`], and what the process used in its whole life, its end included.
    ///
    /// # Errors
    /// When it does not end in time.
    pub fn stop_counted(self) -> anyhow::Result<Stopped> {
        let from = Instant::now();
        self.signal("TERM")?;
        let mut last = self.usage()?;
        let path = format!("/proc/{}/stat", self.pid());
        loop {
            let usage = self.usage()?;
            last = Usage { rss: last.rss, peak_rss: last.peak_rss.max(usage.peak_rss), cpu: usage.cpu };
            if std::fs::read_to_string(&path)?.contains(") Z ") {
                // Once more: the last look may have been before the end.
                last.cpu = self.usage()?.cpu;
                let took = from.elapsed();
                let (status, log) = self.ended()?;
                return Ok(Stopped { status, took, usage: last, log });
            }
            if from.elapsed() > PATIENCE {
                bail!("SIGTERM did not end the process within {PATIENCE:?}; log:\n{}", self.log().join("\n"));
            }
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Fails if the log has a line at warn or above that `expected` does not name by a substring.
    ///
    /// # Errors
    /// Names the first such line.
    pub fn check_log(log: &[String], expected: &[&str]) -> anyhow::Result<()> {
        let loud = |l: &&String| l.contains("level=warn") || l.contains("level=error");
        match log.iter().filter(loud).find(|l| !expected.iter().any(|e| l.contains(e))) {
            Some(line) => bail!("unexpected log line: {line}"),
            None => Ok(()),
        }
    }

    /// Fails if the log has a line at error, or tells of a panic.
    ///
    /// # Errors
    /// Names the first such line.
    pub fn check_no_error(log: &[String]) -> anyhow::Result<()> {
        match log.iter().find(|line| line.contains("level=error") || line.contains("panicked at")) {
            Some(line) => bail!("unexpected log line: {line}"),
            None => Ok(()),
        }
    }

    /// Resident memory now and its peak, bytes, and the CPU time used so far.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        usage(self.pid())
    }
}

/// What the process with this id uses.
///
/// # Errors
/// When it is gone.
pub fn usage(pid: u32) -> anyhow::Result<Usage> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kb = |key: &str| -> u64 {
        let line = status.lines().find(|l| l.starts_with(key));
        line.and_then(|l| l.split_whitespace().nth(1)).and_then(|v| v.parse().ok()).unwrap_or(0)
    };
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after = stat.rsplit(") ").next().unwrap_or("");
    let ticks: u64 = after.split(' ').skip(11).take(2).filter_map(|v| v.parse::<u64>().ok()).sum();
    // USER_HZ is 100 on every Linux that we run on.
    let cpu = Duration::from_millis(ticks * 10);
    Ok(Usage { rss: kb("VmRSS:") * 1024, peak_rss: kb("VmHWM:") * 1024, cpu })
}

/// How many threads the process with this id has.
///
/// # Errors
/// When it is gone.
pub fn threads(pid: u32) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/task"))?.count())
}

/// How a process ended.
#[derive(Debug)]
pub struct Stopped {
    /// Its exit status.
    pub status: ExitStatus,
    /// From SIGTERM to the end.
    pub took: Duration,
    /// What it used in its whole life; resident bytes as they were at the signal.
    pub usage: Usage,
    /// Everything that it logged.
    pub log: Vec<String>,
}

/// What a process uses.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Resident bytes now.
    pub rss: u64,
    /// Highest resident bytes so far.
    pub peak_rss: u64,
    /// User and system time.
    pub cpu: Duration,
}
