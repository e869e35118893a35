//! What a process has used, from `/proc`.

use std::collections::HashMap;

use anyhow::Context;

/// What was used between two looks.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) cpu_ns: u64,
    /// Bytes that came from the disk.
    pub(crate) disk: u64,
    /// Bytes that reading calls gave.
    pub(crate) read: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, other: Self) {
        self.cpu_ns += other.cpu_ns;
        self.disk += other.disk;
        self.read += other.read;
    }
}

/// The counters at one moment.
pub(crate) struct Look {
    pid: u32,
    /// Nanoseconds on a CPU by thread.
    threads: HashMap<String, u64>,
    disk: u64,
    read: u64,
}

impl Look {
    pub(crate) fn at(pid: u32) -> anyhow::Result<Self> {
        let mut threads = HashMap::new();
        let folder = format!("/proc/{pid}/task");
        for thread in std::fs::read_dir(&folder).with_context(|| format!("read {folder}"))? {
            let thread = thread?;
            // A thread may end between being listed and being looked at.
            let Ok(stat) = std::fs::read_to_string(thread.path().join("schedstat")) else { continue };
            let spent = stat.split_whitespace().next().and_then(|word| word.parse().ok());
            let spent = spent.with_context(|| format!("schedstat of a thread of {pid}: {stat:?}"))?;
            threads.insert(thread.file_name().to_string_lossy().into_owned(), spent);
        }
        let io = std::fs::read_to_string(format!("/proc/{pid}/io")).with_context(|| format!("read io of {pid}"))?;
        let counter = |name: &str| {
            let line = io.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.and_then(|number| number.parse().ok()).with_context(|| format!("io of {pid} has no {name}"))
        };
        Ok(Self { pid, threads, disk: counter("read_bytes")?, read: counter("rchar")? })
    }

    /// What was used since.
    pub(crate) fn cost(&self) -> anyhow::Result<Cost> {
        let now = Self::at(self.pid)?;
        let before = |thread| self.threads.get(thread).copied().unwrap_or(0);
        let cpu_ns = now.threads.iter().map(|(thread, spent)| spent.saturating_sub(before(thread))).sum();
        Ok(Cost { cpu_ns, disk: now.disk - self.disk, read: now.read - self.read })
    }
}
