//! Fuzzing of everything that is read out of a bucket: pages, runs, footers, whole blocks behind their checksums, and the
//! small objects beside them. Whatever the bytes, an error or an answer; never a panic, never more than they can hold.

use vivace_fuzzkit::{Campaign, likeness};
use vivace_protocol::TraceId;

use super::*;
use crate::{
    BlockMeta, BlockSpec, BlockWriter, BloomFilter, DedicatedColumns, MemoryBlock, OpenBlock, RowGroupIndex,
    TenantIndex, find_trace,
    read::{delta, error::Error, levels::Levels, rle},
    rows,
};

const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");
const PHYSICALS: [Physical; 5] =
    [Physical::ByteArray, Physical::Int64, Physical::Boolean, Physical::Double, Physical::Int32];
const CODECS: [Codec; 5] = [Codec::None, Codec::Snappy, Codec::Zstd, Codec::Lz4Raw, Codec::Gzip];
/// Highest repetition and definition level of the leaf.
const LEVELS: [(u8, u8); 3] = [(1, 1), (0, 0), (2, 7)];
const FIXTURE: &str = "vparquet5/single-tenant/ecbeb5d1-3e1a-42cb-8100-087b5302bd41";

fn selector(physical: usize, codec: usize, levels: usize) -> u8 {
    u8::try_from(physical + 5 * codec + 25 * levels).expect("75 choices")
}

fn kind(error: &Error) -> u64 {
    let text = error.to_string();
    likeness(text.split(" of ").next().unwrap_or_default())
}

/// Some rows of one to three values.
fn some<T: Clone>(values: &[T]) -> Entries<T> {
    let rep = (0..values.len()).map(|n| i16::from(n % 3 > 0)).collect();
    Entries { rep, def: vec![1; values.len()], values: values.to_vec() }
}

/// The chunk of the only column of a file that the `parquet` crate wrote, behind the byte that says how to read it.
fn chunk(file: &Bytes, choice: u8) -> Vec<u8> {
    let file = footer_of(file).expect("the file is sound");
    let (start, end) = place(&file.footer.row_groups[0].chunks[0]);
    [&[choice], &file.data[start..end]].concat()
}

fn chunks() -> Vec<Vec<u8>> {
    let texts: Vec<ByteArray> = (0..40).map(|n| ByteArray::from(format!("text {}", n % 7).as_str())).collect();
    let ints: Vec<i64> = (0..60).map(|n| n * n * 1_000_003 - 500).collect();
    let bools: Vec<bool> = (0..70).map(|n| n % 5 == 0).collect();
    let doubles: Vec<f64> = (0..20).map(|n| f64::from(n) / 3.0).collect();
    let mut chunks = Vec::new();
    for version in [1, 2] {
        // Numbers of codecs in `of` and here.
        for (codec, here) in [(0, 0), (1, 1), (2, 3), (3, 2)] {
            for encoding in [None, Some(Encoding::PLAIN), Some(Encoding::DELTA_BYTE_ARRAY)] {
                let file = write::<ByteArrayType>("binary", &some(&texts), properties(version, encoding, of(codec)));
                chunks.push(chunk(&file, selector(0, here, 0)));
            }
        }
        for encoding in [None, Some(Encoding::DELTA_BINARY_PACKED), Some(Encoding::BYTE_STREAM_SPLIT)] {
            let file = write::<Int64Type>("int64", &some(&ints), properties(version, encoding, of(0)));
            chunks.push(chunk(&file, selector(1, 0, 0)));
        }
        for encoding in [Encoding::PLAIN, Encoding::RLE] {
            let file = write::<BoolType>("boolean", &some(&bools), properties(version, Some(encoding), of(0)));
            chunks.push(chunk(&file, selector(2, 0, 0)));
        }
        let file = write::<DoubleType>("double", &some(&doubles), properties(version, None, of(1)));
        chunks.push(chunk(&file, selector(3, 1, 0)));
    }
    chunks
}

/// Looks at every value, so that a slice past the end would be noticed.
fn touch(values: &Values) -> usize {
    match values {
        Values::Bytes(values) => values.iter().map(<[u8]>::len).sum(),
        other => other.len(),
    }
}

