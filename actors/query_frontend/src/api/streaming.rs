//! `tempopb.StreamingQuerier`: the same queries over gRPC, told while they run.
//!
//! A request becomes the parameters that it stands for and is checked as over HTTP. Every half second the client gets what has
//! changed, and in the end the whole answer; a message above `max_grpc_streaming_packet_size` is split. When the client goes
//! away the stream is dropped, and the query with it. The trailers say what was read (`x-vivace-coverage`,
//! `x-vivace-skipped`).

use std::pin::Pin;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use http::HeaderMap;
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};
use vivace_protocol::tempopb::streaming_querier_server::{StreamingQuerier, StreamingQuerierServer};
use vivace_protocol::tempopb::{
    QueryInstantRequest, QueryInstantResponse, QueryRangeRequest, QueryRangeResponse, SearchRequest, SearchResponse,
    SearchTagValuesRequest, SearchTagValuesResponse, SearchTagValuesV2Response, SearchTagsRequest, SearchTagsResponse,
    SearchTagsV2Response, SearchTagsV2Scope,
};
use vivace_protocol::{TenantId, tempopb};

use super::tags::{Version, flat_names, flat_values};
use super::{Api, metrics, search, tags, too_slow};
use crate::params::Params;
use crate::planner::{Progress, Search, Told, at_once, tell};
use crate::respond::Refusal;
use crate::tenant;

/// At most this often changes are told.
const EVERY: Duration = Duration::from_millis(500);
/// Requests above this are refused.
const MAX_REQUEST_BYTES: usize = 16 << 20;

/// The service over an [`Api`].
#[derive(Clone)]
pub(crate) struct Streaming(Api);

type Messages<M> = Pin<Box<dyn Stream<Item = Result<M, Status>> + Send>>;

impl Api {
    /// The service, ready to be served.
    pub(crate) fn streaming(self) -> StreamingQuerierServer<Streaming> {
        StreamingQuerierServer::new(Streaming(self))
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(MAX_REQUEST_BYTES)
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd)
    }
}

impl Streaming {
    fn tenants(&self, metadata: &MetadataMap) -> Result<Vec<TenantId>, Status> {
        let planner = &self.0.planner;
        let mut headers = HeaderMap::new();
        // Exactly one value names a tenant.
        let values: Vec<_> = metadata.get_all("x-scope-orgid").iter().collect();
        if let [value] = values.as_slice()
            && let Ok(value) = http::HeaderValue::from_bytes(value.as_bytes())
        {
            headers.insert(TenantId::HEADER, value);
        }
        tenant::tenants(&headers, planner.multitenancy, planner.config.multi_tenant_queries_enabled)
            .map_err(|refusal| refusal.status())
    }

    /// Checks a request, begins its query, and tells of it.
    fn begin<Q, P, M>(
        &self,
        request: &Request<Q>,
        params: impl FnOnce(&Q) -> Params,
        begin: impl FnOnce(&Api, &[TenantId], &Params) -> Result<P, Refusal>,
        message: impl Fn(P::Answer) -> M + Send + 'static,
    ) -> Result<Response<Messages<M>>, Status>
    where
        P: Progress,
        M: Parts,
    {
        let tenants = self.tenants(request.metadata())?;
        let params = params(request.get_ref());
        let query = self.0.check(&params).and_then(|()| begin(&self.0, &tenants, &params));
        let query = query.map_err(|refusal| refusal.status())?;
        let config = &self.0.planner.config;
        let max = usize::try_from(config.max_grpc_streaming_packet_size).unwrap_or(usize::MAX);
        let told = tell(query, self.0.planner.clock.clone(), EVERY).flat_map(move |told| {
            let messages = match told {
                Ok(Told::Changes(answer)) => split(message(answer), max),
                Ok(Told::Whole(answer, covered)) => {
                    let mut messages = split(message(answer), max);
                    // A status ends the stream, and its metadata are the trailers, also when it is OK.
                    messages.push(Err(Status::with_metadata(Code::Ok, "", covered.trailers())));
                    messages
                }
                Err(refusal) => vec![Err(refusal.status())],
            };
            stream::iter(messages)
        });
        Ok(Response::new(self.in_time(told.boxed())))
    }

    /// Ends a stream with an error after `api_timeout`.
    fn in_time<M: Send + 'static>(&self, told: BoxStream<'static, Result<M, Status>>) -> Messages<M> {
        let timeout: Duration = self.0.planner.config.api_timeout.into();
        if timeout.is_zero() {
            return told;
        }
        let late = self.0.planner.clock.sleep(timeout);
        let timed = stream::unfold(Some((told, late)), |state| async move {
            let (mut told, mut late) = state?;
            tokio::select! {
                biased;
                next = told.next() => next.map(|next| (next, Some((told, late)))),
                () = &mut late => Some((Err(too_slow().status()), None)),
            }
        });
        timed.boxed()
    }
}

