//! Commit objects: the truth about which records of a topic are in which blocks.
//!
//! ```text
//! [first ──── section 1 ──── end) [end ── section 2 ── …      offsets of one partition of one topic
//!   vivace-commit-<topic id>-<partition>-<first>.json         one object each, in the root of the bucket
//! ```
//! An object is created on condition that it does not exist, so of several builders that made blocks of the same records exactly
//! one has them count. The next section begins where the last one ends; together they are the *chain* of the partition. The object
//! names every block with its whole metadata, so that a `meta.json` that its builder could not write any more can be put by others.
//! Where a chain begins stands in `vivace-chain-<topic id>-<partition>.json`, created once on the same condition.
//! A topic that was deleted and created again has another id, and so another chain.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

use crate::meta::BlockMeta;

const PREFIX: &str = "vivace-commit-";
const CHAIN_PREFIX: &str = "vivace-chain-";
const SUFFIX: &str = ".json";
/// The form that this program writes and reads.
const VERSION: u32 = 1;

/// Which section a commit object is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommitName {
    /// Id of the topic (or of another form of the log), as it prints.
    pub log_id: String,
    /// The partition.
    pub partition: i32,
    /// The first offset of the section.
    pub first: u64,
}

impl CommitName {
    /// Name of the object.
    pub fn object(&self) -> String {
        format!("{PREFIX}{}-{}-{}{SUFFIX}", self.log_id, self.partition, self.first)
    }

    /// Name of the object that says where the chain of this partition begins, whatever `first`.
    pub fn chain_object(&self) -> String {
        format!("{CHAIN_PREFIX}{}-{}{SUFFIX}", self.log_id, self.partition)
    }

    /// The name that an object has, if it is that of a commit.
    pub fn parse(object: &str) -> Option<Self> {
        let rest = object.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let (rest, first) = rest.rsplit_once('-')?;
        let (log_id, partition) = rest.rsplit_once('-')?;
        Some(Self {
            log_id: Some(log_id).filter(|id| !id.is_empty())?.to_owned(),
            partition: partition.parse().ok()?,
            first: first.parse().ok()?,
        })
    }
}

/// A record that is in no block, on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantined {
    /// Where it stands.
    pub offset: u64,
    /// Why, in words.
    pub reason: String,
}

/// Offsets whose records were gone before they were read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The first.
    pub first: u64,
    /// The one after the last.
    pub end: u64,
    /// Why, in words.
    pub reason: String,
}

/// The content of a commit object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Commit {
    version: u32,
    /// Id of the topic.
    pub log_id: String,
    /// The partition.
    pub partition: i32,
    /// The first offset of the section.
    pub first: u64,
    /// The one after the last.
    pub end: u64,
    /// Drawn anew for each attempt: tells one's own object from another's.
    pub nonce: Uuid,
    /// Records that are in no block because they cannot be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<Quarantined>,
    /// Records that are in no block because the log did not have them any more.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lost: Vec<Lost>,
    /// What was seen of producers below `end`, opaque here.
    #[serde(
        default,
        serialize_with = "as_base64",
        deserialize_with = "from_base64",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub producers: Vec<u8>,
    /// Every block of the section.
    pub blocks: Vec<BlockMeta>,
}

/// The content of the object that says where a chain begins: created once, before its first section, so that builders that start
/// at the same time agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChainStart {
    version: u32,
    first: u64,
}

impl ChainStart {
    pub(crate) fn at(first: u64) -> Self {
        Self { version: VERSION, first }
    }

    pub(crate) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain numbers")
    }

    /// The first offset of the chain.
    pub(crate) fn from_json(json: &[u8]) -> Result<u64, Error> {
        let start: Self = serde_json::from_slice(json)?;
        if start.version == VERSION { Ok(start.first) } else { Err(Error::Version(start.version)) }
    }
}

