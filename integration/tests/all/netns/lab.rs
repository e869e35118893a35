//! Hosts of a test: network namespaces on one bridge, each with IPv4 and IPv6 addresses of its own, removed at the end.

use std::cell::Cell;
use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns};
use vivace_integration::skip;

/// Names of namespaces begin so, then comes the id of the process that made them.
const MARK: &str = "vvt-";
/// The host that has the bridge.
const HUB: &str = "hub";

/// Which addresses a host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stack {
    V4,
    V6,
    Dual,
}

/// A bridge and the hosts on it. Several exist beside each other: nothing but names is shared.
#[derive(Debug)]
pub(crate) struct Lab {
    prefix: String,
    hosts: Cell<u8>,
    dir: tempfile::TempDir,
}

/// One host.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// The name of its namespace.
    pub(crate) namespace: String,
    pub(crate) v4: Option<Ipv4Addr>,
    pub(crate) v6: Option<Ipv6Addr>,
}

impl Lab {
    /// An empty bridge; none, after saying so, where this machine cannot make one.
    pub(crate) fn new(name: &str) -> Option<Self> {
        remove(|owner| !Path::new(&format!("/proc/{owner}")).exists());
        for program in ["ip", "nft"] {
            if Command::new(program).arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
                skip::skip(&format!("network namespaces: {program} is missing (Debian: iproute2, nftables)"));
                return None;
            }
        }
        if !Path::new("/proc/net/if_inet6").exists() {
            skip::skip("network namespaces: the kernel has no IPv6");
            return None;
        }
        let prefix = format!("{MARK}{}-{name}-", std::process::id());
        let lab = Self { prefix, hosts: Cell::new(0), dir: tempfile::tempdir().unwrap() };
        let hub = lab.namespace(HUB);
        if let Err(error) = try_ip(&["netns", "add", &hub]) {
            skip::skip(&format!("network namespaces: they need root and a kernel that has them ({error})"));
            return None;
        }
        ip(&["-n", &hub, "link", "add", "br0", "type", "bridge"]);
        ip(&["-n", &hub, "link", "set", "br0", "up"]);
        Some(lab)
    }

    /// Where members keep their files.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn namespace(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Another host. The first one is 10.77.0.1 and fd77::1.
    pub(crate) fn host(&self, stack: Stack) -> Host {
        let number = self.hosts.get() + 1;
        self.hosts.set(number);
        let (namespace, hub) = (self.namespace(&number.to_string()), self.namespace(HUB));
        ip(&["netns", "add", &namespace]);
        ip(&["-n", &namespace, "link", "set", "lo", "up"]);
        let port = format!("port{number}");
        ip(&["-n", &hub, "link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &namespace]);
        ip(&["-n", &hub, "link", "set", &port, "master", "br0", "up"]);
        ip(&["-n", &namespace, "link", "set", "eth0", "up"]);
        let mut host = Host { namespace, v4: None, v6: None };
        if stack != Stack::V6 {
            host.add(IpAddr::V4(Ipv4Addr::new(10, 77, 0, number)));
        }
        if stack != Stack::V4 {
            host.add(IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into())));
        }
        host
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let own = std::process::id().to_string();
        let prefix = self.prefix.clone();
        for namespace in namespaces().into_iter().filter(|name| owner(name) == Some(&own)) {
            if namespace.starts_with(&prefix) {
                // What is left over does no harm, and a test that fails should say why itself.
                delete(&namespace);
            }
        }
    }
}

impl Host {
    /// Gives the host one more address, or another one.
    pub(crate) fn add(&mut self, ip_address: IpAddr) {
        let (text, length) = (ip_address.to_string(), if ip_address.is_ipv4() { 24 } else { 64 });
        let mut arguments = vec!["-n", &self.namespace, "addr", "add"];
        let address = format!("{text}/{length}");
        arguments.extend([address.as_str(), "dev", "eth0"]);
        match ip_address {
            IpAddr::V4(v4) => self.v4 = Some(v4),
            IpAddr::V6(v6) => {
                // The address is usable at once: nobody else on this bridge has it.
                arguments.push("nodad");
                self.v6 = Some(v6);
            }
        }
        ip(&arguments);
    }

    /// `address:port` for each family that the host has.
    pub(crate) fn endpoints(&self, port: u16) -> Vec<String> {
        let v4 = self.v4.map(|v4| format!("{v4}:{port}"));
        v4.into_iter().chain(self.v6.map(|v6| format!("[{v6}]:{port}"))).collect()
    }

    /// Rules of `nft` for what comes in and what goes out, in place of those before. Loopback is left alone.
    pub(crate) fn firewall(&self, input: &[&str], output: &[&str]) {
        let chain = |hook: &str, device: &str, rules: &[&str]| {
            format!(
                "chain {hook} {{\ntype filter hook {hook} priority 0;\n{device} lo accept\n{}\n}}\n",
                rules.join("\n")
            )
        };
        let rules = format!(
            "table inet t\nflush table inet t\ntable inet t {{\n{}{}}}\n",
            chain("input", "iifname", input),
            chain("output", "oifname", output)
        );
        let mut nft = self.command("nft");
        let mut nft = nft.args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
        assert!(nft.wait().unwrap().success(), "nft refused:\n{rules}");
    }

    /// No IPv6 gets in. The host is still found, so that whatever is sent there vanishes without a word, and so do the answers
    /// to what it sends.
    pub(crate) fn drop_ipv6(&self) {
        let found = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept";
        self.firewall(&[found, "meta nfproto ipv6 drop"], &[]);
    }

    /// Everything gets through again.
    pub(crate) fn open(&self) {
        self.firewall(&[], &[]);
    }

    /// The arguments that go before a program which is to run on this host.
    pub(crate) fn wrapper(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.namespace].map(ToOwned::to_owned).to_vec()
    }

    /// A program on this host.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace, program]);
        command
    }

    /// Runs something in a thread on this host.
    pub(crate) fn run<R: Send>(&self, job: impl FnOnce() -> R + Send) -> R {
        let namespace = File::open(PathBuf::from("/run/netns").join(&self.namespace)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                // The thread ends with the job: no other test runs in it.
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                job()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// The file that this host's programs have as `/etc/resolv.conf`. To be written before they start.
    pub(crate) fn name_server(&self, server: IpAddr) {
        let dir = PathBuf::from("/etc/netns").join(&self.namespace);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("resolv.conf"), format!("nameserver {server}\noptions timeout:1 attempts:1\n"))
            .unwrap();
    }
}

fn try_ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

fn ip(arguments: &[&str]) {
    try_ip(arguments).unwrap_or_else(|error| panic!("ip {}: {error}", arguments.join(" ")));
}

fn namespaces() -> Vec<String> {
    let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The process that made a namespace, if it was one of these tests.
fn owner(namespace: &str) -> Option<&str> {
    namespace.strip_prefix(MARK)?.split('-').next()
}

/// Removes what tests that were killed left behind, and what runs in it.
fn remove(abandoned: impl Fn(&str) -> bool) {
    for namespace in namespaces() {
        if owner(&namespace).is_some_and(&abandoned) {
            let pids = Command::new("ip").args(["netns", "pids", &namespace]).output();
            for pid in
                pids.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default().lines()
            {
                Command::new("kill").args(["-9", pid]).status().ok();
            }
            delete(&namespace);
        }
    }
}

fn delete(namespace: &str) {
    try_ip(&["netns", "del", namespace]).ok();
    std::fs::remove_dir_all(PathBuf::from("/etc/netns").join(namespace)).ok();
}
