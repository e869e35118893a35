//! Tests that need what a machine may not have. A skip is a failure where `CI` is set, and loud and counted elsewhere.

use std::io::Write;

/// Says that the calling test is left out here; it must return after this.
///
/// With `VIVACE_SKIPPED` set to a file, a line is added to it: `test.sh` counts them and shows them at its end, because
/// what a passing test prints is not seen.
///
/// # Panics
/// Where `CI` is set: there everything has to run.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "nothing is left out where CI is set: {why}");
    let thread = std::thread::current();
    let line = format!("SKIPPED {}: {why}\n", thread.name().unwrap_or("a test"));
    print!("{line}");
    if let Some(path) = std::env::var_os("VIVACE_SKIPPED") {
        let written = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        if let Err(error) = written.and_then(|mut file| file.write_all(line.as_bytes())) {
            println!("{}: {error}", path.display());
        }
    }
}
