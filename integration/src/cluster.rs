//! A cluster of separate processes on one machine: the development broker and one process for each role.
//!
//! Every process has an address of its own out of 127.0.0.0/8, as hosts have, so that all of them listen on the same ports and
//! come back on them after a restart. The addresses follow from the test's process id; the ports are the usual ones moved by a
//! distance at which nobody on this machine listens on all addresses. Or every process has a host of its own, with the usual ports
//! and with names: [`Cluster::on_hosts`].

mod home;
mod settings;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::{Value, json};

pub use self::home::Home;
use self::home::distance;
use crate::http;
use crate::process::{Node, PATIENCE, Stopped, binary};

/// Processes of one cluster, at most.
const HOSTS: u8 = 16;
/// The broker's name.
pub const BROKER: &str = "broker";
/// The topic.
pub const TOPIC: &str = "vivace-traces";

/// The usual ports.
const HTTP: u16 = 3200;
const GRPC: u16 = 9095;
const GOSSIP: u16 = 7946;
const OTLP_GRPC: u16 = 4317;
const OTLP_HTTP: u16 = 4318;
const KAFKA: u16 = 9092;

/// The cluster.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    base: Ipv4Addr,
    /// What is added to the usual ports.
    distance: u16,
    partitions: u8,
    /// On hosts: where their names end.
    domain: Option<String>,
    members: BTreeMap<String, Member>,
}

#[derive(Debug)]
struct Member {
    role: String,
    home: Home,
    settings: Value,
    node: Option<Node>,
    /// Everything that earlier lives logged.
    log: Vec<String>,
}

impl Cluster {
    /// A cluster without members, whose files lie below `dir`.
    ///
    /// # Panics
    /// A test process has more clusters than addresses, or other programs take the ports at every distance that is tried.
    #[must_use]
    pub fn new(dir: &Path, partitions: u8) -> Self {
        static CLUSTERS: AtomicU8 = AtomicU8::new(0);
        let number = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        assert!(number < u8::MAX / HOSTS, "a test process has at most {} clusters", u8::MAX / HOSTS);
        let octet = |value: u32| u8::try_from(1 + value % 250).unwrap_or(1);
        let pid = std::process::id();
        let base = Ipv4Addr::new(127, octet(pid / 250), octet(pid), 1 + number * HOSTS);
        let distance = distance(base).expect("some of the distances is free");
        let members = BTreeMap::new();
        let mut cluster = Self { dir: dir.to_owned(), base, distance, partitions, domain: None, members };
        cluster.add(BROKER, "devbroker", json!({}));
        cluster
    }

    /// A cluster whose processes have hosts of their own: of the broker, and of each that [`Cluster::add_on`] adds. What it is run
    /// by must reach them, and they must know [`Cluster::names`], which end in `domain`.
    #[must_use]
    pub fn on_hosts(dir: &Path, partitions: u8, domain: &str, broker: Home) -> Self {
        let (base, domain) = (Ipv4Addr::LOCALHOST, Some(domain.to_owned()));
        let mut cluster = Self { dir: dir.to_owned(), base, distance: 0, partitions, domain, members: BTreeMap::new() };
        cluster.add_on(broker, BROKER, "devbroker", json!({}));
        cluster
    }

    /// Two live-stores, and one of each other role: names and roles.
    pub const EACH_ROLE: [(&'static str, &'static str); 6] = [
        ("distributor-0", "distributor"),
        ("live-store-0", "live-store"),
        ("live-store-1", "live-store"),
        ("block-builder-0", "block-builder"),
        ("querier-0", "querier"),
        ("query-frontend-0", "query-frontend"),
    ];

    /// [`Cluster::EACH_ROLE`] and the broker. Nothing is started.
    #[must_use]
    pub fn of_each_role(dir: &Path) -> Self {
        Self::of_each_role_with(dir, &json!({}))
    }

    /// The same with settings that go over those of the harness, for every process.
    #[must_use]
    pub fn of_each_role_with(dir: &Path, settings: &Value) -> Self {
        let mut cluster = Self::new(dir, 2);
        for (name, role) in Self::EACH_ROLE {
            cluster.add(name, role, settings.clone());
        }
        cluster
    }

