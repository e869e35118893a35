//! An S3 server that is not ours: moto, started for one test, with buckets in its memory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::http;
use crate::process::Node;

/// A running server. Dropping it ends it; what it held is gone.
#[derive(Debug)]
pub struct S3Server {
    _process: Node,
    /// Where it listens, plain HTTP.
    pub addr: SocketAddr,
}

/// The program: `VIVACE_MOTO`, else that of the tests' virtual environment.
#[must_use]
pub fn program() -> Option<PathBuf> {
    let named = std::env::var_os("VIVACE_MOTO").map(PathBuf::from);
    let program = named.unwrap_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../.venv/bin/moto_server").into());
    program.is_file().then_some(program)
}

impl S3Server {
    /// Starts it on a free port and makes the buckets.
    ///
    /// # Errors
    /// When it does not start or makes no bucket.
    pub fn start(program: &Path, buckets: &[&str]) -> anyhow::Result<Self> {
        let server = Self::run(program, "http://", &[])?;
        for bucket in buckets {
            let answer = http::request(server.addr, "PUT", &format!("/{bucket}"), &[], &[])?;
            ensure!(answer.status == 200, "make bucket {bucket}: {}", answer.text());
        }
        Ok(server)
    }

    /// Starts it with TLS and without a bucket; `certificate` and `key` are PEM files.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start_tls(program: &Path, certificate: &Path, key: &Path) -> anyhow::Result<Self> {
        let files = [certificate.to_string_lossy(), key.to_string_lossy()];
        Self::run(program, "https://", &["-c", &files[0], "-k", &files[1]])
    }

    fn run(program: &Path, scheme: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(["-H", "127.0.0.1", "-p", "0"]).args(arguments).env("PYTHONUNBUFFERED", "1");
        let process = Node::of(command)?;
        let says = format!("Running on {scheme}");
        let line = process.wait_log(|line| line.contains(&says))?;
        let addr = line.split(scheme).nth(1).context("no address")?.trim().parse().context("parse the address")?;
        Ok(Self { _process: process, addr })
    }

    /// Environment variables that make a node keep its blocks in a bucket of this server.
    #[must_use]
    pub fn environment(&self, bucket: &str, prefix: &str) -> Vec<(String, String)> {
        let key = |name: &str, value: &str| (format!("VIVACE_STORAGE__TRACE__{name}"), value.to_owned());
        vec![
            key("BACKEND", "s3"),
            key("S3__BUCKET", bucket),
            key("S3__PREFIX", prefix),
            key("S3__ENDPOINT", &self.addr.to_string()),
            key("S3__INSECURE", "true"),
            // From here, and not from the configuration: the chain of credentials is used as well.
            ("AWS_ACCESS_KEY_ID".to_owned(), "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), "test".to_owned()),
        ]
    }
}
