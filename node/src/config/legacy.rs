//! The flat form of overrides of older versions: `ingestion_rate_limit_bytes` for `ingestion.rate_limit_bytes`.

use std::collections::BTreeMap;

use vivace_runtime::config::{Described, Limits, Shape};

use super::yaml::{Entry, Node, Value};

/// Flat keys that do not follow from their path.
const IRREGULAR: &[(&str, &str)] = &[
    ("max_traces_per_user", "ingestion.max_traces_per_user"),
    ("max_global_traces_per_user", "ingestion.max_global_traces_per_user"),
    ("forwarders", "forwarders"),
    ("block_retention", "compaction.block_retention"),
    ("compaction_disabled", "compaction.compaction_disabled"),
    ("compaction_window", "compaction.compaction_window"),
    ("max_bytes_per_tag_values_query", "read.max_bytes_per_tag_values_query"),
    ("max_blocks_per_tag_values_query", "read.max_blocks_per_tag_values_query"),
    ("max_condition_groups_per_tag_query", "read.max_condition_groups_per_tag_query"),
    ("max_search_duration", "read.max_search_duration"),
    ("max_metrics_duration", "read.max_metrics_duration"),
    ("unsafe_query_hints", "read.unsafe_query_hints"),
    ("left_pad_trace_ids", "read.left_pad_trace_ids"),
    ("metrics_spanonly_fetch", "read.metrics_spanonly_fetch"),
    ("span_pruning_awareness", "read.span_pruning_awareness"),
    ("engine_bytes_tracking", "read.engine_bytes_tracking"),
    ("span_pruning_enabled", "read.span_pruning_enabled"),
    ("max_bytes_per_trace", "global.max_bytes_per_trace"),
    ("cost_attribution", "cost_attribution"),
    ("parquet_dedicated_columns", "storage.parquet_dedicated_columns"),
];

/// Flat keys with the paths that they mean.
fn keys() -> BTreeMap<String, String> {
    fn walk(shape: &Shape, path: &str, found: &mut BTreeMap<String, String>) {
        let Shape::Section(section) = shape else {
            found.insert(path.replace('.', "_"), path.to_owned());
            return;
        };
        for key in &section.keys {
            walk(&key.shape(), &super::check::join(path, key.name), found);
        }
    }
    let mut found = BTreeMap::new();
    if let Shape::Section(root) = Limits::shape() {
        for key in root.keys.iter().filter(|key| matches!(key.name, "ingestion" | "metrics_generator")) {
            walk(&key.shape(), key.name, &mut found);
        }
    }
    // These two have no section in their flat name.
    found.remove("ingestion_max_traces_per_user");
    found.remove("ingestion_max_global_traces_per_user");
    found.extend(IRREGULAR.iter().map(|(flat, path)| ((*flat).to_owned(), (*path).to_owned())));
    found
}

/// Turns the flat keys of an entry into sections. Other keys stay. Tells whether there was any.
///
/// `forwarders` and `cost_attribution` are the same in both forms and count as neither.
pub(super) fn unflatten(node: &mut Node) -> bool {
    let Value::Map(entries) = &mut node.value else { return false };
    let keys = keys();
    let mut any = false;
    for entry in std::mem::take(entries) {
        match keys.get(&entry.key) {
            Some(path) if *path != entry.key => {
                any = true;
                let path: Vec<&str> = path.split('.').collect();
                put(entries, &path, entry);
            }
            _ => put_whole(entries, entry),
        }
    }
    any
}

fn put_whole(entries: &mut Vec<Entry>, entry: Entry) {
    // A section may have been begun by a flat key before it.
    match (
        entries.iter_mut().find(|known| known.key == entry.key).map(|known| &mut known.node.value),
        &entry.node.value,
    ) {
        (Some(Value::Map(known)), Value::Map(more)) => known.extend(more.iter().cloned()),
        _ => entries.push(entry),
    }
}

fn put(entries: &mut Vec<Entry>, path: &[&str], entry: Entry) {
    let Some((first, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        entries.push(Entry { key: (*first).to_owned(), ..entry });
        return;
    }
    let position = entries.iter().position(|known| known.key == *first && matches!(known.node.value, Value::Map(_)));
    let at = position.unwrap_or_else(|| {
        let node = Node { at: entry.node.at, value: Value::Map(Vec::new()) };
        entries.push(Entry { key: (*first).to_owned(), at: entry.at, node });
        entries.len() - 1
    });
    if let Value::Map(below) = &mut entries[at].node.value {
        put(below, rest, entry);
    }
}

/// Keys of the wrapper around the defaults; everything else directly under `overrides` may be flat.
const WRAPPER: [&str; 5] = [
    "defaults",
    "per_tenant_override_config",
    "per_tenant_override_period",
    "user_configurable_overrides",
    "enable_legacy_overrides",
];

/// Moves flat keys that stand directly under `overrides` of the main file below `defaults`. Tells whether there was any.
pub(super) fn unflatten_main(root: &mut Node) -> bool {
    let Value::Map(sections) = &mut root.value else { return false };
    let Some(overrides) = sections.iter_mut().find(|entry| entry.key == "overrides") else { return false };
    let Value::Map(entries) = &mut overrides.node.value else { return false };
    let keys = keys();
    let (flat, mut rest): (Vec<_>, Vec<_>) = std::mem::take(entries)
        .into_iter()
        .partition(|entry| !WRAPPER.contains(&entry.key.as_str()) && keys.contains_key(&entry.key));
    let any = !flat.is_empty();
    if any {
        let (at, node_at) = (flat[0].at, flat[0].node.at);
        let mut limits = Node { at: node_at, value: Value::Map(flat) };
        unflatten(&mut limits);
        put_whole(&mut rest, Entry { key: "defaults".into(), at, node: limits });
    }
    *entries = rest;
    any
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flat_keys_mean_a_path_each() {
        let keys = keys();
        for (flat, path) in [
            ("ingestion_rate_limit_bytes", "ingestion.rate_limit_bytes"),
            ("ingestion_tenant_shard_size", "ingestion.tenant_shard_size"),
            ("max_traces_per_user", "ingestion.max_traces_per_user"),
            ("max_bytes_per_trace", "global.max_bytes_per_trace"),
            ("metrics_generator_processors", "metrics_generator.processors"),
            (
                "metrics_generator_processor_span_metrics_dimensions",
                "metrics_generator.processor.span_metrics.dimensions",
            ),
            ("metrics_generator_forwarder_queue_size", "metrics_generator.forwarder.queue_size"),
        ] {
            assert_eq!(keys[flat], path);
        }
        for path in keys.values() {
            assert!(
                super::super::flags::shape_of(&format!("overrides.defaults.{path}")).is_some(),
                "{path} does not exist"
            );
        }
    }
}
