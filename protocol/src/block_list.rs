//! A tenant's blocks in one compact message, for who plans jobs: columns of equal length instead of one document a block.
//! Fifty thousand blocks take about two megabytes, and an asker that holds the list already is told so in a few bytes.

use bytes::BytesMut;

use crate::vivace::BlockListReply;

/// What a plan needs to know of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockEntry {
    /// The bytes of its id.
    pub id: [u8; 16],
    /// Earliest span start.
    pub start_unix_nano: u64,
    /// Latest span end; it may be cut to whole seconds.
    pub end_unix_nano: u64,
    /// Length of its data object.
    pub size_bytes: u64,
    /// Traces in it.
    pub objects: u64,
    /// Row groups in it.
    pub row_groups: u32,
    /// 1 for blocks that were written once.
    pub replication_factor: u32,
}

/// Why a list cannot be read. It comes from a component of ours: a bug, or another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlockListError {
    /// The ids are not a whole number of ids.
    #[error("the ids of the block list have {0} bytes, which is no multiple of 16")]
    Ids(usize),
    /// A column is longer or shorter than the ids.
    #[error("column {column} of the block list has {found} entries for {blocks} blocks")]
    Column {
        /// Its name.
        column: &'static str,
        /// Its length.
        found: usize,
        /// The length due.
        blocks: usize,
    },
}

impl BlockListReply {
    /// The list as a message. Its version is made from the content alone, whatever the order of the blocks.
    #[must_use]
    pub fn of(entries: impl IntoIterator<Item = BlockEntry>, complete: bool) -> Self {
        let mut ids = BytesMut::new();
        let mut reply = Self { complete, ..Self::default() };
        let mut sum: u64 = 0;
        for entry in entries {
            sum = sum.wrapping_add(digest(&entry));
            ids.extend_from_slice(&entry.id);
            reply.start_unix_nano.push(entry.start_unix_nano);
            reply.end_unix_nano.push(entry.end_unix_nano);
            reply.size_bytes.push(entry.size_bytes);
            reply.objects.push(entry.objects);
            reply.row_groups.push(entry.row_groups);
            reply.replication_factor.push(entry.replication_factor);
        }
        reply.ids = ids.freeze();
        // 0 means that the asker has none.
        reply.version = sum.max(1);
        reply
    }

    /// For an asker that holds this version already.
    #[must_use]
    pub fn unchanged(&self) -> Self {
        Self { complete: self.complete, version: self.version, unchanged: true, ..Self::default() }
    }

    /// The blocks, in the order of the message.
    ///
    /// # Errors
    /// The columns do not fit together.
    pub fn entries(&self) -> Result<Vec<BlockEntry>, BlockListError> {
        let (ids, rest) = self.ids.as_chunks::<16>();
        if !rest.is_empty() {
            return Err(BlockListError::Ids(self.ids.len()));
        }
        let blocks = ids.len();
        let columns = [
            ("start_unix_nano", self.start_unix_nano.len()),
            ("end_unix_nano", self.end_unix_nano.len()),
            ("size_bytes", self.size_bytes.len()),
            ("objects", self.objects.len()),
            ("row_groups", self.row_groups.len()),
            ("replication_factor", self.replication_factor.len()),
        ];
        if let Some((column, found)) = columns.into_iter().find(|(_, found)| *found != blocks) {
            return Err(BlockListError::Column { column, found, blocks });
        }
        let entry = |(i, id): (usize, &[u8; 16])| BlockEntry {
            id: *id,
            start_unix_nano: self.start_unix_nano[i],
            end_unix_nano: self.end_unix_nano[i],
            size_bytes: self.size_bytes[i],
            objects: self.objects[i],
            row_groups: self.row_groups[i],
            replication_factor: self.replication_factor[i],
        };
        Ok(ids.iter().enumerate().map(entry).collect())
    }
}

/// A hash of one block's entry. Collisions are a matter of chance only: nobody gains by one.
fn digest(entry: &BlockEntry) -> u64 {
    let [high, low] = [0, 8].map(|at| {
        let mut half = [0; 8];
        half.copy_from_slice(&entry.id[at..at + 8]);
        u64::from_le_bytes(half)
    });
    let parts = [
        high,
        low,
        entry.start_unix_nano,
        entry.end_unix_nano,
        entry.size_bytes,
        entry.objects,
        u64::from(entry.row_groups) << 32 | u64::from(entry.replication_factor),
    ];
    parts.into_iter().fold(0x9e37_79b9_7f4a_7c15, |state, part| {
        // The finaliser of splitmix64.
        let mut mixed: u64 = (state ^ part).wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn entries(count: u64) -> Vec<BlockEntry> {
        let entry = |n: u64| BlockEntry {
            id: (u128::from(n) * 0x1234_5678_9abc_def1).to_be_bytes(),
            start_unix_nano: 1_700_000_000_000_000_000 + n,
            end_unix_nano: 1_700_000_000_000_000_000 + 2 * n,
            size_bytes: 100 + n,
            objects: n,
            row_groups: 1,
            replication_factor: 1,
        };
        (0..count).map(entry).collect()
    }

    #[test]
    fn a_list_comes_back_as_it_was_and_tens_of_thousands_fit_one_message() {
        let due = entries(50_000);
        let encoded = BlockListReply::of(due.clone(), true).encode_to_vec();
        assert!(encoded.len() < 3 << 20, "{} bytes", encoded.len());
        let reply = BlockListReply::decode(&*encoded).unwrap();
        assert_eq!(reply.entries().unwrap(), due);
        assert!(reply.unchanged().encode_to_vec().len() < 20);
    }

    #[test]
    fn the_version_follows_the_content_and_not_the_order() {
        let mut list = entries(10);
        let version = BlockListReply::of(list.clone(), true).version;
        list.reverse();
        assert_eq!(BlockListReply::of(list.clone(), true).version, version);
        list[3].size_bytes += 1;
        assert_ne!(BlockListReply::of(list.clone(), true).version, version);
        list.pop();
        assert_ne!(BlockListReply::of(list, true).version, version);
        assert_ne!(BlockListReply::of([], true).version, 0);
    }

    #[test]
    fn columns_that_do_not_fit_together_are_refused() {
        let mut reply = BlockListReply::of(entries(3), true);
        reply.objects.pop();
        let error = reply.entries().unwrap_err();
        assert_eq!(error.to_string(), "column objects of the block list has 2 entries for 3 blocks");
        reply.ids = reply.ids.slice(..40);
        assert_eq!(reply.entries().unwrap_err(), BlockListError::Ids(40));
    }
}