    /// One more process. `settings` go over those of the harness, key by key.
    ///
    /// # Panics
    /// There is one of that name, or too many.
    pub fn add(&mut self, name: &str, role: &str, settings: Value) {
        let home = Home::loopback(self.host(self.members.len()));
        self.add_on(home, name, role, settings);
    }

    /// As [`Cluster::add`], at a place of the caller's choice.
    ///
    /// # Panics
    /// There is one of that name.
    pub fn add_on(&mut self, home: Home, name: &str, role: &str, settings: Value) {
        let member = Member { role: role.to_owned(), home, settings, node: None, log: Vec::new() };
        assert!(self.members.insert(name.to_owned(), member).is_none(), "{name} is there already");
    }

    /// Other settings of a process, from its next start on.
    pub fn set(&mut self, name: &str, settings: Value) {
        self.member_mut(name).settings = settings;
    }

    /// An address of this cluster for something else, for instance a proxy: the last ones are free.
    #[must_use]
    pub fn spare_host(&self, number: u8) -> Ipv4Addr {
        self.host(usize::from(HOSTS - 1 - number))
    }

    fn host(&self, number: usize) -> Ipv4Addr {
        let number = u8::try_from(number).ok().filter(|number| *number < HOSTS);
        let number = number.expect("a cluster has at most sixteen processes");
        let [a, b, c, d] = self.base.octets();
        Ipv4Addr::new(a, b, c, d + number)
    }

    /// Names of the processes of a role, in order.
    #[must_use]
    pub fn named(&self, role: &str) -> Vec<String> {
        self.members.iter().filter(|(_, member)| member.role == role).map(|(name, _)| name.clone()).collect()
    }