/// Reads a chunk header by header, as a file without an offset index is read, past all checksums.
fn walk(leaf: LeafShape, codec: Codec, data: &Bytes) -> Result<String, Error> {
    let (mut at, mut dictionary, mut like) = (0, None, String::new());
    while at < data.len() {
        let header = PageHeader::parse(&data[at..])?;
        assert!(header.len > 0 && header.len <= data.len() - at);
        let from = at + header.len;
        let Some(end) = from.checked_add(header.compressed_size).filter(|end| *end <= data.len()) else {
            return Ok(like + "cut");
        };
        let body = data.slice(from..end);
        if header.is_dictionary() {
            let values = Arc::new(header.decode_dictionary(leaf.physical, codec, &body)?);
            touch(&values);
            dictionary = Some(values);
            like.push('d');
        } else if header.is_data() {
            let page = header.decode_data(leaf, codec, &body, || Ok(dictionary.clone()))?;
            let present = page.def.iter(0..page.len).filter(|def| *def == leaf.max_def).count();
            assert_eq!(page.values.len(), if leaf.max_def == 0 { page.len } else { present });
            assert!(page.def.len() == page.len || leaf.max_def == 0);
            assert!(page.rep.len() == page.len || leaf.max_rep == 0);
            assert!(page.rows() <= page.len);
            touch(&page.values);
            if let (Values::Ids(ids), Some(Values::Bytes(entries))) = (&page.values, dictionary.as_deref()) {
                assert!((0..ids.len()).all(|at| ids.id(at).is_some_and(|id| entries.get(id as usize).is_some())));
            }
            like.push('p');
        }
        at = end;
    }
    Ok(like)
}

#[test]
fn any_chunk_of_pages_is_refused_or_decodes_within_its_bounds() {
    let campaign = Campaign::new(PACKAGE, "pages").max_bytes(3000).runs(700_000);
    chunks().into_iter().fold(campaign, Campaign::seed_input).run(|input| {
        let Some((&choice, rest)) = input.split_first() else { return 0 };
        let choice = usize::from(choice);
        let (max_rep, max_def) = LEVELS[choice / 25 % 3];
        let leaf = LeafShape { physical: PHYSICALS[choice % 5], max_rep, max_def };
        match walk(leaf, CODECS[choice / 5 % 5], &Bytes::copy_from_slice(rest)) {
            Ok(like) => likeness(&format!("{:?} {}", leaf.physical, &like[..like.len().min(6)])),
            Err(error) => kind(&error),
        }
    });
}

/// The values as runs of one each: the plainest form.
fn as_runs(values: &[u32], width: u8) -> Vec<u8> {
    let mut out = Vec::new();
    for value in values {
        out.push(2);
        out.extend_from_slice(&value.to_le_bytes()[..usize::from(width.div_ceil(8))]);
    }
    out
}

#[test]
fn any_run_length_data_is_refused_or_gives_what_was_asked_for() {
    let seeds: [&[u8]; 6] = [
        &[1, 20, 0, 40, 1],
        &[7, 16, 0, 5, 0x88, 0xc6, 0xfa, 0x88, 0xc6, 0xfa],
        &[200, 9, 0, 3, 1, 2, 3, 4, 5, 6, 7, 8, 2, 99],
        &[3, 30, 0, 2, 40, 2, 3, 0xe4, 0xe4],
        &[0, 5, 0, 128, 1, 4, 5, 2, 4, 1, 8, 8, 8, 8, 1, 2, 3, 4],
        &[9, 3, 0, 4, 0, 0, 0, 6, 1],
    ];
    let campaign = Campaign::new(PACKAGE, "runs").max_bytes(600).runs(40_000);
    seeds.into_iter().fold(campaign, |campaign, seed| campaign.seed_input(seed.to_vec())).run(|input| {
        let Some(([max, low, high], data)) = input.split_first_chunk::<3>() else { return 0 };
        let count = usize::from(u16::from_le_bytes([*low, *high]));
        let mut like = String::new();
        let mut note = |name: char, error: Option<Error>| {
            like.push(name);
            like.push_str(&error.map_or_else(|| "ok".to_owned(), |error| error.to_string()));
        };
        let bytes = Bytes::copy_from_slice(data);
        match Levels::decode(&bytes, *max, count, low & 1 == 0) {
            Ok(levels) => {
                let wide: Vec<u32> = levels.iter(0..count).map(u32::from).collect();
                assert!(levels.len() == count && wide.len() == count);
                assert!(wide.iter().all(|level| *level <= u32::from(*max)));
                assert_eq!(levels.count_at_least(1), wide.iter().filter(|level| **level > 0).count());
                let again = Levels::decode(&as_runs(&wide, rle::level_width(*max)).into(), *max, count, true);
                assert_eq!(again.ok(), Some(levels));
                note('l', None);
            }
            Err(error) => note('l', Some(error)),
        }
        match rle::ids(&bytes, usize::from(*max) + 1, count) {
            Ok(ids) => {
                assert!(ids.len() == count && ids.iter().all(|id| (0..=i64::from(*max)).contains(&id)));
                if let Some(&width) = data.first().filter(|_| count > 0) {
                    let wide: Vec<u32> = (0..count).filter_map(|index| ids.id(index)).collect();
                    let again = [&[width], &as_runs(&wide, width)[..]].concat();
                    assert_eq!(rle::ids(&again.into(), usize::from(*max) + 1, count).ok(), Some(ids));
                }
                note('i', None);
            }
            Err(error) => note('i', Some(error)),
        }
        match rle::booleans(data, count) {
            Ok(booleans) => assert_eq!(booleans.len(), count),
            Err(error) => note('b', Some(error)),
        }
        let mut ints = vec![7];
        match delta::integers(data, count, &mut ints) {
            Ok(rest) => assert!(ints.len() == count && rest.len() <= data.len()),
            Err(error) => note('d', Some(error)),
        }
        match delta::byte_arrays(&bytes, count) {
            Ok(values) => {
                assert_eq!(values.len(), count);
                assert!(values.iter().map(<[u8]>::len).sum::<usize>() <= data.len());
            }
            Err(error) => note('a', Some(error)),
        }
        match delta::prefixed_byte_arrays(&bytes, count, 1 << 16) {
            Ok(values) => assert!(values.iter().map(<[u8]>::len).sum::<usize>() <= 1 << 16),
            Err(error) => note('p', Some(error)),
        }
        likeness(&like)
    });
}

