//! Which keys have an effect. One table, from which notices, the reference and the list of compatibility are made.

/// What setting a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// What its documentation says.
    Effective,
    /// Nothing yet, with the reason.
    NotYet(&'static str),
    /// Nothing, and it will stay so, with the reason.
    Never(&'static str),
}

use Effect::{Effective, Never, NotYet};

const ONE_PROCESS: &str = "there is no backend-scheduler: with target all the backend-worker decides by itself";
const NO_IAM: &str = "AWS_MSK_IAM is not available; MSK also offers SCRAM-SHA-512";
const NO_GO: &str = "there is no Go runtime";
const GOSSIP: &str = "liveness and news come from another protocol (SWIM)";
const STANDING: &str = "members to join are looked up and tried for ever";
const RINGS: &str = "rings live in gossip, not in another store";
const NO_STREAMS: &str = "the receivers of this type are not there";
const NO_SUCH_BACKEND: &str = "only the backends local and s3 are there";
const NO_GENERATOR: &str = "the metrics-generator is not there";
const NO_CA: &str = "a listener verifies its clients by client_ca_file alone";
const ONE_HTTP2: &str =
    "calls between processes are not compressed, and windows, waits and keep-alive are the same for all";
const LIBRARY: &str = "the server has nothing like it";
const LEGACY_CACHE: &str = "deprecated in Tempo; use `cache`";
const NO_CACHE: &str = "caches outside the process are not there";

/// Key or section, and what setting it does. The longest path that a key begins with decides.
pub(super) const EFFECTS: &[(&str, Effect)] = &[
    ("target", Effective),
    ("auth_enabled", Effective),
    ("multitenancy_enabled", Effective),
    ("shutdown_delay", Effective),
    ("stream_over_http_enabled", Effective),
    ("http_api_prefix", Effective),
    ("enable_go_runtime_metrics", Never(NO_GO)),
    ("span_profiling", Never(NO_GO)),
    ("memory", NotYet("the memory of the process is bounded by its own budgets")),
    ("metrics_generator_client", Never("deprecated in Tempo and ignored there too")),
    ("usage_report", Never("no usage is reported, to nobody")),
    // The server.
    ("server", NotYet(LIBRARY)),
    ("server.http_listen_network", Effective),
    ("server.http_listen_address", Effective),
    ("server.http_listen_port", Effective),
    ("server.grpc_listen_network", Effective),
    ("server.grpc_listen_address", Effective),
    ("server.grpc_listen_port", Effective),
    ("server.tls_cipher_suites", Effective),
    ("server.tls_min_version", Effective),
    ("server.http_tls_config", Effective),
    ("server.grpc_tls_config", Effective),
    ("server.graceful_shutdown_timeout", Effective),
    ("server.http_listen_conn_limit", Effective),
    ("server.grpc_listen_conn_limit", Effective),
    ("server.http_server_read_header_timeout", Effective),
    ("server.http_server_idle_timeout", Effective),
    ("server.grpc_server_max_connection_age", Effective),
    ("server.grpc_server_max_connection_age_grace", Effective),
    ("server.register_instrumentation", Effective),
    ("server.grpc_server_max_recv_msg_size", NotYet("messages between components have a fixed bound")),
    ("server.grpc_server_max_send_msg_size", NotYet("messages between components have a fixed bound")),
    ("server.grpc_server_max_concurrent_streams", Effective),
    ("server.grpc_server_recv_buffer_pools_enabled", Never("deprecated in Tempo")),
    ("server.grpc_server_num_workers", Never("streams are tasks, not threads")),
    ("server.log_format", Effective),
    ("server.log_level", Effective),
    ("internal_server", NotYet("the second server is not there")),
    // Writes.
    ("distributor", NotYet("this part of the distributor is not there")),
    ("distributor.ring", Effective),
    ("distributor.ring.kvstore", Never(RINGS)),
    ("distributor.ring.kvstore.store", Effective),
    ("distributor.ring.kvstore.prefix", Effective),
    ("distributor.ring.heartbeat_period", Never(GOSSIP)),
    ("distributor.override_ring_key", Effective),
    ("distributor.receivers.otlp", Effective),
    ("distributor.receivers.otlp.protocols.grpc.tls.ca_file", Never(NO_CA)),
    ("distributor.receivers.otlp.protocols.grpc.tls.ca_pem", Never(NO_CA)),
    ("distributor.receivers.otlp.protocols.grpc.tls.include_system_ca_certs_pool", Never(NO_CA)),
    ("distributor.receivers.otlp.protocols.http.tls.ca_file", Never(NO_CA)),
    ("distributor.receivers.otlp.protocols.http.tls.ca_pem", Never(NO_CA)),
    ("distributor.receivers.otlp.protocols.http.tls.include_system_ca_certs_pool", Never(NO_CA)),
    ("distributor.receivers.otlp.protocols.grpc.auth", Never("authenticators of the collector are not available")),
    ("distributor.receivers.otlp.protocols.http.auth", Never("authenticators of the collector are not available")),
    ("distributor.receivers.otlp.protocols.grpc.middlewares", Never("extensions of the collector are not available")),
    ("distributor.receivers.otlp.protocols.http.middlewares", Never("extensions of the collector are not available")),
    ("distributor.receivers.otlp.protocols.grpc.include_metadata", Never("the tenant's header is always looked at")),
    ("distributor.receivers.otlp.protocols.http.include_metadata", Never("the tenant's header is always looked at")),
    ("distributor.receivers.otlp.protocols.grpc.keepalive.server_parameters.max_connection_idle", NotYet(LIBRARY)),
    ("distributor.receivers.otlp.protocols.grpc.keepalive.enforcement_policy", NotYet(LIBRARY)),
    ("distributor.receivers.otlp.protocols.http.write_timeout", NotYet(LIBRARY)),
    ("distributor.receivers.otlp.protocols.grpc.read_buffer_size", Never(LIBRARY)),
    ("distributor.receivers.otlp.protocols.grpc.write_buffer_size", Never(LIBRARY)),
    ("distributor.receivers.otlp.protocols.http.metrics_url_path", Never("only traces are received")),
    ("distributor.receivers.otlp.protocols.http.logs_url_path", Never("only traces are received")),
    ("distributor.receivers.jaeger", NotYet(NO_STREAMS)),
    ("distributor.receivers.zipkin", NotYet(NO_STREAMS)),
    ("distributor.receivers.kafka", NotYet(NO_STREAMS)),
    ("distributor.kafka_config", Never("`ingest.kafka` is what counts, as in Tempo")),
    ("distributor.log_received_spans", Effective),
    ("distributor.log_discarded_spans", Effective),
    ("distributor.metric_received_spans", Effective),
    ("distributor.retry_after_on_resource_exhausted", Effective),
    ("distributor.max_attribute_bytes", Effective),
    ("distributor.artificial_delay", Effective),
    ("ingest", Effective),
    ("ingest.kafka.client_rack", Never("records are fetched from the leader of a partition")),
    ("ingest.kafka.sasl_msk_iam_access_key", Never(NO_IAM)),
    ("ingest.kafka.sasl_msk_iam_secret_key", Never(NO_IAM)),
    ("ingest.kafka.sasl_msk_iam_session_token", Never(NO_IAM)),
    ("ingest.kafka.sasl_msk_iam_user_agent", Never(NO_IAM)),
    ("ingest.kafka.sasl_msk_iam_file_path", Never(NO_IAM)),
    ("ingest.kafka.sasl_msk_iam_http_socket_path", Never(NO_IAM)),
    ("ingest.kafka.sasl_msk_iam_http_socket_timeout", Never(NO_IAM)),
    ("ingest.kafka.consumer_group", Never("every component has its own group")),
    ("ingest.kafka.consumer_group_offset_commit_interval", Never("without effect in Tempo, too")),
    ("ingest.kafka.target_consumer_lag_at_startup", Never("without effect in Tempo, too; see live_store")),
    ("ingest.kafka.max_consumer_lag_at_startup", Never("without effect in Tempo, too; see live_store")),
    ("ingest.kafka.disable_kafka_telemetry", Never("the brokers are sent no metrics in any case")),
    ("live_store", Effective),
    ("live_store.complete_block_concurrency", NotYet("one cut is encoded at a time")),
    ("live_store.flush_op_timeout", Never("a cut is tried until its blocks are written")),
    ("live_store.ring", Effective),
    ("live_store.ring.kvstore", Never(RINGS)),
    ("live_store.ring.kvstore.store", Effective),
    ("live_store.ring.kvstore.prefix", Effective),
    ("live_store.ring.heartbeat_period", Never(GOSSIP)),
    ("live_store.partition_ring", Effective),
    ("live_store.partition_ring.kvstore", Never(RINGS)),
    ("live_store.partition_ring.kvstore.store", Effective),
    ("live_store.partition_ring.kvstore.prefix", Effective),
    ("live_store.metrics", Never("the filter on time is always applied inside a block")),
    ("live_store.shutdown_marker_dir", Effective),
    ("live_store.remove_owner_on_shutdown", Effective),
    ("live_store_client", Effective),
    ("live_store_client.remote_timeout", Never("not used in Tempo either")),
    ("live_store_client.grpc_client_config", NotYet(ONE_HTTP2)),
    ("live_store_client.grpc_client_config.max_recv_msg_size", Effective),
    ("live_store_client.grpc_client_config.max_send_msg_size", Effective),
    ("live_store_client.grpc_client_config.connect_timeout", Effective),
    ("live_store_client.grpc_client_config.tls_enabled", Effective),
    ("live_store_client.grpc_client_config.tls_cert_path", Effective),
    ("live_store_client.grpc_client_config.tls_key_path", Effective),
    ("live_store_client.grpc_client_config.tls_ca_path", Effective),
    ("live_store_client.grpc_client_config.tls_server_name", Effective),
    ("live_store_client.grpc_client_config.tls_insecure_skip_verify", Effective),
    ("live_store_client.grpc_client_config.tls_cipher_suites", Effective),
    ("live_store_client.grpc_client_config.tls_min_version", Effective),
    ("block_builder", Effective),
    ("block_builder.wal.path", Never("blocks in the making are in memory, then in the bucket")),
    // Reads.
    ("querier", NotYet("this part of the querier is not there")),
    ("querier.search.query_timeout", Effective),
    ("querier.trace_by_id.query_timeout", Effective),
    ("querier.max_concurrent_queries", Effective),
    ("querier.metrics.concurrent_blocks", Never("not used in Tempo either")),
    ("querier.partition_ring", Effective),
    ("querier.frontend_worker", Effective),
    ("querier.frontend_worker.grpc_client_config", NotYet(ONE_HTTP2)),
    ("querier.frontend_worker.grpc_client_config.connect_timeout", Effective),
    ("querier.frontend_worker.grpc_client_config.tls_enabled", Effective),
    ("querier.frontend_worker.grpc_client_config.tls_cert_path", Effective),
    ("querier.frontend_worker.grpc_client_config.tls_key_path", Effective),
    ("querier.frontend_worker.grpc_client_config.tls_ca_path", Effective),
    ("querier.frontend_worker.grpc_client_config.tls_server_name", Effective),
    ("querier.frontend_worker.grpc_client_config.tls_insecure_skip_verify", Effective),
    ("querier.frontend_worker.grpc_client_config.tls_cipher_suites", Effective),
    ("querier.frontend_worker.grpc_client_config.tls_min_version", Effective),
    ("querier.extra_query_delay", Never("not used in Tempo either")),
    ("querier.shuffle_sharding_ingesters_enabled", Never("not used in Tempo either")),
    ("querier.shuffle_sharding_ingesters_lookback_period", Never("not used in Tempo either")),
    ("querier.query_relevant_ingesters", Never("not used in Tempo either")),
    ("querier.secondary_ingester_ring", Never("not used in Tempo either")),
    ("query_frontend", NotYet("this part of the query-frontend is not there")),
    ("query_frontend.max_outstanding_per_tenant", Effective),
    ("query_frontend.max_retries", Effective),
    ("query_frontend.multi_tenant_queries_enabled", Effective),
    ("query_frontend.search.timeout", Effective),
    ("query_frontend.search.concurrent_jobs", Effective),
    ("query_frontend.search.target_bytes_per_job", Effective),
    ("query_frontend.search.default_result_limit", Effective),
    ("query_frontend.search.max_result_limit", Effective),
    ("query_frontend.search.max_duration", Effective),
    ("query_frontend.search.query_backend_after", Effective),
    ("query_frontend.search.default_spans_per_span_set", Effective),
    ("query_frontend.search.max_spans_per_span_set", Effective),
    ("query_frontend.search.max_result_bytes", Effective),
    ("query_frontend.api_timeout", Effective),
    ("query_frontend.max_query_expression_size_bytes", Effective),
    ("query_frontend.query_end_cutoff", Effective),
    ("query_frontend.require_complete", Effective),
    ("query_frontend.url_deny_list", Effective),
    ("query_frontend.max_grpc_streaming_packet_size", Effective),
    ("query_frontend.trace_by_id.query_shards", Effective),
    ("query_frontend.trace_by_id.concurrent_shards", Effective),
    ("query_frontend.trace_by_id.blocks_per_shard", Effective),
    ("query_frontend.trace_by_id.span_pruning_enabled", Effective),
    ("query_frontend.trace_by_id.span_pruning_enabled_by_default", Effective),
    ("query_frontend.metrics.concurrent_jobs", Effective),
    ("query_frontend.metrics.target_bytes_per_job", Effective),
    ("query_frontend.metrics.max_duration", Effective),
    ("query_frontend.metrics.max_exemplars", Effective),
    ("query_frontend.metrics.max_response_series", Effective),
    ("query_frontend.metrics.max_intervals", Effective),
    ("query_frontend.metrics.max_series_bytes", Effective),
    ("query_frontend.metrics.query_backend_after", Effective),
    ("query_frontend.metrics.interval", NotYet("jobs are cut by bytes")),
    ("query_frontend.metrics.streaming_shards", NotYet("changes are told as jobs end")),
    ("query_frontend.mcp_server.enabled", Effective),
    ("query_frontend.rf1_after", Never("deprecated in Tempo and ignored there too")),
    // Storage.
    ("storage.trace", NotYet("this part of the storage is not there")),
    ("storage.trace.backend", Effective),
    ("storage.trace.local", Effective),
    ("storage.trace.s3", Effective),
    ("storage.trace.s3.signature_v2", Never("requests are signed by version 4")),
    (
        "storage.trace.s3.sse.kms_encryption_context",
        NotYet("a context of the key service cannot be sent; with it the start fails"),
    ),
    ("storage.trace.s3.list_blocks_concurrency", NotYet("a tenant's blocks are listed by one request after the other")),
    ("storage.trace.s3.native_aws_auth_enabled", Never("deprecated in Tempo and ignored there too")),
    ("storage.trace.gcs", NotYet(NO_SUCH_BACKEND)),
    ("storage.trace.azure", NotYet(NO_SUCH_BACKEND)),
    ("storage.trace.wal", NotYet("blocks in the making are kept below live_store.wal.path")),
    ("storage.trace.blocklist_poll", Effective),
    ("storage.trace.block", Effective),
    (
        "storage.trace.block.version",
        NotYet("new blocks are vParquet5 whatever this says; blocks of vParquet4 are read, those of vParquet3 are not"),
    ),
    ("storage.trace.search", Never("blocks are read by another reader, in pieces of its own choice")),
    ("storage.trace.cache", Never(LEGACY_CACHE)),
    ("storage.trace.cache_min_compaction_level", Never(LEGACY_CACHE)),
    ("storage.trace.cache_max_block_age", Never(LEGACY_CACHE)),
    ("storage.trace.background_cache", Never(LEGACY_CACHE)),
    ("storage.trace.memcached", Never(LEGACY_CACHE)),
    ("storage.trace.redis", Never(LEGACY_CACHE)),
    ("cache", NotYet(NO_CACHE)),
    ("backend_scheduler", NotYet("the backend-worker decides by the same rules in the single process")),
    ("backend_scheduler_client", NotYet(ONE_PROCESS)),
    ("backend_worker", NotYet(ONE_PROCESS)),
    ("backend_worker.compaction.compaction_window", Effective),
    ("backend_worker.compaction.max_compaction_objects", Effective),
    ("backend_worker.compaction.max_block_bytes", Effective),
    ("backend_worker.compaction.block_retention", Effective),
    ("backend_worker.compaction.compacted_block_retention", Effective),
    ("backend_worker.compaction.compaction_cycle", Effective),
    // Limits.
    ("overrides", NotYet("this limit is not there")),
    ("overrides.per_tenant_override_config", Effective),
    ("overrides.per_tenant_override_period", Effective),
    ("overrides.user_configurable_overrides", NotYet("limits that users set are not there")),
    ("overrides.enable_legacy_overrides", Effective),
    ("overrides.defaults.ingestion.rate_limit_bytes", Effective),
    ("overrides.defaults.ingestion.burst_size_bytes", Effective),
    ("overrides.defaults.ingestion.rate_strategy", Effective),
    ("overrides.defaults.ingestion.artificial_delay", Effective),
    ("overrides.defaults.ingestion.max_traces_per_user", Effective),
    ("overrides.defaults.ingestion.max_global_traces_per_user", Never("not enforced in Tempo either")),
    ("overrides.defaults.ingestion.max_attribute_bytes", Effective),
    ("overrides.defaults.ingestion.retry_info_enabled", Effective),
    ("overrides.defaults.global.max_bytes_per_trace", Effective),
    ("overrides.defaults.read.max_search_duration", Effective),
    ("overrides.defaults.read.max_metrics_duration", Effective),
    ("overrides.defaults.read.max_bytes_per_tag_values_query", Effective),
    ("overrides.defaults.read.left_pad_trace_ids", Effective),
    ("overrides.defaults.compaction.block_retention", Effective),
    ("overrides.defaults.compaction.compaction_disabled", Effective),
    ("overrides.defaults.storage.parquet_dedicated_columns", Effective),
    ("overrides.defaults.metrics_generator", NotYet(NO_GENERATOR)),
    ("overrides.defaults.metrics_generator.ring_size", Never("not used in Tempo either")),
    ("metrics_generator", NotYet(NO_GENERATOR)),
    // Cluster.
    ("memberlist", Effective),
    ("memberlist.gossip_interval", Never(GOSSIP)),
    ("memberlist.gossip_nodes", Never(GOSSIP)),
    ("memberlist.gossip_to_dead_nodes_time", Never(GOSSIP)),
    ("memberlist.dead_node_reclaim_time", Never(GOSSIP)),
    ("memberlist.compression_enabled", Never(GOSSIP)),
    ("memberlist.compression_algorithm", Never(GOSSIP)),
    ("memberlist.notify_interval", Never(GOSSIP)),
    ("memberlist.received_messages_queue_size", Never(GOSSIP)),
    ("memberlist.processed_messages_queue_size", Never(GOSSIP)),
    ("memberlist.left_ingesters_timeout", Never(GOSSIP)),
    ("memberlist.obsolete_entries_timeout", Never(GOSSIP)),
    ("memberlist.broadcast_timeout_for_local_updates_on_shutdown", Never(GOSSIP)),
    ("memberlist.watch_prefix_buffer_size", Never(GOSSIP)),
    ("memberlist.max_concurrent_writes", Never(GOSSIP)),
    ("memberlist.acquire_writer_timeout", Never(GOSSIP)),
    ("memberlist.abort_if_cluster_fast_join_fails", Never(STANDING)),
    ("memberlist.abort_if_cluster_fast_join_fails_min_nodes", Never(STANDING)),
    ("memberlist.rejoin_interval", Never(STANDING)),
    ("memberlist.rejoin_seed_nodes", Never(STANDING)),
    ("memberlist.zone_aware_routing", NotYet("gossip has nothing like it")),
    ("memberlist.propagation_delay_tracker", NotYet("gossip has nothing like it")),
];

/// The entry that decides about a key.
fn entry_of(key: &str) -> Option<&'static (&'static str, Effect)> {
    // `otlp/name` is an `otlp`.
    let key = match key.strip_prefix("distributor.receivers.").and_then(|id| id.split_once('/')) {
        Some((kind, rest)) => {
            let below = rest.split_once('.').map(|(_, below)| format!(".{below}")).unwrap_or_default();
            &format!("distributor.receivers.{kind}{below}")
        }
        None => key,
    };
    EFFECTS
        .iter()
        .filter(|(path, _)| key.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])))
        .max_by_key(|(path, _)| path.len())
}