    /// The folder of a process.
    #[must_use]
    pub fn dir_of(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// The folder of the shared bucket.
    #[must_use]
    pub fn bucket(&self) -> PathBuf {
        self.dir.join("bucket")
    }

    fn member(&self, name: &str) -> &Member {
        self.members.get(name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    fn member_mut(&mut self, name: &str) -> &mut Member {
        self.members.get_mut(name).unwrap_or_else(|| panic!("there is no {name}"))
    }

    /// The running process of that name.
    ///
    /// # Panics
    /// It does not run.
    #[must_use]
    pub fn node(&self, name: &str) -> &Node {
        self.member(name).node.as_ref().unwrap_or_else(|| panic!("{name} does not run"))
    }

    /// Where it serves HTTP.
    #[must_use]
    pub fn http(&self, name: &str) -> SocketAddr {
        self.at(name, HTTP)
    }

    /// Where it serves gRPC.
    #[must_use]
    pub fn grpc(&self, name: &str) -> SocketAddr {
        self.at(name, GRPC)
    }

    /// Where a distributor takes OTLP over HTTP.
    #[must_use]
    pub fn otlp_http(&self, name: &str) -> SocketAddr {
        self.at(name, OTLP_HTTP)
    }

    /// Where the broker takes failures on demand; not on hosts.
    #[must_use]
    pub fn broker_admin(&self) -> SocketAddr {
        self.at(BROKER, HTTP)
    }

    /// A failure on demand: a rule of the broker's, see `vivace_devbroker::Fault`. Without one all rules are taken away.
    ///
    /// # Errors
    /// The broker does not take it.
    pub fn fault(&self, rule: Option<&Value>) -> anyhow::Result<()> {
        let (method, body) = match rule {
            Some(rule) => ("POST", rule.to_string()),
            None => ("DELETE", String::new()),
        };
        let json = [("Content-Type", "application/json")];
        let answer = http::request(self.broker_admin(), method, "/faults", &json, body.as_bytes())?;
        anyhow::ensure!((200..300).contains(&answer.status), "status {}: {}", answer.status, answer.text());
        Ok(())
    }

    /// A usual port at its address, moved as all of them are.
    fn at(&self, name: &str, usual: u16) -> SocketAddr {
        SocketAddr::new(self.member(name).home.address(), usual + self.distance)
    }

    /// Partitions of the topic from the broker's next start on: it gives it those that are missing.
    pub fn set_partitions(&mut self, partitions: u8) {
        self.partitions = partitions;
    }

    /// Starts a process and waits for nothing.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(&mut self, name: &str) -> anyhow::Result<()> {
        let dir = self.dir_of(name);
        std::fs::create_dir_all(&dir)?;
        let member = self.member(name);
        let mut command = member.home.command(&binary()?);
        command.current_dir(&dir);
        if name == BROKER {
            let listen = match &self.domain {
                Some(_) => format!("-listen=[::]:{KAFKA}"),
                None => format!("-listen={}", self.at(name, KAFKA)),
            };
            command.args(["devbroker", &listen, &format!("-data={}", dir.display())]);
            match &self.domain {
                Some(_) => command.arg("-allow-remote"),
                None => command.arg(format!("-admin={}", self.broker_admin())),
            };
            command.arg(format!("-topic={TOPIC}:{}", self.partitions));
        } else {
            // JSON is YAML.
            let file = dir.join("vivace.yaml");
            std::fs::write(&file, format!("{:#}\n", self.settings(name)))?;
            command.arg(format!("-config.file={}", file.display())).arg(format!("-target={}", member.role));
            // As the manifests and configs/cluster.sh have it.
            if ["live-store", "block-builder"].contains(&member.role.as_str()) {
                command.env("MIMALLOC_PURGE_DELAY", "0");
            }
        }
        let node = Node::of(command).with_context(|| format!("start {name}"))?;
        self.member_mut(name).node = Some(node);
        Ok(())
    }

    /// Waits until the process is ready, and returns the time since its start.
    ///
    /// # Errors
    /// It ends, or is not ready in time; shows its log.
    pub fn wait_ready(&mut self, name: &str) -> anyhow::Result<Duration> {
        let http = self.http(name);
        let node = self.member_mut(name).node.as_mut().with_context(|| format!("{name} does not run"))?;
        if name == BROKER {
            node.wait_log(|line| line.contains("msg=listening"))?;
            return Ok(Duration::ZERO);
        }
        node.wait_ready_at(http).with_context(|| format!("{name} becomes ready"))
    }

    /// Starts the named processes at once and waits until all are ready. Returns the time that each took.
    ///
    /// # Errors
    /// One of them ends or is not ready in time; shows its log.
    pub fn start(&mut self, names: &[&str]) -> anyhow::Result<Vec<(String, Duration)>> {
        for name in names {
            self.spawn(name)?;
        }
        names.iter().map(|name| Ok(((*name).to_owned(), self.wait_ready(name)?))).collect()
    }

    /// Starts everything, the broker first.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn start_all(&mut self) -> anyhow::Result<Vec<(String, Duration)>> {
        self.start(&[BROKER])?;
        let names: Vec<String> = self.members.keys().filter(|name| *name != BROKER).cloned().collect();
        self.start(&names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// It does not run.
    pub fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let member = self.member_mut(name);
        let log = member.node.take().with_context(|| format!("{name} does not run"))?.kill()?;
        member.log.extend(log);
        Ok(())
    }

    /// SIGTERM. Returns how it ended and how long that took.
    ///
    /// # Errors
    /// It does not run, or does not end.
    pub fn stop(&mut self, name: &str) -> anyhow::Result<(ExitStatus, Duration)> {
        let member = self.member_mut(name);
        let (status, took, log) = member.node.take().with_context(|| format!("{name} does not run"))?.stop()?;
        member.log.extend(log);
        Ok((status, took))
    }

    /// SIGTERM; how it ended, and what it used in its whole life.
    ///
    /// # Errors
    /// It does not run, or does not end, or not cleanly; shows its log.
    pub fn stop_counted(&mut self, name: &str) -> anyhow::Result<Stopped> {
        let member = self.member_mut(name);
        let stopped = member.node.take().with_context(|| format!("{name} does not run"))?.stop_counted()?;
        if !stopped.status.success() {
            bail!("{name} ended with {}; log:\n{}", stopped.status, stopped.log.join("\n"));
        }
        member.log.extend(stopped.log.iter().cloned());
        Ok(stopped)
    }

    /// SIGTERM to all of the named ones at once; the time that each took to end, or an error if one did not end with 0.
    ///
    /// # Errors
    /// One of them does not end, or not cleanly; shows its log.
    pub fn stop_together(&mut self, names: &[&str]) -> anyhow::Result<Vec<(String, Duration)>> {
        let nodes: Vec<(String, Node)> = names
            .iter()
            .map(|name| {
                let node = self.member_mut(name).node.take().with_context(|| format!("{name} does not run"))?;
                Ok(((*name).to_owned(), node))
            })
            .collect::<anyhow::Result<_>>()?;
        let stop = |(name, node): (String, Node)| std::thread::spawn(move || (name, node.stop()));
        let stopping: Vec<_> = nodes.into_iter().map(stop).collect();
        let mut times = Vec::new();
        for thread in stopping {
            let (name, stopped) = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let (status, took, log) = stopped.with_context(|| format!("stop {name}"))?;
            if !status.success() {
                bail!("{name} ended with {status}; log:\n{}", log.join("\n"));
            }
            self.member_mut(&name).log.extend(log);
            times.push((name, took));
        }
        Ok(times)
    }

    /// Everything that the process logged, in all its lives.
    #[must_use]
    pub fn log(&self, name: &str) -> Vec<String> {
        let member = self.member(name);
        member.log.iter().cloned().chain(member.node.iter().flat_map(Node::log)).collect()
    }

    /// Fails if any process logged an error or tells of a panic, but for lines with one of `expected`.
    ///
    /// # Errors
    /// Names the process and the line.
    pub fn check_logs(&self, expected: &[&str]) -> anyhow::Result<()> {
        for name in self.members.keys() {
            let log = self.log(name);
            let unexpected = |line: &&String| !expected.iter().any(|part| line.contains(part));
            let log: Vec<String> = log.iter().filter(unexpected).cloned().collect();
            Node::check_no_error(&log).with_context(|| name.clone())?;
        }
        Ok(())
    }

    /// A page of a process as JSON.
    ///
    /// # Errors
    /// It does not answer, or not with JSON.
    pub fn page(&self, name: &str, path: &str) -> anyhow::Result<Value> {
        http::request(self.http(name), "GET", path, &[("Accept", "application/json")], &[])?.json()
    }

    /// Polls a condition every few milliseconds.
    ///
    /// # Errors
    /// It does not come true in time; shows the logs of the processes that `about` names.
    pub fn wait_until(
        &self,
        what: &str,
        about: &[&str],
        mut condition: impl FnMut() -> bool,
    ) -> anyhow::Result<Duration> {
        let began = Instant::now();
        while !condition() {
            if began.elapsed() > PATIENCE {
                let logs: Vec<String> =
                    about.iter().map(|name| format!("--- {name}\n{}", self.log(name).join("\n"))).collect();
                bail!("not within {PATIENCE:?}: {what}\n{}", logs.join("\n"));
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(began.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    #[test]
    fn every_process_has_an_address_of_its_own_and_settings_go_over_those_of_the_harness() {
        let mut cluster = Cluster::of_each_role(Path::new("/nowhere"));
        cluster.add("more", "querier", json!({ "server": { "grpc_listen_port": 1 }, "target": "x" }));
        let mut hosts: Vec<IpAddr> = cluster.members.values().map(|member| member.home.address()).collect();
        hosts.push(cluster.spare_host(0).into());
        assert!(hosts.iter().all(IpAddr::is_loopback), "{hosts:?}");
        hosts.sort();
        hosts.dedup();
        assert_eq!(hosts.len(), 9);
        let settings = cluster.settings("more");
        assert_eq!((&settings["server"]["grpc_listen_port"], &settings["target"]), (&json!(1), &json!("x")));
        assert_eq!(settings["server"]["http_listen_port"], cluster.http("more").port(), "what is not named stays");
    }
}
