//! The page decoder against files that the `parquet` crate writes, in every encoding and codec, and against damage.

mod fuzz;

use std::sync::Arc;

use bytes::Bytes;
use parquet::{
    basic::{Compression, Encoding, ZstdLevel},
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type},
    file::{
        properties::{WriterProperties, WriterVersion},
        writer::SerializedFileWriter,
    },
    schema::{parser::parse_message_type, types::ColumnPath},
};
use proptest::prelude::*;

use crate::read::{
    codec::Codec,
    footer::{self, Footer},
    page::{LeafShape, Page, PageHeader},
    ranges::Ranges,
    values::{Physical, Values},
};

/// One column of optional repeated values, two values in a row at most.
#[derive(Debug, Clone)]
struct Entries<T> {
    rep: Vec<i16>,
    def: Vec<i16>,
    values: Vec<T>,
}

fn entries<T: Clone + std::fmt::Debug>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Entries<T>> {
    prop::collection::vec(prop::collection::vec(value, 0..4), 1..120).prop_map(|rows| {
        let (mut rep, mut def, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            if row.is_empty() {
                rep.push(0);
                def.push(0);
            }
            for (index, value) in row.into_iter().enumerate() {
                rep.push(i16::from(index > 0));
                def.push(1);
                values.push(value);
            }
        }
        Entries { rep, def, values }
    })
}

fn write<T: DataType>(kind: &str, entries: &Entries<T::T>, properties: WriterProperties) -> Bytes {
    let schema = Arc::new(parse_message_type(&format!("message m {{ repeated {kind} c; }}")).unwrap());
    let mut file = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut file, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<T>().write_batch(&entries.values, Some(&entries.def), Some(&entries.rep)).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    file.into()
}

fn properties(version: u8, encoding: Option<Encoding>, codec: Compression) -> WriterProperties {
    let version = if version == 1 { WriterVersion::PARQUET_1_0 } else { WriterVersion::PARQUET_2_0 };
    let builder = WriterProperties::builder()
        .set_writer_version(version)
        .set_compression(codec)
        .set_dictionary_enabled(encoding.is_none())
        .set_data_page_size_limit(100)
        .set_write_batch_size(16);
    let column = ColumnPath::new(vec!["c".to_owned()]);
    match encoding {
        Some(encoding) => builder.set_column_encoding(column, encoding).build(),
        None => builder.build(),
    }
}

fn of(number: usize) -> Compression {
    let all =
        [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::LZ4_RAW, Compression::ZSTD(ZstdLevel::default())];
    all[number]
}

struct File {
    footer: Footer,
    data: Bytes,
}

fn footer_of(data: &Bytes) -> crate::read::error::Result<File> {
    let size = data.len();
    let len = u32::from_le_bytes(data[size - 8..size - 4].try_into().unwrap()) as usize;
    let footer = Footer::parse(&data[size - 8 - len..size - 8], size as u64)?;
    Ok(File { footer, data: data.clone() })
}

fn place(chunk: &footer::Chunk) -> (usize, usize) {
    (usize::try_from(chunk.start).unwrap(), usize::try_from(chunk.start + chunk.size).unwrap())
}

/// All pages of the only column, walking header by header.
fn pages(file: &File) -> crate::read::error::Result<(Vec<Page>, Option<Arc<Values>>)> {
    let leaf = &file.footer.leaves[0];
    let shape = LeafShape { physical: leaf.physical, max_rep: leaf.max_rep, max_def: leaf.max_def };
    let chunk = &file.footer.row_groups[0].chunks[0];
    let (mut at, end) = place(chunk);
    let mut dictionary = None;
    let mut pages = Vec::new();
    while at < end {
        let header = PageHeader::parse(&file.data[at..end])?;
        let body = at + header.len..at + header.len + header.compressed_size;
        let body = file.data.read(body.start as u64..body.end as u64)?;
        if header.is_dictionary() {
            dictionary = Some(Arc::new(header.decode_dictionary(shape.physical, chunk.codec, &body)?));
        } else {
            pages.push(header.decode_data(shape, chunk.codec, &body, || Ok(dictionary.clone()))?);
        }
        at += header.len + header.compressed_size;
    }
    Ok((pages, dictionary))
}

