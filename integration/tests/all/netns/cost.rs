//! What gossip costs a real process: beside one that does the same work and does not gossip. All of them run on one host, each at
//! an address of its own: that many hosts on one bridge would fill the kernel's table of neighbours, which is one for all.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use vivace_integration::http;
use vivace_integration::process::{Node, Setup, Usage, usage};

use super::lab::{Host, Lab, Stack};
use super::member::{GOSSIP, GRPC, HTTP, within};

/// Of one core, and of memory.
const CORE_PERCENT_MAX: f64 = 1.0;
const MEMORY_BYTES_MAX: f64 = 5e6;

/// A member at an address, whose seed is the first one; without `seed` one that does not gossip.
fn start(lab: &Lab, host: &Host, address: Ipv4Addr, seed: Option<Ipv4Addr>) -> Node {
    let dir = lab.dir().join(address.to_string());
    std::fs::create_dir_all(&dir).unwrap();
    let mut setup = Setup::new(&dir);
    if let Some(seed) = seed {
        setup = setup.yaml(&format!(
            "distributor:\n  ring:\n    instance_id: 'member-{address}'\n    instance_addr: {address}\n\
             overrides:\n  defaults:\n    ingestion:\n      rate_strategy: global\n\
             memberlist:\n  bind_addr: ['{address}']\n  join_members: ['{seed}:{GOSSIP}']\n"
        ));
    }
    setup.wrapper = host.wrapper();
    for (key, port) in [("HTTP", HTTP), ("GRPC", GRPC)] {
        setup.env.push((format!("VIVACE_SERVER__{key}_LISTEN_ADDRESS"), address.to_string()));
        setup.env.push((format!("VIVACE_SERVER__{key}_LISTEN_PORT"), port.to_string()));
    }
    setup.spawn().unwrap()
}

/// Eight members for a few seconds; in the long form fifty for a minute.
#[test]
fn a_process_with_fifty_members_pays_little_for_gossip() {
    let Some(lab) = Lab::new("cost") else { return };
    let long = std::env::var_os("VIVACE_LONG").is_some();
    let (size, span) = if long { (50, Duration::from_secs(60)) } else { (8, Duration::from_secs(5)) };
    let mut host = lab.host(Stack::V4);
    let addresses: Vec<Ipv4Addr> = (101..=101 + size).map(|last| Ipv4Addr::new(10, 77, 0, last)).collect();
    addresses.iter().for_each(|address| host.add(IpAddr::V4(*address)));
    let (alone, members) = addresses.split_last().unwrap();
    let mut nodes: Vec<Node> = members.iter().map(|address| start(&lab, &host, *address, Some(members[0]))).collect();
    nodes.push(start(&lab, &host, *alone, None));
    let first = SocketAddr::from((members[0], HTTP));
    // Not by a page: that calls the gRPC port of each member, and the code that answers would count as memory of gossip.
    within(Duration::from_secs(60), "the first one knows all", || {
        let answer = host.run(|| http::request(first, "GET", "/metrics", &[], &[]));
        let metrics = answer.map_err(|error| error.to_string())?.text();
        let known = metrics.lines().find_map(|line| line.strip_prefix("vivace_gossip_members{standing=\"alive\"} "));
        let known: Option<usize> = known.and_then(|count| count.trim().parse().ok());
        if known == Some(members.len()) { Ok(()) } else { Err(format!("it knows {known:?}")) }
    });

    let uses = || -> Vec<Usage> { nodes.iter().map(|node| usage(node.pid()).unwrap()).collect() };
    // Starting is over for all of them.
    rest(Duration::from_secs(2));
    let before = uses();
    rest(span);
    let after = uses();
    let percent = |n: usize| (after[n].cpu - before[n].cpu).as_secs_f64() / span.as_secs_f64() * 100.0;
    let megabytes = |n: usize| after[n].rss as f64 / 1e6;
    let mean = |of: &dyn Fn(usize) -> f64| (0..members.len()).map(of).sum::<f64>() / members.len() as f64;
    let (without_cpu, without_memory) = (percent(members.len()), megabytes(members.len()));
    let (cpu, memory) = (mean(&percent) - without_cpu, mean(&megabytes) - without_memory);
    println!(
        "{size} members: gossip costs {cpu:.2} % of a core and {memory:.1} MB (a member {:.2} % and {:.1} MB, without gossip \
         {without_cpu:.2} % and {without_memory:.1} MB)",
        mean(&percent),
        mean(&megabytes),
    );
    assert!(cpu <= CORE_PERCENT_MAX, "{cpu:.2} % of a core");
    assert!(memory * 1e6 <= MEMORY_BYTES_MAX, "{memory:.1} MB");
}

/// What is measured is a span of time.
fn rest(span: Duration) {
    let until = Instant::now() + span;
    while let left = until.saturating_duration_since(Instant::now())
        && !left.is_zero()
    {
        std::thread::park_timeout(left);
    }
}
