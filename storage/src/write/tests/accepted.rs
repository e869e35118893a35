//! The block that real Tempo accepted, frozen: it keeps loading, it keeps what acceptance rests on, and what is written today is
//! laid out like it. Where it comes from and what Tempo did with it stands in docs/compatibility.md.
//!
//! To freeze a block anew, after a change of the writer that is meant to be:
//!
//! ```sh
//! cargo test --profile ci -p vivace-storage -- --ignored --exact write::tests::accepted::freeze_a_block
//! ```
//!
//! and have Tempo read the new one, as described there, before it is committed.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use prost::Message as _;
use vivace_protocol::{
    TraceId,
    otlp::{collector::ExportTraceServiceRequest, trace::TracesData},
    slicer::{Limits, slice},
};

use super::*;
use crate::{
    LocalBlock, OpenBlock, find_trace,
    read::tests::{fixture, requests, spans},
    rows,
};

const FREEZE: &str =
    "cargo test --profile ci -p vivace-storage -- --ignored --exact write::tests::accepted::freeze_a_block";
const ID: Uuid = Uuid::from_u128(0x7669_7661_6365_4000_8000_0000_0000_0001);

fn folder() -> PathBuf {
    fixture("accepted/single-tenant").join(ID.to_string())
}

fn object(name: &str) -> Bytes {
    let path = folder().join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; `{FREEZE}` writes it", path.display())).into()
}

fn meta() -> BlockMeta {
    BlockMeta::from_json(&object("meta.json")).unwrap()
}

/// The recorded requests as the process stores them: cut by the slicer, parts in the order of arrival.
fn written_today() -> FinishedBlock {
    let mut traces = Traces::new();
    for body in requests() {
        let sliced = slice(&body, &Limits { max_attribute_bytes: 2048 }).unwrap();
        for trace in sliced.traces() {
            let mut part = bytes::BytesMut::new();
            sliced.encode_trace(trace, &mut part);
            traces.entry(trace.id().0).or_default().push(part.freeze());
        }
    }
    write(BlockSpec::new("single-tenant", ID, DedicatedColumns::defaults()), &traces)
}

/// How each column is laid out, without what depends on the size of pages.
fn layout(data: &Bytes) -> BTreeMap<String, String> {
    let metadata = metadata(data);
    let reader = SerializedFileReader::new(data.clone()).unwrap();
    let mut layout = BTreeMap::new();
    for (number, group) in metadata.row_groups().iter().enumerate() {
        let index = metadata.page_index_for_row_group(number);
        for (column, chunk) in group.columns().iter().enumerate() {
            let mut pages = reader.get_row_group(number).unwrap().get_column_page_reader(column).unwrap();
            let (mut dictionary, mut kinds) = (false, Vec::new());
            while let Some(page) = pages.get_next_page().unwrap() {
                match page.page_type() {
                    PageType::DICTIONARY_PAGE => dictionary = true,
                    kind => kinds.push(format!("{kind:?} {:?}", page.encoding())),
                }
            }
            kinds.sort();
            kinds.dedup();
            let text = format!(
                "{:?} {:?} dictionary {dictionary} {kinds:?} column index {}",
                chunk.column_type(),
                chunk.compression(),
                index.column_index(column).is_some(),
            );
            layout.insert(chunk.column_path().string(), text);
        }
    }
    layout
}

#[test]
fn the_accepted_block_keeps_loading_with_every_span_as_it_was_sent() {
    let block = OpenBlock::open(meta(), Arc::new(LocalBlock::open(folder()).unwrap())).unwrap();
    let sent: Vec<_> = requests()
        .into_iter()
        .flat_map(|body| ExportTraceServiceRequest::decode(body).unwrap().resource_spans)
        .collect();
    let sent = spans(&sent);
    let mut found = 0;
    for row in rows(&block) {
        let (id, trace) = row.unwrap();
        assert_eq!(find_trace(&block, id).unwrap(), Some(trace.clone()));
        let stored = spans(&TracesData::decode(trace).unwrap().resource_spans);
        assert_eq!(stored[&id], sent[&id], "{id}");
        found += 1;
    }
    assert_eq!(found, sent.len());
    assert_eq!(find_trace(&block, TraceId([9; 16])).unwrap(), None);
}

#[test]
fn the_accepted_block_has_what_acceptance_rests_on() {
    let (meta, data) = (meta(), object("data.parquet"));
    check_pins(&data, &meta);
    assert_eq!(meta.format, Version::V5);
    assert_eq!(meta.size, data.len() as u64);
    let length = u32::from_le_bytes(data[data.len() - 8..data.len() - 4].try_into().unwrap());
    assert_eq!(meta.footer_size, length);
    let index = RowGroupIndex::from_json(&object("index")).unwrap();
    assert_eq!(index.last_ids.len(), meta.total_records as usize);
    assert_eq!(meta.total_records as usize, metadata(&data).num_row_groups());
    let traces = recorded();
    assert_eq!(meta.total_objects, traces.len() as u64);
    for id in traces.keys() {
        let shard = object(&format!("bloom-{}", shard_of(id, meta.bloom_shards)));
        assert!(BloomFilter::from_object(shard).unwrap().may_contain(id));
    }
}

/// Tempo has read the frozen block, so it reads what is laid out like it.
#[test]
fn what_is_written_today_is_laid_out_as_the_accepted_block() {
    let (block, accepted) = (written_today(), object("data.parquet"));
    let (ours, theirs) = (layout(&data(&block)), layout(&accepted));
    let keys = |layout: &BTreeMap<String, String>| layout.keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&ours), keys(&theirs));
    for (path, accepted) in &theirs {
        assert_eq!(
            &ours[path], accepted,
            "{path} is laid out in another way than Tempo was seen to accept: have Tempo read such a block, then `{FREEZE}`"
        );
    }
    assert_eq!(read_leaves(data(&block)), read_leaves(accepted), "other values");
    let (mut today, frozen) = (block.meta.clone(), meta());
    // Sizes follow from compression.
    (today.size, today.footer_size, today.total_records) = (frozen.size, frozen.footer_size, frozen.total_records);
    assert_eq!(today, frozen);
}

#[test]
#[ignore = "writes the fixture: only to freeze a block anew, which Tempo must then read before it is committed"]
fn freeze_a_block() {
    let block = written_today();
    std::fs::remove_dir_all(fixture("accepted")).ok();
    std::fs::create_dir_all(folder()).unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(folder().join(name), bytes).unwrap();
    put("data.parquet", &data(&block));
    block.blooms.iter().enumerate().for_each(|(number, bloom)| put(&format!("bloom-{number}"), bloom));
    put("index", &block.index);
    put("meta.json", &block.meta.to_json());
    println!("written: {}", folder().display());
}
