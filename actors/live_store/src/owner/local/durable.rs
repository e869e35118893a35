//! What is on the own disk, and what follows from it: which blocks count, which may be deleted, what may be committed.

use std::sync::Arc;

use vivace_log::Offset;
use vivace_runtime::Cx;

use crate::flusher::Written;
use crate::owner::{FLUSH_RETRY, Home, Owner, unix_ms};
use crate::state::{CutId, Shelved};

/// So many records that were set aside are shown, and more only while they may be read again.
const QUARANTINED_MAX: usize = 1_000;

impl Owner {
    /// The blocks of a cut are durable on the own disk: they take its place.
    pub(in crate::owner) fn on_shelved(&mut self, id: CutId, blocks: Vec<Written>, cx: &mut Cx<Self>) {
        let shared = Arc::clone(&self.shared);
        let (Home::Local(home), Some(local)) = (&shared.home, &mut self.local) else { return };
        let mut entries = Vec::new();
        for Written { tenant, meta, until_ms } in blocks {
            entries.push(Shelved { tenant: tenant.to_string(), id: meta.block_id, until_ms });
            local.shelf.add(local.folder.block(meta));
        }
        self.state.published(id);
        home.metrics.blocks(local.shelf.len());
        let replay_from = self.ledger.complete(id.number, entries);
        self.copies.forget_below(replay_from);
        if shared.quarantine.entries().len() > QUARANTINED_MAX {
            // They are below everything that is read again, and have been counted and logged.
            shared.quarantine.forget_below(replay_from);
        }
        self.last_error = None;
        self.keep_ledger(cx);
        self.read(cx);
    }

    /// Makes the ledger durable. What it does not name any more may be deleted then, what it covers may be committed.
    pub(super) fn keep_ledger(&mut self, cx: &mut Cx<Self>) {
        let saved = self.save();
        let Some(local) = &mut self.local else { return };
        let doomed = std::mem::take(&mut local.doomed);
        local.saving += 1;
        cx.spawn(saved, move |owner, saved, cx| {
            let Some(local) = &mut owner.local else { return };
            local.saving -= 1;
            match saved {
                Ok(replay_from) => {
                    local.safe = replay_from;
                    owner.delete_later(doomed, cx);
                    if matches!(&owner.shared.home, Home::Local(home) if home.times.commit_interval.is_zero()) {
                        owner.commit(cx);
                    }
                }
                Err(status) => {
                    local.doomed.extend(doomed);
                    owner.problem("write the ledger", status.message());
                    cx.after(FLUSH_RETRY, Self::keep_ledger);
                }
            }
            owner.settled(cx);
        });
    }

    /// Blocks whose time is over leave the shelf now and the disk later: who reads them may finish.
    pub(super) fn expire(&mut self, cx: &mut Cx<Self>) {
        let shared = Arc::clone(&self.shared);
        let (Home::Local(home), Some(local)) = (&shared.home, &mut self.local) else { return };
        let gone = self.ledger.expire(home.too_old_before(unix_ms(cx)));
        if gone.is_empty() {
            return;
        }
        for block in gone {
            tracing::debug!(tenant = block.tenant, block = %block.id, "the time of a local block is over");
            local.shelf.remove(&block);
            local.doomed.push(block);
            home.metrics.cleared();
        }
        home.metrics.blocks(local.shelf.len());
        self.keep_ledger(cx);
    }

    fn delete_later(&mut self, blocks: Vec<Shelved>, cx: &mut Cx<Self>) {
        let (Home::Local(home), Some(local)) = (&self.shared.home, &self.local) else { return };
        if blocks.is_empty() {
            return;
        }
        let (sleep, folder, open) = (cx.sleep(home.times.grace), local.folder.clone(), Arc::clone(&home.open));
        cx.detach(async move {
            sleep.await;
            for block in blocks {
                open.forget(block.id);
                if let Err(error) = folder.delete(&block).await {
                    // It is swept at the next start.
                    tracing::warn!(%error, tenant = block.tenant, block = %block.id, "delete a local block");
                }
            }
        });
    }

    /// Commits for the group what the ledger on disk covers.
    pub(super) fn commit(&mut self, cx: &mut Cx<Self>) {
        let partition = self.shared.partition;
        let Some(local) = &mut self.local else { return };
        let Some(offsets) = local.offsets.as_ref().filter(|_| !local.committing && local.committed != Some(local.safe))
        else {
            return;
        };
        local.committing = true;
        let safe = local.safe;
        cx.spawn(offsets.commit(partition, Offset(safe)), move |owner, done, cx| {
            let Some(local) = &mut owner.local else { return };
            local.committing = false;
            let failed = match done {
                Ok(()) => {
                    local.committed = Some(safe);
                    false
                }
                Err(error) => {
                    owner.problem("commit the offset", &error.to_string());
                    if let Home::Local(home) = &owner.shared.home {
                        home.metrics.commit_failed();
                    }
                    true
                }
            };
            if owner.draining.is_some() {
                // The ledger is on the disk: the commit only tells others. It is tried once.
                if failed { owner.drained() } else { owner.settled(cx) }
            }
        });
    }
}
