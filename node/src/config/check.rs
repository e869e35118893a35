//! The strict pass: a tree is checked against the description of keys, and becomes a layer of the configuration.
//!
//! Everything wrong is collected, not just the first. Values become what their key needs: integers from floats, strings
//! from any scalar with its own text, units checked. A key without a value is left out, so that it keeps its default.

use std::collections::BTreeMap;

use figment::value::{Dict, Value as Layer};
use vivace_runtime::config::{ByteSize, GoDuration, Key, PromDuration, Section, Shape};

use super::{
    problem::{Problem, nearest},
    yaml::{Node, Position, Value},
};

/// What a tree became.
#[derive(Debug, Default)]
pub(super) struct Checked {
    /// Everything wrong.
    pub(super) problems: Vec<Problem>,
    /// Where each value was set.
    pub(super) positions: BTreeMap<String, Position>,
    /// Keys without a value.
    pub(super) without_value: Vec<String>,
}

/// Sections and keys of Tempo 2 that are gone, with what to do.
const REMOVED: &[(&str, &str)] = &[
    ("ingester", "it was removed in Tempo 3.0; recent traces are kept by `live_store`"),
    ("ingester_client", "it was removed in Tempo 3.0; see `live_store_client`"),
    ("compactor", "it was removed in Tempo 3.0; see `backend_worker.compaction` and `backend_scheduler`"),
    ("storage.trace.block.v2_encoding", "it was removed with the block format that it belonged to"),
    ("storage.trace.block.v2_index_downsample_bytes", "it was removed with the block format that it belonged to"),
    ("storage.trace.block.v2_index_page_size_bytes", "it was removed with the block format that it belonged to"),
    ("storage.trace.wal.v2_encoding", "it was removed with the block format that it belonged to"),
    ("storage.trace.wal.search_encoding", "it was removed with the block format that it belonged to"),
    ("storage.trace.wal.version", "the version follows `storage.trace.block.version`"),
];

impl Checked {
    /// Checks a section and everything below it.
    pub(super) fn section(&mut self, node: &Node, shape: &Shape, path: &str) -> Dict {
        match self.value(node, shape, path) {
            Some(Layer::Dict(_, dict)) => dict,
            _ => Dict::new(),
        }
    }

    fn problem(&mut self, at: Position, path: &str, message: impl Into<String>) {
        self.problems.push(Problem { at: Some(at), path: path.to_owned(), message: message.into() });
    }

    /// Checks any value. Nothing comes back for what is wrong or without a value.
    pub(super) fn value(&mut self, node: &Node, shape: &Shape, path: &str) -> Option<Layer> {
        match (shape, &node.value) {
            (Shape::Presence(inner), Value::Null) => {
                self.positions.insert(path.to_owned(), node.at);
                let empty = Node { at: node.at, value: Value::Map(Vec::new()) };
                return self.value(&empty, inner, path);
            }
            (Shape::Optional(inner) | Shape::Presence(inner), _) => return self.value(node, inner, path),
            (Shape::Any, _) => {
                self.positions.insert(path.to_owned(), node.at);
                return any(node);
            }
            (_, Value::Null) => {
                self.without_value.push(path.to_owned());
                return None;
            }
            _ => {}
        }
        match shape {
            Shape::Section(section) => self.keys(node, &section.keys, path, false),
            Shape::Components(keys) => self.keys(node, keys, path, true),
            Shape::Map(item) => {
                let Value::Map(entries) = &node.value else {
                    self.expected(node, shape, path);
                    return None;
                };
                self.positions.insert(path.to_owned(), node.at);
                let mut dict = Dict::new();
                for entry in entries {
                    let path = join(path, &entry.key);
                    if let Some(value) = self.value(&entry.node, item, &path) {
                        dict.insert(entry.key.clone(), value);
                    }
                }
                Some(dict.into())
            }
            Shape::TextOrList => match &node.value {
                Value::Scalar { text, .. } => {
                    self.positions.insert(path.to_owned(), node.at);
                    Some(Layer::from(text.clone()))
                }
                _ => self.list(node, &Shape::Text, path),
            },
            Shape::List(item) => self.list(node, item, path),
            _ => self.scalar(node, shape, path),
        }
    }

    fn list(&mut self, node: &Node, item: &Shape, path: &str) -> Option<Layer> {
        let Value::List(items) = &node.value else {
            self.problem(node.at, path, format!("expected a list of {}, found {}", item.label(), describe(node)));
            return None;
        };
        self.positions.insert(path.to_owned(), node.at);
        let items: Vec<Layer> = items
            .iter()
            .enumerate()
            .filter_map(|(at, node)| self.value(node, item, &format!("{path}[{at}]")))
            .collect();
        Some(items.into())
    }