/// The footer of a small file and that of a block.
fn footers() -> [Vec<u8>; 2] {
    let cut = |data: &[u8]| {
        let length = u32::from_le_bytes(data[data.len() - 8..data.len() - 4].try_into().expect("four bytes"));
        data[data.len() - 8 - length as usize..data.len() - 8].to_vec()
    };
    let small = write::<Int64Type>("int64", &some(&[1, 2, 3]), properties(2, None, of(1)));
    let block = std::fs::read(super::super::fixture(FIXTURE).join("data.parquet")).expect("the fixture is there");
    [cut(&small), cut(&block)]
}

#[test]
fn any_footer_is_refused_or_points_into_the_file() {
    const FILE: u64 = 300_000;
    let campaign = Campaign::new(PACKAGE, "footer").max_bytes(16_000).runs(100_000);
    footers().into_iter().fold(campaign, Campaign::seed_input).run(|input| {
        // The same bytes as a column index, which has no structure in common.
        let bounds = footer::page_bounds(input);
        if let Ok(bounds) = &bounds {
            assert!(bounds.len() <= input.len());
        }
        match Footer::parse(input, FILE) {
            Ok(footer) => {
                assert!(footer.leaves.len() <= input.len());
                for chunk in footer.row_groups.iter().flat_map(|group| &group.chunks) {
                    assert!(chunk.start.checked_add(chunk.size).is_some_and(|end| end <= FILE));
                    for (offset, size) in [chunk.offset_index, chunk.column_index].into_iter().flatten() {
                        assert!(offset + u64::from(size) <= FILE);
                    }
                }
                if let Some(chunk) = footer.row_groups.first().and_then(|group| group.chunks.first())
                    && let Ok(pages) = footer::offset_index(input, 1000, chunk)
                {
                    assert!(pages.len() <= input.len());
                    assert!(pages.iter().all(|page| page.offset + u64::from(page.size) <= chunk.start + chunk.size));
                }
                likeness(&format!("{} groups", "g".repeat(footer.row_groups.len().min(9))))
            }
            Err(error) => kind(&error),
        }
    });
}

/// A skip that never moves: a map whose entries take no bytes, as long as a number can say.
#[test]
fn a_map_of_nothing_repeated_without_end_is_refused_at_once() {
    // Field 9 of type map, 2^63 entries of (true, true).
    let mut footer = vec![0x9b];
    footer.extend([0x80; 9]);
    footer.push(0x01);
    footer.push(0x11);
    footer.extend([0; 8]);
    assert!(Footer::parse(&footer, 1000).is_err());
}

