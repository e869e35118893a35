//! The Parquet schema of a block: which leaves there are, in which order, at which levels, for a list of dedicated columns.
//!
//! Tempo reads whole traces *by position*: its schema comes from `meta.json`, the file's own is consulted for searches
//! only. So order, count and levels have to be exact, and writer and readers share this one table. Levels are equal in
//! vParquet5 (bare repeated groups) and vParquet4 (three-level lists).
//!
//! Below the root every repeated group adds one to both levels, so an element's level is its depth in the data model:
//! trace 0, batch and service stats 1, scope and resource attribute 2, span and scope attribute 3, span attribute, event
//! and link 4, event and link attribute 5. A value list adds one more.

mod builder;

use std::sync::Arc;

use parquet::{
    basic::{Compression, Encoding, Type as PhysicalType, ZstdLevel},
    schema::types::{SchemaDescPtr, SchemaDescriptor, TypePtr},
};

use crate::{
    dedicated::{DedicatedColumns, Spare},
    meta::Version,
};
use builder::Builder;

/// Why no schema could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The block's data is of an encoding that Vivace does not know. A retry does not help.
    #[error("blocks of format {0} are not supported")]
    Unsupported(Version),
}

/// Physical type together with its annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LeafType {
    /// BYTE_ARRAY without annotation: ids.
    Bytes,
    /// BYTE_ARRAY annotated as string. The content may be invalid UTF-8.
    Text,
    /// INT64 annotated as unsigned.
    U64,
    /// INT32 annotated as unsigned.
    U32,
    /// INT64 annotated as signed.
    I64,
    /// INT32 annotated as signed.
    I32,
    /// DOUBLE.
    Double,
    /// BOOLEAN. Tempo decodes only its PLAIN encoding.
    Bool,
}

impl LeafType {
    /// The physical type in the file.
    pub fn physical(self) -> PhysicalType {
        match self {
            Self::Bytes | Self::Text => PhysicalType::BYTE_ARRAY,
            Self::U64 | Self::I64 => PhysicalType::INT64,
            Self::U32 | Self::I32 => PhysicalType::INT32,
            Self::Double => PhysicalType::DOUBLE,
            Self::Bool => PhysicalType::BOOLEAN,
        }
    }
}

/// One leaf column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// Path in the file, parts joined by dots.
    pub path: String,
    /// Type of its values.
    pub leaf_type: LeafType,
    /// Definition level of a present value.
    pub max_def: i16,
    /// Repetition level of its innermost list.
    pub max_rep: i16,
    /// The codec that Tempo's writer chooses. Readers take the codec from the file.
    pub codec: Compression,
    /// The encoding that Tempo's writer chooses: PLAIN, DELTA_BINARY_PACKED, DELTA_LENGTH_BYTE_ARRAY, or RLE_DICTIONARY.
    pub encoding: Encoding,
}

/// The seven leaves of a list of attributes. `key`, `is_array` and `unsupported` have one entry an attribute, the four
/// `value*` as many as the attribute has values of that type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttrLeaves {
    /// The attribute's key.
    pub key: usize,
    /// Whether the values are an array.
    pub is_array: usize,
    /// Text values.
    pub value: usize,
    /// Integer values.
    pub value_int: usize,
    /// Double values.
    pub value_double: usize,
    /// Boolean values.
    pub value_bool: usize,
    /// Protobuf-JSON of values of any other kind.
    pub unsupported: usize,
}

/// The leaf of a dedicated column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DedicatedLeaf {
    /// Position in the block's [`DedicatedColumns`].
    pub position: usize,
    /// Its spare.
    pub spare: Spare,
    /// Its leaf: repeated in vParquet5 (one level deeper than its owner), optional in vParquet4.
    pub leaf: usize,
}

