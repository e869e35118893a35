//! What gossip costs a real process: beside one that does the same work and does not gossip.

use std::time::Duration;

use vivace_integration::process::{Setup, Usage, usage};

use super::lab::{Lab, Stack};
use super::member::{GOSSIP, Member, Start, ids, rings_are};

/// Of one core, and of memory.
const CORE_PERCENT_MAX: f64 = 1.0;
const MEMORY_BYTES_MAX: f64 = 5e6;

/// Twelve members for a few seconds; in the long form fifty for a minute.
#[test]
fn a_process_with_fifty_members_pays_little_for_gossip() {
    let Some(lab) = Lab::new("cost") else { return };
    let long = std::env::var_os("VIVACE_LONG").is_some();
    let (size, span) = if long { (50, Duration::from_secs(60)) } else { (12, Duration::from_secs(8)) };
    let hosts: Vec<_> = (0..size).map(|_| lab.host(Stack::Dual)).collect();
    let join = hosts[0].endpoints(GOSSIP);
    let members: Vec<Member> =
        hosts.iter().enumerate().map(|(n, host)| Start::new(&format!("member-{n}"), &join).on(&lab, host)).collect();
    let dir = lab.dir().join("alone");
    std::fs::create_dir_all(&dir).unwrap();
    let alone = Setup::new(&dir).start().unwrap();
    rings_are(Duration::from_secs(60), &members, &ids(&members));

    let pids: Vec<u32> = members.iter().map(|member| member.node.pid()).chain([alone.pid()]).collect();
    let uses = || -> Vec<Usage> { pids.iter().map(|pid| usage(*pid).unwrap()).collect() };
    // Starting is over for all of them.
    std::thread::park_timeout(Duration::from_secs(3));
    let before = uses();
    let until = std::time::Instant::now() + span;
    while let left = until.saturating_duration_since(std::time::Instant::now())
        && !left.is_zero()
    {
        std::thread::park_timeout(left);
    }
    let after = uses();
    let percent = |n: usize| (after[n].cpu - before[n].cpu).as_secs_f64() / span.as_secs_f64() * 100.0;
    let megabytes = |n: usize| after[n].rss as f64 / 1e6;
    let mean = |of: &dyn Fn(usize) -> f64| (0..size).map(of).sum::<f64>() / size as f64;
    let (cpu, memory) = (mean(&percent) - percent(size), mean(&megabytes) - megabytes(size));
    println!(
        "{size} members: gossip costs {cpu:.2} % of a core and {memory:.1} MB \
         (a member {:.2} % and {:.1} MB, without gossip {:.2} % and {:.1} MB)",
        mean(&percent),
        mean(&megabytes),
        percent(size),
        megabytes(size)
    );
    assert!(cpu <= CORE_PERCENT_MAX, "{cpu:.2} % of a core");
    assert!(memory * 1e6 <= MEMORY_BYTES_MAX, "{memory:.1} MB");
}
