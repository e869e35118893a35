//! Proves what commit objects promise: every chain gapless and disjoint, every block accounted for. Reads, changes nothing.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use futures::{StreamExt, TryStreamExt};
use serde::Serialize;
use uuid::Uuid;

use crate::{
    backend::{Backend, BlockKey, BlockState, Error},
    commit::{Commit, CommitName},
    meta::Timestamp,
};

/// Requests at once.
const REQUESTS: usize = 16;
/// So many problems are told of one chain.
const TOLD: usize = 20;

/// What an audit takes for granted.
#[derive(Debug, Clone, Copy)]
pub struct AuditRules {
    /// Now.
    pub now: Timestamp,
    /// A block that was merged into others goes after this at the earliest (`compacted_block_retention`): one of an older commit may be
    /// gone, one of a younger may not.
    pub merged_kept: Duration,
}

/// One chain: a partition of a topic.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ChainAudit {
    /// Id of the topic.
    pub log_id: String,
    /// The partition.
    pub partition: i32,
    /// The offsets that its sections cover.
    pub covers: Range<u64>,
    /// How many there are.
    pub sections: usize,
    /// Blocks that are live.
    pub live: usize,
    /// Blocks that were merged into others and are still there.
    pub merged: usize,
    /// Blocks that were merged and are gone, or past retention.
    pub removed: usize,
    /// Blocks of the last section whose metadata is still to be put, by whoever reads the partition next.
    pub incomplete: usize,
    /// Records that were set aside.
    pub quarantined: usize,
    /// Offsets that the log did not have any more.
    pub lost: u64,
    /// What must not be, in words. Empty: proven.
    pub problems: Vec<String>,
}

/// All chains of a bucket.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Audit {
    /// By topic and partition.
    pub chains: Vec<ChainAudit>,
    /// Blocks that two sections name, or two chains.
    pub problems: Vec<String>,
}

impl Audit {
    /// Whether nothing is wrong.
    pub fn is_proven(&self) -> bool {
        self.problems.is_empty() && self.chains.iter().all(|chain| chain.problems.is_empty())
    }
}

/// Walks the chains of a bucket.
///
/// # Errors
/// The bucket cannot be read. A commit object that cannot be read is a problem, not an error.
pub async fn audit(backend: &Backend, rules: AuditRules) -> Result<Audit, Error> {
    let commits = backend.list_commits().await?;
    let mut audit = Audit::default();
    let mut named: BTreeMap<Uuid, CommitName> = BTreeMap::new();
    let mut sections = commits.into_iter().peekable();
    while let Some((name, _)) = sections.peek() {
        let (log_id, partition) = (name.log_id.clone(), name.partition);
        let mut own = Vec::new();
        while let Some(section) = sections.next_if(|(name, _)| name.log_id == log_id && name.partition == partition) {
            own.push(section);
        }
        audit.chain(backend, rules, own, &mut named).await?;
    }
    Ok(audit)
}

impl Audit {
    async fn chain(
        &mut self,
        backend: &Backend,
        rules: AuditRules,
        sections: Vec<(CommitName, Timestamp)>,
        named: &mut BTreeMap<Uuid, CommitName>,
    ) -> Result<(), Error> {
        let mut chain = ChainAudit::default();
        let last = sections.last().map(|(name, _)| name.first);
        let read = sections.into_iter().map(|(name, written)| async move {
            match backend.read_commit(&name).await {
                Ok(commit) => Ok((name, written, commit.ok_or_else(|| "vanished while it was read".to_owned()))),
                Err(Error::Commit { source, .. }) => Ok((name, written, Err(source.to_string()))),
                Err(error) => Err(error),
            }
        });
        let mut read = futures::stream::iter(read).buffered(REQUESTS);
        while let Some((name, written, commit)) = read.try_next().await? {
            if chain.sections == 0 {
                chain.log_id.clone_from(&name.log_id);
                chain.partition = name.partition;
                chain.covers = name.first..name.first;
                match backend.chain_start(&name).await {
                    Ok(Some(start)) => chain.covers = start..start,
                    Ok(None) => {}
                    Err(Error::Commit { name, source }) => chain.problem(format!("{name}: {source}")),
                    Err(error) => return Err(error),
                }
            }
            chain.sections += 1;
            let commit = match commit {
                Ok(commit) => commit,
                Err(why) => {
                    chain.problem(format!("section at {}: {why}", name.first));
                    continue;
                }
            };
            chain.section(&commit);
            let youngest_removed =
                rules.now.0.saturating_sub(u64::try_from(rules.merged_kept.as_nanos()).unwrap_or(u64::MAX));
            let may_be_gone = written.0 <= youngest_removed;
            let is_last = last == Some(name.first);
            let states = commit.blocks.iter().map(|meta| async move {
                let key = BlockKey::new(meta.tenant_id.as_str(), meta.block_id);
                let state = backend.block_state(&key).await?;
                Ok::<_, Error>((key, state))
            });
            let mut states = futures::stream::iter(states).buffered(REQUESTS);
            while let Some((key, state)) = states.try_next().await? {
                chain.block(&key, state, is_last, may_be_gone);
                if let Some(other) = named.insert(key.block, name.clone()) {
                    self.problems.push(format!("block {key} is named by {} and {}", other.object(), name.object()));
                }
            }
        }
        self.chains.push(chain);
        Ok(())
    }
}

