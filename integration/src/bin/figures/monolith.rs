//! The figures of a node with every role: idle, under load at a rate, at its end, under load without a rate, after `kill -9`.

use std::time::{Duration, Instant};

use vivace_integration::process::{Node, Setup, usage};

use crate::asked::Asked;
use crate::options::Options;
use crate::run::{Load, Pace, Target, quantile_ms};
use crate::watch::Watch;
use crate::{conditions, disk, mb, ms};

/// Prints the figures of one node.
///
/// # Errors
/// Anything that fails: there are no figures then.
pub(crate) fn measure(options: &Options, asked: &mut Asked) -> anyhow::Result<()> {
    let scratch = options.scratch()?;
    let (blocks, wal) = (scratch.path().join("data/blocks"), scratch.path().join("data/wal"));
    let binary = conditions::print(scratch.path())?;
    asked.at_most("size of the binary", 40.0, mb(std::fs::metadata(binary)?.len()), "MB");

    println!("idle");
    let setup = Setup::new(scratch.path());
    let mut node = setup.spawn()?;
    let ready = node.wait_ready()?;
    println!("  start to ready        {}", ms(ready));
    asked.at_most("start to ready, empty log", 300.0, ready.as_secs_f64() * 1e3, "ms");
    let start = node.usage()?.cpu;
    std::thread::park_timeout(Duration::from_secs(2));
    let idle = node.usage()?;
    println!("  RSS                   {:.1} MB", mb(idle.rss));
    asked.at_most("idle RSS", 25.0, mb(idle.rss), "MB");

    println!("load at {} spans/s for {} s", options.rate, options.seconds);
    let client = usage(std::process::id())?.cpu;
    let load = Load::start(target(&node)?, &Pace::of_a_node(Some(options.rate), options.seconds, 1));
    let mut watch = Watch::new(&blocks, &wal, Duration::from_secs(options.every), idle.cpu);
    while !load.is_over() {
        watch.look(&node, load.acknowledged())?;
    }
    let run = load.finish()?;
    run.print();
    asked.at_most("ack p99", 25.0, quantile_ms(&run.acks, 0.99), "ms");
    asked.at_most("by ID, not found after the ack", 0.0, run.by_id.late as f64, "traces");
    asked.at_most("found by search after the ack, at most", 1000.0, quantile_ms(&run.by_search.times, 1.0), "ms");
    let loaded = node.usage()?;
    let client = usage(std::process::id())?.cpu.saturating_sub(client);
    println!("  peak RSS              {:.1} MB", mb(loaded.peak_rss));
    println!("  client's CPU          {:.2} s, of the same cores", client.as_secs_f64());
    if options.settle > 0 {
        println!("no load for {} s", options.settle);
        let until = Instant::now() + Duration::from_secs(options.settle);
        while Instant::now() < until {
            watch.look(&node, run.spans)?;
        }
    }
    let settled = node.usage()?;
    println!("end");
    let ended = node.stop_counted()?;
    let last = ended.usage;
    let peak = last.peak_rss.max(settled.peak_rss);
    println!("  SIGTERM to exit       {} ({})", ms(ended.took), ended.status);
    println!("  peak RSS, whole life  {:.1} MB", mb(peak));
    asked.at_most("SIGTERM to exit", 10.0, ended.took.as_secs_f64(), "s");
    asked.at_most("peak RSS, whole life", 250.0, mb(peak), "MB");
    let phases = [
        ("start", start),
        ("idle", idle.cpu.saturating_sub(start)),
        ("load", loaded.cpu.saturating_sub(idle.cpu)),
        ("settle", settled.cpu.saturating_sub(loaded.cpu)),
        ("drain", last.cpu.saturating_sub(settled.cpu)),
    ];
    let phases: Vec<String> = phases.iter().map(|(name, cpu)| format!("{name} {:.2} s", cpu.as_secs_f64())).collect();
    println!("  CPU by phase          {}", phases.join(", "));
    println!(
        "  CPU, whole life       {:.2} s = {:.0} spans per CPU-second",
        last.cpu.as_secs_f64(),
        run.spans as f64 / last.cpu.as_secs_f64()
    );
    asked.at_least("spans per CPU-second", 100_000.0, run.spans as f64 / last.cpu.as_secs_f64(), "spans");
    let stored = disk::blocks(&blocks)?;
    println!(
        "  blocks                {} live by level {:?}, {} replaced",
        stored.live(),
        stored.levels,
        stored.replaced
    );
    println!(
        "  stored                {:.1} bytes a span ({:.1} MB in live blocks, {:.1} MB in replaced ones)",
        stored.live_bytes as f64 / run.spans as f64,
        mb(stored.live_bytes),
        mb(stored.replaced_bytes)
    );
    asked.at_most("bytes stored a span", 110.0, stored.live_bytes as f64 / run.spans as f64, "bytes");

    let seconds = options.seconds.min(60) / 3 + 1;
    println!("unpaced load for {seconds} s");
    let mut node = setup.spawn()?;
    node.wait_ready()?;
    let run = Load::start(target(&node)?, &Pace::of_a_node(None, seconds, 2)).finish()?;
    run.print();
    println!("  peak RSS              {:.1} MB", mb(node.usage()?.peak_rss));
    println!("kill -9 under that load");
    node.kill()?;
    let log = disk::size(&wal)?;
    let mut node = setup.spawn()?;
    let ready = node.wait_ready()?;
    println!("  start to ready        {} with {:.0} MB of log", ms(ready), mb(log));
    asked.at_most("start to ready after kill -9", 2.0, ready.as_secs_f64(), "s");
    drop(node);
    Ok(())
}

fn target(node: &Node) -> anyhow::Result<Target> {
    Ok(Target { otlp: node.addr("otlp_http")?, http: node.addr("http")? })
}