/// A message whose entries can be spread over several messages.
pub(crate) trait Parts: Message + Default + Send + Sync + 'static {
    /// One entry, with what it needs to stand alone.
    type Entry: Send;

    /// The entries; the rest of the message stays.
    fn take_entries(&mut self) -> Vec<Self::Entry>;

    /// Adds an entry.
    fn put(&mut self, entry: Self::Entry);

    /// About the bytes of an entry in the message.
    fn bytes(entry: &Self::Entry) -> usize;

    /// What every message repeats.
    fn head(&self) -> Self;

    /// What only the last message has, besides its entries; `whole` is the message without entries.
    fn close(&mut self, _whole: &Self) {}
}

/// Splits a message into messages of at most `max` bytes (0: any); an entry above that is alone in its message.
pub(crate) fn split<M: Parts>(mut message: M, max: usize) -> Vec<Result<M, Status>> {
    if max == 0 || message.encoded_len() <= max {
        return vec![Ok(message)];
    }
    let entries = message.take_entries();
    let head = message.head();
    let room = max.saturating_sub(head.encoded_len());
    let (mut messages, mut current, mut bytes) = (Vec::new(), head.head(), 0);
    for entry in entries {
        // A key and a length come before every entry.
        let size = M::bytes(&entry) + 8;
        if bytes > 0 && bytes + size > room {
            messages.push(Ok(std::mem::replace(&mut current, head.head())));
            bytes = 0;
        }
        current.put(entry);
        bytes += size;
    }
    current.close(&message);
    messages.push(Ok(current));
    messages
}

impl Parts for SearchResponse {
    type Entry = tempopb::TraceSearchMetadata;

    fn take_entries(&mut self) -> Vec<Self::Entry> {
        std::mem::take(&mut self.traces)
    }

    fn put(&mut self, entry: Self::Entry) {
        self.traces.push(entry);
    }

    fn bytes(entry: &Self::Entry) -> usize {
        entry.encoded_len()
    }

    fn head(&self) -> Self {
        Self { traces: Vec::new(), metrics: self.metrics.clone() }
    }
}

impl Parts for SearchTagsResponse {
    type Entry = String;

    fn take_entries(&mut self) -> Vec<String> {
        std::mem::take(&mut self.tag_names)
    }

    fn put(&mut self, entry: String) {
        self.tag_names.push(entry);
    }

    fn bytes(entry: &String) -> usize {
        entry.len()
    }

    fn head(&self) -> Self {
        Self { tag_names: Vec::new(), metrics: self.metrics.clone() }
    }
}

impl Parts for SearchTagsV2Response {
    /// Scope and name.
    type Entry = (String, String);

    fn take_entries(&mut self) -> Vec<Self::Entry> {
        let scopes = std::mem::take(&mut self.scopes);
        scopes.into_iter().flat_map(|scope| scope.tags.into_iter().map(move |tag| (scope.name.clone(), tag))).collect()
    }

    fn put(&mut self, (name, tag): Self::Entry) {
        match self.scopes.last_mut() {
            Some(scope) if scope.name == name => scope.tags.push(tag),
            _ => self.scopes.push(SearchTagsV2Scope { name, tags: vec![tag] }),
        }
    }

    fn bytes((name, tag): &Self::Entry) -> usize {
        // The scope is counted with each of its names, which is never too little.
        name.len() + tag.len()
    }

    fn head(&self) -> Self {
        Self { scopes: Vec::new(), metrics: self.metrics.clone() }
    }
}

impl Parts for SearchTagValuesResponse {
    type Entry = String;

    fn take_entries(&mut self) -> Vec<String> {
        std::mem::take(&mut self.tag_values)
    }

    fn put(&mut self, entry: String) {
        self.tag_values.push(entry);
    }

    fn bytes(entry: &String) -> usize {
        entry.len()
    }

    fn head(&self) -> Self {
        Self { tag_values: Vec::new(), metrics: self.metrics.clone() }
    }
}

impl Parts for SearchTagValuesV2Response {
    type Entry = tempopb::TagValue;

    fn take_entries(&mut self) -> Vec<Self::Entry> {
        std::mem::take(&mut self.tag_values)
    }

    fn put(&mut self, entry: Self::Entry) {
        self.tag_values.push(entry);
    }

    fn bytes(entry: &Self::Entry) -> usize {
        entry.encoded_len()
    }

    fn head(&self) -> Self {
        Self { tag_values: Vec::new(), metrics: self.metrics.clone() }
    }
}

