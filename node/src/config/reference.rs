//! The reference of all keys and the list of keys without effect, as Markdown, made from the declarations.

use std::fmt::Write;

use serde_json::Value;
use vivace_runtime::config::{Described, Key, Section, Shape};

use super::{
    Config, Effect,
    check::join,
    effects::{EFFECTS, effect_of},
    flag_table::FLAGS,
    render,
};

/// A key that holds a value and not a section.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    /// Path; `[]` stands for any item of a list, `<name>` for a free key.
    pub(super) path: String,
    /// The name of its type.
    pub(super) kind: String,
    /// Default in YAML, if it has one.
    pub(super) default: Option<String>,
    /// Documentation.
    pub(super) doc: &'static str,
}

/// All keys that hold values, in the order of declaration.
pub(super) fn leaves() -> Vec<Leaf> {
    let mut found = Vec::new();
    if let Shape::Section(root) = Config::shape() {
        walk(&root, "", Some(&render::tree(&Config::default())), &mut found);
    }
    found
}

fn walk(section: &Section, path: &str, defaults: Option<&Value>, found: &mut Vec<Leaf>) {
    for key in &section.keys {
        let path = join(path, key.name);
        leaf(key, &path, key.shape(), defaults.and_then(|defaults| defaults.get(key.name)), found);
    }
}

fn leaf(key: &Key, path: &str, shape: Shape, default: Option<&Value>, found: &mut Vec<Leaf>) {
    let mut push = |path: &str, kind: String| {
        found.push(Leaf { path: path.to_owned(), kind, default: default.map(inline), doc: key.doc });
    };
    match shape {
        Shape::Section(section) => walk(&section, path, default, found),
        Shape::Components(keys) => {
            for component in keys {
                leaf(&component, &join(path, component.name), component.shape(), None, found);
            }
        }
        Shape::Presence(inner) => {
            push(path, "section, on by its key alone".into());
            if let Shape::Section(section) = *inner {
                walk(&section, path, None, found);
            }
        }
        Shape::Optional(inner) => match *inner {
            Shape::Section(section) => walk(&section, path, default, found),
            inner => leaf(key, path, inner, default, found),
        },
        Shape::List(item) => {
            push(path, format!("list of {}", item.label()));
            if let Shape::Section(section) = *item {
                walk(&section, &format!("{path}[]"), None, found);
            }
        }
        other => push(path, other.label()),
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "\"\"".into(),
        Value::String(text) => text.clone(),
        // A default that would fill the page is told by its length.
        Value::Array(items) if items.iter().any(Value::is_object) => format!("{} entries", items.len()),
        other => other.to_string().replace(",", ", ").replace(":", ": "),
    }
}

fn sentence(doc: &str) -> String {
    doc.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ").replace('|', "\\|")
}

/// The reference of all keys.
pub fn reference() -> String {
    let mut out = String::from(
        "# Configuration reference\n\n\
         <!-- Generated from the declarations of the keys; a test fails when this file is stale and says how to renew it. -->\n\n\
         Durations are written as in Go (`1h30m`, `500ms`); a bare number is nanoseconds. *Duration (with days)* also knows \
         `d`, `w`, `y`. `[]` stands for any item of a list. A section or a key without a value keeps its default. Every key \
         can also be set by an environment variable: `server.http_listen_port` by `VIVACE_SERVER__HTTP_LISTEN_PORT`. Flags \
         win over the environment, the environment over the file.\n",
    );
    let mut top = "";
    let leaves = leaves();
    for leaf in &leaves {
        let section = leaf.path.split_once('.').map_or("", |(section, _)| section);
        if section != top || leaf.path == "target" {
            top = section;
            let title = if section.is_empty() { "Top level" } else { section };
            let _infallible = writeln!(out, "\n## {}\n\n| key | type | default | meaning |\n|---|---|---|---|", title);
        }
        let default = leaf.default.as_ref().map(|default| format!("`{default}`")).unwrap_or_default();
        let mut meaning = sentence(leaf.doc);
        for (flag, _) in FLAGS.iter().filter(|(_, key)| *key == leaf.path) {
            let _infallible = write!(meaning, " Flag `-{flag}`.");
        }
        match effect_of(&leaf.path) {
            Effect::Effective => {}
            Effect::NotYet(reason) => {
                let _infallible = write!(meaning, " *No effect yet: {reason}.*");
            }
            Effect::Never(reason) => {
                let _infallible = write!(meaning, " *No effect: {reason}.*");
            }
        }
        let _infallible =
            writeln!(out, "| `{}` | {} | {default} | {meaning} |", leaf.path, leaf.kind.replace('|', "\\|"));
    }
    out
}

/// The list of keys without effect, for the page on compatibility.
pub fn compatibility() -> String {
    let mut out = String::new();
    let mut table = |title: &str, rows: Vec<(&str, &str)>| {
        let _infallible = writeln!(out, "### {title}\n\n| key or section | reason |\n|---|---|");
        for (path, reason) in rows {
            let but: Vec<String> = EFFECTS
                .iter()
                .filter(|(other, effect)| {
                    *effect == Effect::Effective && other.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'))
                })
                .map(|(other, _)| format!("`{}`", &other[path.len() + 1..]))
                .collect();
            let but = if but.is_empty() { String::new() } else { format!(" (but {} have an effect)", but.join(", ")) };
            let _infallible = writeln!(out, "| `{path}`{but} | {reason} |");
        }
        out.push('\n');
    };
    let rows = |pick: fn(&Effect) -> Option<&'static str>| {
        EFFECTS.iter().filter_map(|(path, effect)| pick(effect).map(|reason| (*path, reason))).collect::<Vec<_>>()
    };
    table(
        "Keys without effect yet",
        rows(|effect| if let Effect::NotYet(reason) = effect { Some(reason) } else { None }),
    );
    table(
        "Keys that stay without effect",
        rows(|effect| if let Effect::Never(reason) = effect { Some(reason) } else { None }),
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reference_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/reference.md");
        let wanted = reference();
        if std::env::var_os("VIVACE_REGENERATE").is_some() {
            std::fs::write(path, &wanted).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == wanted,
            "configs/reference.md is stale; renew it with VIVACE_REGENERATE=1 cargo test -p vivace-node the_reference"
        );
    }

    #[test]
    fn the_list_of_keys_without_effect_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compatibility.md");
        let found = std::fs::read_to_string(path).unwrap();
        let (before, _) = found.split_once("<!-- generated -->").unwrap();
        let wanted = format!("{before}<!-- generated -->\n\n{}", compatibility());
        if std::env::var_os("VIVACE_REGENERATE").is_some() {
            std::fs::write(path, &wanted).unwrap();
            return;
        }
        assert!(
            found == wanted,
            "docs/compatibility.md is stale; renew it with VIVACE_REGENERATE=1 cargo test -p vivace-node up_to_date"
        );
    }

    #[test]
    fn every_key_has_documentation() {
        for leaf in leaves() {
            assert!(!sentence(leaf.doc).is_empty(), "{} has no documentation", leaf.path);
        }
    }

    #[test]
    fn the_list_of_compatibility_names_sections_with_their_exceptions() {
        let list = compatibility();
        assert!(list.contains("| `storage.trace.gcs` | only the backends local and s3 are there |"), "{list}");
        let worker = list.lines().find(|line| line.starts_with("| `backend_worker`")).unwrap();
        assert!(worker.contains("(but ") && worker.contains("`compaction.block_retention`"), "{worker}");
    }
}