impl ChainAudit {
    fn problem(&mut self, text: String) {
        match self.problems.len() {
            told if told < TOLD => self.problems.push(text),
            TOLD => self.problems.push("and more".to_owned()),
            _ => {}
        }
    }

    fn section(&mut self, commit: &Commit) {
        if commit.first > self.covers.end {
            self.problem(format!("offsets {} to {} are in no section", self.covers.end, commit.first));
        } else if commit.first < self.covers.end {
            self.problem(format!("offsets {} to {} are in two sections", commit.first, self.covers.end));
        }
        self.covers.end = self.covers.end.max(commit.end);
        self.quarantined += commit.quarantined.len();
        self.lost += commit.lost.iter().map(|lost| lost.end.saturating_sub(lost.first)).sum::<u64>();
    }

    fn block(&mut self, key: &BlockKey, state: BlockState, is_last: bool, may_be_gone: bool) {
        match state {
            BlockState::Live => self.live += 1,
            BlockState::Compacted => self.merged += 1,
            BlockState::WithoutMeta if is_last => self.incomplete += 1,
            BlockState::WithoutMeta => self.problem(format!("block {key} is committed and has no metadata")),
            BlockState::Gone if may_be_gone => self.removed += 1,
            BlockState::Gone => {
                self.problem(format!("block {key} is committed and gone, sooner than a merged block may be"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        backend::Place,
        meta::{BlockMeta, Version},
    };

    fn meta(id: u128) -> BlockMeta {
        let text =
            include_str!("../tests/fixtures/vparquet5/single-tenant/ecbeb5d1-3e1a-42cb-8100-087b5302bd41/meta.json");
        let mut meta = BlockMeta::from_json(text.as_bytes()).unwrap();
        (meta.format, meta.tenant_id, meta.block_id) = (Version::V5, "t".into(), Uuid::from_u128(id));
        meta
    }

    async fn section(backend: &Backend, partition: i32, first: u64, end: u64, blocks: &[u128]) {
        let name = CommitName { log_id: "topic".into(), partition, first };
        let mut commit = Commit::new(name, end, Uuid::from_u128(u128::from(first)));
        commit.blocks = blocks.iter().map(|id| meta(*id)).collect();
        for meta in &commit.blocks {
            let key = BlockKey::new("t", meta.block_id);
            backend.put(Place::Block(&key, "data.parquet"), Bytes::from_static(b"x")).await.unwrap();
            backend.put_meta(meta).await.unwrap();
        }
        backend.begin_chain(&commit.name()).await.unwrap();
        assert!(backend.create_commit(&commit).await.unwrap());
    }

    const RULES: AuditRules = AuditRules { now: Timestamp(u64::MAX), merged_kept: Duration::from_secs(3600) };

    #[tokio::test]
    async fn whole_chains_are_proven_and_their_blocks_counted() {
        let backend = Backend::memory();
        assert!(audit(&backend, RULES).await.unwrap().is_proven());
        section(&backend, 0, 5, 10, &[1, 2]).await;
        section(&backend, 0, 10, 200, &[3]).await;
        section(&backend, 1, 0, 7, &[4]).await;
        backend.mark_compacted(&BlockKey::new("t", Uuid::from_u128(1))).await.unwrap();
        backend.delete_block(&BlockKey::new("t", Uuid::from_u128(2))).await.unwrap();
        backend.delete(Place::Block(&BlockKey::new("t", Uuid::from_u128(3)), "meta.json")).await.unwrap();
        let found = audit(&backend, RULES).await.unwrap();
        assert!(found.is_proven(), "{found:?}");
        let chain = &found.chains[0];
        assert_eq!((chain.covers.clone(), chain.sections), (5..200, 2));
        assert_eq!((chain.live, chain.merged, chain.removed, chain.incomplete), (0, 1, 1, 1));
        assert_eq!((found.chains[1].partition, found.chains[1].live), (1, 1));
    }

    #[tokio::test]
    async fn gaps_overlaps_and_missing_blocks_are_told() {
        let backend = Backend::memory();
        section(&backend, 0, 0, 10, &[1]).await;
        section(&backend, 0, 12, 20, &[2]).await;
        section(&backend, 0, 15, 30, &[2]).await;
        backend.delete(Place::Block(&BlockKey::new("t", Uuid::from_u128(1)), "meta.json")).await.unwrap();
        backend.delete_block(&BlockKey::new("t", Uuid::from_u128(2))).await.unwrap();
        backend.put(Place::Root("vivace-commit-topic-3-0.json"), Bytes::from_static(b"{")).await.unwrap();
        let found = audit(&backend, AuditRules { now: Timestamp(0), ..RULES }).await.unwrap();
        let told: Vec<&str> = found.chains.iter().flat_map(|chain| &chain.problems).map(String::as_str).collect();
        assert_eq!(told.len(), 6, "{told:?}");
        assert_eq!(told[0], "block t/00000000-0000-0000-0000-000000000001 is committed and has no metadata");
        assert_eq!(told[1], "offsets 10 to 12 are in no section");
        assert!(told[2].ends_with("is committed and gone, sooner than a merged block may be"));
        assert_eq!(told[3], "offsets 15 to 20 are in two sections");
        assert!(told[5].starts_with("section at 0: parse commit object"));
        assert_eq!(found.problems.len(), 1);
    }
}
