//! Prometheus text format 0.0.4.

use std::fmt::Write as _;

/// The text of a scrape while it is written. Collectors call [`Text::family`] once per name and then [`Text::sample`].
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Begins a family: `kind` is `counter`, `gauge`, `histogram`, `summary` or `untyped`.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        // Writing to a string cannot fail.
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").ok();
    }

    /// Writes one sample. `suffix` is `_bucket`, `_sum`, `_count` or empty; `bound` is the `le` of a bucket or the `quantile`
    /// of a summary.
    pub fn sample(
        &mut self,
        name: &str,
        suffix: &str,
        labels: &[(&str, &str)],
        bound: Option<(&str, f64)>,
        value: f64,
    ) {
        self.0.push_str(name);
        self.0.push_str(suffix);
        let mut open = false;
        for (label, text) in labels {
            self.0.push(if open { ',' } else { '{' });
            open = true;
            self.0.push_str(label);
            self.0.push_str("=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str(r"\\"),
                    '"' => self.0.push_str(r#"\""#),
                    '\n' => self.0.push_str(r"\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        if let Some((label, at)) = bound {
            self.0.push(if open { ',' } else { '{' });
            open = true;
            self.0.push_str(label);
            self.0.push_str("=\"");
            self.number(at);
            self.0.push('"');
        }
        self.0.push_str(if open { "} " } else { " " });
        self.number(value);
        self.0.push('\n');
    }

    fn number(&mut self, value: f64) {
        let word = if value.is_nan() {
            "NaN"
        } else if value == f64::INFINITY {
            "+Inf"
        } else if value == f64::NEG_INFINITY {
            "-Inf"
        } else {
            write!(self.0, "{value}").ok();
            return;
        };
        self.0.push_str(word);
    }

    pub(super) fn finish(self) -> String {
        self.0
    }
}
