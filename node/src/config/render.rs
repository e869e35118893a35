//! The configuration as YAML, as `/status/config` shows it. Secrets are masked.

use std::sync::Arc;

use serde_json::{Map, Value};
use vivace_runtime::config::Limits;

use super::Config;

/// What to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Everything in effect.
    #[default]
    Full,
    /// What differs from the defaults.
    Diff,
    /// The defaults.
    Defaults,
}

/// A mode that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown value for mode query parameter: {0}")]
pub struct UnknownMode(String);

impl std::str::FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, UnknownMode> {
        match text {
            "" => Ok(Self::Full),
            "diff" => Ok(Self::Diff),
            "defaults" => Ok(Self::Defaults),
            other => Err(UnknownMode(other.to_owned())),
        }
    }
}

/// The configuration as a YAML document, `---` first, indented by four.
pub fn render(config: &Config, mode: Mode) -> String {
    let tree = match mode {
        Mode::Full => tree(config),
        Mode::Defaults => tree(&Config::default()),
        Mode::Diff => difference(&tree(config), &tree(&Config::default())).unwrap_or_else(|| Value::Object(Map::new())),
    };
    format!("---\n{}", yaml(&tree))
}

/// One tenant's limits as YAML.
pub fn render_limits(limits: &Limits) -> String {
    yaml(&tree(limits))
}

/// The entries of the per-tenant file as a YAML document; with [`Mode::Diff`] only what differs from the defaults.
///
/// # Errors
/// Entries have no [`Mode::Defaults`].
pub fn render_entries(entries: &[(String, Arc<Limits>)], defaults: &Limits, mode: Mode) -> Result<String, UnknownMode> {
    let base = tree(defaults);
    let entry = |limits: &Limits| match mode {
        Mode::Full => Ok(tree(limits)),
        Mode::Diff => Ok(difference(&tree(limits), &base).unwrap_or_else(|| Value::Object(Map::new()))),
        Mode::Defaults => Err(UnknownMode("defaults".to_owned())),
    };
    let entries: Result<Map<String, Value>, _> =
        entries.iter().map(|(tenant, limits)| Ok((tenant.clone(), entry(limits)?))).collect();
    Ok(format!("---\n{}", yaml(&serde_json::json!({ "overrides": entries? }))))
}

/// A value as YAML.
pub(super) fn yaml(value: &Value) -> String {
    let options = serde_saphyr::ser_options! { indent_step: 4, empty_as_braces: true };
    serde_saphyr::to_string_with_options(value, options)
        .unwrap_or_else(|error| format!("# cannot be printed: {error}\n"))
}

/// A configuration as a tree, without what is absent.
pub(super) fn tree(config: &impl serde::Serialize) -> Value {
    let mut tree = serde_json::to_value(config).unwrap_or_default();
    prune(&mut tree);
    tree
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(prune);
        }
        Value::Array(items) => items.iter_mut().for_each(prune),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The value at a path.
pub(super) fn at<'a>(tree: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(tree, |value, key| value.get(key))
}

/// What of a tree differs from another; lists differ as a whole.
fn difference(tree: &Value, base: &Value) -> Option<Value> {
    match (tree, base) {
        (Value::Object(tree), Value::Object(base)) => {
            let map: Map<String, Value> = tree
                .iter()
                .filter_map(|(key, value)| {
                    let value = match base.get(key) {
                        Some(base) => difference(value, base),
                        None => Some(value.clone()),
                    };
                    value.map(|value| (key.clone(), value))
                })
                .collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        (tree, base) => (tree != base).then(|| tree.clone()),
    }
}

/// Paths of values that differ from the defaults, in the order of the reference.
pub(super) fn changed(config: &Config) -> Vec<String> {
    fn walk(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    walk(value, &super::check::join(path, key), found);
                }
            }
            _ => found.push(path.to_owned()),
        }
    }
    let mut found = Vec::new();
    if let Some(difference) = difference(&tree(config), &tree(&Config::default())) {
        walk(&difference, "", &mut found);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_difference_holds_only_what_was_set() {
        let mut config = Config::default();
        assert_eq!(render(&config, Mode::Diff), "---\n{}\n");
        config.server.http_listen_port = 80;
        config.storage.trace.s3.secret_key = vivace_runtime::config::Secret::new("hunter2");
        let text = render(&config, Mode::Diff);
        assert!(text.contains("server:\n    http_listen_port: 80\n"), "{text}");
        assert!(text.contains("********") && !text.contains("hunter2"), "{text}");
        assert_eq!(changed(&config), ["server.http_listen_port", "storage.trace.s3.secret_key"]);
    }

    #[test]
    fn entries_of_tenants_are_shown_whole_or_as_their_difference() {
        let mut own = Limits::default();
        own.ingestion.rate_limit_bytes = 5;
        let entries = [("a".to_owned(), Arc::new(own)), ("b".to_owned(), Arc::new(Limits::default()))];
        let shown = |mode| render_entries(&entries, &Limits::default(), mode).unwrap();
        assert_eq!(
            shown(Mode::Diff),
            "---\noverrides:\n    a:\n        ingestion:\n            rate_limit_bytes: 5\n    b: {}\n"
        );
        assert!(shown(Mode::Full).contains("            burst_size_bytes: 30000000\n"), "{}", shown(Mode::Full));
        assert_eq!(render_entries(&[], &Limits::default(), Mode::Full).unwrap(), "---\noverrides: {}\n");
    }

    #[test]
    fn modes_are_named_as_in_the_query() {
        assert_eq!("diff".parse(), Ok(Mode::Diff));
        assert_eq!("".parse(), Ok(Mode::Full));
        assert_eq!("x".parse::<Mode>().unwrap_err().to_string(), "unknown value for mode query parameter: x");
    }
}
