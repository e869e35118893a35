//! The command line.

use std::path::PathBuf;

use anyhow::{Context, bail};

/// Of what the figures are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    Monolith,
    Cluster,
    Giant,
}

/// What was asked for on the command line.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) subject: Subject,
    /// Where the data goes; the system's folder of temporary files if absent.
    pub(crate) dir: Option<PathBuf>,
    /// Spans a second.
    pub(crate) rate: f64,
    pub(crate) seconds: u64,
    pub(crate) check: bool,
    /// Only of a node.
    pub(crate) settle: u64,
    pub(crate) every: u64,
    /// Only of a cluster: brokers in the development broker's place.
    pub(crate) kafka: Option<String>,
    pub(crate) seed: u64,
    /// Every so many traces of a request are asked for in the end.
    pub(crate) stride: usize,
    /// Only of a large trace: how many spans it has, and whether there is a process for each role.
    pub(crate) spans: u64,
    pub(crate) processes: bool,
}

impl Options {
    /// # Errors
    /// Names the argument that cannot be used.
    pub(crate) fn parse(words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut words = words.peekable();
        let subject = match words.next_if(|word| word == "cluster" || word == "giant").as_deref() {
            Some("cluster") => Subject::Cluster,
            Some(_) => Subject::Giant,
            None => Subject::Monolith,
        };
        let (rate, seconds) = match subject {
            Subject::Monolith | Subject::Giant => (15_000.0, 30),
            Subject::Cluster => (10_000.0, 60),
        };
        let seed = u64::from(std::process::id());
        let mut options = Self {
            subject,
            dir: None,
            rate,
            seconds,
            check: false,
            settle: 0,
            every: 10,
            kafka: None,
            seed,
            stride: 8,
            spans: 1_000_000,
            processes: false,
        };
        while let Some(word) = words.next() {
            if word == "--check" {
                options.check = true;
                continue;
            }
            if word == "--processes" && subject == Subject::Giant {
                options.processes = true;
                continue;
            }
            let value = words.next().with_context(|| format!("{word} needs a value"))?;
            match (word.as_str(), subject) {
                ("--dir", _) => options.dir = Some(value.into()),
                ("--spans", Subject::Giant) => options.spans = value.parse::<u64>().context("--spans")?.max(1000),
                (other, Subject::Giant) => {
                    bail!("unknown argument {other}; known: --dir --check --spans --processes")
                }
                ("--rate", _) => options.rate = value.parse().context("--rate")?,
                ("--seconds", _) => options.seconds = value.parse().context("--seconds")?,
                ("--settle", Subject::Monolith) => options.settle = value.parse().context("--settle")?,
                ("--every", Subject::Monolith) => options.every = value.parse::<u64>().context("--every")?.max(1),
                ("--kafka", Subject::Cluster) => options.kafka = Some(value),
                ("--seed", Subject::Cluster) => options.seed = value.parse().context("--seed")?,
                ("--stride", Subject::Cluster) => options.stride = value.parse::<usize>().context("--stride")?.max(1),
                (other, Subject::Monolith) => {
                    bail!(
                        "unknown argument {other}; known: cluster or giant (as the first), --dir --rate --seconds --check --settle --every"
                    )
                }
                (other, Subject::Cluster) => {
                    bail!("unknown argument {other}; known: --dir --rate --seconds --check --kafka --seed --stride")
                }
            }
        }
        if !options.rate.is_finite() || options.rate <= 0.0 {
            bail!("--rate is {}: it must be above 0", options.rate);
        }
        Ok(options)
    }

    /// A folder that is removed in the end.
    ///
    /// # Errors
    /// It cannot be made.
    pub(crate) fn scratch(&self) -> anyhow::Result<tempfile::TempDir> {
        Ok(match &self.dir {
            Some(dir) => tempfile::tempdir_in(dir)?,
            None => tempfile::tempdir()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> anyhow::Result<Options> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn a_cluster_has_a_rate_of_its_own_and_takes_brokers() {
        let options = parse("").unwrap();
        assert_eq!((options.subject, options.rate, options.check), (Subject::Monolith, 15_000.0, false));
        let options = parse("cluster --check --kafka 127.0.0.1:9092 --seconds 5").unwrap();
        assert_eq!((options.subject, options.rate, options.seconds), (Subject::Cluster, 10_000.0, 5));
        assert_eq!((options.check, options.kafka.as_deref()), (true, Some("127.0.0.1:9092")));
    }

    #[test]
    fn a_large_trace_has_a_number_of_spans_and_one_process_or_many() {
        let options = parse("giant --spans 5000 --check").unwrap();
        assert_eq!((options.subject, options.spans, options.processes), (Subject::Giant, 5000, false));
        assert!(parse("giant --processes").unwrap().processes);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        for (line, named) in [
            ("--kafka x", "--kafka"),
            ("cluster --every 5", "--every"),
            ("giant --rate 5", "--rate"),
            ("--spans 5", "--spans"),
            ("--rate 0", "--rate"),
            ("--seconds", "--seconds"),
        ] {
            let error = format!("{:#}", parse(line).unwrap_err());
            assert!(error.contains(named), "{line}: {error}");
        }
    }
}
