//! Blocks that Tempo wrote, against the requests that it had received.

mod decoders;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use prost::Message;
use vivace_protocol::{
    TraceId,
    combine::{Batching, Combine},
    otlp::{
        collector::ExportTraceServiceRequest,
        common::KeyValue,
        trace::{ResourceSpans, TracesData},
    },
};

use super::*;
use crate::meta::BlockMeta;

const V5: &str = "vparquet5/single-tenant/ecbeb5d1-3e1a-42cb-8100-087b5302bd41";
const V4: &str = "vparquet4/single-tenant/0e6f0ad1-4286-4f18-ab9d-7b2aa041b497";

pub(crate) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn open(name: &str) -> OpenBlock {
    let folder = fixture(name);
    let meta = BlockMeta::from_json(&std::fs::read(folder.join("meta.json")).unwrap()).unwrap();
    OpenBlock::open(meta, Arc::new(LocalBlock::open(folder).unwrap())).unwrap()
}

pub(crate) fn open_v5() -> OpenBlock {
    open(V5)
}

pub(crate) fn open_v4() -> OpenBlock {
    open(V4)
}

pub(crate) fn requests() -> Vec<Bytes> {
    (0..4).map(|n| std::fs::read(fixture(&format!("otlp/req-{n}.pb"))).unwrap().into()).collect()
}

fn attributes(list: &[KeyValue]) -> BTreeSet<String> {
    list.iter().map(|attribute| format!("{attribute:?}")).collect()
}

/// Every span with all that surrounds it as text, in an order of its own.
pub(crate) fn spans(batches: &[ResourceSpans]) -> BTreeMap<TraceId, BTreeSet<String>> {
    let mut traces: BTreeMap<TraceId, BTreeSet<String>> = BTreeMap::new();
    for batch in batches {
        let resource = batch.resource.clone().unwrap_or_default();
        for scoped in &batch.scope_spans {
            let scope = scoped.scope.clone().unwrap_or_default();
            for span in &scoped.spans {
                let mut bare = span.clone();
                bare.attributes.clear();
                bare.flags = 0;
                bare.status = Some(bare.status.unwrap_or_default());
                for event in &mut bare.events {
                    event.attributes.sort_by(|a, b| a.key.cmp(&b.key));
                }
                for link in &mut bare.links {
                    link.flags = 0;
                    link.attributes.sort_by(|a, b| a.key.cmp(&b.key));
                }
                let text = format!(
                    "{bare:?} {:?} in {:?} {} of {} {} {:?} {}",
                    attributes(&span.attributes),
                    attributes(&resource.attributes),
                    resource.dropped_attributes_count,
                    scope.name,
                    scope.version,
                    attributes(&scope.attributes),
                    scope.dropped_attributes_count,
                );
                let id = record::trace_id(&span.trace_id);
                traces.entry(id).or_default().insert(text);
            }
        }
    }
    traces
}

fn sent() -> BTreeMap<TraceId, BTreeSet<String>> {
    let batches: Vec<ResourceSpans> = requests()
        .into_iter()
        .flat_map(|body| ExportTraceServiceRequest::decode(body).unwrap().resource_spans)
        .collect();
    spans(&batches)
}

fn decoded(trace: Bytes) -> BTreeMap<TraceId, BTreeSet<String>> {
    spans(&TracesData::decode(trace).unwrap().resource_spans)
}

fn same(found: &BTreeMap<TraceId, BTreeSet<String>>, sent: &BTreeMap<TraceId, BTreeSet<String>>) {
    assert_eq!(found.keys().collect::<Vec<_>>(), sent.keys().collect::<Vec<_>>());
    for (id, spans) in sent {
        let missing: Vec<_> = spans.difference(&found[id]).collect();
        let added: Vec<_> = found[id].difference(spans).collect();
        assert!(missing.is_empty() && added.is_empty(), "{id}:\n missing {missing:#?}\n added {added:#?}");
    }
}

