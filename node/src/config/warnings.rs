//! Warnings: the ones that Tempo computes at start. Each one makes `-config.verify` fail.

use std::fmt;

use vivace_runtime::config::DedicatedColumn;

use super::{Config, Target};

/// Something that works, but rarely as meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What is odd.
    pub message: String,
    /// What comes of it.
    pub explanation: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.message)?;
        if self.explanation.is_empty() { Ok(()) } else { write!(out, " ({})", self.explanation) }
    }
}

/// Rewritings of queries that can be left out.
const TRANSFORMATIONS: [&str; 2] = ["or_to_in", "all"];

/// Everything that is odd about a configuration.
pub(super) fn warnings(config: &Config, target: Target, legacy_overrides: bool) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut warn = |applies: bool, message: &str, explanation: &str| {
        if applies {
            found.push(Warning { message: message.to_owned(), explanation: explanation.to_owned() });
        }
    };
    let trace = &config.storage.trace;
    let poll = trace.blocklist_poll;
    warn(
        config.live_store.complete_block_timeout < poll,
        "live_store.complete_block_timeout < storage.trace.blocklist_poll",
        "traces may be found by no query between the time a block leaves the live-store and the next poll",
    );
    let compaction = &config.backend_worker.compaction;
    warn(
        compaction.block_retention < poll,
        "backend_worker.compaction.block_retention < storage.trace.blocklist_poll",
        "queriers may try to read blocks that are deleted already",
    );
    warn(
        compaction.retention_concurrency == 0,
        "backend_worker.compaction.retention_concurrency must be above 0",
        "the default of 10 is used",
    );
    warn(
        trace.blocklist_poll_concurrency == 0,
        "storage.trace.blocklist_poll_concurrency must be above 0",
        "the default of 50 is used",
    );
    warn(
        config.distributor.log_received_spans.enabled,
        "distributor.log_received_spans is enabled",
        "for debugging only: every span becomes a log line",
    );
    warn(
        config.distributor.log_discarded_spans.enabled,
        "distributor.log_discarded_spans is enabled",
        "for debugging only: every refused span becomes a log line",
    );
    warn(
        trace.backend == "local" && target != Target::All && !trace.local.shared,
        "storage.trace.backend is local and the target is not all",
        "all processes must see the same directory; if they do, say so with storage.trace.local.shared: true",
    );
    warn(
        config.query_frontend.mcp_server.enabled,
        "query_frontend.mcp_server is enabled",
        "trace data reaches a language model",
    );
    if let Err(error) = DedicatedColumn::validate(&trace.block.parquet_dedicated_columns) {
        warn(true, "storage.trace.block.parquet_dedicated_columns cannot be used", &error.to_string());
    }
    if let Some(columns) = &config.overrides.defaults.storage.parquet_dedicated_columns
        && let Err(error) = DedicatedColumn::validate(columns)
    {
        warn(true, "overrides.defaults.storage.parquet_dedicated_columns cannot be used", &error.to_string());
    }
    let client = &config.overrides.user_configurable_overrides.client;
    let same = config.overrides.user_configurable_overrides.enabled
        && client.backend == trace.backend
        && match client.backend.as_str() {
            "local" => client.local.path == trace.local.path,
            "s3" => (&client.s3.bucket, &client.s3.prefix) == (&trace.s3.bucket, &trace.s3.prefix),
            "gcs" => (&client.gcs.bucket_name, &client.gcs.prefix) == (&trace.gcs.bucket_name, &trace.gcs.prefix),
            "azure" => {
                (&client.azure.container_name, &client.azure.prefix)
                    == (&trace.azure.container_name, &trace.azure.prefix)
            }
            _ => false,
        };
    warn(
        same,
        "storage.trace and overrides.user_configurable_overrides.client point to the same place",
        "blocks and overrides would be mixed; give one of them a prefix",
    );
    warn(legacy_overrides, "overrides are in the flat form of older versions", "write them below overrides.defaults");
    warn(
        trace.backend == "s3" && trace.s3.native_aws_auth_enabled,
        "storage.trace.s3.native_aws_auth_enabled is deprecated",
        "it is ignored; the usual chain of credentials is tried",
    );
    warn(!trace.cache.is_empty(), "storage.trace.cache is deprecated", "use the section cache");
    let by_id = &config.query_frontend.trace_by_id;
    warn(
        by_id.concurrent_shards > by_id.query_shards,
        "query_frontend.trace_by_id.concurrent_shards > query_frontend.trace_by_id.query_shards",
        "query_shards is used",
    );
    warn(
        config.backend_scheduler.work.prune_age.get() <= poll.get() * 2,
        "backend_scheduler.work.prune_age is not above twice storage.trace.blocklist_poll",
        "finished jobs may be forgotten before their result is seen",
    );
    warn(
        !config.block_builder.assigned_partitions.is_empty() && config.block_builder.partitions_per_instance > 0,
        "block_builder.assigned_partitions and block_builder.partitions_per_instance are both set",
        "assigned_partitions is used",
    );
    for name in &config.query_frontend.skip_ast_transformations {
        warn(
            !TRANSFORMATIONS.contains(&name.as_str()),
            &format!("query_frontend.skip_ast_transformations has the unknown name `{name}`"),
            "known are or_to_in, all",
        );
    }
    warn(!config.query_frontend.rf1_after.is_empty(), "query_frontend.rf1_after is deprecated", "it is ignored");
    found
}