/// Levels and values of all pages in one.
fn joined(file: &Bytes) -> (Vec<i16>, Vec<i16>, Vec<Values>, Option<Arc<Values>>) {
    let file = footer_of(file).unwrap();
    let (pages, dictionary) = pages(&file).unwrap();
    let rep = pages.iter().flat_map(|page| page.rep.iter(0..page.len).map(i16::from)).collect();
    let def = pages.iter().flat_map(|page| page.def.iter(0..page.len).map(i16::from)).collect();
    (rep, def, pages.into_iter().map(|page| page.values).collect(), dictionary)
}

fn ints(values: Vec<Values>) -> Vec<i64> {
    values
        .into_iter()
        .flat_map(|values| match values {
            Values::Ints(ints) => ints.iter().collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        })
        .collect()
}

fn texts(values: &[Values], dictionary: Option<&Values>) -> Vec<Vec<u8>> {
    let mut texts = Vec::new();
    for values in values {
        match (values, dictionary) {
            (Values::Bytes(values), _) => texts.extend(values.iter().map(<[u8]>::to_vec)),
            (Values::Ids(ids), Some(Values::Bytes(entries))) => {
                texts.extend((0..ids.len()).map(|at| entries.get(ids.id(at).unwrap() as usize).unwrap().to_vec()));
            }
            other => panic!("{other:?}"),
        }
    }
    texts
}

