//! One campaign: the corpus first, then inputs made of it, one after the other from a seed.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::dice::Dice;
use crate::mutator::Mutator;
use crate::watchdog::Watchdog;

/// Inputs that changes start from; what is found beyond it is not kept.
const MAX_POOL: usize = 1024;
/// What an hour of `VIVACE_LONG` multiplies the runs with: a campaign is sized for five seconds.
const RUNS_AN_HOUR: u64 = 720;

/// An input that does not come back within this time, or twice this time, hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A target with its corpus and size.
#[derive(Debug)]
pub struct Campaign {
    package_dir: PathBuf,
    target: &'static str,
    seeds: Vec<Vec<u8>>,
    mutator: Mutator,
    runs: u64,
}

/// What an input was like, for [`Campaign::run`]: equal texts are alike. Digits count as one, so that a text with a
/// position or a size in it says its kind.
#[must_use]
pub fn likeness(text: &str) -> u64 {
    let mut digit = false;
    let letters = text.bytes().filter_map(|byte| {
        let again = digit && byte.is_ascii_digit();
        digit = byte.is_ascii_digit();
        (!again).then_some(if digit { b'0' } else { byte })
    });
    fnv(letters)
}

/// FNV-1a: the same in every version of everything.
fn fnv(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

impl Campaign {
    /// The campaign `target` of the crate in `package_dir`, which is `env!("CARGO_MANIFEST_DIR")` there.
    #[must_use]
    pub fn new(package_dir: impl Into<PathBuf>, target: &'static str) -> Self {
        let mutator = Mutator { tokens: Vec::new(), max_bytes: 4096 };
        Self { package_dir: package_dir.into(), target, seeds: Vec::new(), mutator, runs: 10_000 }
    }

    /// Adds an input to the corpus, for those that are better made than stored.
    #[must_use]
    pub fn seed_input(mut self, input: Vec<u8>) -> Self {
        self.seeds.push(input);
        self
    }

    /// Words that inputs of this kind are made of.
    #[must_use]
    pub fn tokens<T: AsRef<[u8]>>(mut self, tokens: &[T]) -> Self {
        self.mutator.tokens.extend(tokens.iter().map(|token| token.as_ref().to_vec()));
        self
    }

    /// Longer inputs are cut; 4096 if not said. What the corpus holds is run whole all the same.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.mutator.max_bytes = bytes;
        self
    }

    /// Inputs after the corpus; choose as many as take about five seconds on one slow core in profile `ci`.
    #[must_use]
    pub fn runs(mut self, runs: u64) -> Self {
        self.runs = runs;
        self
    }

    /// Runs it. `body` asserts what holds for every input, and answers what this one was like.
    ///
    /// # Panics
    /// With the panic of `body`, after the input was written to a file and the way to run it alone was printed. Without a
    /// corpus.
    pub fn run(self, body: impl Fn(&[u8]) -> u64) {
        if let Some(path) = std::env::var_os("VIVACE_FUZZ_INPUT") {
            let input = std::fs::read(&path).unwrap_or_else(|e| panic!("read {}: {e}", Path::new(&path).display()));
            self.one(&input, None, &body);
            return;
        }
        let seed = number("VIVACE_FUZZ_SEED").unwrap_or(1);
        let runs = self.runs * number("VIVACE_LONG").map_or(1, |hours| (hours * RUNS_AN_HOUR).max(1));
        let mut pool = self.corpus();
        assert!(!pool.is_empty(), "fuzz target {} has no corpus", self.target);
        println!("fuzz target {}: seed {seed}, corpus of {}, {runs} inputs", self.target, pool.len());
        let (dir, name, target) = (failures(), thread_name(), self.target);
        let watchdog = Watchdog::start(PATIENCE, move |input| {
            let path = keep(&dir, target, input);
            format!("\nfuzz target {target}: an input does not come back\n{}\n", replay(&path, &name))
        });
        let mut seen = HashSet::new();
        for input in &pool {
            seen.insert(self.one(input, Some(&watchdog), &body));
        }
        let mut dice = Dice::new(seed ^ likeness(self.target));
        for _ in 0..runs {
            let input = self.mutator.next(&pool, &mut dice);
            let like = self.one(&input, Some(&watchdog), &body);
            if seen.insert(like) && pool.len() < MAX_POOL {
                pool.push(input);
            }
        }
        println!("fuzz target {}: {} kinds of answers", self.target, seen.len());
    }

    fn one(&self, input: &[u8], watchdog: Option<&Watchdog>, body: &impl Fn(&[u8]) -> u64) -> u64 {
        if let Some(watchdog) = watchdog {
            watchdog.begin(input);
        }
        catch_unwind(AssertUnwindSafe(|| body(input))).unwrap_or_else(|panic| {
            let path = keep(&failures(), self.target, input);
            println!(
                "fuzz target {}: an input of {} bytes fails\n{}",
                self.target,
                input.len(),
                replay(&path, &thread_name())
            );
            resume_unwind(panic)
        })
    }

    /// Files in order of their names, then the inputs made.
    fn corpus(&self) -> Vec<Vec<u8>> {
        let folder = self.package_dir.join("fuzz/corpus").join(self.target);
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(folder).map(|dir| dir.flatten().map(|entry| entry.path()).collect()).unwrap_or_default();
        files.sort();
        let read = |path: &PathBuf| std::fs::read(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        files.iter().map(read).chain(self.seeds.iter().cloned()).collect()
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|e| panic!("{variable}={text}: {e}")))
}

