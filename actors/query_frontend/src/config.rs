//! Configuration: `query_frontend`.

use vivace_runtime::config::{Csv, GoDuration};

vivace_runtime::config_struct! {
    /// The query-frontend: the public API, planning of queries, the queue of their jobs.
    pub struct Config {
        /// Jobs of one tenant waiting in the queue; more are refused with 429.
        pub max_outstanding_per_tenant: u64 = 2000,
        /// Jobs sent to a querier in one message; above 0.
        pub max_batch_size: u64 = 7,
        /// Headers of queries that are logged.
        pub log_query_request_headers: Csv = Csv::default(),
        /// Attempts of one job, the first included.
        pub max_retries: u64 = 2,
        /// Searches.
        pub search: SearchConfig = SearchConfig::default(),
        /// Traces by id.
        pub trace_by_id: TraceByIdConfig = TraceByIdConfig::default(),
        /// Metrics queries.
        pub metrics: MetricsConfig = MetricsConfig::default(),
        /// Allow several tenants in one query, `a|b`.
        pub multi_tenant_queries_enabled: bool = true,
        /// Tasks that combine the answers of one query.
        pub response_consumers: u64 = 10,
        /// Weights of jobs in the queue.
        pub weights: WeightsConfig = WeightsConfig::default(),
        /// Access for language models.
        pub mcp_server: McpServerConfig = McpServerConfig::default(),
        /// Time limit of a query over HTTP and gRPC; 0 means without limit.
        pub api_timeout: GoDuration = GoDuration::ZERO,
        /// Regular expressions of URLs that are refused with 400.
        pub url_deny_list: Vec<String> = Vec::new(),
        /// Bytes of one message of a streaming answer.
        pub max_grpc_streaming_packet_size: u64 = 1_048_576,
        /// Bytes of a query's text.
        pub max_query_expression_size_bytes: u64 = 131_072,
        /// Headers passed on to queriers.
        pub allowed_headers: Vec<String> = Vec::new(),
        /// Deprecated and ignored.
        pub rf1_after: String = String::new(),
        /// The newest data is left out of a query whose end is closer to now than this; 0 means answer up to now. At most
        /// `search.query_backend_after`.
        pub query_end_cutoff: GoDuration = GoDuration::ZERO,
        /// Rewritings of queries that are left out: `or_to_in`, `all`.
        pub skip_ast_transformations: Vec<String> = Vec::new(),
        /// Answer an error instead of a partial result. Vivace only.
        pub require_complete: bool = false,
    }
}

vivace_runtime::config_struct! {
    /// Searches.
    pub struct SearchConfig {
        /// Time limit of a search; 0 means `api_timeout`.
        pub timeout: GoDuration = GoDuration::ZERO,
        /// Jobs of one search at once.
        pub concurrent_jobs: u64 = 1000,
        /// Bytes that one job should read. Larger makes fewer jobs, smaller spreads a query over more queriers.
        pub target_bytes_per_job: u64 = 104_857_600,
        /// Traces in an answer without `limit`.
        pub default_result_limit: u64 = 20,
        /// Largest `limit`; 0 means without limit.
        pub max_result_limit: u64 = 262_144,
        /// Longest time range; 0 means without limit. A tenant's own limit wins.
        pub max_duration: GoDuration = GoDuration::hours(168),
        /// Younger data is asked of live-stores only. Must leave time for blocks to be written and polled.
        pub query_backend_after: GoDuration = GoDuration::minutes(15),
        /// Parts into which the recent range is cut.
        pub ingester_shards: u64 = 3,
        /// Parts, newest first, in which blocks are searched.
        pub most_recent_shards: u64 = 200,
        /// Spans shown of a trace without `spss`.
        pub default_spans_per_span_set: u64 = 3,
        /// Largest `spss`; 0 means without limit.
        pub max_spans_per_span_set: u64 = 100,
        /// Memory of what one search, or one query for names or values of tags, has found, in each process that works on it; more is
        /// an error. 0 means without limit. Vivace only.
        pub max_result_bytes: u64 = 268_435_456,
        /// Searches faster than this are within the objective; 0 means no objective.
        pub duration_slo: GoDuration = GoDuration::ZERO,
        /// Searches that read more bytes a second than this are within the objective.
        pub throughput_bytes_slo: f64 = 0.0,
        /// The objective of queries for names and values of tags.
        pub metadata_slo: SloConfig = SloConfig::default(),
    }
}

vivace_runtime::config_struct! {
    /// An objective.
    pub struct SloConfig {
        /// Faster is within; 0 means no objective.
        pub duration_slo: GoDuration = GoDuration::ZERO,
        /// More bytes a second are within.
        pub throughput_bytes_slo: f64 = 0.0,
    }
}

vivace_runtime::config_struct! {
    /// Traces by id.
    pub struct TraceByIdConfig {
        /// Parts into which the block ids are cut, 2 to 100000.
        pub query_shards: u64 = 50,
        /// Parts asked at once; 0 means all.
        pub concurrent_shards: u64 = 0,
        /// Blocks that one part should hold.
        pub blocks_per_shard: u64 = 30,
        /// Ask another system too, see `querier.trace_by_id.external`.
        pub external_enabled: bool = false,
        /// Allow leaving out spans of very large traces.
        pub span_pruning_enabled: bool = false,
        /// Leave them out unless the request says otherwise.
        pub span_pruning_enabled_by_default: bool = false,
        /// Faster is within the objective; 0 means no objective.
        pub duration_slo: GoDuration = GoDuration::ZERO,
        /// More bytes a second are within the objective.
        pub throughput_bytes_slo: f64 = 0.0,
    }
}

