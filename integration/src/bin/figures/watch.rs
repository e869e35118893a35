//! The table over time: memory, processor, blocks and bytes, a line every few seconds.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use vivace_integration::process::Node;

use crate::disk;

/// Looks at a node now and then.
pub(crate) struct Watch {
    blocks: PathBuf,
    wal: PathBuf,
    every: Duration,
    began: Instant,
    /// When the last line was printed, with the CPU time and the spans at that moment.
    last: (Instant, Duration, u64),
    lines: usize,
}

impl Watch {
    /// `cpu` is the node's so far.
    pub(crate) fn new(blocks: &std::path::Path, wal: &std::path::Path, every: Duration, cpu: Duration) -> Self {
        let began = Instant::now();
        Self { blocks: blocks.into(), wal: wal.into(), every, began, last: (began, cpu, 0), lines: 0 }
    }

    /// Waits a little, and prints a line when it is time for one. `spans` were acknowledged so far.
    pub(crate) fn look(&mut self, node: &Node, spans: u64) -> anyhow::Result<()> {
        std::thread::park_timeout(Duration::from_millis(50));
        let now = Instant::now();
        let (then, cpu_then, spans_then) = self.last;
        let passed = now - then;
        if passed < self.every {
            return Ok(());
        }
        let usage = node.usage()?;
        let blocks = disk::blocks(&self.blocks)?;
        let log = disk::size(&self.wal)?;
        if self.lines == 0 {
            println!(
                "   time   spans/s  cores  RSS MB  peak MB  live blocks (by level)         replaced  blocks MB  log MB"
            );
        }
        let levels: Vec<String> = blocks.levels.iter().map(|(level, count)| format!("{level}:{count}")).collect();
        println!(
            "  {:>4} s  {:>8.0}  {:>5.2}  {:>6.1}  {:>7.1}  {:>4} ({:<22})  {:>8}  {:>9.1}  {:>6.1}",
            (now - self.began).as_secs(),
            (spans - spans_then) as f64 / passed.as_secs_f64(),
            usage.cpu.saturating_sub(cpu_then).as_secs_f64() / passed.as_secs_f64(),
            usage.rss as f64 / 1e6,
            usage.peak_rss as f64 / 1e6,
            blocks.live(),
            levels.join(" "),
            blocks.replaced,
            blocks.live_bytes as f64 / 1e6,
            log as f64 / 1e6,
        );
        self.lines += 1;
        self.last = (now, usage.cpu, spans);
        Ok(())
    }
}
