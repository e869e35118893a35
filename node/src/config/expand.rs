//! `-config.expand-env`: `${…}` in the text of a file, before it is read as YAML.
//!
//! The forms and their meaning are Tempo's, which are not those of a shell: `${A:?x}` and `${A:+x}` give a default,
//! `${A-x}` is an error. Values are inserted as text. Backslashes: `\\` becomes `\` and `\/` becomes `/` anywhere.

/// Why a text cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A form that does not exist, or an end that is missing.
    #[error("missing closing brace")]
    MissingBrace,
    /// `${}` or a name with other characters than letters, digits and `_`.
    #[error("bad substitution")]
    BadSubstitution,
}

/// Expands a text. `lookup` gives the value of a variable.
///
/// # Errors
///
/// A `${` that is not closed, or a form that does not exist.
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<String, Error> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['$', '\\']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(tail) = rest.strip_prefix("${") {
            let (value, tail) = substitution(tail, lookup)?;
            out.push_str(&value);
            rest = tail;
        } else if let Some(tail) = rest.strip_prefix("$$") {
            out.push('$');
            rest = tail;
        } else if rest.starts_with("\\\\") || rest.starts_with("\\/") {
            out.push_str(&rest[1..2]);
            rest = &rest[2..];
        } else {
            out.push_str(&rest[..1]);
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// What follows `${`: its value and what stands behind the brace.
fn substitution<'a>(text: &'a str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<(String, &'a str), Error> {
    let (length, text) = match text.strip_prefix('#') {
        Some(tail) => (true, tail),
        None => (false, text),
    };
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').ok_or(Error::MissingBrace)?;
    let (name, tail) = text.split_at(end);
    if name.is_empty() {
        return Err(Error::BadSubstitution);
    }
    let value = lookup(name).unwrap_or_default();
    if length {
        let tail = tail.strip_prefix('}').ok_or(Error::MissingBrace)?;
        return Ok((value.chars().count().to_string(), tail));
    }
    if let Some(tail) = tail.strip_prefix('}') {
        return Ok((value, tail));
    }
    let (argument, rest) = argument(tail)?;
    // The longer operator first, where one begins with another.
    for (operator, apply) in OPERATORS {
        if let Some(argument) = argument.strip_prefix(operator) {
            return Ok((apply(&value, &expand(argument, lookup)?).ok_or(Error::MissingBrace)?, rest));
        }
    }
    Err(Error::MissingBrace)
}

/// An operator's effect on a value; nothing if the argument does not fit.
type Apply = fn(&str, &str) -> Option<String>;

const OPERATORS: &[(&str, Apply)] = &[
    (":-", default_to),
    (":=", default_to),
    (":?", default_to),
    (":+", default_to),
    ("=", default_to),
    (":", substring),
    ("^^", |value, _| Some(value.to_uppercase())),
    ("^", |value, _| Some(map_first(value, char::to_ascii_uppercase))),
    (",,", |value, _| Some(value.to_lowercase())),
    (",", |value, _| Some(map_first(value, char::to_ascii_lowercase))),
    ("##", |value, pattern| Some(value[longest_prefix(value, pattern)..].to_owned())),
    ("#", |value, pattern| Some(value[shortest_prefix(value, pattern)..].to_owned())),
    ("%%", |value, pattern| Some(value[..longest_suffix(value, pattern)].to_owned())),
    ("%", |value, pattern| Some(value[..shortest_suffix(value, pattern)].to_owned())),
    ("//", |value, argument| replaced(value, argument, |value, old, new| value.replace(old, new))),
    ("/#", |value, argument| {
        replaced(value, argument, |value, old, new| {
            value.strip_prefix(old).map_or_else(|| value.to_owned(), |rest| format!("{new}{rest}"))
        })
    }),
    ("/%", |value, argument| {
        replaced(value, argument, |value, old, new| {
            value.strip_suffix(old).map_or_else(|| value.to_owned(), |rest| format!("{rest}{new}"))
        })
    }),
    ("/", |value, argument| replaced(value, argument, |value, old, new| value.replacen(old, new, 1))),
];

/// The text up to the closing brace, braces of nested substitutions included, and what stands behind it.
fn argument(text: &str) -> Result<(&str, &str), Error> {
    let mut depth = 0;
    let mut previous = '\0';
    for (at, c) in text.char_indices() {
        match c {
            '{' if previous == '$' => depth += 1,
            '}' if depth == 0 => return Ok((&text[..at], &text[at + 1..])),
            '}' => depth -= 1,
            _ => {}
        }
        previous = c;
    }
    Err(Error::MissingBrace)
}

fn default_to(value: &str, default: &str) -> Option<String> {
    Some(if value.is_empty() { default } else { value }.to_owned())
}

/// `pos` or `pos:len`, in characters.
fn substring(value: &str, argument: &str) -> Option<String> {
    let (from, len) = match argument.split_once(':') {
        Some((from, len)) => (from, len.trim().parse().ok()?),
        None => (argument, usize::MAX),
    };
    let from: usize = from.trim().parse().ok()?;
    Some(value.chars().skip(from).take(len).collect())
}

fn map_first(value: &str, map: fn(&char) -> char) -> String {
    let mut chars = value.chars();
    chars.next().map(|first| map(&first)).into_iter().chain(chars).collect()
}

fn replaced(value: &str, argument: &str, replace: fn(&str, &str, &str) -> String) -> Option<String> {
    let (old, new) = argument.split_once('/').unwrap_or((argument, ""));
    Some(if old.is_empty() { value.to_owned() } else { replace(value, old, new) })
}

/// Whether a pattern with `*` and `?` covers a text.
fn covers(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('*', rest)) => (0..=text.len()).any(|skip| covers(rest, &text[skip..])),
        Some(('?', rest)) => text.split_first().is_some_and(|(_, text)| covers(rest, text)),
        Some((c, rest)) => text.split_first().is_some_and(|(first, text)| first == c && covers(rest, text)),
    }
}

