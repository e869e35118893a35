//! Regular expressions of the language: RE2 syntax over a whole string, compiled once.

use regex::Regex;
use regex_syntax::hir::{Hir, HirKind};

use crate::needle::Needle;

/// Why a pattern was refused.
#[derive(Clone, Debug, thiserror::Error)]
#[error("invalid regex: `{pattern}`")]
pub struct PatternError {
    /// The pattern as written.
    pub pattern: String,
    /// What is wrong with it, in words, on one line.
    pub reason: String,
}

/// A compiled pattern. It must match the whole string; the dot matches newlines; `\d \w \s \b` are ASCII.
/// Patterns that are only a literal with `.*` around it are answered by substring search.
#[derive(Clone, Debug)]
pub struct Pattern {
    source: String,
    matcher: Matcher,
    /// Part of every match.
    needle: Option<Needle>,
}

#[derive(Clone, Debug)]
enum Matcher {
    Anything,
    Exact(String),
    Prefix(String),
    Suffix(String),
    /// The needle, or this where there is none.
    Contains(String),
    Regex(Regex),
}

impl Pattern {
    /// Compiles RE2 syntax.
    ///
    /// # Errors
    /// When the text is not valid RE2: look-around, back-references, unbalanced groups, repeat counts above 1000.
    pub fn new(source: &str) -> Result<Self, PatternError> {
        let error = |reason: String| PatternError { pattern: source.to_owned(), reason };
        if let Some(matcher) = literal_matcher(source) {
            let needle = Needle::new(match &matcher {
                Matcher::Exact(text) | Matcher::Prefix(text) | Matcher::Suffix(text) | Matcher::Contains(text) => text,
                Matcher::Anything | Matcher::Regex(_) => "",
            });
            return Ok(Self { source: source.to_owned(), matcher, needle });
        }
        let translated = translate(source).map_err(error)?;
        // Checked alone first: a stray `)` must not close the group that anchors the pattern.
        let hir = regex_syntax::ParserBuilder::new().nest_limit(200).build().parse(&translated).map_err(|cause| {
            let text = cause.to_string();
            error(text.lines().last().unwrap_or("syntax error").trim_start_matches("error: ").to_owned())
        })?;
        let regex = Regex::new(&format!("^(?s:{translated})$"))
            .map_err(|cause| error(cause.to_string().lines().last().unwrap_or("too large").to_owned()))?;
        let needle = required(&hir).and_then(Needle::new);
        Ok(Self { source: source.to_owned(), matcher: Matcher::Regex(regex), needle })
    }

    /// The text as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// Whether the whole of `text` matches.
    #[must_use]
    #[inline]
    pub fn is_match(&self, text: &str) -> bool {
        match &self.matcher {
            Matcher::Anything => true,
            Matcher::Exact(literal) => text == literal,
            Matcher::Prefix(literal) => text.starts_with(literal.as_str()),
            Matcher::Suffix(literal) => text.ends_with(literal.as_str()),
            Matcher::Contains(literal) => match &self.needle {
                Some(needle) => needle.is_in(text.as_bytes()),
                None => text.contains(literal.as_str()),
            },
            Matcher::Regex(regex) => regex.is_match(text),
        }
    }

    /// A text that every match contains, none when there is none or none that can be looked for in bytes.
    pub(crate) fn needle(&self) -> Option<&Needle> {
        self.needle.as_ref()
    }

    /// A literal that every match starts with, possibly empty: usable against sorted or bounded columns.
    #[must_use]
    pub fn literal_prefix(&self) -> &str {
        match &self.matcher {
            Matcher::Exact(literal) | Matcher::Prefix(literal) => literal,
            Matcher::Anything | Matcher::Suffix(_) | Matcher::Contains(_) | Matcher::Regex(_) => "",
        }
    }
}

/// Patterns are equal when their text is.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.source == other.source
    }
}

impl Eq for Pattern {}

fn literal_matcher(source: &str) -> Option<Matcher> {
    let (open_start, rest) = source.strip_prefix(".*").map_or((false, source), |rest| (true, rest));
    let (open_end, middle) = rest.strip_suffix(".*").map_or((false, rest), |rest| (true, rest));
    // An escaped dot before the final star is `\.*`, which the backslash below sends to the real engine.
    if middle.contains(['\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$']) {
        return None;
    }
    Some(match (open_start, open_end) {
        (false, false) => Matcher::Exact(middle.to_owned()),
        (false, true) => Matcher::Prefix(middle.to_owned()),
        (true, false) if middle.is_empty() => Matcher::Anything,
        (true, false) => Matcher::Suffix(middle.to_owned()),
        (true, true) if middle.is_empty() => Matcher::Anything,
        (true, true) => Matcher::Contains(middle.to_owned()),
    })
}