#[tonic::async_trait]
impl StreamingQuerier for Streaming {
    type SearchStream = Messages<SearchResponse>;
    type SearchTagsStream = Messages<SearchTagsResponse>;
    type SearchTagsV2Stream = Messages<SearchTagsV2Response>;
    type SearchTagValuesStream = Messages<SearchTagValuesResponse>;
    type SearchTagValuesV2Stream = Messages<SearchTagValuesV2Response>;
    type MetricsQueryRangeStream = Messages<QueryRangeResponse>;
    type MetricsQueryInstantStream = Messages<QueryInstantResponse>;

    async fn search(&self, request: Request<SearchRequest>) -> Result<Response<Self::SearchStream>, Status> {
        let begin = |api: &Api, tenants: &[TenantId], params: &Params| {
            let plan = search::plan(api, tenants, params)?;
            Ok(Search::new(&api.planner, tenants, plan))
        };
        self.begin(&request, search::parameters, begin, std::convert::identity)
    }

    async fn search_tags(
        &self,
        request: Request<SearchTagsRequest>,
    ) -> Result<Response<Self::SearchTagsStream>, Status> {
        let begin = |api: &Api, tenants: &[TenantId], params: &Params| tags::names(api, tenants, params, Version::One);
        self.begin(&request, tags::name_parameters, begin, flat_names)
    }

    async fn search_tags_v2(
        &self,
        request: Request<SearchTagsRequest>,
    ) -> Result<Response<Self::SearchTagsV2Stream>, Status> {
        let begin = |api: &Api, tenants: &[TenantId], params: &Params| tags::names(api, tenants, params, Version::Two);
        self.begin(&request, tags::name_parameters, begin, std::convert::identity)
    }

    async fn search_tag_values(
        &self,
        request: Request<SearchTagValuesRequest>,
    ) -> Result<Response<Self::SearchTagValuesStream>, Status> {
        let tag = request.get_ref().tag_name.clone();
        let begin =
            |api: &Api, tenants: &[TenantId], params: &Params| tags::values(api, tenants, params, &tag, Version::One);
        self.begin(&request, tags::value_parameters, begin, flat_values)
    }

    async fn search_tag_values_v2(
        &self,
        request: Request<SearchTagValuesRequest>,
    ) -> Result<Response<Self::SearchTagValuesV2Stream>, Status> {
        let tag = request.get_ref().tag_name.clone();
        let begin =
            |api: &Api, tenants: &[TenantId], params: &Params| tags::values(api, tenants, params, &tag, Version::Two);
        self.begin(&request, tags::value_parameters, begin, std::convert::identity)
    }

    async fn metrics_query_range(
        &self,
        request: Request<QueryRangeRequest>,
    ) -> Result<Response<Self::MetricsQueryRangeStream>, Status> {
        let begin =
            |api: &Api, tenants: &[TenantId], params: &Params| metrics::begin_stream(api, tenants, params, false);
        self.begin(&request, metrics::range_parameters, begin, std::convert::identity)
    }

    async fn metrics_query_instant(
        &self,
        request: Request<QueryInstantRequest>,
    ) -> Result<Response<Self::MetricsQueryInstantStream>, Status> {
        let begin =
            |api: &Api, tenants: &[TenantId], params: &Params| metrics::begin_stream(api, tenants, params, true);
        self.begin(&request, metrics::instant_parameters, begin, at_once)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tags(names: &[(u8, usize)]) -> SearchTagsV2Response {
        let mut answer = SearchTagsV2Response {
            metrics: Some(tempopb::MetadataMetrics { inspected_bytes: 9, ..tempopb::MetadataMetrics::default() }),
            ..SearchTagsV2Response::default()
        };
        let mut names = names.to_vec();
        names.sort_unstable();
        names.iter().for_each(|(scope, len)| answer.put((format!("scope{scope}"), "x".repeat(*len))));
        answer
    }

    proptest! {
        #[test]
        fn parts_are_small_and_joined_they_are_the_whole(
            names in prop::collection::vec((0_u8..3, 0_usize..40), 0..30),
            max in 60_usize..200,
        ) {
            let due = tags(&names);
            let mut joined = due.head();
            for part in split(due.clone(), max) {
                let mut part = part.unwrap();
                prop_assert!(part.encoded_len() <= max, "{} above {max}", part.encoded_len());
                prop_assert_eq!(&part.metrics, &due.metrics);
                part.take_entries().into_iter().for_each(|entry| joined.put(entry));
            }
            prop_assert_eq!(joined, due);
        }
    }

    #[test]
    fn an_entry_above_the_limit_is_told_alone() {
        let answer = SearchTagsResponse { tag_names: vec!["a".into(), "b".repeat(100), "c".into()], metrics: None };
        let parts: Vec<Vec<String>> = split(answer, 20).into_iter().map(|part| part.unwrap().tag_names).collect();
        assert_eq!(parts, [vec!["a".to_owned()], vec!["b".repeat(100)], vec!["c".to_owned()]]);
    }
}