fn boundaries(value: &str) -> impl DoubleEndedIterator<Item = usize> {
    (0..=value.len()).filter(|at| value.is_char_boundary(*at))
}

fn matches(pattern: &str, text: &str) -> bool {
    covers(&pattern.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>())
}

fn shortest_prefix(value: &str, pattern: &str) -> usize {
    boundaries(value).find(|end| matches(pattern, &value[..*end])).unwrap_or(0)
}

fn longest_prefix(value: &str, pattern: &str) -> usize {
    boundaries(value).rev().find(|end| matches(pattern, &value[..*end])).unwrap_or(0)
}

fn shortest_suffix(value: &str, pattern: &str) -> usize {
    boundaries(value).rev().find(|start| matches(pattern, &value[*start..])).unwrap_or(value.len())
}

fn longest_suffix(value: &str, pattern: &str) -> usize {
    boundaries(value).find(|start| matches(pattern, &value[*start..])).unwrap_or(value.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("a/b/a".into()),
            "EMPTY" => Some(String::new()),
            "NAME" => Some("tempo-live-3".into()),
            "HOST" => Some("h: 1".into()),
            _ => None,
        }
    }

    #[test]
    fn every_form_means_what_it_means_in_tempo() {
        for (text, expected) in [
            ("x ${A} y", "x a/b/a y"),
            ("${UNSET}|${EMPTY}", "|"),
            ("${UNSET:-d} ${EMPTY:-d} ${NAME:-d}", "d d tempo-live-3"),
            ("${UNSET=d} ${UNSET:=d} ${UNSET:?d} ${UNSET:+d}", "d d d d"),
            ("${NAME:?d} ${NAME:+d}", "tempo-live-3 tempo-live-3"),
            ("${NAME^} ${NAME^^} ${NAME,} ${NAME,,}", "Tempo-live-3 TEMPO-LIVE-3 tempo-live-3 tempo-live-3"),
            ("${#NAME}", "12"),
            ("${NAME:6} ${NAME:0:5} ${NAME:6:4}", "live-3 tempo live"),
            ("${NAME#*-} ${NAME##*-} ${NAME%-*} ${NAME%%-*}", "live-3 3 tempo-live tempo"),
            ("${NAME#tempo-} ${NAME%-3}", "live-3 tempo-live"),
            ("${NAME#x}", "tempo-live-3"),
            (
                "${NAME/-/_} ${NAME//-/_} ${NAME/#tempo/t} ${NAME/%3/4}",
                "tempo_live-3 tempo_live_3 t-live-3 tempo-live-4",
            ),
            ("$$ $$NAME $NAME $", "$ $NAME $NAME $"),
            ("${UNSET:-${NAME:-x}}", "tempo-live-3"),
            ("${UNSET:-${ALSO:-{x}}}", "{x}"),
            (r"a\b c\/d e\.f", r"a\b c/d e\.f"),
            ("${HOST}", "h: 1"),
            ("# ${UNSET:-in comments too}", "# in comments too"),
        ] {
            assert_eq!(expand(text, &lookup), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn forms_that_do_not_exist_are_errors() {
        for text in ["${NAME-x}", "${NAME?x}", "${NAME+x}", "${NAME", "${NAME:-x", "${#NAME", "${NAME:x}", "${NAME@}"] {
            assert_eq!(expand(text, &lookup), Err(Error::MissingBrace), "{text}");
        }
        assert_eq!(expand("${}", &lookup), Err(Error::BadSubstitution));
    }

    proptest! {
        #[test]
        fn any_text_is_expanded_without_panic(text in "[$a-zA-Z{}:#%/^,=*?\\\\é-]{0,32}") {
            drop(expand(&text, &lookup));
        }

        #[test]
        fn text_without_marks_stays(text in "[^$\\\\]*") {
            prop_assert_eq!(expand(&text, &lookup), Ok(text));
        }
    }
}