vivace_runtime::config_struct! {
    /// Metrics queries.
    pub struct MetricsConfig {
        /// Jobs of one query at once.
        pub concurrent_jobs: u64 = 1000,
        /// Bytes that one job should read.
        pub target_bytes_per_job: u64 = 104_857_600,
        /// Longest time range; 0 means without limit. A tenant's own limit wins.
        pub max_duration: GoDuration = GoDuration::hours(24),
        /// Younger data is asked of live-stores only.
        pub query_backend_after: GoDuration = GoDuration::minutes(15),
        /// Length of the time range of one job.
        pub interval: GoDuration = GoDuration::minutes(5),
        /// Faster is within the objective; 0 means no objective.
        pub duration_slo: GoDuration = GoDuration::ZERO,
        /// More bytes a second are within the objective.
        pub throughput_bytes_slo: f64 = 0.0,
        /// Exemplars in one answer.
        pub max_exemplars: u64 = 100,
        /// Series in one answer; 0 means without limit.
        pub max_response_series: u64 = 0,
        /// Parts, newest first, of a streaming answer.
        pub streaming_shards: u64 = 200,
        /// Steps in one answer.
        pub max_intervals: u64 = 10_000,
        /// Memory of the series of one query while they are added up; more is an error. 0 means without limit. Vivace only.
        pub max_series_bytes: u64 = 268_435_456,
    }
}

vivace_runtime::config_struct! {
    /// Weights of jobs in the queue: heavier jobs take the place of several.
    pub struct WeightsConfig {
        /// Weigh jobs.
        pub request_with_weights: bool = true,
        /// Weigh a repeated job more.
        pub retry_with_weights: bool = true,
        /// Conditions above which a job weighs more.
        pub max_traceql_conditions: u64 = 4,
        /// Regular expressions above which a job weighs more.
        pub max_regex_conditions: u64 = 1,
    }
}

vivace_runtime::config_struct! {
    /// Access for language models.
    pub struct McpServerConfig {
        /// Serve `/api/mcp`. Trace data then reaches a language model.
        pub enabled: bool = false,
    }
}

/// Why a query-frontend cannot run as configured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value out of its range.
    #[error("query_frontend.{key} is {value}, allowed is {range}")]
    Range {
        /// Key below `query_frontend`.
        key: &'static str,
        /// Its value.
        value: u64,
        /// What is allowed.
        range: &'static str,
    },
    /// A pattern that is no regular expression.
    #[error("query_frontend.url_deny_list: {pattern:?} is no regular expression: {reason}")]
    Pattern {
        /// As written.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Queries would skip data that live-stores alone have.
    #[error(
        "query_frontend.query_end_cutoff ({cutoff}) must not exceed query_frontend.search.query_backend_after ({after})"
    )]
    Cutoff {
        /// The cutoff.
        cutoff: GoDuration,
        /// The age.
        after: GoDuration,
    },
}

impl Config {
    /// Checks the values against their ranges and each other.
    ///
    /// # Errors
    ///
    /// A value is out of its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let above_zero = [
            ("max_batch_size", self.max_batch_size),
            ("search.concurrent_jobs", self.search.concurrent_jobs),
            ("search.target_bytes_per_job", self.search.target_bytes_per_job),
            ("metrics.concurrent_jobs", self.metrics.concurrent_jobs),
            ("metrics.target_bytes_per_job", self.metrics.target_bytes_per_job),
        ];
        for (key, value) in above_zero {
            if value == 0 {
                return Err(ConfigError::Range { key, value, range: "above 0" });
            }
        }
        for pattern in &self.url_deny_list {
            if let Err(error) = regex::Regex::new(pattern) {
                return Err(ConfigError::Pattern { pattern: pattern.clone(), reason: error.to_string() });
            }
        }
        if !(2..=100_000).contains(&self.trace_by_id.query_shards) {
            let value = self.trace_by_id.query_shards;
            return Err(ConfigError::Range { key: "trace_by_id.query_shards", value, range: "2 to 100000" });
        }
        if self.query_end_cutoff > self.search.query_backend_after {
            let (cutoff, after) = (self.query_end_cutoff, self.search.query_backend_after);
            return Err(ConfigError::Cutoff { cutoff, after });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_nonsense_is_named() {
        assert_eq!(Config::default().validate(), Ok(()));
        let trace_by_id = TraceByIdConfig { query_shards: 1, ..TraceByIdConfig::default() };
        assert_eq!(
            Config { trace_by_id, ..Config::default() }.validate().unwrap_err().to_string(),
            "query_frontend.trace_by_id.query_shards is 1, allowed is 2 to 100000"
        );
        let pattern = Config { url_deny_list: vec!["(".to_owned()], ..Config::default() };
        assert!(pattern.validate().unwrap_err().to_string().starts_with("query_frontend.url_deny_list: \"(\""));
    }
}
