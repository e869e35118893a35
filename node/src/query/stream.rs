//! The streaming gRPC API: the same questions, answered piece by piece with word of how far the query is.
//!
//! Every message brings what changed and the last ones bring everything; entries replace earlier ones of the same key.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use prost::Message;
use tonic::codec::Streaming;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use vivace_protocol::otlp::common::KeyValue;
use vivace_protocol::tempopb::streaming_querier_client::StreamingQuerierClient;
use vivace_protocol::{json, tempopb};

use super::Failure;
use super::progress::Progress;

const CONNECT: Duration = Duration::from_secs(5);
const MAX_MESSAGE: usize = 64 << 20;

/// A connection to the streaming API.
pub(super) struct Querier {
    address: String,
    tenant: Option<MetadataValue<tonic::metadata::Ascii>>,
    client: StreamingQuerierClient<Channel>,
}

/// A whole answer in the JSON of the HTTP API, and what its trailers say was read.
#[derive(Debug)]
pub(super) struct Streamed {
    pub(super) json: Vec<u8>,
    pub(super) coverage: Option<String>,
}

impl Querier {
    pub(super) async fn connect(address: &str, tenant: Option<&str>) -> Result<Self, Failure> {
        let tenant = tenant.map(str::parse).transpose();
        let tenant = tenant.map_err(|_invalid| Failure("-tenant has characters that no header may have".to_owned()))?;
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| Failure(format!("-grpc={address}: {error}; it looks like localhost:9095")))?;
        let channel = endpoint.connect_timeout(CONNECT).connect().await;
        let channel =
            channel.map_err(|error| Failure(super::http::unreachable(address, &super::chain(&error), "-grpc")))?;
        let client = StreamingQuerierClient::new(channel).max_decoding_message_size(MAX_MESSAGE);
        Ok(Self { address: address.to_owned(), tenant, client })
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(tenant) = &self.tenant {
            request.metadata_mut().insert("x-scope-orgid", tenant.clone());
        }
        request
    }

    pub(super) async fn search(
        mut self,
        ask: tempopb::SearchRequest,
        progress: &mut Progress,
    ) -> Result<Streamed, Failure> {
        let limit = usize::try_from(ask.limit).ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
        let request = self.request(ask);
        let mut traces: BTreeMap<String, tempopb::TraceSearchMetadata> = BTreeMap::new();
        let mut metrics = None;
        let take = |message: tempopb::SearchResponse| {
            metrics.clone_from(&message.metrics);
            traces.extend(message.traces.into_iter().map(|trace| (trace.trace_id.clone(), trace)));
            metrics.as_ref().map(jobs)
        };
        let coverage = receive(&self.address, self.client.search(request), progress, take).await?;
        let mut traces: Vec<_> = traces.into_values().collect();
        traces.sort_by_key(|trace| std::cmp::Reverse(trace.start_time_unix_nano));
        traces.truncate(limit);
        Ok(Streamed { json: json::to_vec(&tempopb::SearchResponse { traces, metrics }), coverage })
    }

    pub(super) async fn tags(
        mut self,
        ask: tempopb::SearchTagsRequest,
        progress: &mut Progress,
    ) -> Result<Streamed, Failure> {
        let request = self.request(ask);
        let mut scopes: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut metrics = None;
        let take = |message: tempopb::SearchTagsV2Response| {
            metrics.clone_from(&message.metrics);
            for scope in message.scopes {
                let known = scopes.entry(scope.name).or_default();
                known.extend(scope.tags);
                known.sort();
                known.dedup();
            }
            metrics.as_ref().map(metadata_jobs)
        };
        let coverage = receive(&self.address, self.client.search_tags_v2(request), progress, take).await?;
        let scopes = scopes.into_iter().map(|(name, tags)| tempopb::SearchTagsV2Scope { name, tags }).collect();
        Ok(Streamed { json: json::to_vec(&tempopb::SearchTagsV2Response { scopes, metrics }), coverage })
    }

    pub(super) async fn values(
        mut self,
        ask: tempopb::SearchTagValuesRequest,
        progress: &mut Progress,
    ) -> Result<Streamed, Failure> {
        let request = self.request(ask);
        let mut values: BTreeMap<(String, String), tempopb::TagValue> = BTreeMap::new();
        let mut metrics = None;
        let take = |message: tempopb::SearchTagValuesV2Response| {
            metrics.clone_from(&message.metrics);
            let keyed = message.tag_values.into_iter().map(|tag| ((tag.r#type.clone(), tag.value.clone()), tag));
            values.extend(keyed);
            metrics.as_ref().map(metadata_jobs)
        };
        let coverage = receive(&self.address, self.client.search_tag_values_v2(request), progress, take).await?;
        let tag_values = values.into_values().collect();
        Ok(Streamed { json: json::to_vec(&tempopb::SearchTagValuesV2Response { tag_values, metrics }), coverage })
    }

    pub(super) async fn range(
        mut self,
        ask: tempopb::QueryRangeRequest,
        progress: &mut Progress,
    ) -> Result<Streamed, Failure> {
        let request = self.request(ask);
        let mut merged = RangeSeries::default();
        let mut last = tempopb::QueryRangeResponse::default();
        let take = |mut message: tempopb::QueryRangeResponse| {
            merged.add(std::mem::take(&mut message.series));
            last = message;
            last.metrics.as_ref().map(jobs)
        };
        let coverage = receive(&self.address, self.client.metrics_query_range(request), progress, take).await?;
        last.series = merged.finish();
        Ok(Streamed { json: json::to_vec(&last), coverage })
    }

    pub(super) async fn instant(
        mut self,
        ask: tempopb::QueryInstantRequest,
        progress: &mut Progress,
    ) -> Result<Streamed, Failure> {
        let request = self.request(ask);
        let mut series: BTreeMap<Vec<u8>, tempopb::InstantSeries> = BTreeMap::new();
        let mut last = tempopb::QueryInstantResponse::default();
        let take = |mut message: tempopb::QueryInstantResponse| {
            series.extend(message.series.drain(..).map(|series| (key(&series.labels), series)));
            last = message;
            last.metrics.as_ref().map(jobs)
        };
        let coverage = receive(&self.address, self.client.metrics_query_instant(request), progress, take).await?;
        last.series = series.into_values().collect();
        Ok(Streamed { json: json::to_vec(&last), coverage })
    }
}

/// Jobs done, jobs in all, bytes read.
type Jobs = (u32, u32, u64);

fn jobs(metrics: &tempopb::SearchMetrics) -> Jobs {
    (metrics.completed_jobs, metrics.total_jobs, metrics.inspected_bytes)
}

fn metadata_jobs(metrics: &tempopb::MetadataMetrics) -> Jobs {
    (metrics.completed_jobs, metrics.total_jobs, metrics.inspected_bytes)
}

/// Takes every message and gives what the trailers say was read.
async fn receive<T>(
    address: &str,
    call: impl Future<Output = Result<Response<Streaming<T>>, Status>>,
    progress: &mut Progress,
    mut take: impl FnMut(T) -> Option<Jobs>,
) -> Result<Option<String>, Failure> {
    let began = Instant::now();
    let failed = |status: Status| Failure(refusal(address, &status));
    let mut messages = call.await.map_err(failed)?.into_inner();
    while let Some(message) = messages.message().await.map_err(failed)? {
        if let Some((done, total, bytes)) = take(message) {
            progress.jobs(done, total, bytes, began.elapsed());
        }
    }
    let trailers = messages.trailers().await.map_err(failed)?;
    let coverage = trailers.and_then(|trailers| trailers.get("x-vivace-coverage")?.to_str().ok().map(str::to_owned));
    Ok(coverage)
}

fn refusal(address: &str, status: &Status) -> String {
    let hint = match status.code() {
        Code::Unimplemented => " (has the listener at -grpc the streaming API? else leave out -grpc)",
        Code::Unknown if status.message().contains("no org id") => " (say whose data with -tenant)",
        Code::ResourceExhausted | Code::Unavailable => " (try again)",
        Code::DeadlineExceeded => " (narrow the window or the query)",
        _ => "",
    };
    let text = super::table::plain(status.message());
    format!("{address} answered {:?}: {text}{hint}", status.code())
}

fn key(labels: &[KeyValue]) -> Vec<u8> {
    labels.iter().flat_map(Message::encode_length_delimited_to_vec).collect()
}

/// Series of several messages, in the order in which they first came.
#[derive(Debug, Default)]
struct RangeSeries {
    places: BTreeMap<Vec<u8>, usize>,
    series: Vec<(tempopb::TimeSeries, BTreeMap<i64, f64>)>,
}

impl RangeSeries {
    fn add(&mut self, series: Vec<tempopb::TimeSeries>) {
        for mut one in series {
            let samples = one.samples.drain(..).map(|sample| (sample.timestamp_ms, sample.value));
            let samples: Vec<_> = samples.collect();
            let place = *self.places.entry(key(&one.labels)).or_insert(self.series.len());
            match self.series.get_mut(place) {
                None => self.series.push((one, samples.into_iter().collect())),
                Some((known, points)) => {
                    points.extend(samples);
                    for exemplar in one.exemplars {
                        if !known.exemplars.contains(&exemplar) {
                            known.exemplars.push(exemplar);
                        }
                    }
                }
            }
        }
    }

    fn finish(self) -> Vec<tempopb::TimeSeries> {
        let whole = self.series.into_iter().map(|(series, points)| {
            let samples = points.into_iter().map(|(timestamp_ms, value)| tempopb::Sample { value, timestamp_ms });
            tempopb::TimeSeries { samples: samples.collect(), ..series }
        });
        whole.collect()
    }
}

#[cfg(test)]
mod tests {
    use vivace_protocol::otlp::common::{AnyValue, any_value};

    use super::*;

    fn series(name: &str, points: &[(i64, f64)]) -> tempopb::TimeSeries {
        let value = Some(AnyValue { value: Some(any_value::Value::StringValue(name.to_owned())) });
        let samples =
            points.iter().map(|(timestamp_ms, value)| tempopb::Sample { value: *value, timestamp_ms: *timestamp_ms });
        tempopb::TimeSeries {
            labels: vec![KeyValue { key: "name".to_owned(), value, ..KeyValue::default() }],
            samples: samples.collect(),
            exemplars: vec![tempopb::Exemplar { labels: Vec::new(), value: 1.0, timestamp_ms: 5 }],
        }
    }

    #[test]
    fn later_points_replace_earlier_ones_and_pieces_of_a_series_join() {
        let mut merged = RangeSeries::default();
        merged.add(vec![series("a", &[(20, 1.0)]), series("b", &[(20, 9.0)])]);
        merged.add(vec![series("a", &[(10, 2.0), (20, 3.0)])]);
        let whole = merged.finish();
        assert_eq!(whole.len(), 2);
        let points: Vec<_> = whole[0].samples.iter().map(|sample| (sample.timestamp_ms, sample.value)).collect();
        assert_eq!(points, [(10, 2.0), (20, 3.0)]);
        assert_eq!(whole[0].exemplars.len(), 1);
    }

    #[test]
    fn refusals_say_what_to_do() {
        let told = refusal("h:1", &Status::unknown("no org id"));
        assert_eq!(told, "h:1 answered Unknown: no org id (say whose data with -tenant)");
    }
}
