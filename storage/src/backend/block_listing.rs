//! What a listing of a tenant's folder says about its blocks.

use std::collections::{BTreeMap, BTreeSet};

use object_store::path::Path;
use uuid::Uuid;

use super::NO_COMPACT;
use crate::meta::{META, META_COMPACTED, Timestamp};

/// Blocks of one tenant by state, each list ascending by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockListing {
    /// Blocks with `meta.json` alone.
    pub live: Vec<Uuid>,
    /// Blocks with `meta.compacted.json`, and when it was written.
    pub compacted: Vec<(Uuid, Timestamp)>,
    /// Those of `compacted` that still have a `meta.json`: the change of state was interrupted.
    pub half_compacted: Vec<Uuid>,
    /// Blocks with neither, and when their newest object was written: being written, or abandoned.
    pub incomplete: Vec<(Uuid, Timestamp)>,
    /// Blocks of any state that must not be compacted yet.
    pub no_compact: BTreeSet<Uuid>,
    seen: BTreeMap<Uuid, Seen>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    live: bool,
    compacted: Option<Timestamp>,
    newest: Timestamp,
}

impl BlockListing {
    /// Notes one object below `folder`. Objects elsewhere than directly in a folder named by a UUID are none of ours.
    pub(super) fn add(&mut self, folder: &Path, object: &Path, modified: Timestamp) {
        let Some(mut parts) = object.prefix_match(folder) else { return };
        let (Some(block), Some(name), None) = (parts.next(), parts.next(), parts.next()) else { return };
        let Ok(block) = Uuid::parse_str(block.as_ref()) else { return };
        let seen = self.seen.entry(block).or_default();
        seen.newest = seen.newest.max(modified);
        match name.as_ref() {
            META => seen.live = true,
            META_COMPACTED => seen.compacted = Some(modified),
            NO_COMPACT => {
                self.no_compact.insert(block);
            }
            _ => {}
        }
    }

    pub(super) fn settle(&mut self) {
        for (block, seen) in std::mem::take(&mut self.seen) {
            match (seen.compacted, seen.live) {
                (Some(when), both) => {
                    self.compacted.push((block, when));
                    self.half_compacted.extend(both.then_some(block));
                }
                (None, true) => self.live.push(block),
                (None, false) => self.incomplete.push((block, seen.newest)),
            }
        }
    }
}