/// Leaves with one value a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceColumns {
    /// 16 bytes.
    pub trace_id: usize,
    /// Lower hex without leading zeros.
    pub trace_id_text: usize,
    /// Earliest span start in nanoseconds.
    pub start: usize,
    /// Latest span end in nanoseconds.
    pub end: usize,
    /// `end - start`.
    pub duration: usize,
    /// Service of the root span, or empty.
    pub root_service: usize,
    /// Name of the root span, or empty.
    pub root_name: usize,
}

/// Leaves with one value for each service of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatsColumns {
    /// Service name; in vParquet4 the key of a map.
    pub service: usize,
    /// Number of its spans.
    pub spans: usize,
    /// Number of its spans with status error.
    pub errors: usize,
}

/// Leaves with one value for each batch (resource).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceColumns {
    /// `service.name`, empty if absent or no text.
    pub service: usize,
    /// Generic attributes.
    pub attrs: AttrLeaves,
    /// Dropped attributes.
    pub dropped: usize,
    /// Spares, in the block's order.
    pub dedicated: Vec<DedicatedLeaf>,
    /// vParquet4 only: attribute name and optional leaf of each fixed column.
    pub fixed: Vec<(&'static str, usize)>,
}

/// Leaves with one value for each scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScopeColumns {
    /// Instrumentation scope.
    pub name: usize,
    /// Its version.
    pub version: usize,
    /// Its attributes.
    pub attrs: AttrLeaves,
    /// Dropped attributes.
    pub dropped: usize,
    /// Number of spans; vParquet5 only, the file's last leaf.
    pub span_count: Option<usize>,
}

/// Leaves with one value for each event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventColumns {
    /// Event time minus span start, wrapping.
    pub since_start: usize,
    /// Name.
    pub name: usize,
    /// Attributes.
    pub attrs: AttrLeaves,
    /// Dropped attributes.
    pub dropped: usize,
    /// Spares, in the block's order.
    pub dedicated: Vec<DedicatedLeaf>,
}

/// Leaves with one value for each link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkColumns {
    /// Bytes as received.
    pub trace_id: usize,
    /// Bytes as received.
    pub span_id: usize,
    /// W3C trace state.
    pub trace_state: usize,
    /// Attributes.
    pub attrs: AttrLeaves,
    /// Dropped attributes.
    pub dropped: usize,
}

/// Leaves with one value for each span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpanColumns {
    /// Bytes as received.
    pub span_id: usize,
    /// Bytes as received; empty for roots.
    pub parent_span_id: usize,
    /// Nested-set number of the parent: its `left`, -1 for roots, 0 if unknown.
    pub parent: usize,
    /// Nested-set entry number, 0 if unknown.
    pub left: usize,
    /// Nested-set exit number, 0 if unknown.
    pub right: usize,
    /// Number of direct children; vParquet5 only.
    pub child_count: Option<usize>,
    /// Name.
    pub name: usize,
    /// OTLP kind.
    pub kind: usize,
    /// W3C trace state.
    pub trace_state: usize,
    /// Start in nanoseconds.
    pub start: usize,
    /// End minus start, wrapping.
    pub duration: usize,
    /// OTLP status code.
    pub status: usize,
    /// Status message.
    pub status_message: usize,
    /// Generic attributes.
    pub attrs: AttrLeaves,
    /// Dropped attributes.
    pub dropped: usize,
    /// Events.
    pub events: EventColumns,
    /// Dropped events.
    pub dropped_events: usize,
    /// Links.
    pub links: LinkColumns,
    /// Dropped links.
    pub dropped_links: usize,
    /// Spares, in the block's order.
    pub dedicated: Vec<DedicatedLeaf>,
    /// vParquet4 only: attribute name and optional leaf of each fixed column; the last, `http.status_code`, holds integers.
    pub fixed: Vec<(&'static str, usize)>,
    /// Rounded starts for 15, 60, 300 and 3600 seconds; vParquet5 only.
    pub rounded: Option<[usize; 4]>,
}

