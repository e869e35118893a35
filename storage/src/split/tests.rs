use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use prost::Message;
use vivace_protocol::otlp::{
    common::{AnyValue, KeyValue, any_value::Value},
    resource::Resource,
    trace::{ResourceSpans, ScopeSpans, Span, Status, TracesData, span::Event},
};

use super::*;
use crate::{
    BlockSpec, CompactError, CompactSpec, DedicatedColumns, MemoryBlock, OpenBlock, Received, TenantIndex, compact,
    encode_block, find_trace,
};

/// Traces with their parts, each of a span.
pub(crate) type Traces = Vec<(TraceId, Vec<Bytes>)>;

const MILLI: u64 = 1_000_000;
pub(crate) const BEGIN_MS: u64 = 1_700_000_000_000;
const RECEIVED_MS: i64 = 1_700_001_000_000;

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// So many traces of trees of up to so many spans, all by chance. The first span of each is the root; of one in ten the parent
/// is not there.
pub(crate) fn drawn(count: u8, spans: u64, seed: u64) -> Traces {
    let mut state = seed;
    let mut draw = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut traces = Traces::new();
    for number in 1..=count {
        let begin = BEGIN_MS + draw(20) * 1000;
        let id = |place: u64| (u64::from(number) << 32 | (place + 1)).to_be_bytes().to_vec();
        let mut parts = Vec::new();
        for place in 0..1 + draw(spans) {
            let start = (begin + draw(80)) * MILLI;
            let value = match draw(3) {
                0 => Value::StringValue(["x", "y"][usize::try_from(draw(2)).unwrap()].to_owned()),
                1 => Value::IntValue(draw(5).cast_signed()),
                _ => Value::BoolValue(draw(2) == 0),
            };
            let event = Event { name: format!("e{}", draw(3)), time_unix_nano: start, ..Event::default() };
            let parent = if draw(10) == 0 { id(1 << 20) } else { id(draw(place.max(1))) };
            let span = Span {
                trace_id: vec![number; 16],
                span_id: id(place),
                parent_span_id: if place == 0 { Vec::new() } else { parent },
                name: ["a", "b", "c"][usize::try_from(draw(3)).unwrap()].to_owned(),
                kind: i32::try_from(draw(6)).unwrap(),
                start_time_unix_nano: start,
                end_time_unix_nano: start + draw(90) * MILLI,
                attributes: vec![attribute("k", value), attribute("n", Value::IntValue(draw(9).cast_signed()))],
                events: vec![event; usize::try_from(draw(3)).unwrap()],
                status: Some(Status { code: [0, 0, 2][usize::try_from(draw(3)).unwrap()], ..Status::default() }),
                ..Span::default()
            };
            let service =
                attribute("service.name", Value::StringValue(["shop", "cart"][usize::from(draw(2) == 0)].to_owned()));
            let resource = Some(Resource { attributes: vec![service], ..Resource::default() });
            let scope_spans = vec![ScopeSpans { spans: vec![span], ..ScopeSpans::default() }];
            let batch = ResourceSpans { resource, scope_spans, ..ResourceSpans::default() };
            parts.push(TracesData { resource_spans: vec![batch] }.encode_to_vec().into());
        }
        // They arrive in any order.
        for at in (1..parts.len()).rev() {
            parts.swap(at, usize::try_from(draw(at as u64 + 1)).unwrap());
        }
        traces.push((TraceId([number; 16]), parts));
    }
    traces
}

/// The traces as blocks whose rows have so many bytes at most, as those who write blocks make them.
pub(crate) fn encoded(traces: &Traces, max_trace_bytes: usize) -> Vec<Arc<OpenBlock>> {
    let (mut blocks, mut metas, mut rest) = (Vec::new(), Vec::new(), traces.clone());
    while !rest.is_empty() {
        let id = Uuid::from_u128(7 << 64 | metas.len() as u128);
        let mut spec = BlockSpec::new("t", id, DedicatedColumns::defaults());
        (spec.max_trace_bytes, spec.row_group_bytes, spec.page_entries) = (max_trace_bytes, 4000, 16);
        spec.continued = Continued::after(&metas);
        let received = Received { between_ms: (RECEIVED_MS, RECEIVED_MS), slack: Duration::ZERO };
        let encoded = encode_block(spec, rest.iter().map(|(id, parts)| (*id, &parts[..])), received, false).unwrap();
        let block = encoded.block.unwrap();
        metas.push(block.meta.clone());
        blocks.push(opened(block));
        rest = encoded.leftover;
    }
    blocks
}

