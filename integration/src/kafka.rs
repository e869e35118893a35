//! Real Apache Kafka: one broker or several on addresses of their own, from the jars that `test.sh` has fetched.
//!
//! A broker listens in plain text on 9092, with SASL on 9094 (PLAIN and SCRAM; users `alice` and `bob`, password [`PASSWORD`]) and
//! with TLS on 9095. It ends with the test process, whatever becomes of that: it is killed when a pipe to it closes.

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::process::PATIENCE;
use crate::skip;

/// As in `integration/kafka/pom.xml`.
pub const VERSION: &str = "4.1.1";
/// Of all users.
pub const PASSWORD: &str = "secret of the test";
const CLUSTER_ID: &str = "MkU3OEVBNTcwNTJENDM2Qk";
/// Brokers have the last addresses of the test process's network; the first belong to clusters.
const FIRST_HOST: u8 = 242;

/// One or more brokers, each also a controller. Killed when dropped.
#[derive(Debug)]
pub struct Kafka {
    dir: PathBuf,
    jars: PathBuf,
    hosts: Vec<Ipv4Addr>,
    running: Vec<Option<Child>>,
}

impl Kafka {
    /// The broker that all tests of this process share, started at its first use. `None`: the test is skipped.
    pub fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<(tempfile::TempDir, Kafka)>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| {
            let dir = tempfile::tempdir().expect("a folder for the broker");
            let kafka = Self::start(dir.path(), 1).unwrap_or_else(|error| panic!("start Kafka: {error:#}"))?;
            Some((dir, kafka))
        });
        match shared {
            Some((_, kafka)) => Some(kafka),
            None => {
                // Said for every test that is left out, not only for the first.
                jars();
                None
            }
        }
    }

    /// Formats and starts `brokers` brokers that are one cluster. `Ok(None)`: Kafka is not here, and the test is skipped.
    ///
    /// # Errors
    /// What does not start; with its output.
    pub fn start(dir: &Path, brokers: u8) -> anyhow::Result<Option<Self>> {
        let Some(jars) = jars() else { return Ok(None) };
        static HOSTS: AtomicU8 = AtomicU8::new(FIRST_HOST);
        let first = HOSTS.fetch_add(brokers, Ordering::Relaxed);
        if first.checked_add(brokers).is_none_or(|last| last == u8::MAX) {
            bail!("a test process has at most {} Kafka brokers", u8::MAX - FIRST_HOST);
        }
        let octet = |value: u32| u8::try_from(1 + value % 250).unwrap_or(1);
        let pid = std::process::id();
        let hosts =
            (first..first + brokers).map(|host| Ipv4Addr::new(127, octet(pid / 250), octet(pid), host)).collect();
        let mut kafka = Self { dir: dir.to_owned(), jars, hosts, running: (0..brokers).map(|_| None).collect() };
        for broker in 0..kafka.hosts.len() {
            kafka.format(broker)?;
        }
        for broker in 0..kafka.hosts.len() {
            kafka.run(broker)?;
        }
        for broker in 0..kafka.hosts.len() {
            kafka.wait(broker)?;
        }
        Ok(Some(kafka))
    }

    /// Where clients start from: all brokers, in plain text.
    #[must_use]
    pub fn address(&self) -> String {
        self.hosts.iter().map(|host| format!("{host}:9092")).collect::<Vec<_>>().join(",")
    }

    /// The same with SASL.
    #[must_use]
    pub fn sasl_address(&self) -> String {
        self.address().replace(":9092", ":9094")
    }

    /// The same with TLS.
    #[must_use]
    pub fn tls_address(&self) -> String {
        self.address().replace(":9092", ":9095")
    }

    /// The certificate that the brokers show, its own authority.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.dir.join("cert-0.pem")
    }

    /// The address of one broker in plain text.
    #[must_use]
    pub fn broker(&self, broker: usize) -> String {
        format!("{}:9092", self.hosts[broker])
    }

    /// Kills a broker as `kill -9` does; its data stays.
    pub fn kill(&mut self, broker: usize) {
        self.running[broker] = None.or_else(|| {
            if let Some(mut shell) = self.running[broker].take() {
                // The shell kills the broker when its input closes, and waits for its end.
                drop(shell.stdin.take());
                shell.wait().ok();
            }
            None
        });
    }

    /// Starts a killed broker again and waits until it takes connections.
    ///
    /// # Errors
    /// It does not start; with its output.
    pub fn restart(&mut self, broker: usize) -> anyhow::Result<()> {
        self.run(broker)?;
        self.wait(broker)
    }

    /// Runs one of Kafka's own tools, for instance `org.apache.kafka.tools.TopicCommand`.
    ///
    /// # Errors
    /// It fails; with its output.
    pub fn tool(&self, class: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.java().arg(class).args(arguments).output().context("run java")?;
        said(class, &output)
    }

    fn java(&self) -> Command {
        let mut java = Command::new("java");
        // One small heap, no optimising compiler: a start takes two seconds instead of five.
        java.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]).arg(self.jars.join("*"));
        java
    }

    fn format(&self, broker: usize) -> anyhow::Result<()> {
        let id = broker + 1;
        let host = self.hosts[broker];
        let names: Vec<String> = std::iter::once("localhost".to_owned()).chain([host.to_string()]).collect();
        let certified = rcgen::generate_simple_self_signed(names).context("make a certificate")?;
        let (certificate, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
        std::fs::write(self.dir.join(format!("cert-{broker}.pem")), &certificate)?;
        let inline = |pem: &str| pem.trim().replace("\r\n", "\n").replace('\n', " \\\n");
        let voters: Vec<String> =
            self.hosts.iter().enumerate().map(|(at, host)| format!("{}@{host}:9093", at + 1)).collect();
        let replicas = self.hosts.len().min(3);
        let users =
            format!("org.apache.kafka.common.security.plain.PlainLoginModule required user_alice=\"{PASSWORD}\";");
        let properties = format!(
            "process.roles=broker,controller\nnode.id={id}\ncontroller.quorum.voters={}\n\
             listeners=PLAINTEXT://{host}:9092,CONTROLLER://{host}:9093,SASL://{host}:9094,SSL://{host}:9095\n\
             advertised.listeners=PLAINTEXT://{host}:9092,SASL://{host}:9094,SSL://{host}:9095\n\
             controller.listener.names=CONTROLLER\ninter.broker.listener.name=PLAINTEXT\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,SSL:SSL\n\
             listener.name.sasl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512\n\
             listener.name.sasl.plain.sasl.jaas.config={users}\n\
             listener.name.sasl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
             listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;\n\
             ssl.keystore.type=PEM\nssl.keystore.certificate.chain={}\nssl.keystore.key={}\n\
             log.dirs={}\noffsets.topic.num.partitions=1\noffsets.topic.replication.factor={replicas}\n\
             transaction.state.log.replication.factor={replicas}\ntransaction.state.log.min.isr=1\n\
             default.replication.factor={replicas}\nmin.insync.replicas={}\nnum.partitions=3\n\
             message.max.bytes=16777216\nreplica.fetch.max.bytes=16777216\nauto.create.topics.enable=false\n\
             broker.session.timeout.ms=3000\nbroker.heartbeat.interval.ms=500\ncontroller.quorum.election.timeout.ms=500\n\
             controller.quorum.fetch.timeout.ms=1000\ngroup.initial.rebalance.delay.ms=0\n\
             log.retention.check.interval.ms=500\nfile.delete.delay.ms=100\n",
            voters.join(","),
            inline(&certificate),
            inline(&key),
            self.dir.join(format!("data-{id}")).display(),
            replicas.div_ceil(2),
        );
        let path = self.properties(broker);
        std::fs::write(&path, properties)?;
        let scram = |mechanism: &str| format!("{mechanism}=[name=bob,password={PASSWORD}]");
        let output = self
            .java()
            .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
            .arg(&path)
            .args(["--add-scram", &scram("SCRAM-SHA-256"), "--add-scram", &scram("SCRAM-SHA-512")])
            .output()
            .context("run java")?;
        said("format the storage", &output).map(|_| ())
    }

    fn properties(&self, broker: usize) -> PathBuf {
        self.dir.join(format!("server-{broker}.properties"))
    }

    fn run(&mut self, broker: usize) -> anyhow::Result<()> {
        let log = std::fs::File::create(self.output(broker))?;
        let java = self.java();
        // Java ignores its input; the shell waits for the end of its own and then kills.
        let child = Command::new("sh")
            .args(["-c", "\"$@\" </dev/null & broker=$!; cat >/dev/null; kill -9 $broker; wait $broker", "sh"])
            .arg(java.get_program())
            .args(java.get_args())
            .arg("kafka.Kafka")
            .arg(self.properties(broker))
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("run java")?;
        self.running[broker] = Some(child);
        Ok(())
    }

    fn output(&self, broker: usize) -> PathBuf {
        self.dir.join(format!("output-{broker}.txt"))
    }

    fn wait(&self, broker: usize) -> anyhow::Result<()> {
        let address = SocketAddr::from((self.hosts[broker], 9092));
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err() {
            if Instant::now() > deadline {
                let output = std::fs::read_to_string(self.output(broker)).unwrap_or_default();
                bail!("the broker at {address} takes no connections; it said:\n{output}");
            }
            // A refused connection returns at once: leave the broker the processor.
            std::thread::park_timeout(Duration::from_millis(50));
        }
        Ok(())
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        for broker in 0..self.running.len() {
            self.kill(broker);
        }
    }
}

fn said(what: &str, output: &Output) -> anyhow::Result<String> {
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{what}: {}\n{told}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(told)
}

/// Where the jars are; without them, or without Java, the calling test is skipped.
fn jars() -> Option<PathBuf> {
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(target) => PathBuf::from(target),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"),
    };
    let jars = target.join(format!("kafka-{VERSION}"));
    if !jars.join(format!("kafka-server-{VERSION}.jar")).is_file() {
        skip::skip(&format!("Apache Kafka {VERSION} is not in {} (./test.sh install)", jars.display()));
        return None;
    }
    if Command::new("java").arg("-version").output().is_ok_and(|output| output.status.success()) {
        return Some(jars);
    }
    skip::skip("Apache Kafka: java is missing (Debian: openjdk-17-jre-headless)");
    None
}