/// Why a commit object was refused. Its content comes from storage: reading it again gives the same answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON, or a field has the wrong type.
    #[error("parse commit object")]
    Json(#[from] serde_json::Error),
    /// Written by a program that this one does not know.
    #[error("commit object has form {0}, this program reads {VERSION}")]
    Version(u32),
    /// The content is of another section than the name says, or ends before it begins.
    #[error("commit object is of section [{first}, {end}) of partition {partition} of {log_id}")]
    Misplaced {
        /// As inside.
        log_id: String,
        /// As inside.
        partition: i32,
        /// As inside.
        first: u64,
        /// As inside.
        end: u64,
    },
}

impl Commit {
    /// The section `[name.first, end)` of this attempt, with nothing in it yet.
    pub fn new(name: CommitName, end: u64, nonce: Uuid) -> Self {
        Self {
            version: VERSION,
            log_id: name.log_id,
            partition: name.partition,
            first: name.first,
            end,
            nonce,
            quarantined: Vec::new(),
            lost: Vec::new(),
            producers: Vec::new(),
            blocks: Vec::new(),
        }
    }

    /// Which section it is of.
    pub fn name(&self) -> CommitName {
        CommitName { log_id: self.log_id.clone(), partition: self.partition, first: self.first }
    }

    /// The object's content.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain strings and numbers with string keys")
    }

    /// Reads the object of this name.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn from_json(name: &CommitName, json: &[u8]) -> Result<Self, Error> {
        let commit: Self = serde_json::from_slice(json)?;
        if commit.version != VERSION {
            return Err(Error::Version(commit.version));
        }
        if commit.name() != *name || commit.end <= commit.first {
            let Self { log_id, partition, first, end, .. } = commit;
            return Err(Error::Misplaced { log_id, partition, first, end });
        }
        Ok(commit)
    }
}

fn as_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(deserializer)?).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> CommitName {
        CommitName { log_id: "abababab-abab-4bab-abab-abababababab".into(), partition: 7, first: 12 }
    }

    #[test]
    fn names_read_back_and_other_objects_have_none() {
        assert_eq!(name().object(), "vivace-commit-abababab-abab-4bab-abab-abababababab-7-12.json");
        assert_eq!(CommitName::parse(&name().object()), Some(name()));
        for other in [
            "work.json",
            "vivace-commit-x.json",
            "vivace-commit--1-2.json",
            "vivace-commit-a-1-2",
            "vivace-commit-a-b-2.json",
        ] {
            assert_eq!(CommitName::parse(other), None, "{other}");
        }
    }

    #[test]
    fn the_form_of_the_object_is_frozen() {
        let mut commit = Commit::new(name(), 20, Uuid::from_u128(5));
        commit.producers = vec![1, 2, 3];
        commit.quarantined.push(Quarantined { offset: 13, reason: "no record".into() });
        let json = String::from_utf8(commit.to_json()).unwrap();
        assert_eq!(
            json,
            r#"{"version":1,"logId":"abababab-abab-4bab-abab-abababababab","partition":7,"first":12,"end":20,"nonce":"00000000-0000-0000-0000-000000000005","quarantined":[{"offset":13,"reason":"no record"}],"producers":"AQID","blocks":[]}"#
        );
        assert_eq!(Commit::from_json(&name(), json.as_bytes()).unwrap(), commit);
    }

    #[test]
    fn what_does_not_fit_its_name_is_refused() {
        let commit = Commit::new(name(), 20, Uuid::nil());
        let other = CommitName { first: 13, ..name() };
        assert!(matches!(Commit::from_json(&other, &commit.to_json()), Err(Error::Misplaced { .. })));
        let empty = Commit { end: 12, ..commit.clone() };
        assert!(matches!(Commit::from_json(&name(), &empty.to_json()), Err(Error::Misplaced { .. })));
        let newer = Commit { version: 2, ..commit };
        assert!(matches!(Commit::from_json(&name(), &newer.to_json()), Err(Error::Version(2))));
        assert!(matches!(Commit::from_json(&name(), b"{"), Err(Error::Json(_))));
    }
}
