//! `vivace devbroker` as kcat sees it: a client on librdkafka, which we did not write.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use vivace_integration::process::{Node, binary};
use vivace_integration::skip::skip;

struct Broker {
    dir: tempfile::TempDir,
    node: Node,
    v4: SocketAddr,
    v6: SocketAddr,
}

impl Broker {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (node, v4, v6) = run(&dir, "127.0.0.1:0", "[::1]:0");
        Self { dir, node, v4, v6 }
    }

    /// `kill -9`, and again at the same ports.
    fn kill_and_restart(self) -> Self {
        let Self { dir, node, v4, v6 } = self;
        node.kill().unwrap();
        let (node, ..) = run(&dir, &v4.to_string(), &v6.to_string());
        Self { dir, node, v4, v6 }
    }
}

fn run(dir: &tempfile::TempDir, v4: &str, v6: &str) -> (Node, SocketAddr, SocketAddr) {
    let mut command = Command::new(binary().unwrap());
    command.args(["devbroker", &format!("-listen={v4}"), &format!("-listen={v6}"), "-topic=t:2"]);
    command.arg("-data").arg(dir.path());
    let node = Node::of(command).unwrap();
    let address = |start: &str| {
        let line = node.wait_log(|line| line.contains("listener=kafka") && line.contains(start)).unwrap();
        let address = line.split(' ').find_map(|word| word.strip_prefix("addr=")).unwrap();
        address.trim_matches('"').parse().unwrap()
    };
    let (v4, v6) = (address("127.0.0.1:"), address("[::1]:"));
    (node, v4, v6)
}

/// Runs kcat and gives what it said on standard output.
fn kcat(broker: SocketAddr, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("kcat");
    command.args(["-q", "-b", &broker.to_string()]).args(arguments);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("kcat starts");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let (said, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "kcat {arguments:?}: {}\n{said}\n{complaint}", output.status);
    said.into_owned()
}

fn lines(from: u32, until: u32) -> String {
    (from..until).map(|number| format!("key{number}:value {number}\n")).collect()
}

#[test]
fn kcat_produces_and_consumes_over_both_families_and_over_a_crash() {
    if Command::new("kcat").arg("-V").output().is_err() {
        skip("kcat is missing (Debian: kcat)");
        return;
    }
    let broker = Broker::start();
    let produce = |broker: &Broker, from: u32, until: u32, codec: &str, partition: &str| {
        let codec = format!("compression.codec={codec}");
        let arguments = ["-P", "-t", "t", "-p", partition, "-K:", "-X", &codec, "-X", "enable.idempotence=true"];
        kcat(broker.v4, &arguments, &lines(from, until));
    };
    for (number, codec) in (0..).zip(["none", "gzip", "snappy", "lz4", "zstd"]) {
        produce(&broker, number * 20, number * 20 + 20, codec, "0");
    }
    let format = "%o %k:%s\n";
    let consume = |broker: SocketAddr, offset: &str| {
        kcat(broker, &["-C", "-t", "t", "-p", "0", "-o", offset, "-e", "-f", format], "")
    };
    let expected = |from: u32, until: u32| -> String {
        (from..until).map(|number| format!("{number} key{number}:value {number}\n")).collect()
    };
    assert_eq!(consume(broker.v4, "beginning"), expected(0, 100));
    assert_eq!(consume(broker.v6, "-15"), expected(85, 100), "the last fifteen, over IPv6");

    let described = kcat(broker.v6, &["-L", "-t", "t"], "");
    assert!(described.contains("topic \"t\" with 2 partitions"), "{described}");
    assert!(described.contains(&format!("broker 1 at ::1:{}", broker.v6.port())), "{described}");
    for (time, offset) in [("t:0:0", "offset 0"), ("t:0:-1", "offset 100")] {
        let found = kcat(broker.v4, &["-Q", "-t", time], "");
        assert!(found.contains(offset), "{time}: {found}");
    }

    // A group: everything once, and after the crash only what is new.
    let group = |broker: &Broker, count: &str| {
        let arguments = ["-G", "readers", "-X", "auto.offset.reset=earliest", "-c", count, "-f", format, "t"];
        kcat(broker.v4, &arguments, "")
    };
    assert_eq!(group(&broker, "100"), expected(0, 100));
    let broker = broker.kill_and_restart();
    assert_eq!(consume(broker.v4, "beginning"), expected(0, 100));
    produce(&broker, 100, 120, "lz4", "0");
    assert_eq!(group(&broker, "20"), expected(100, 120));

    let (status, _, log) = broker.node.stop().unwrap();
    assert!(status.success(), "{status}");
    Node::check_log(&log, &["this is a development broker"]).unwrap();
    drop(broker.dir);
}

#[test]
fn it_refuses_to_be_reached_from_elsewhere_without_being_told_twice() {
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(binary().unwrap());
        command.arg("devbroker").args(arguments).arg(format!("-data={}", dir.path().display()));
        command.output().unwrap()
    };
    let refused = run(&["-listen=0.0.0.0:0"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("for development only") && said.contains("--allow-remote"), "{said}");
    let wrong = run(&["-lisen=x"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("there is no flag -lisen"));
}
