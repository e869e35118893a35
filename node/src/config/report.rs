//! What `check-config` prints.

use std::fmt::Write;

use super::Loaded;

/// A report for people: where values come from, what has no effect, what is odd, what stops a start. The process exits
/// with 1 if there is a warning or an error in it.
pub fn report(loaded: &Loaded) -> (String, bool) {
    let mut out = String::new();
    let mut section = |title: &str, lines: Vec<String>| {
        if lines.is_empty() {
            return;
        }
        // Writing to a string cannot fail.
        let _infallible = writeln!(out, "{title}:");
        for line in lines {
            let _infallible = writeln!(out, "  {line}");
        }
        out.push('\n');
    };
    let errors: Vec<String> = loaded.config.validate(loaded.target).iter().map(chain).collect();
    let warnings: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    let good = errors.is_empty() && warnings.is_empty();
    section("Errors, which stop a start", errors);
    section("Warnings", warnings);
    section("Notices: keys without effect", loaded.notices.clone());
    section("Values that were set", loaded.sources.iter().map(|(key, source)| format!("{key}  ({source})")).collect());
    let verdict = if good { "is good" } else { "has problems" };
    let _infallible = writeln!(out, "The configuration {verdict} for target {}.", loaded.target);
    (out, good)
}

/// What is wrong, with its causes.
pub(crate) fn chain(error: &super::Invalid) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
