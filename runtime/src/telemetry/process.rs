//! The usual process metrics, read from /proc at each scrape. The names are those of Prometheus' client libraries.

use std::fs;

use crate::clock::{Clock, SystemClock};
use crate::metrics::Registry;

/// Clock ticks a second in /proc: fixed at 100 on every Linux architecture in use (`USER_HZ`).
const TICKS: f64 = 100.0;
/// Bytes of a page as /proc counts them.
const PAGE: f64 = 4096.0;

/// Exports memory, processor time, open files and start time of this process. Outside Linux nothing is exported.
pub fn export_process(registry: &Registry) {
    let started = SystemClock.unix().as_secs_f64();
    registry.collector(move |text| {
        let mut value = |name: &str, kind: &str, help: &str, value: Option<f64>| {
            if let Some(value) = value {
                text.family(name, kind, help);
                text.sample(name, "", &[], None, value);
            }
        };
        let stat = Stat::read();
        value(
            "process_cpu_seconds_total",
            "counter",
            "Total user and system CPU time spent in seconds.",
            stat.as_ref().map(|stat| stat.cpu_seconds),
        );
        value("process_max_fds", "gauge", "Maximum number of open file descriptors.", max_fds());
        value("process_open_fds", "gauge", "Number of open file descriptors.", open_fds());
        value(
            "process_resident_memory_bytes",
            "gauge",
            "Resident memory size in bytes.",
            stat.as_ref().map(|stat| stat.resident_bytes),
        );
        value(
            "process_start_time_seconds",
            "gauge",
            "Start time of the process since unix epoch in seconds.",
            Some(started),
        );
        value("process_threads", "gauge", "Number of threads.", stat.as_ref().map(|stat| stat.threads));
        value(
            "process_virtual_memory_bytes",
            "gauge",
            "Virtual memory size in bytes.",
            stat.as_ref().map(|stat| stat.virtual_bytes),
        );
    });
}

struct Stat {
    cpu_seconds: f64,
    threads: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// proc(5): the name in parentheses may hold anything, so fields are counted after the last one.
    fn parse(stat: &str) -> Option<Self> {
        let fields: Vec<&str> = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        Some(Self {
            cpu_seconds: (field(14)? + field(15)?) / TICKS,
            threads: field(20)?,
            virtual_bytes: field(23)?,
            resident_bytes: field(24)? * PAGE,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "a count of files is far below 2^53")]
fn open_fds() -> Option<f64> {
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

fn max_fds() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_ascii_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_spaces_and_parentheses_does_not_shift_fields() {
        let stat =
            "7 (a (b) c) S 1 1 1 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 9 0 12345 8192000 300 18446744073709551615";
        let stat = Stat::parse(stat).unwrap();
        assert_eq!((stat.cpu_seconds, stat.threads), (2.0, 9.0));
        assert_eq!((stat.virtual_bytes, stat.resident_bytes), (8_192_000.0, 300.0 * PAGE));
    }

    #[test]
    fn the_usual_names_are_exported() {
        let registry = Registry::new();
        export_process(&registry);
        let text = registry.render();
        for name in [
            "process_cpu_seconds_total",
            "process_open_fds",
            "process_resident_memory_bytes",
            "process_start_time_seconds",
        ] {
            assert!(text.contains(&format!("\n{name} ")), "{name} in {text}");
        }
    }
}
