//! The `index` object: the last trace id of each row group, so that a trace is looked for in one row group only.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};

/// Name of the object.
pub(crate) const INDEX: &str = "index";

/// Why an index was refused. The block can be read without it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON of the expected form.
    #[error("parse row group index")]
    Json(#[from] serde_json::Error),
    /// An entry is not base64 of sixteen bytes.
    #[error("entry {0} of the row group index is no trace id")]
    Entry(usize),
}

#[derive(Serialize, Deserialize)]
struct Object {
    #[serde(rename = "rowGroups")]
    row_groups: Vec<String>,
}

/// Last trace id by row group, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RowGroupIndex {
    /// One entry a row group, in file order.
    pub last_ids: Vec<[u8; 16]>,
}

impl RowGroupIndex {
    /// Reads the object.
    pub fn from_json(json: &[u8]) -> Result<Self, Error> {
        let object: Object = serde_json::from_slice(json)?;
        let decode = |(position, text): (usize, &String)| {
            let bytes = STANDARD.decode(text).map_err(|_not_base64| Error::Entry(position))?;
            <[u8; 16]>::try_from(bytes).map_err(|_other_length| Error::Entry(position))
        };
        Ok(Self { last_ids: object.row_groups.iter().enumerate().map(decode).collect::<Result<_, _>>()? })
    }

    /// The content of the object.
    pub fn to_json(&self) -> Vec<u8> {
        let object = Object { row_groups: self.last_ids.iter().map(|id| STANDARD.encode(id)).collect() };
        serde_json::to_vec(&object).expect("a list of strings")
    }

    /// The only row group that can hold `id`; none if `id` is beyond the last.
    pub fn find(&self, id: &[u8; 16]) -> Option<usize> {
        let group = self.last_ids.partition_point(|last| last < id);
        (group < self.last_ids.len()).then_some(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_is_the_one_tempo_writes() {
        let id = 0xeeea_cbe2_26e8_7555_5790_f82e_c1d3_fcff_u128.to_be_bytes();
        let index = RowGroupIndex { last_ids: vec![id] };
        assert_eq!(index.to_json(), br#"{"rowGroups":["7urL4ibodVVXkPguwdP8/w=="]}"#);
        assert_eq!(RowGroupIndex::from_json(&index.to_json()).unwrap(), index);
    }

    #[test]
    fn an_id_is_in_the_first_group_that_does_not_end_before_it() {
        let id = |n: u128| n.to_be_bytes();
        let index = RowGroupIndex { last_ids: vec![id(10), id(20)] };
        assert_eq!([0, 10, 11, 20, 21].map(|n| index.find(&id(n))), [Some(0), Some(0), Some(1), Some(1), None]);
    }

    #[test]
    fn damaged_objects_are_errors() {
        assert!(matches!(RowGroupIndex::from_json(b"{"), Err(Error::Json(_))));
        assert!(matches!(RowGroupIndex::from_json(br#"{"rowGroups":["AA=="]}"#), Err(Error::Entry(0))));
    }
}
