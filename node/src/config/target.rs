//! `-target`: which components a process runs, and what a single binary forces.

use std::{fmt, str::FromStr};

use super::Config;

/// Which components a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Everything but the block-builder, in one process.
    All,
    /// Receives spans.
    Distributor,
    /// Recent traces.
    LiveStore,
    /// Blocks from the log.
    BlockBuilder,
    /// Runs the jobs of queries.
    Querier,
    /// The public query API.
    QueryFrontend,
    /// Metrics from spans.
    MetricsGenerator,
    /// Plans compaction, retention and redaction.
    BackendScheduler,
    /// Runs the jobs of the backend-scheduler.
    BackendWorker,
}

const NAMES: [(&str, Target); 9] = [
    ("all", Target::All),
    ("distributor", Target::Distributor),
    ("live-store", Target::LiveStore),
    ("block-builder", Target::BlockBuilder),
    ("querier", Target::Querier),
    ("query-frontend", Target::QueryFrontend),
    ("metrics-generator", Target::MetricsGenerator),
    ("backend-scheduler", Target::BackendScheduler),
    ("backend-worker", Target::BackendWorker),
];

/// A target that does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to init module services: unrecognised module name: {name}{hint}")]
pub struct Error {
    name: String,
    hint: String,
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        // Deprecated in Tempo: the same component with its ring mode forced.
        if name == "metrics-generator-no-local-blocks" {
            return Ok(Self::MetricsGenerator);
        }
        NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, target)| target).ok_or_else(|| {
            let hint = match name {
                "ingester" => " (removed in Tempo 3.0; see live-store)".to_owned(),
                "compactor" => " (removed in Tempo 3.0; see backend-worker)".to_owned(),
                "scalable-single-binary" => " (removed in Tempo 3.0; see all)".to_owned(),
                _ => super::problem::nearest(name, NAMES.into_iter().map(|(known, _)| known))
                    .map(|near| format!(" (did you mean {near}?)"))
                    .unwrap_or_default(),
            };
            Error { name: name.to_owned(), hint }
        })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(NAMES.into_iter().find(|(_, target)| target == self).map_or("all", |(name, _)| name))
    }
}

/// Keys with the values that `-target=all` forces: rings of one process are kept in its memory.
pub(super) const FORCED_BY_ALL: [(&str, &str); 6] = [
    ("live_store.ring.kvstore.store", "inmemory"),
    ("live_store.ring.instance_addr", "127.0.0.1"),
    ("live_store.partition_ring.kvstore.store", "inmemory"),
    ("metrics_generator.ring.kvstore.store", "inmemory"),
    ("metrics_generator.ring.instance_addr", "127.0.0.1"),
    ("backend_worker.ring.kvstore.store", ""),
];

/// Sets what a target forces. Returns the keys whose values changed.
pub(super) fn force(target: Target, config: &mut Config) -> Vec<&'static str> {
    if target != Target::All {
        return Vec::new();
    }
    FORCED_BY_ALL
        .into_iter()
        .filter_map(|(key, value)| {
            let field = match key {
                "live_store.ring.kvstore.store" => &mut config.live_store.ring.kvstore.store,
                "live_store.ring.instance_addr" => &mut config.live_store.ring.instance_addr,
                "live_store.partition_ring.kvstore.store" => &mut config.live_store.partition_ring.kvstore.store,
                "metrics_generator.ring.kvstore.store" => &mut config.metrics_generator.ring.kvstore.store,
                "metrics_generator.ring.instance_addr" => &mut config.metrics_generator.ring.instance_addr,
                _ => &mut config.backend_worker.ring.kvstore.store,
            };
            (field != value).then(|| {
                *field = value.to_owned();
                key
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_and_print() {
        for (name, target) in NAMES {
            assert_eq!(name.parse(), Ok(target));
            assert_eq!(target.to_string(), name);
        }
    }

    #[test]
    fn unknown_targets_are_named_with_the_nearest() {
        let message = |name: &str| name.parse::<Target>().unwrap_err().to_string();
        assert_eq!(
            message("live_stor"),
            "failed to init module services: unrecognised module name: live_stor (did you mean live-store?)"
        );
        assert!(message("ingester").contains("see live-store"));
    }

    #[test]
    fn a_single_binary_forces_rings_into_memory() {
        let mut config = Config::default();
        assert_eq!(force(Target::Querier, &mut config), Vec::<&str>::new());
        assert_eq!(force(Target::All, &mut config).len(), 5, "the worker's ring is off by default");
        for (key, value) in FORCED_BY_ALL {
            let json = serde_json::to_value(&config).unwrap();
            assert_eq!(json.pointer(&format!("/{}", key.replace('.', "/"))).unwrap(), value, "{key}");
        }
    }
}
