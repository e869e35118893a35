//! What the figures depend on: the disk and how fast it makes things durable.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use vivace_integration::load;
use vivace_integration::process::binary;

use crate::{mb, ms, run};

/// Prints what every figure depends on. Answers the binary that is measured.
///
/// # Errors
/// There is no binary, or `dir` cannot be written.
pub(crate) fn print(dir: &Path) -> anyhow::Result<PathBuf> {
    let binary = binary()?;
    println!("conditions");
    println!("  cores                 {}, shared with the client", std::thread::available_parallelism()?);
    println!("  data on               {}", file_system(dir)?);
    let (p50, p99) = fdatasync(dir)?;
    println!("  fdatasync of 4 kB     p50 {} p99 {}", ms(p50), ms(p99));
    println!(
        "  connections           {}, OTLP/HTTP protobuf, {} spans a request, {} attributes a span",
        run::CONNECTIONS,
        run::SPANS,
        load::ATTRIBUTES
    );
    println!("  binary                {} ({:.1} MB)", binary.display(), mb(std::fs::metadata(&binary)?.len()));
    Ok(binary)
}

/// p50 and p99 of writing and syncing 4 kB, three hundred times.
fn fdatasync(dir: &Path) -> anyhow::Result<(Duration, Duration)> {
    let mut file = std::fs::File::create(dir.join("probe"))?;
    let mut times = Vec::new();
    for _ in 0..300 {
        let from = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        times.push(from.elapsed());
    }
    std::fs::remove_file(dir.join("probe"))?;
    times.sort();
    Ok((times[150], times[297]))
}

/// Kind and device of the file system that holds `dir`.
fn file_system(dir: &Path) -> anyhow::Result<String> {
    let dir = dir.canonicalize()?;
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let best = mounts
        .lines()
        .filter_map(|l| {
            let mut words = l.split(' ');
            let (device, point, kind) = (words.next()?, words.next()?, words.next()?);
            dir.starts_with(point).then(|| (point.len(), format!("{kind} ({device})")))
        })
        .max();
    Ok(best.map_or_else(|| "unknown".to_owned(), |(_, name)| name))
}