fn same_levels<T>(entries: &Entries<T>, rep: &[i16], def: &[i16]) {
    assert_eq!(entries.rep, rep);
    assert_eq!(entries.def, def);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn integers_come_back(
        entries in entries(prop_oneof![any::<i64>(), -5i64..5]), version in 1u8..3, codec in 0usize..4, encoding in 0usize..4
    ) {
        let encodings = [None, Some(Encoding::PLAIN), Some(Encoding::DELTA_BINARY_PACKED), Some(Encoding::BYTE_STREAM_SPLIT)];
        let file = write::<Int64Type>("int64", &entries, properties(version, encodings[encoding], of(codec)));
        let (rep, def, values, _) = joined(&file);
        same_levels(&entries, &rep, &def);
        prop_assert_eq!(ints(values), entries.values);
    }

    #[test]
    fn short_integers_come_back(
        entries in entries(prop_oneof![any::<i32>(), -5i32..5]), version in 1u8..3, codec in 0usize..4, encoding in 0usize..4
    ) {
        let encodings = [None, Some(Encoding::PLAIN), Some(Encoding::DELTA_BINARY_PACKED), Some(Encoding::BYTE_STREAM_SPLIT)];
        let file = write::<Int32Type>("int32", &entries, properties(version, encodings[encoding], of(codec)));
        let (_, _, values, _) = joined(&file);
        prop_assert_eq!(ints(values), entries.values.iter().map(|value| i64::from(*value)).collect::<Vec<_>>());
    }

    #[test]
    fn doubles_come_back(entries in entries(any::<f64>()), version in 1u8..3, codec in 0usize..4, encoding in 0usize..3) {
        let encodings = [None, Some(Encoding::PLAIN), Some(Encoding::BYTE_STREAM_SPLIT)];
        let file = write::<DoubleType>("double", &entries, properties(version, encodings[encoding], of(codec)));
        let (_, _, values, _) = joined(&file);
        let found: Vec<u64> = values.into_iter().flat_map(|values| match values {
            Values::Doubles(doubles) => doubles.into_iter().map(f64::to_bits).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        }).collect();
        prop_assert_eq!(found, entries.values.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
    }

    #[test]
    fn booleans_come_back(entries in entries(any::<bool>()), version in 1u8..3, codec in 0usize..4, rle in any::<bool>()) {
        let encoding = if rle { Encoding::RLE } else { Encoding::PLAIN };
        let file = write::<BoolType>("boolean", &entries, properties(version, Some(encoding), of(codec)));
        let (rep, def, values, _) = joined(&file);
        same_levels(&entries, &rep, &def);
        let found: Vec<bool> = values.into_iter().flat_map(|values| match values {
            Values::Bools(bools) => bools,
            other => panic!("{other:?}"),
        }).collect();
        prop_assert_eq!(found, entries.values);
    }

    #[test]
    fn byte_strings_come_back(
        entries in entries(prop_oneof!["[a-c]{0,3}", "[a-z/]{0,40}"]), version in 1u8..3, codec in 0usize..4, encoding in 0usize..4
    ) {
        let encodings = [None, Some(Encoding::PLAIN), Some(Encoding::DELTA_LENGTH_BYTE_ARRAY), Some(Encoding::DELTA_BYTE_ARRAY)];
        let Entries { rep, def, values } = entries;
        let entries = Entries { rep, def, values: values.iter().map(|text| ByteArray::from(text.as_str())).collect() };
        let file = write::<ByteArrayType>("binary", &entries, properties(version, encodings[encoding], of(codec)));
        let (rep, def, values, dictionary) = joined(&file);
        same_levels(&entries, &rep, &def);
        let due: Vec<Vec<u8>> = entries.values.iter().map(|value| value.data().to_vec()).collect();
        prop_assert_eq!(texts(&values, dictionary.as_deref()), due);
    }

    /// Whatever is changed in the pages: an answer or an error, in bounded memory.
    #[test]
    fn damaged_pages_never_panic(
        entries in entries("[a-z]{0,12}"), version in 1u8..3, codec in 0usize..4, encoding in 0usize..4,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)
    ) {
        let encodings = [None, Some(Encoding::PLAIN), Some(Encoding::DELTA_LENGTH_BYTE_ARRAY), Some(Encoding::DELTA_BYTE_ARRAY)];
        let Entries { rep, def, values } = entries;
        let entries = Entries { rep, def, values: values.iter().map(|text| ByteArray::from(text.as_str())).collect() };
        let data = write::<ByteArrayType>("binary", &entries, properties(version, encodings[encoding], of(codec)));
        let footer = footer_of(&data).unwrap();
        let chunk = &footer.footer.row_groups[0].chunks[0];
        let (start, end) = place(chunk);
        let mut bad = data.to_vec();
        for (at, byte) in damage {
            bad[start + at.index(end - start)] = byte;
        }
        let bad = File { footer: footer.footer, data: bad.into() };
        if let Ok((pages, dictionary)) = pages(&bad) {
            for page in pages {
                let present = page.def.iter(0..page.len).filter(|def| *def == 1).count();
                assert_eq!(page.values.len(), present);
                if let (Values::Ids(ids), Some(Values::Bytes(entries))) = (&page.values, dictionary.as_deref()) {
                    assert!((0..ids.len()).all(|at| ids.id(at).is_some_and(|id| entries.get(id as usize).is_some())));
                }
            }
        }
    }

    #[test]
    fn damaged_footers_never_panic(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let data = std::fs::read(super::fixture("vparquet5/single-tenant/ecbeb5d1-3e1a-42cb-8100-087b5302bd41/data.parquet")).unwrap();
        let len = u32::from_le_bytes(data[data.len() - 8..data.len() - 4].try_into().unwrap()) as usize;
        let mut bytes = data[data.len() - 8 - len..data.len() - 8].to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(footer) = Footer::parse(&bytes, data.len() as u64) {
            for chunk in footer.row_groups.iter().flat_map(|group| &group.chunks) {
                assert!(chunk.start + chunk.size <= data.len() as u64);
            }
        }
    }

    #[test]
    fn any_bytes_are_an_error_or_a_header(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let shape = LeafShape { physical: Physical::ByteArray, max_rep: 1, max_def: 2 };
        if let Ok(header) = PageHeader::parse(&bytes) {
            let body = Bytes::copy_from_slice(&bytes[header.len..]);
            for codec in [Codec::None, Codec::Snappy, Codec::Gzip, Codec::Zstd, Codec::Lz4Raw] {
                drop(header.decode_data(shape, codec, &body, || Ok(None)));
                drop(header.decode_dictionary(Physical::ByteArray, codec, &body));
            }
        }
        drop(footer::page_bounds(&bytes));
    }
}

#[test]
fn gzip_is_read_and_brotli_is_refused_by_name() {
    assert_eq!(Codec::from_thrift(2).unwrap(), Codec::Gzip);
    assert_eq!(Codec::from_thrift(4).unwrap_err().to_string(), "unsupported compression brotli");
    let text = Bytes::from_static(b"the same words again and again and again");
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, &text).unwrap();
    let packed = Bytes::from(encoder.finish().unwrap());
    assert_eq!(Codec::Gzip.decompress(&packed, text.len(), false).unwrap(), text);
    assert!(Codec::Gzip.decompress(&packed, text.len() - 1, false).is_err());
}

#[test]
fn a_declared_size_is_not_believed() {
    let tiny = Bytes::from_static(&[0xff, 0xff, 0xff, 0x7f]);
    for codec in [Codec::Snappy, Codec::Lz4Raw, Codec::Gzip] {
        assert!(codec.decompress(&tiny, 0x7fff_ffff, true).is_err());
    }
}
