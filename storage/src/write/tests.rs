//! Blocks written here, read by the `parquet` crate's own reader and compared with blocks that Tempo wrote.

mod accepted;
mod encoded;
mod leaves;

use std::collections::BTreeMap;

use parquet::{
    basic::{Encoding, PageType},
    column::page::Page,
    file::{
        metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader},
        reader::FileReader,
        serialized_reader::SerializedFileReader,
    },
};
use proptest::prelude::*;

use super::*;
use crate::{bloom::BloomFilter, shard_of};
use encoded::{TraceModel, by_trace, request};
use leaves::{Leaves, read_leaves};

const REQUESTS: [&[u8]; 4] = [
    include_bytes!("../../tests/fixtures/otlp/req-0.pb"),
    include_bytes!("../../tests/fixtures/otlp/req-1.pb"),
    include_bytes!("../../tests/fixtures/otlp/req-2.pb"),
    include_bytes!("../../tests/fixtures/otlp/req-3.pb"),
];
const TEMPO_DATA: &[u8] =
    include_bytes!("../../tests/fixtures/vparquet5/single-tenant/ecbeb5d1-3e1a-42cb-8100-087b5302bd41/data.parquet");
const TEMPO_META: &str =
    include_str!("../../tests/fixtures/vparquet5/single-tenant/ecbeb5d1-3e1a-42cb-8100-087b5302bd41/meta.json");
const TEMPO_BLOOM: &[u8] =
    include_bytes!("../../tests/fixtures/vparquet5/single-tenant/ecbeb5d1-3e1a-42cb-8100-087b5302bd41/bloom-0");

type Traces = BTreeMap<[u8; 16], Vec<Bytes>>;

fn recorded() -> Traces {
    let mut traces = Traces::new();
    for body in REQUESTS {
        for (id, part) in by_trace(body) {
            traces.entry(id).or_default().push(part);
        }
    }
    traces
}

fn spec() -> BlockSpec {
    BlockSpec::new("t", Uuid::from_u128(1), DedicatedColumns::defaults())
}

fn write(spec: BlockSpec, traces: &Traces) -> FinishedBlock {
    let mut writer = BlockWriter::new(spec).unwrap();
    for (id, parts) in traces {
        let added = writer.add_trace(*id, parts).unwrap();
        assert_eq!((added.damaged, added.leftover.len()), (0, 0));
    }
    writer.finish().unwrap()
}

fn data(block: &FinishedBlock) -> Bytes {
    Bytes::from(block.data.concat())
}

fn metadata(data: &Bytes) -> ParquetMetaData {
    ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional).parse_and_finish(data).unwrap()
}