fn opened(block: crate::FinishedBlock) -> Arc<OpenBlock> {
    let data: Vec<u8> = block.data.into_iter().flatten().collect();
    let blooms = block.blooms.into_iter().enumerate().map(|(shard, bloom)| (format!("bloom-{shard}"), bloom));
    Arc::new(OpenBlock::open(block.meta, Arc::new(MemoryBlock::new(data.into(), blooms.collect()))).unwrap())
}

#[test]
fn a_part_is_told_as_text_and_comes_back() {
    let part = SplitTrace { trace: TraceId([0xab; 16]), first: Uuid::from_u128(5), part: 3, received_ms: -9 };
    let json = serde_json::to_string(&part).unwrap();
    assert!(json.contains(&format!(r#""traceID":"{}""#, "ab".repeat(16))), "{json}");
    assert_eq!(serde_json::from_str::<SplitTrace>(&json).unwrap(), part);
    assert!(serde_json::from_str::<SplitTrace>(&json.replace("abab", "xyxy")).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn blocks_say_which_traces_go_on_elsewhere_and_when_these_are(seed in any::<u64>(), most in 200usize..2000) {
        let traces = drawn(5, 30, seed);
        let (blocks, whole) = (encoded(&traces, most), encoded(&traces, usize::MAX));
        prop_assert!(whole.len() == 1 && whole[0].meta().split_traces.is_empty());
        for (id, _) in &traces {
            let own: Vec<&OpenBlock> =
                blocks.iter().map(|block| &**block).filter(|block| find_trace(block, *id).unwrap().is_some()).collect();
            let marks: Vec<Vec<SplitTrace>> = own
                .iter()
                .map(|block| block.meta().split_traces.iter().filter(|mark| mark.trace == *id).copied().collect())
                .collect();
            if own.len() == 1 {
                prop_assert!(marks[0].is_empty());
                continue;
            }
            let first = blocks[0].meta().block_id;
            for (part, marks) in (0..).zip(marks) {
                prop_assert_eq!(marks, vec![SplitTrace { trace: *id, first, part, received_ms: RECEIVED_MS }]);
            }
            let alone = encoded(&vec![traces.iter().find(|(other, _)| other == id).unwrap().clone()], usize::MAX);
            for block in own {
                let (meta, of_trace) = (block.meta(), alone[0].meta());
                prop_assert!(meta.start_time <= of_trace.start_time && meta.end_time >= of_trace.end_time);
            }
        }
    }
}

#[test]
fn metadata_with_marks_comes_back_in_all_forms() {
    let meta = encoded(&drawn(2, 30, 3), 500)[0].meta().clone();
    assert!(!meta.split_traces.is_empty());
    assert_eq!(BlockMeta::from_json(&meta.to_json()).unwrap(), meta);
    let index = TenantIndex { meta: vec![BlockMeta { start_time: Timestamp(1), ..meta }], ..TenantIndex::default() };
    assert_eq!(TenantIndex::from_proto(&index.to_proto().unwrap()).unwrap(), index);
}

fn merged(inputs: &[&OpenBlock], drop: &dyn Fn(TraceId) -> bool) -> Result<Arc<OpenBlock>, CompactError> {
    let block = BlockSpec::new("t", Uuid::from_u128(9), DedicatedColumns::defaults());
    let mut before = Vec::new();
    let mut data = |part| before.push(part);
    let mut finished = compact(inputs, CompactSpec { block, drop, data: &mut data, go_on: &|| true })?;
    before.append(&mut finished.data);
    finished.data = before;
    Ok(opened(finished))
}

#[test]
fn merging_keeps_the_marks_and_keeps_parts_of_one_trace_apart() {
    let (split, other) = (encoded(&drawn(2, 30, 3), 500), encoded(&drawn(4, 3, 8), usize::MAX));
    assert!(split.len() > 2 && !split[1].meta().split_traces.is_empty());
    let out = merged(&[&split[1], &other[0]], &|_| false).unwrap();
    assert_eq!(out.meta().split_traces, split[1].meta().split_traces);
    let gone = split[1].meta().split_traces[0].trace;
    let out = merged(&[&split[1], &other[0]], &|id| id == gone).unwrap();
    assert!(out.meta().split_traces.iter().all(|mark| mark.trace != gone));
    assert!(matches!(merged(&[&split[0], &other[0], &split[1]], &|_| false), Err(CompactError::TooLarge(_))));
}
