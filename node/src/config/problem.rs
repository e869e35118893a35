//! What is wrong in a file, and the nearest thing that would be right.

use std::fmt;

use super::yaml::Position;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where, if it has a place in a text.
    pub at: Option<Position>,
    /// The key with its path, such as `storage.trace.block`. Empty: the file as a whole.
    pub path: String,
    /// What is wrong, a sentence without a full stop.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Position { line, column }) = self.at.filter(|at| at.line > 0) {
            write!(out, "line {line} column {column}: ")?;
        }
        if self.path.is_empty() { out.write_str(&self.message) } else { write!(out, "{}: {}", self.path, self.message) }
    }
}

/// The candidate that looks most like a word, if one does.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word_folded = fold(word);
    candidates
        .map(|candidate| (distance(&word_folded, &fold(candidate)), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + word.len().min(candidate.len()) / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Keys differ by more than their letters only by accident: `logLevel`, `log-level` and `log_level` are one.
fn fold(word: &str) -> Vec<u8> {
    word.bytes().filter(|byte| !matches!(byte, b'_' | b'-' | b'.')).map(|byte| byte.to_ascii_lowercase()).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours from one word to the other.
fn distance(from: &[u8], to: &[u8]) -> usize {
    let width = to.len() + 1;
    let mut rows = vec![vec![0; width]; from.len() + 1];
    for (n, row) in rows.iter_mut().enumerate() {
        row[0] = n;
    }
    for (n, cell) in rows[0].iter_mut().enumerate() {
        *cell = n;
    }
    for i in 1..=from.len() {
        for j in 1..width {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_found_or_nothing() {
        let keys = ["distributor", "storage", "server", "log_level", "wal"];
        for (word, expected) in [
            ("distributer", Some("distributor")),
            ("sotrage", Some("storage")),
            ("logLevel", Some("log_level")),
            ("srever", Some("server")),
            ("compactor", None),
        ] {
            assert_eq!(nearest(word, keys.into_iter()), expected, "{word}");
        }
    }
}