    fn keys(&mut self, node: &Node, keys: &[Key], path: &str, components: bool) -> Option<Layer> {
        let Value::Map(entries) = &node.value else {
            self.problem(node.at, path, format!("expected a section with keys, found {}", describe(node)));
            return None;
        };
        let mut dict = Dict::new();
        for entry in entries {
            let key_path = join(path, &entry.key);
            let name = if components { entry.key.split('/').next().unwrap_or_default() } else { &entry.key };
            let Some(key) = keys.iter().find(|key| key.name == name) else {
                let message = unknown(name, &key_path, keys);
                self.problem(entry.at, &key_path, message);
                continue;
            };
            let shape = key.shape();
            // A component is there by its name alone.
            let empty = Node { at: entry.node.at, value: Value::Map(Vec::new()) };
            let node = if components && entry.node.value == Value::Null { &empty } else { &entry.node };
            if let Some(value) = self.value(node, &shape, &key_path) {
                if components || !matches!(shape, Shape::Section(_)) {
                    self.positions.insert(key_path, entry.at);
                }
                dict.insert(entry.key.clone(), value);
            }
        }
        Some(dict.into())
    }

    fn scalar(&mut self, node: &Node, shape: &Shape, path: &str) -> Option<Layer> {
        let Value::Scalar { text, plain } = &node.value else {
            self.expected(node, shape, path);
            return None;
        };
        let read = match shape {
            Shape::Bool if *plain => bool_of(text).map(Layer::from).ok_or_else(String::new),
            Shape::Int { min, max } if *plain => int_of(text)
                .map_or_else(|| Err(String::new()), |int| bounded(int, *min, *max).ok_or_else(|| range(*min, *max))),
            Shape::Float if *plain => float_of(text).map(Layer::from).ok_or_else(String::new),
            Shape::Text | Shape::Secret | Shape::Csv => Ok(Layer::from(text.clone())),
            Shape::Duration => match (plain, int_of(text)) {
                (true, Some(nanos)) => {
                    bounded(nanos, 0, i64::MAX.unsigned_abs()).ok_or_else(|| "is negative".to_owned())
                }
                _ => text.parse::<GoDuration>().map(|_| Layer::from(text.clone())).map_err(|error| error.to_string()),
            },
            Shape::PromDuration => {
                text.parse::<PromDuration>().map(|_| Layer::from(text.clone())).map_err(|error| error.to_string())
            }
            Shape::Size => {
                text.parse::<ByteSize>().map(|_| Layer::from(text.clone())).map_err(|error| error.to_string())
            }
            Shape::Choice(words) if words.contains(&text.as_str()) => Ok(Layer::from(text.clone())),
            Shape::Choice(words) => Err(match nearest(text, words.iter().copied()) {
                Some(word) => format!("expected {}, found `{text}`; did you mean `{word}`?", shape.label()),
                None => format!("expected {}, found `{text}`", shape.label()),
            }),
            _ => Err(String::new()),
        };
        match read {
            Ok(value) => {
                self.positions.insert(path.to_owned(), node.at);
                Some(value)
            }
            Err(message) if message.is_empty() => {
                self.expected(node, shape, path);
                None
            }
            Err(message) => {
                self.problem(node.at, path, message);
                None
            }
        }
    }

    fn expected(&mut self, node: &Node, shape: &Shape, path: &str) {
        self.problem(node.at, path, format!("expected {}, found {}", shape.label(), describe(node)));
    }
}

pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// The message for a key that does not exist.
fn unknown(name: &str, path: &str, siblings: &[Key]) -> String {
    if let Some((_, hint)) = REMOVED.iter().find(|(removed, _)| *removed == path) {
        return format!("unknown key: {hint}");
    }
    if let Some(sibling) = nearest(name, siblings.iter().map(|key| key.name)) {
        return format!("unknown key; did you mean `{sibling}`?");
    }
    let elsewhere = paths_of(name);
    if let Some(path) = elsewhere.first() {
        return format!("unknown key; it exists as `{path}`");
    }
    let names: Vec<_> = siblings.iter().map(|key| key.name).collect();
    format!("unknown key; the keys here are {}", names.join(", "))
}

/// Where a key of this name stands in the whole tree, the shortest path first.
fn paths_of(name: &str) -> Vec<String> {
    fn walk(section: &Section, path: &str, name: &str, found: &mut Vec<String>) {
        for key in &section.keys {
            let path = join(path, key.name);
            if key.name == name {
                found.push(path.clone());
            }
            if let Shape::Section(section) = key.shape() {
                walk(&section, &path, name, found);
            }
        }
    }
    let mut found = Vec::new();
    if let Shape::Section(root) = <super::Config as vivace_runtime::config::Described>::shape() {
        walk(&root, "", name, &mut found);
    }
    found.sort_by_key(|path| (path.matches('.').count(), path.len()));
    found
}