/// Leaf numbers by meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// One value a trace.
    pub trace: TraceColumns,
    /// One value a service of the trace.
    pub stats: StatsColumns,
    /// One value a batch.
    pub resource: ResourceColumns,
    /// One value a scope.
    pub scope: ScopeColumns,
    /// One value a span.
    pub span: SpanColumns,
}

/// The schema of one block.
#[derive(Debug, Clone)]
pub struct Schema {
    version: Version,
    leaves: Arc<[Leaf]>,
    columns: Arc<Columns>,
    root: TypePtr,
    descriptor: SchemaDescPtr,
}

impl Schema {
    /// The schema of a block of `version` with these dedicated columns.
    pub fn new(version: &Version, dedicated: &DedicatedColumns) -> Result<Self, Error> {
        match version {
            Version::V5 => Ok(Self::v5(dedicated)),
            Version::V4 => Ok(Self::v4(dedicated)),
            Version::Other(_) => Err(Error::Unsupported(version.clone())),
        }
    }

    /// vParquet5.
    pub fn v5(dedicated: &DedicatedColumns) -> Self {
        let mut builder = Builder::new(Version::V5);
        let columns = builder.v5(dedicated);
        Self::finish(Version::V5, builder, columns)
    }

    /// vParquet4.
    pub fn v4(dedicated: &DedicatedColumns) -> Self {
        let mut builder = Builder::new(Version::V4);
        let columns = builder.v4(dedicated);
        Self::finish(Version::V4, builder, columns)
    }

    fn finish(version: Version, builder: Builder, columns: Columns) -> Self {
        let (root, leaves) = builder.finish();
        let descriptor = Arc::new(SchemaDescriptor::new(root.clone()));
        Self { version, leaves: leaves.into(), columns: Arc::new(columns), root, descriptor }
    }

    /// Which encoding this is the schema of.
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// All leaves in file order.
    pub fn leaves(&self) -> &[Leaf] {
        &self.leaves
    }

    /// Leaf numbers by meaning.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// The root group, named `Trace`.
    pub fn root(&self) -> &TypePtr {
        &self.root
    }

    /// What the `parquet` crate calls a schema.
    pub fn descriptor(&self) -> &SchemaDescPtr {
        &self.descriptor
    }

    /// The first difference in leaf count, path, physical type or levels between this schema and a file's, in words.
    /// Reading such a file by position would mislabel values, so readers refuse it.
    pub fn difference(&self, file: &SchemaDescriptor) -> Option<String> {
        if file.num_columns() != self.leaves.len() {
            return Some(format!("{} leaves instead of {}", file.num_columns(), self.leaves.len()));
        }
        self.leaves.iter().zip(file.columns()).find_map(|(leaf, found)| {
            let found_path = found.path().string();
            let same = found_path == leaf.path
                && found.physical_type() == leaf.leaf_type.physical()
                && found.max_def_level() == leaf.max_def
                && found.max_rep_level() == leaf.max_rep;
            (!same).then(|| {
                let (def, rep) = (found.max_def_level(), found.max_rep_level());
                format!("leaf {found_path} {} {def}/{rep} where {} is due", found.physical_type(), leaf.path)
            })
        })
    }
}

/// zstd as Tempo's blob columns have it.
pub(crate) fn zstd() -> Compression {
    Compression::ZSTD(ZstdLevel::default())
}

#[cfg(test)]
mod tests {
    use parquet::file::{reader::FileReader, serialized_reader::SerializedFileReader};

    use super::*;
    use crate::meta::BlockMeta;