#[cfg(test)]
mod tests {
    use vivace_runtime::config::GoDuration;

    use super::*;

    fn of(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        warnings(&config, Target::All, false).into_iter().map(|warning| warning.message).collect()
    }

    #[test]
    fn the_defaults_give_no_warning() {
        assert_eq!(of(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn each_condition_gives_its_warning() {
        type Change = fn(&mut Config);
        let cases: [(Change, &str); 16] = [
            (|c| c.live_store.complete_block_timeout = GoDuration::minutes(1), "complete_block_timeout <"),
            (|c| c.backend_worker.compaction.block_retention = GoDuration::minutes(1), "block_retention <"),
            (|c| c.backend_worker.compaction.retention_concurrency = 0, "retention_concurrency"),
            (|c| c.storage.trace.blocklist_poll_concurrency = 0, "blocklist_poll_concurrency"),
            (|c| c.distributor.log_received_spans.enabled = true, "log_received_spans"),
            (|c| c.distributor.log_discarded_spans.enabled = true, "log_discarded_spans"),
            (|c| c.query_frontend.mcp_server.enabled = true, "mcp_server"),
            (|c| c.storage.trace.block.parquet_dedicated_columns.push(DedicatedColumn::default()), "dedicated_columns"),
            (
                |c| {
                    c.storage.trace.backend = "local".into();
                    c.overrides.user_configurable_overrides.enabled = true;
                    c.overrides.user_configurable_overrides.client.backend = "local".into();
                },
                "same place",
            ),
            (
                |c| {
                    c.storage.trace.backend = "s3".into();
                    c.storage.trace.s3.native_aws_auth_enabled = true;
                },
                "native_aws_auth_enabled",
            ),
            (|c| c.storage.trace.cache = "memcached".into(), "storage.trace.cache"),
            (|c| c.query_frontend.trace_by_id.concurrent_shards = 51, "concurrent_shards"),
            (|c| c.backend_scheduler.work.prune_age = GoDuration::minutes(10), "prune_age"),
            (
                |c| {
                    c.block_builder.assigned_partitions.insert("a-0".into(), vec![0]);
                    c.block_builder.partitions_per_instance = 1;
                },
                "assigned_partitions",
            ),
            (|c| c.query_frontend.skip_ast_transformations = vec!["x".into()], "skip_ast_transformations"),
            (|c| c.query_frontend.rf1_after = "2024-01-01T00:00:00Z".into(), "rf1_after"),
        ];
        for (change, part) in cases {
            let found = of(change);
            assert_eq!(found.len(), 1, "{part}: {found:?}");
            assert!(found[0].contains(part), "{part}: {found:?}");
        }
        let mut config = Config::default();
        config.storage.trace.backend = "local".into();
        assert_eq!(warnings(&config, Target::Querier, false).len(), 1);
        config.storage.trace.local.shared = true;
        assert_eq!(warnings(&config, Target::Querier, false), []);
        assert_eq!(warnings(&Config::default(), Target::All, true).len(), 1);
    }
}