/// The longest text that stands in every match of `hir`, as far as its outermost parts tell.
fn required(hir: &Hir) -> Option<&str> {
    match hir.kind() {
        HirKind::Literal(literal) => std::str::from_utf8(&literal.0).ok(),
        HirKind::Capture(capture) => required(&capture.sub),
        HirKind::Repetition(repetition) if repetition.min > 0 => required(&repetition.sub),
        HirKind::Concat(parts) => parts.iter().filter_map(required).max_by_key(|literal| literal.len()),
        HirKind::Repetition(_) | HirKind::Alternation(_) | HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) => {
            None
        }
    }
}

/// RE2 text to the syntax of the `regex` crate, where they differ: ASCII Perl classes, `\Q..\E`, octal escapes,
/// literal braces, and the set operators that only the crate knows inside classes.
fn translate(source: &str) -> Result<String, String> {
    let chars: Vec<char> = source.chars().collect();
    let mut out = String::with_capacity(source.len() + 16);
    let mut at = 0;
    let mut in_class = false;
    let mut class_start = false;
    while let Some(&c) = chars.get(at) {
        at += 1;
        if c == '\\' {
            let Some(&escaped) = chars.get(at) else { return Err("trailing backslash".into()) };
            at += 1;
            class_start = false;
            match escaped {
                'd' => out.push_str(if in_class { "0-9" } else { "[0-9]" }),
                'w' => out.push_str(if in_class { "0-9A-Za-z_" } else { "[0-9A-Za-z_]" }),
                's' => out.push_str(if in_class { r"\t\n\x0c\r " } else { r"[\t\n\x0c\r ]" }),
                'D' => out.push_str("[^0-9]"),
                'W' => out.push_str("[^0-9A-Za-z_]"),
                'S' => out.push_str(r"[^\t\n\x0c\r ]"),
                'b' if !in_class => out.push_str(r"(?-u:\b)"),
                // Not between two ASCII word ends; spelled over whole characters, because a byte-wise `\B` could
                // match inside one.
                'B' if !in_class => out.push_str(r"(?:(?-u:\B))"),
                'A' | 'z' if !in_class => {
                    out.push('\\');
                    out.push(escaped);
                }
                'Q' => {
                    while at < chars.len() && !(chars[at] == '\\' && chars.get(at + 1) == Some(&'E')) {
                        push_literal(&mut out, chars[at]);
                        at += 1;
                    }
                    at = (at + 2).min(chars.len());
                }
                'a' | 'f' | 'n' | 'r' | 't' | 'v' | 'p' | 'P' => {
                    out.push('\\');
                    out.push(escaped);
                    // The name of a Unicode class is copied as it stands.
                    if matches!(escaped, 'p' | 'P') && chars.get(at) == Some(&'{') {
                        while let Some(&c) = chars.get(at) {
                            out.push(c);
                            at += 1;
                            if c == '}' {
                                break;
                            }
                        }
                    }
                }
                'x' => {
                    out.push_str("\\x");
                    if chars.get(at) == Some(&'{') {
                        while let Some(&c) = chars.get(at) {
                            out.push(c);
                            at += 1;
                            if c == '}' {
                                break;
                            }
                        }
                    }
                }
                '0'..='7' => {
                    let mut code = u32::from(escaped) - u32::from('0');
                    let octal = |c: Option<&char>| c.and_then(|c| c.to_digit(8));
                    if escaped != '0' && octal(chars.get(at)).is_none() {
                        return Err("back-references are not supported".into());
                    }
                    for _ in 0..2 {
                        let Some(digit) = octal(chars.get(at)) else { break };
                        code = code * 8 + digit;
                        at += 1;
                    }
                    out.push_str(&format!("\\x{{{code:x}}}"));
                }
                c if c.is_ascii_punctuation() => push_literal(&mut out, c),
                c => return Err(format!("invalid escape sequence \\{c}")),
            }
            continue;
        }
        if in_class {
            match c {
                ']' if !class_start => {
                    in_class = false;
                    out.push(']');
                }
                '[' if chars.get(at) == Some(&':') => {
                    let close = chars[at + 1..].windows(2).position(|pair| pair == [':', ']']);
                    match close {
                        Some(length) => {
                            out.push('[');
                            out.extend(&chars[at..at + length + 3]);
                            at += length + 3;
                        }
                        None => out.push_str("\\["),
                    }
                }
                '^' if class_start && out.ends_with('[') => {
                    out.push('^');
                    continue;
                }
                '[' | ']' | '&' | '~' | '^' => push_literal(&mut out, c),
                '-' if chars.get(at) == Some(&'-') => push_literal(&mut out, c),
                c => out.push(c),
            }
            class_start = false;
            continue;
        }
        match c {
            '[' => {
                in_class = true;
                class_start = true;
                out.push('[');
            }
            '{' => match repeat(&chars[at..]) {
                Some((length, largest)) => {
                    if largest > 1000 {
                        return Err("invalid repeat count".into());
                    }
                    out.push('{');
                    out.extend(&chars[at..at + length]);
                    at += length;
                }
                None => out.push_str("\\{"),
            },
            '}' => out.push_str("\\}"),
            '(' => {
                out.push('(');
                if chars.get(at) == Some(&'?') {
                    let flags: String =
                        chars[at + 1..].iter().take_while(|c| c.is_ascii_alphabetic() || **c == '-').collect();
                    let named = chars.get(at + 1) == Some(&'<') || flags == "P";
                    if !named && flags.contains(|c| !matches!(c, 'i' | 'm' | 's' | 'U' | '-')) {
                        return Err("invalid or unsupported Perl syntax".into());
                    }
                }
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

fn push_literal(out: &mut String, c: char) {
    if regex_syntax::is_meta_character(c) {
        out.push('\\');
    }
    out.push(c);
}

/// `n}`, `n,}` or `n,m}` at the start: its length in characters and the largest count.
fn repeat(chars: &[char]) -> Option<(usize, u64)> {
    let close = chars.iter().position(|c| *c == '}')?;
    let text: String = chars[..close].iter().collect();
    let (low, high) = text.split_once(',').map_or((text.as_str(), None), |(low, high)| (low, Some(high)));
    let count = |digits: &str| {
        (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
            .then(|| digits.parse::<u64>().unwrap_or(u64::MAX))
    };
    let low = count(low)?;
    let high = match high {
        None | Some("") => low,
        Some(digits) => count(digits)?,
    };
    Some((close + 1, low.max(high)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Pattern::new(pattern).unwrap().is_match(text)
    }

    #[test]
    fn the_whole_string_must_match() {
        assert!(matches("ab", "ab"));
        assert!(!matches("ab", "abc"));
        assert!(matches("a|b", "b"));
        assert!(!matches("a|b", "ab"));
        assert!(matches(".*session=0.*", "http://x/?session=07"));
        assert!(matches("GET /api/.*", "GET /api/x"));
        assert!(!matches("GET /api/.*", "PUT GET /api/x"));
        assert!(matches(".*x", "aax"));
        assert!(matches(".*", ""));
        assert!(!matches("", "a"));
        assert!(matches(r"x\.*", "x.."));
        assert!(!matches(r"x\.*", "xyz"));
    }

    #[test]
    fn the_dot_matches_newlines_and_case_counts() {
        assert!(matches("a.+b", "a\n\nb"));
        assert!(!matches("A", "a"));
        assert!(matches("(?i)A.*", "abc"));
    }

    #[test]
    fn perl_classes_are_ascii() {
        assert!(matches(r"\d+", "42"));
        assert!(!matches(r"\d+", "٤٢"));
        assert!(!matches(r"\w+", "é"));
        assert!(matches(r"\W", "é"));
        assert!(matches(r"[\d\s]+", "4 2"));
        assert!(matches(r"[^\d]+", "ab"));
        assert!(matches(r"\bfoo\b.*", "foo bar"));
        assert!(matches(r"\pL+", "é"));
    }

    #[test]
    fn re2_oddities_are_understood() {
        assert!(matches(r"\Qa.b(\E.", "a.b(x"));
        assert!(matches(r"a{,2}", "a{,2}"));
        assert!(matches(r"{x}", "{x}"));
        assert!(matches(r"[[a]+", "[a"));
        assert!(matches(r"[a&&b]+", "&b"));
        assert!(matches(r"[]a]+", "]a"));
        assert!(matches(r"[^]a]+", "xyz"));
        assert!(matches(r"[[:alpha:]_]+", "ab_"));
        assert!(matches(r"\<x\>", "<x>"));
        assert!(matches(r"\101", "A"));
        assert!(matches(r"(?P<n>x)(?<m>y)", "xy"));
        assert!(matches(r"(?i:x)Y", "XY"));
    }

    #[test]
    fn a_text_that_every_match_contains_is_known() {
        for (pattern, due) in [
            ("user-.*", Some("user-")),
            (".*user-", Some("user-")),
            (".*user-.*", Some("user-")),
            ("user-", Some("user-")),
            (".*user-[0-9]+x", Some("user-")),
            ("(x+)[0-9]?", Some("x")),
            ("(?:abc){2,3}[x-z]", Some("abc")),
            (r"a\.b\d*", Some("a.b")),
            (".*", None),
            ("[0-9]+", None),
            ("(?i)abc", None),
            ("(abc)?", None),
            ("(abc)*", None),
            ("abc|xyz", None),
            (r".*\x{fffd}.*", None),
        ] {
            let pattern = Pattern::new(pattern).unwrap();
            assert_eq!(pattern.needle().map(Needle::text), due.map(str::as_bytes), "{pattern:?}");
        }
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        for bad in ["(", ")", "a)(b", "[z-a]", "x{1001}", "(?=x)y", r"(a)\1", "*a", r"\u1234", "(?x)a", "(?u)a", r"a\"]
        {
            assert!(Pattern::new(bad).is_err(), "{bad}");
        }
    }
}