/// libtest names a test's thread after the test.
fn thread_name() -> String {
    std::thread::current().name().unwrap_or("").to_owned()
}

/// Beside the binaries of this profile, so that nothing lands among the sources.
fn failures() -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let profile = exe.ancestors().find(|dir| dir.join("deps").is_dir());
    profile.map_or_else(std::env::temp_dir, Path::to_path_buf).join("fuzz-failures")
}

/// Writes an input to a file that is named after it.
fn keep(dir: &Path, target: &str, input: &[u8]) -> PathBuf {
    let path = dir.join(format!("{target}-{:016x}", fnv(input.iter().copied())));
    let written = std::fs::create_dir_all(dir).and_then(|()| std::fs::write(&path, input));
    if let Err(error) = written {
        println!("the input could not be written to {}: {error}; it is {input:02x?}", path.display());
    }
    path
}

fn replay(path: &Path, test: &str) -> String {
    let package = std::env::var("CARGO_PKG_NAME").unwrap_or_else(|_| "<package>".to_owned());
    format!(
        "run it alone: VIVACE_FUZZ_INPUT={} cargo test --profile ci -p {package} -- --exact {test} --nocapture\n\
         and once it is fixed, put it into the corpus: <crate>/fuzz/corpus/<target>/",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn campaign(target: &'static str) -> Campaign {
        Campaign::new("/nowhere", target).seed_input(b"seed".to_vec()).runs(100_000)
    }

    #[test]
    fn a_planted_fault_is_found_and_its_input_written_down() {
        let found = catch_unwind(|| {
            campaign("planted").run(|input| {
                // Three steps deep: only a pool that learns gets there.
                let depth = [b'a', b'b', b'c'].iter().zip(input).take_while(|(want, got)| want == got).count();
                assert!(depth < 3, "found");
                depth as u64
            });
        });
        assert_eq!(found.unwrap_err().downcast_ref::<&str>(), Some(&"found"));
        let kept: Vec<_> = std::fs::read_dir(failures())
            .unwrap()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with("planted-"))
            .map(|entry| entry.path())
            .collect();
        assert_eq!(kept.len(), 1, "one seed fails at one input: {kept:?}");
        assert!(std::fs::read(&kept[0]).unwrap().starts_with(b"abc"));
        std::fs::remove_file(&kept[0]).unwrap();
    }

    #[test]
    fn without_a_corpus_a_target_fails() {
        assert!(catch_unwind(|| Campaign::new("/nowhere", "empty").run(|_| 0)).is_err());
    }

    #[test]
    fn texts_that_differ_in_numbers_are_alike() {
        assert_eq!(likeness("byte 17 of 300"), likeness("byte 9 of 4"));
        assert_ne!(likeness("byte 17"), likeness("bit 17"));
    }
}