#[test]
fn columns_equal_those_of_the_block_that_tempo_wrote() {
    let block = write(spec(), &recorded());
    let (ours, theirs) = (read_leaves(data(&block)), read_leaves(Bytes::from_static(TEMPO_DATA)));
    assert_eq!(ours.rows(), theirs.rows());
    let mut differing = Vec::new();
    for (path, rows) in &theirs.by_path {
        let mine = &ours.by_path[path];
        let wrong = rows.iter().zip(mine).filter(|(theirs, ours)| theirs != ours).count();
        if wrong > 0 {
            let (theirs, ours) = rows.iter().zip(mine).find(|(theirs, ours)| theirs != ours).unwrap();
            differing.push(format!("{path}: {wrong} rows, first {theirs:?}\n    ours {ours:?}"));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn metadata_and_blooms_equal_those_that_tempo_wrote() {
    let block = write(spec(), &recorded());
    let tempo = BlockMeta::from_json(TEMPO_META.as_bytes()).unwrap();
    let meta = &block.meta;
    assert_eq!(meta.total_objects, tempo.total_objects);
    assert_eq!(meta.dedicated_columns, tempo.dedicated_columns);
    assert_eq!((meta.start_time.secs(), meta.end_time.secs()), (tempo.start_time.secs(), tempo.end_time.secs()));
    assert_eq!((meta.total_records, meta.bloom_shards, meta.replication_factor), (1, 1, 1));
    assert_eq!(block.blooms, [Bytes::from_static(TEMPO_BLOOM)]);
    let data = data(&block);
    assert_eq!(meta.size, data.len() as u64);
    let length = u32::from_le_bytes(data[data.len() - 8..data.len() - 4].try_into().unwrap());
    assert_eq!(meta.footer_size, length);
    let last = *recorded().last_key_value().unwrap().0;
    assert_eq!(RowGroupIndex::from_json(&block.index).unwrap().last_ids, [last]);
    assert!(meta.size < tempo.size, "{} bytes, Tempo's block has {}", meta.size, tempo.size);
}

/// What real readers trip over, see the module's documentation.
fn check_pins(data: &Bytes, meta: &BlockMeta) {
    let schema = Schema::v5(&meta.dedicated_columns);
    let metadata = metadata(data);
    assert_eq!(schema.difference(metadata.file_metadata().schema_descr()), None);
    assert_eq!(**schema.root(), *metadata.file_metadata().schema_descr().root_schema_ptr());
    assert_eq!(metadata.num_row_groups(), meta.total_records as usize);
    let reader = SerializedFileReader::new(data.clone()).unwrap();
    let mut ids = Vec::new();
    for (number, group) in metadata.row_groups().iter().enumerate() {
        assert_eq!(group.ordinal(), Some(i32::try_from(number).unwrap()));
        let index = metadata.page_index_for_row_group(number);
        for (column, (leaf, chunk)) in schema.leaves().iter().zip(group.columns()).enumerate() {
            let repeated = leaf.max_rep > 0;
            assert_eq!(index.column_index(column).is_none(), repeated, "{}", leaf.path);
            let locations = index.page_locations(column).expect("every column has an offset index");
            let mut pages = reader.get_row_group(number).unwrap().get_column_page_reader(column).unwrap();
            let (mut encodings, mut count, mut levels) = (Vec::new(), 0, 0);
            while let Some(page) = pages.get_next_page().unwrap() {
                match page.page_type() {
                    PageType::DICTIONARY_PAGE => assert_eq!(count, 0, "the dictionary comes first"),
                    _ => {
                        assert!(page.num_values() > 0, "{}: empty page", leaf.path);
                        if let Page::DataPage { num_values, .. } = &page {
                            levels += i64::from(*num_values);
                        }
                        encodings.push(page.encoding());
                        count += 1;
                    }
                }
            }
            assert_eq!(count, locations.len(), "{}", leaf.path);
            assert_eq!(levels, chunk.num_values(), "{}", leaf.path);
            encodings.dedup();
            assert_eq!(encodings.len(), 1, "{}: one encoding a chunk", leaf.path);
            if leaf.leaf_type == crate::schema::LeafType::Bool {
                assert_eq!(encodings, [Encoding::PLAIN], "{}", leaf.path);
            }
            if leaf.path == "TraceID" {
                assert_ne!(encodings, [Encoding::RLE_DICTIONARY]);
            }
            let first_rows: Vec<i64> = locations.iter().map(|location| location.first_row_index).collect();
            assert!(first_rows[0] == 0 && first_rows.is_sorted_by(|a, b| a < b), "{}", leaf.path);
        }
    }
    let leaves = read_leaves(data.clone());
    ids.extend(leaves.by_path["TraceID"].iter().map(|row| row[0].value.clone().unwrap()));
    assert!(ids.is_sorted_by(|a, b| a < b), "rows ascend and are unique");
    assert_eq!(ids.len() as u64, meta.total_objects);
}

#[test]
fn what_readers_trip_over_is_absent_with_pages_and_row_groups_of_any_size() {
    let traces = recorded();
    for (page_bytes, row_group_bytes) in [(1, 100_000), (2_000, 300_000), (256 * 1024, u64::MAX)] {
        let block = write(BlockSpec { page_bytes, row_group_bytes, ..spec() }, &traces);
        check_pins(&data(&block), &block.meta);
        let index = RowGroupIndex::from_json(&block.index).unwrap();
        assert_eq!(index.last_ids.len(), block.meta.total_records as usize);
    }
}

#[test]
fn cutting_pages_and_row_groups_changes_no_value() {
    let traces = recorded();
    let whole = read_leaves(data(&write(spec(), &traces)));
    let cut = read_leaves(data(&write(BlockSpec { page_bytes: 500, row_group_bytes: 50_000, ..spec() }, &traces)));
    assert_eq!(whole, cut);
}

#[test]
fn data_taken_on_the_way_and_the_rest_make_up_the_file() {
    let traces = recorded();
    let spec = BlockSpec { row_group_bytes: 100_000, ..spec() };
    let whole = write(spec.clone(), &traces);
    let mut writer = BlockWriter::new(spec).unwrap();
    let mut taken = Vec::new();
    for (id, parts) in &traces {
        writer.add_trace(*id, parts).unwrap();
        taken.extend(writer.take_data());
    }
    assert!(!taken.is_empty());
    let block = writer.finish().unwrap();
    taken.extend(block.data);
    assert_eq!(read_leaves(Bytes::from(taken.concat())), read_leaves(data(&whole)));
    assert_eq!(block.meta.size, taken.iter().map(|part| part.len() as u64).sum::<u64>());
}

#[test]
fn a_span_sent_twice_is_stored_once() {
    let mut traces = recorded();
    let once = read_leaves(data(&write(spec(), &traces)));
    let mut writer = BlockWriter::new(spec()).unwrap();
    for (id, parts) in &mut traces {
        let again = parts.clone();
        parts.extend(again);
        let added = writer.add_trace(*id, parts).unwrap();
        assert_eq!(added.spans, added.duplicates);
    }
    assert_eq!(read_leaves(data(&writer.finish().unwrap())), once);
}

#[test]
fn rows_out_of_order_and_damaged_parts_leave_the_block_as_it_was() {
    let traces = recorded();
    let mut writer = BlockWriter::new(spec()).unwrap();
    let mut entries = traces.iter();
    let (first, parts) = entries.next().unwrap();
    let (second, others) = entries.next().unwrap();
    writer.add_trace(*second, others).unwrap();
    assert!(matches!(writer.add_trace(*first, parts), Err(Error::Order { .. })));
    assert!(matches!(writer.add_trace(*second, others), Err(Error::Order { .. })));
    let damaged = Bytes::copy_from_slice(&parts[0][..parts[0].len() - 1]);
    assert!(matches!(writer.add_trace([0xFF; 16], &[damaged]), Err(Error::Wire)));
    let only = Traces::from([(*second, others.clone())]);
    assert_eq!(read_leaves(data(&writer.finish().unwrap())), read_leaves(data(&write(spec(), &only))));
    let mut nothing = BlockWriter::new(spec()).unwrap();
    assert_eq!(nothing.add_trace(*first, &[Bytes::new()]).unwrap(), AddedTrace::default());
    assert!(matches!(nothing.finish(), Err(Error::Empty)));
}

#[test]
fn what_does_not_fit_a_row_comes_back() {
    let traces = recorded();
    let (id, parts) = traces.iter().find(|(_, parts)| parts.len() == 1).unwrap();
    let many = vec![parts[0].clone(); 5];
    let mut writer = BlockWriter::new(BlockSpec { max_trace_bytes: parts[0].len() * 2, ..spec() }).unwrap();
    let added = writer.add_trace(*id, &many).unwrap();
    assert_eq!((added.spans, added.duplicates, added.leftover.len()), (added.spans, added.spans, 3));
    let mut writer = BlockWriter::new(BlockSpec { max_trace_bytes: 1, ..spec() }).unwrap();
    assert_eq!(writer.add_trace(*id, &many).unwrap().leftover.len(), 4);
}

#[test]
fn times_stay_within_the_bounds_given() {
    let bounds = Some((Timestamp::from_secs(10), Timestamp::from_secs(20)));
    let block = write(BlockSpec { time_bounds: bounds, ..spec() }, &recorded());
    assert_eq!((block.meta.start_time, block.meta.end_time), (Timestamp::from_secs(20), Timestamp::from_secs(20)));
}

#[test]
fn every_id_is_in_its_bloom_shard() {
    let traces = recorded();
    let bloom = BloomSpec { shard_bytes: 32, false_positives: 0.01 };
    let block = write(BlockSpec { bloom, ..spec() }, &traces);
    assert!(block.blooms.len() > 1 && block.blooms.len() == block.meta.bloom_shards as usize);
    for id in traces.keys() {
        let shard = block.blooms[shard_of(id, block.meta.bloom_shards) as usize].clone();
        assert!(BloomFilter::from_object(shard).unwrap().may_contain(id));
    }
}

fn leaves_of(models: &[TraceModel], page_bytes: usize, row_group_bytes: u64) -> (Leaves, Bytes, BlockMeta) {
    let mut dedicated = DedicatedColumns::defaults();
    for (scope, name, value_type) in encoded::DEDICATED {
        dedicated.0.push(crate::DedicatedColumn::new(scope, name, value_type));
    }
    let spec = BlockSpec { page_bytes, row_group_bytes, ..BlockSpec::new("t", Uuid::nil(), dedicated) };
    let traces: Traces =
        models.iter().flat_map(|model| by_trace(&request(model))).fold(Traces::new(), |mut traces, (id, part)| {
            traces.entry(id).or_default().push(part);
            traces
        });
    let block = write(spec, &traces);
    let data = data(&block);
    (read_leaves(data.clone()), data, block.meta)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_traces_give_sound_files_with_every_value(models in proptest::collection::vec(encoded::trace_model(), 1..6)) {
        let (whole, file, meta) = leaves_of(&models, 1 << 20, u64::MAX);
        check_pins(&file, &meta);
        let (cut, file, meta) = leaves_of(&models, 1, 400);
        check_pins(&file, &meta);
        prop_assert_eq!(&whole, &cut);
        encoded::check_values(&models, &whole)?;
    }
}