/// What setting a key does.
pub fn effect_of(key: &str) -> Effect {
    entry_of(key).map_or(Effective, |(_, effect)| *effect)
}

/// One sentence for each entry of the table that keys without effect fall under.
pub(super) fn notices(changed: &[String]) -> Vec<String> {
    let mut grouped: Vec<(&(&str, Effect), Vec<&str>)> = Vec::new();
    for key in changed {
        let Some(entry) = entry_of(key).filter(|(_, effect)| *effect != Effective) else { continue };
        match grouped.iter_mut().find(|(known, _)| known.0 == entry.0) {
            Some((_, keys)) => keys.push(key),
            None => grouped.push((entry, vec![key])),
        }
    }
    grouped
        .into_iter()
        .map(|((_, effect), keys)| {
            let verb = if keys.len() == 1 { "has" } else { "have" };
            let keys = keys.join(", ");
            match effect {
                NotYet(reason) => format!("{keys} {verb} no effect yet: {reason}"),
                Never(reason) => format!("{keys} {verb} no effect: {reason}"),
                Effective => keys,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{super::reference::leaves, *};

    #[test]
    fn every_key_is_covered_and_every_entry_exists() {
        let keys: Vec<String> = leaves().into_iter().map(|leaf| leaf.path).collect();
        for key in &keys {
            assert!(entry_of(key).is_some(), "nothing is said of {key}");
        }
        for (path, _) in EFFECTS {
            let below =
                |key: &String| key == path || key.strip_prefix(path).is_some_and(|rest| rest.starts_with(['.', '[']));
            assert!(keys.iter().any(below), "{path} is no key");
        }
    }

    #[test]
    fn the_longest_path_decides_and_names_of_receivers_do_not_matter() {
        assert_eq!(effect_of("server.http_listen_port"), Effective);
        assert!(matches!(effect_of("server.proxy_protocol_enabled"), NotYet(_)));
        assert_eq!(effect_of("distributor.receivers.otlp/b.protocols.grpc.endpoint"), Effective);
        assert_eq!(effect_of("distributor.receivers.otlp/b.protocols.grpc.tls.cert_file"), Effective);
        assert!(matches!(effect_of("distributor.receivers.otlp/b.protocols.grpc.tls.ca_file"), Never(_)));
        assert!(matches!(effect_of("distributor.receivers.zipkin.endpoint"), NotYet(_)));
    }

    #[test]
    fn keys_of_one_entry_share_a_notice() {
        let keys = ["storage.trace.gcs.bucket_name", "storage.trace.gcs.prefix", "target", "span_profiling"];
        assert_eq!(
            notices(&keys.map(str::to_owned)),
            [
                "storage.trace.gcs.bucket_name, storage.trace.gcs.prefix have no effect yet: only the backends local and s3 are there",
                "span_profiling has no effect: there is no Go runtime",
            ]
        );
    }
}