fn describe(node: &Node) -> String {
    match &node.value {
        Value::Null => "nothing".into(),
        Value::Scalar { text, plain: false } => format!("the string \"{text}\""),
        Value::Scalar { text, .. } => format!("`{text}`"),
        Value::List(_) => "a list".into(),
        Value::Map(_) => "a section".into(),
    }
}

/// Truth values of YAML 1.1.
fn bool_of(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" | "y" | "Y" => Some(true),
        "false" | "False" | "FALSE" | "no" | "No" | "NO" | "off" | "Off" | "OFF" | "n" | "N" => Some(false),
        _ => None,
    }
}

/// Integers of YAML 1.1, and floats without their fraction.
fn int_of(text: &str) -> Option<i128> {
    let digits = text.replace('_', "");
    let (negative, unsigned) = match digits.strip_prefix(['-', '+']) {
        Some(rest) => (digits.starts_with('-'), rest),
        None => (false, digits.as_str()),
    };
    let radix = |prefix: &str, radix| unsigned.strip_prefix(prefix).map(|rest| i128::from_str_radix(rest, radix).ok());
    let int = radix("0x", 16).or_else(|| radix("0b", 2)).or_else(|| radix("0o", 8)).or_else(|| {
        let octal =
            unsigned.len() > 1 && unsigned.starts_with('0') && unsigned.bytes().all(|byte| byte.is_ascii_digit());
        octal.then(|| i128::from_str_radix(unsigned, 8).ok())
    });
    let int = match int {
        Some(int) => int?,
        None => match unsigned.parse::<i128>() {
            Ok(int) => int,
            Err(_not_whole) => {
                let float = float_of(unsigned).filter(|float| float.abs() < 1e18)?;
                #[allow(
                    clippy::cast_possible_truncation,
                    reason = "the fraction goes on purpose, the size was checked"
                )]
                let int = float.trunc() as i128;
                int
            }
        },
    };
    Some(if negative { -int } else { int })
}

fn float_of(text: &str) -> Option<f64> {
    // Words such as `nan` or `infinity` are no numbers here.
    let numeric = text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
        && text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E' | b'_'));
    if !numeric {
        return None;
    }
    text.replace('_', "").parse::<f64>().ok().filter(|float| float.is_finite())
}

fn bounded(int: i128, min: i64, max: u64) -> Option<Layer> {
    if int < i128::from(min) || int > i128::from(max) {
        return None;
    }
    match u64::try_from(int) {
        Ok(int) => Some(Layer::from(int)),
        Err(_negative) => i64::try_from(int).ok().map(Layer::from),
    }
}

fn range(min: i64, max: u64) -> String {
    format!("out of range, allowed is {min} to {max}")
}

/// A value of which nothing is known, by the rules of YAML alone.
fn any(node: &Node) -> Option<Layer> {
    Some(match &node.value {
        Value::Null => return None,
        Value::Scalar { text, plain: true } => {
            if let Some(value) = bool_of(text) {
                Layer::from(value)
            } else if let Some(int) =
                text.parse::<i64>().ok().or_else(|| int_of(text).and_then(|int| i64::try_from(int).ok()))
            {
                if text.contains(['.', 'e', 'E']) && !text.starts_with("0x") {
                    float_of(text).map_or_else(|| Layer::from(text.clone()), Layer::from)
                } else {
                    Layer::from(int)
                }
            } else if let Some(float) = float_of(text) {
                Layer::from(float)
            } else {
                Layer::from(text.clone())
            }
        }
        Value::Scalar { text, .. } => Layer::from(text.clone()),
        Value::List(items) => Layer::from(items.iter().filter_map(any).collect::<Vec<_>>()),
        Value::Map(entries) => {
            let dict: Dict =
                entries.iter().filter_map(|entry| any(&entry.node).map(|value| (entry.key.clone(), value))).collect();
            dict.into()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_those_of_yaml_1_1_and_floats_lose_their_fraction() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-5", Some(-5)),
            ("200e5", Some(20_000_000)),
            ("1e9", Some(1_000_000_000)),
            ("1.9", Some(1)),
            ("1_000", Some(1000)),
            ("0x10", Some(16)),
            ("010", Some(8)),
            ("0b11", Some(3)),
            ("1e400", None),
            ("abc", None),
            ("", None),
            ("nan", None),
            ("-", None),
        ] {
            assert_eq!(int_of(text), expected, "{text}");
        }
    }

    #[test]
    fn truth_values_are_those_of_yaml_1_1() {
        for text in ["true", "yes", "on", "Yes", "ON"] {
            assert_eq!(bool_of(text), Some(true));
        }
        for text in ["false", "no", "off"] {
            assert_eq!(bool_of(text), Some(false));
        }
        assert_eq!(bool_of("1"), None);
    }
}
