//! What was asked for beside what was measured.

/// A figure and its bound.
#[derive(Debug)]
struct Figure {
    what: String,
    bound: Bound,
    asked: f64,
    /// NaN: it could not be measured, which misses every bound.
    measured: f64,
    unit: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    AtMost,
    AtLeast,
}

/// All figures that something is asked of.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    figures: Vec<Figure>,
}

impl Figure {
    fn holds(&self) -> bool {
        match self.bound {
            Bound::AtMost => self.measured <= self.asked,
            Bound::AtLeast => self.measured >= self.asked,
        }
    }

    fn line(&self) -> String {
        let sign = if self.bound == Bound::AtMost { '≤' } else { '≥' };
        let number = |value: f64| {
            if value.fract() == 0.0 || value.abs() >= 1000.0 { format!("{value:.0}") } else { format!("{value:.1}") }
        };
        format!("{}: {} {} (asked: {sign} {})", self.what, number(self.measured), self.unit, number(self.asked))
    }
}

impl Asked {
    pub(crate) fn at_most(&mut self, what: impl Into<String>, asked: f64, measured: f64, unit: &'static str) {
        self.figures.push(Figure { what: what.into(), bound: Bound::AtMost, asked, measured, unit });
    }

    pub(crate) fn at_least(&mut self, what: impl Into<String>, asked: f64, measured: f64, unit: &'static str) {
        self.figures.push(Figure { what: what.into(), bound: Bound::AtLeast, asked, measured, unit });
    }

    /// The figures that miss their bound, each with both numbers.
    pub(crate) fn missed(&self) -> Vec<String> {
        self.figures.iter().filter(|figure| !figure.holds()).map(Figure::line).collect()
    }

    pub(crate) fn print(&self) {
        println!("asked and measured");
        for figure in &self.figures {
            println!("  {} {}", if figure.holds() { "held  " } else { "MISSED" }, figure.line());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_above_or_below_its_bound_or_was_not_measured_is_missed() {
        let mut asked = Asked::default();
        asked.at_most("held", 20.0, 20.0, "MB");
        asked.at_most("large", 20.0, 20.04, "MB");
        asked.at_least("slow", 150_000.0, 149_999.0, "spans/s");
        asked.at_most("never seen", 10.0, f64::NAN, "ms");
        assert_eq!(
            asked.missed(),
            [
                "large: 20.0 MB (asked: ≤ 20)",
                "slow: 149999 spans/s (asked: ≥ 150000)",
                "never seen: NaN ms (asked: ≤ 10)"
            ]
        );
    }
}
