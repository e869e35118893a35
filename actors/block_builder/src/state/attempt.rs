//! From blocks that are written, all but their metadata, to a commit object that counts.
//!
//! ```text
//!            ┌─ true ───────────────────────────────┐
//! Create ────┤                                      ├─▶ PutMetas (ours) ──────────────────▶ Done: won
//!    ▲       └─ false, unclear ─▶ ReadBack ─ ours ──┘
//!    └── nothing there ──────────────┘   └── another's ─▶ Discard ours ─▶ PutMetas (theirs) ─▶ Done: lost, go on at its end
//! ```
//! Every step may be repeated: a crash anywhere leaves either no commit object, and then no metadata of ours, or one that names
//! everything that is missing.

use std::sync::Arc;

use uuid::Uuid;
use vivace_protocol::TenantId;
use vivace_storage::{BlockMeta, Commit};

/// Namespace of the ids of blocks that a block-builder makes; any fixed value does, this one was drawn once.
const BLOCK_NAMESPACE: Uuid = Uuid::from_u128(0x0f3b_9c51_7d2e_4a86_b1f0_93a7_5c64_de18);

/// The id of a tenant's `part`-th block in an attempt: UUIDv5 over (tenant, topic id, partition, first, end, nonce, part).
pub(crate) fn block_id(commit: &Commit, tenant: &TenantId, part: u32) -> Uuid {
    let Commit { log_id, partition, first, end, nonce, .. } = commit;
    let name = format!("{tenant}/{log_id}/{partition}/{first}/{end}/{nonce}/{part}");
    Uuid::new_v5(&BLOCK_NAMESPACE, name.as_bytes())
}

/// What is to be done next. Each may fail and is then asked for again.
#[derive(Debug)]
pub(crate) enum AttemptStep<'a> {
    /// Create this commit object unless the section has one.
    Create(&'a Commit),
    /// Read the section's commit object.
    ReadBack(&'a Commit),
    /// Delete these blocks, which have no metadata.
    Discard(&'a [BlockMeta]),
    /// Put the metadata of these blocks where there is none yet.
    PutMetas(&'a [BlockMeta]),
    /// The section has its blocks.
    Done(Outcome),
}

/// What became of creating a commit object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Created {
    /// It is there, and ours.
    Yes,
    /// It was there before.
    No,
    /// The store did not answer clearly.
    Unclear,
}

/// Whose blocks count, and where to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Ours.
    pub(crate) won: bool,
    /// The end of the section that counts.
    pub(crate) end: u64,
    /// What was seen of producers below it.
    pub(crate) producers: Vec<u8>,
}

#[derive(Debug)]
enum Phase {
    Create,
    ReadBack,
    Discard(Arc<Commit>),
    PutMetas(Arc<Commit>),
    Done(Arc<Commit>),
}

/// One attempt to commit one section.
#[derive(Debug)]
pub(crate) struct Attempt {
    ours: Arc<Commit>,
    phase: Phase,
}

impl Attempt {
    /// `commit` names the blocks that were written.
    pub(crate) fn new(commit: Commit) -> Self {
        Self { ours: Arc::new(commit), phase: Phase::Create }
    }

    /// What is to be done next.
    pub(crate) fn step(&self) -> AttemptStep<'_> {
        match &self.phase {
            Phase::Create => AttemptStep::Create(&self.ours),
            Phase::ReadBack => AttemptStep::ReadBack(&self.ours),
            Phase::Discard(_) => AttemptStep::Discard(&self.ours.blocks),
            Phase::PutMetas(counts) => AttemptStep::PutMetas(&counts.blocks),
            Phase::Done(counts) => AttemptStep::Done(Outcome {
                won: counts.nonce == self.ours.nonce,
                end: counts.end,
                producers: counts.producers.clone(),
            }),
        }
    }

    /// The answer to [`AttemptStep::Create`].
    pub(crate) fn on_created(&mut self, created: Created) {
        self.phase = match created {
            Created::Yes => Phase::PutMetas(Arc::clone(&self.ours)),
            Created::No | Created::Unclear => Phase::ReadBack,
        };
    }

    /// The answer to [`AttemptStep::ReadBack`].
    pub(crate) fn on_read(&mut self, found: Option<Commit>) {
        self.phase = match found {
            // An unclear create that did not happen.
            None => Phase::Create,
            Some(commit) if commit.nonce == self.ours.nonce => Phase::PutMetas(Arc::clone(&self.ours)),
            Some(commit) => Phase::Discard(Arc::new(commit)),
        };
    }

    /// [`AttemptStep::Discard`] is done.
    pub(crate) fn on_discarded(&mut self) {
        if let Phase::Discard(counts) = &self.phase {
            // The winner may have died before it put its metadata, and whoever begins the next section vouches for them.
            self.phase = Phase::PutMetas(Arc::clone(counts));
        }
    }

    /// [`AttemptStep::PutMetas`] is done.
    pub(crate) fn on_metas(&mut self) {
        if let Phase::PutMetas(counts) = &self.phase {
            self.phase = Phase::Done(Arc::clone(counts));
        }
    }

    /// Whether the commit object may exist: giving up is allowed only before.
    pub(crate) fn may_be_given_up(&self) -> bool {
        matches!(self.phase, Phase::Create)
    }
}