    fn compare_with_file(data: &'static [u8], meta: &str) {
        let meta = BlockMeta::from_json(meta.as_bytes()).unwrap();
        let schema = Schema::new(&meta.format, &meta.dedicated_columns).unwrap();
        let file = SerializedFileReader::new(bytes::Bytes::from_static(data)).unwrap();
        let found = file.metadata().file_metadata().schema_descr();
        assert_eq!(schema.difference(found), None);
        for (ours, theirs) in schema.descriptor().columns().iter().zip(found.columns()) {
            assert_eq!(ours.logical_type_ref(), theirs.logical_type_ref(), "{}", ours.path());
            assert_eq!(ours.converted_type(), theirs.converted_type(), "{}", ours.path());
        }
        // Printed, since Go also fills in a length for integers, which means nothing.
        let printed = |schema: &parquet::schema::types::Type| {
            let mut out = Vec::new();
            parquet::schema::printer::print_schema(&mut out, schema);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(printed(schema.root()), printed(found.root_schema()), "groups and their annotations");
        for (leaf, chunk) in schema.leaves().iter().zip(file.metadata().row_group(0).columns()) {
            let same_codec = std::mem::discriminant(&leaf.codec) == std::mem::discriminant(&chunk.compression());
            assert!(same_codec, "{} {:?}", leaf.path, chunk.compression());
            assert!(chunk.encodings().any(|encoding| encoding == leaf.encoding), "{}", leaf.path);
        }
    }

    #[test]
    fn every_leaf_of_a_vparquet5_file_of_tempo_is_known() {
        compare_with_file(
            include_bytes!(
                "../tests/fixtures/vparquet5/single-tenant/ecbeb5d1-3e1a-42cb-8100-087b5302bd41/data.parquet"
            ),
            include_str!("../tests/fixtures/vparquet5/single-tenant/ecbeb5d1-3e1a-42cb-8100-087b5302bd41/meta.json"),
        );
    }

    #[test]
    fn every_leaf_of_a_vparquet4_file_of_tempo_is_known() {
        compare_with_file(
            include_bytes!(
                "../tests/fixtures/vparquet4/single-tenant/0e6f0ad1-4286-4f18-ab9d-7b2aa041b497/data.parquet"
            ),
            include_str!("../tests/fixtures/vparquet4/single-tenant/0e6f0ad1-4286-4f18-ab9d-7b2aa041b497/meta.json"),
        );
    }

    #[test]
    fn a_scope_without_spares_has_no_group_and_the_count_is_the_last_leaf() {
        let schema = Schema::v5(&DedicatedColumns::default());
        assert_eq!(schema.leaves().len(), 78);
        assert!(schema.leaves().iter().all(|leaf| !leaf.path.contains("Dedicated")));
        assert_eq!(schema.columns().scope.span_count, Some(77));
        assert_eq!(Schema::v5(&DedicatedColumns::defaults()).leaves().len(), 92);
        assert_eq!(Schema::v4(&DedicatedColumns::default()).leaves().len(), 103);
    }

    #[test]
    fn leaf_numbers_point_at_the_leaves_they_name() {
        for schema in [Schema::v5(&DedicatedColumns::defaults()), Schema::v4(&DedicatedColumns::defaults())] {
            let path = |leaf: usize| schema.leaves()[leaf].path.replace(".list.element", "");
            let columns = schema.columns();
            assert_eq!(path(columns.trace.root_name), "RootSpanName");
            assert_eq!(path(columns.resource.service), "rs.Resource.ServiceName");
            assert_eq!(path(columns.span.attrs.value_double), "rs.ss.Spans.Attrs.ValueDouble");
            assert_eq!(path(columns.span.links.attrs.unsupported), "rs.ss.Spans.Links.Attrs.ValueUnsupported");
            assert_eq!(path(columns.span.dedicated[0].leaf), "rs.ss.Spans.DedicatedAttributes.String01");
            assert_eq!(path(columns.span.dropped_links), "rs.ss.Spans.DroppedLinksCount");
        }
    }

    #[test]
    fn levels_are_the_same_in_both_encodings() {
        let (v5, v4) = (Schema::v5(&DedicatedColumns::default()), Schema::v4(&DedicatedColumns::default()));
        for leaf in v5.leaves() {
            let twin = v4.leaves().iter().find(|other| other.path.replace(".list.element", "") == leaf.path);
            if let Some(twin) = twin {
                assert_eq!((leaf.max_def, leaf.max_rep), (twin.max_def, twin.max_rep), "{}", leaf.path);
            }
        }
    }
}