/// A block of a few spans of each kind, small enough to be read some thousand times.
fn small_block() -> (BlockMeta, Bytes, Vec<(String, Bytes)>, Vec<TraceId>) {
    let spec = BlockSpec::new("t", uuid::Uuid::from_u128(5), DedicatedColumns::defaults());
    let mut writer =
        BlockWriter::new(BlockSpec { page_bytes: 200, row_group_bytes: 6_000, ..spec }).expect("the spec is sound");
    let block = super::super::open_v5();
    let mut ids = Vec::new();
    for row in rows(&block).take(3) {
        let (id, trace) = row.expect("the fixture is sound");
        writer.add_trace(id.0, &[trace]).expect("ids ascend");
        ids.push(id);
    }
    let block = writer.finish().expect("there are traces");
    let meta = BlockMeta { size: 0, footer_size: 0, ..block.meta };
    let blooms = block.blooms.into_iter().enumerate().map(|(n, bloom)| (format!("bloom-{n}"), bloom)).collect();
    (meta, Bytes::from(block.data.concat()), blooms, ids)
}

#[test]
fn any_damage_to_a_block_behind_its_checksums_is_an_error_or_another_answer() {
    let (meta, data, blooms, ids) = small_block();
    let whole = data.len();
    let chunks = footer_of(&data).expect("the block is sound").footer.row_groups;
    let ends = chunks.iter().flat_map(|group| &group.chunks).map(|chunk| chunk.start + chunk.size);
    let pages = usize::try_from(ends.max().expect("there are columns")).expect("a small block");
    let campaign = Campaign::new(PACKAGE, "block").max_bytes(2 * whole).runs(6_000);
    campaign.seed_input(data.to_vec()).run(|input| {
        let mut input = input.to_vec();
        // Every other input is damaged in its pages only, where they are: with another footer few get that far.
        if input.iter().fold(0u8, |sum, byte| sum ^ byte).is_multiple_of(2) {
            input.resize(pages, 0);
            input.extend_from_slice(&data[pages..]);
        }
        let objects = Arc::new(MemoryBlock::new(input.into(), blooms.clone()));
        let block = match OpenBlock::open(meta.clone(), objects) {
            Ok(block) => block.without_checksums(),
            Err(error) => return kind(&error),
        };
        let mut like = 0;
        let (mut found, mut bytes) = (0u64, 0);
        for row in rows(&block) {
            found += 1;
            match row {
                Ok((_, trace)) => bytes += trace.len(),
                Err(error) => like = kind(&error),
            }
        }
        assert!(found <= block.rows() + 1);
        // Dictionaries and zeros may stand for much, but not for anything.
        assert!(bytes <= 64 << 20, "{bytes} bytes of traces out of {whole}");
        for id in &ids {
            if let Ok(Some(trace)) = find_trace(&block, *id) {
                assert!(trace.len() <= 64 << 20);
            }
        }
        like
    });
}

#[test]
fn any_small_object_is_refused_or_says_the_same_when_written_again() {
    let folder = super::super::fixture(FIXTURE);
    let read = |name: &str| std::fs::read(folder.join(name)).expect("the fixture is there");
    let mut bloom = read("bloom-0");
    bloom.truncate(300);
    let tenant =
        |name: &str| std::fs::read(folder.parent().expect("a tenant").join(name)).expect("the fixture is there");
    let seeds = [read("meta.json"), read("index"), bloom, tenant("index.json.gz"), tenant("index.pb.zst")];
    let campaign = Campaign::new(PACKAGE, "objects")
        .max_bytes(2000)
        .tokens(&["\"", "null", "-1", "4294967296", "\"vParquet9\"", "[", "{", "0001-01-01T00:00:00Z", "\"t\":\"int\""])
        .runs(80_000);
    seeds.into_iter().fold(campaign, Campaign::seed_input).run(|input| {
        let mut like = String::new();
        if let Ok(meta) = BlockMeta::from_json(input) {
            let again = BlockMeta::from_json(&meta.to_json()).expect("what is written is read");
            assert_eq!(again, meta);
            like.push('m');
        }
        if let Ok(index) = RowGroupIndex::from_json(input) {
            assert_eq!(RowGroupIndex::from_json(&index.to_json()).expect("what is written is read"), index);
            like.push('i');
        }
        if let Ok(index) = TenantIndex::from_json(input) {
            let again = index.to_json().expect("what was read is written");
            assert_eq!(TenantIndex::from_json(&again).expect("what is written is read"), index);
            like.push('j');
        }
        if let Ok(index) = TenantIndex::from_proto(input) {
            assert!(index.to_proto().is_ok());
            like.push('p');
        }
        if let Ok(bloom) = BloomFilter::from_object(Bytes::copy_from_slice(input)) {
            bloom.may_contain(&[9; 16]);
            like.push('b');
        }
        likeness(&like)
    });
}