#[test]
fn all_traces_of_a_vparquet5_block_are_what_was_sent() {
    let block = open_v5();
    let mut found = BTreeMap::new();
    let mut last = None;
    for row in rows(&block) {
        let (id, trace) = row.unwrap();
        assert!(last.replace(id) < Some(id), "ids ascend");
        found.extend(decoded(trace));
    }
    same(&found, &sent());
}

#[test]
fn all_traces_of_a_vparquet4_block_are_what_was_sent() {
    let block = open_v4();
    let found = rows(&block).flat_map(|row| decoded(row.unwrap().1)).collect();
    same(&found, &sent());
}

#[test]
fn each_trace_is_found_by_its_id() {
    for block in [open_v5(), open_v4()] {
        for row in rows(&block) {
            let (id, trace) = row.unwrap();
            assert_eq!(find_trace(&block, id).unwrap(), Some(trace));
        }
    }
}

#[test]
fn the_pieces_of_a_row_are_traces_and_together_the_row() {
    let merged = |parts: &[Bytes]| Combine { max_bytes: 0, batching: Batching::Merge }.parts(parts).unwrap();
    for block in [open_v5(), open_v4()] {
        for row in rows(&block) {
            let (id, trace) = row.unwrap();
            let at = locate_trace(&block, id).unwrap().unwrap();
            for most in [1, 700, 5_000, usize::MAX] {
                let pieces = read_trace_in_pieces(&block, at, most, 0..=u64::MAX).unwrap();
                assert!(pieces[..pieces.len() - 1].iter().all(|piece| piece.len() >= most));
                assert_eq!(merged(&pieces), merged(std::slice::from_ref(&trace)));
                match most {
                    1 => assert_eq!(pieces.len(), merged(&pieces).span_count),
                    usize::MAX => assert_eq!(pieces, std::slice::from_ref(&trace)),
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn an_unknown_id_is_not_found_and_a_missing_bloom_object_is_an_error() {
    let block = open_v5();
    assert_eq!(find_trace(&block, TraceId([9; 16])).unwrap(), None);
    let folder = fixture(V5);
    let data = Bytes::from(std::fs::read(folder.join("data.parquet")).unwrap());
    let bare = OpenBlock::open(block.meta().clone(), Arc::new(MemoryBlock::new(data, Vec::new()))).unwrap();
    assert!(matches!(find_trace(&bare, TraceId([9; 16])), Err(Error::Missing(_))));
}

#[test]
fn a_block_whose_meta_lists_other_columns_is_refused() {
    let block = open_v5();
    let folder = fixture(V5);
    let mut meta = block.meta().clone();
    meta.dedicated_columns.0.pop();
    let error = OpenBlock::open(meta, Arc::new(LocalBlock::open(&folder).unwrap())).unwrap_err();
    assert!(matches!(error, Error::Schema(_)), "{error}");
    let mut meta = block.meta().clone();
    meta.footer_size += 1;
    assert!(OpenBlock::open(meta.clone(), Arc::new(LocalBlock::open(&folder).unwrap())).is_err());
    meta.footer_size = 0;
    assert!(OpenBlock::open(meta, Arc::new(LocalBlock::open(&folder).unwrap())).is_ok());
}

#[test]
fn a_damaged_block_gives_errors_or_other_traces_but_never_a_panic() {
    let folder = fixture(V5);
    let data = std::fs::read(folder.join("data.parquet")).unwrap();
    let meta = open_v5().meta().clone();
    let pages = data.len() - 40_000;
    for step in 0..60usize {
        let mut bad = data.clone();
        for n in 0..20 {
            let at = (step * 7919 + n * 104_729) % pages;
            bad[at] = bad[at].wrapping_add(1 + u8::try_from(step).unwrap());
        }
        let objects = Arc::new(MemoryBlock::new(bad.into(), Vec::new()));
        let Ok(block) = OpenBlock::open(meta.clone(), objects) else { continue };
        // With checksums every change is noticed; without, it must at least do no harm.
        assert!(rows(&block).any(|row| row.is_err()));
        let block = block.without_checksums();
        assert!(rows(&block).count() <= 128);
    }
}
