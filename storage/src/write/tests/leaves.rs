//! All leaves of a file, row by row, as the `parquet` crate reads them.

use std::collections::BTreeMap;

use bytes::Bytes;
use parquet::{
    basic::Type,
    column::reader::{ColumnReader, ColumnReaderImpl, get_typed_column_reader},
    data_type::{BoolType, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type},
    file::{reader::FileReader, serialized_reader::SerializedFileReader},
};

/// One entry of a leaf: levels, and the value in words if there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) rep: i16,
    pub(super) def: i16,
    pub(super) value: Option<String>,
}

/// Rows by path of the leaf.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Leaves {
    pub(super) by_path: BTreeMap<String, Vec<Vec<Entry>>>,
}

impl Leaves {
    pub(super) fn rows(&self) -> usize {
        self.by_path["TraceID"].len()
    }

    /// All values of a leaf.
    pub(super) fn values(&self, path: &str) -> Vec<&str> {
        self.by_path[path].iter().flatten().filter_map(|entry| entry.value.as_deref()).collect()
    }
}

fn read<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    rows: usize,
    (max_def, max_rep): (i16, i16),
    in_words: impl Fn(&T::T) -> String,
) -> Vec<Vec<Entry>> {
    let (mut values, mut defs, mut reps) = (Vec::new(), Vec::new(), Vec::new());
    let mut read = 0;
    while read < rows {
        let (records, ..) = reader.read_records(rows - read, Some(&mut defs), Some(&mut reps), &mut values).unwrap();
        assert!(records > 0, "fewer rows than the footer says");
        read += records;
    }
    if max_def == 0 {
        defs = vec![0; values.len()];
    }
    if max_rep == 0 {
        reps = vec![0; defs.len()];
    }
    let mut values = values.iter();
    let mut found: Vec<Vec<Entry>> = Vec::new();
    for (def, rep) in defs.into_iter().zip(reps) {
        if rep == 0 {
            found.push(Vec::new());
        }
        let value = (def == max_def).then(|| in_words(values.next().unwrap()));
        found.last_mut().unwrap().push(Entry { rep, def, value });
    }
    assert!(values.next().is_none());
    found
}

/// Reads a whole file.
pub(super) fn read_leaves(data: Bytes) -> Leaves {
    let file = SerializedFileReader::new(data).unwrap();
    let mut leaves = Leaves::default();
    for group in 0..file.num_row_groups() {
        let group = file.get_row_group(group).unwrap();
        let rows = usize::try_from(group.metadata().num_rows()).unwrap();
        for column in 0..group.num_columns() {
            let chunk = group.metadata().column(column);
            let levels = (chunk.column_descr().max_def_level(), chunk.column_descr().max_rep_level());
            let reader: ColumnReader = group.get_column_reader(column).unwrap();
            let found = match chunk.column_type() {
                Type::INT64 => read(get_typed_column_reader::<Int64Type>(reader), rows, levels, i64::to_string),
                Type::INT32 => read(get_typed_column_reader::<Int32Type>(reader), rows, levels, i32::to_string),
                Type::BOOLEAN => read(get_typed_column_reader::<BoolType>(reader), rows, levels, bool::to_string),
                Type::DOUBLE => {
                    read(get_typed_column_reader::<DoubleType>(reader), rows, levels, |value| format!("{value:?}"))
                }
                _ => {
                    let text = chunk.column_descr().logical_type_ref().is_some();
                    read(get_typed_column_reader::<ByteArrayType>(reader), rows, levels, |value| match text {
                        true => String::from_utf8_lossy(value.data()).into_owned(),
                        false => value.data().iter().map(|byte| format!("{byte:02x}")).collect(),
                    })
                }
            };
            leaves.by_path.entry(chunk.column_path().string()).or_default().extend(found);
        }
    }
    leaves
}
