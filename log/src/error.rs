//! What can go wrong with a log, by what the caller must do about it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::log_id::LogId;
use crate::record::{Offset, Partition};

/// Errors of every form of the log. `is_retryable` says whether the same call can succeed later without anyone's help.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Expected under load: the bytes in flight are at their bound. Nothing was stored; retry after the hint.
    #[error("the log has too many bytes in flight")]
    Overloaded {
        /// When trying again is worthwhile.
        retry_after: Duration,
    },
    /// Expected when the volume is full. Nothing was stored; reads go on, and writes succeed again once there is room.
    #[error("no room left for the log")]
    DiskFull {
        /// When trying again is worthwhile.
        retry_after: Duration,
    },
    /// The record is larger than any log form takes. Nothing was stored; a retry cannot succeed.
    #[error("record of {bytes} bytes is larger than {limit_bytes}")]
    RecordTooLarge {
        /// The record's encoded size.
        bytes: usize,
        /// The bound.
        limit_bytes: usize,
    },
    /// The disk or the broker failed while the record was being made durable. It is refused: readers of this log never see
    /// it while the process lives (after a crash at this very instant it may surface once, as any unacknowledged record may).
    #[error("record was not made durable")]
    NotDurable(#[source] Arc<io::Error>),
    /// A file operation failed. Retryable: the next attempt uses another file or handle.
    #[error("{action} {}", path.display())]
    Io {
        /// A bare verb phrase: what was attempted.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: Arc<io::Error>,
    },
    /// The reader asked for an offset that is reclaimed already or not yet given. Decide anew from the bounds.
    #[error("offset {requested} is outside of {earliest}..={end}")]
    OutOfRange {
        /// What was asked for.
        requested: Offset,
        /// The first offset that is still held.
        earliest: Offset,
        /// The offset after the last durable record.
        end: Offset,
    },
    /// This log has no such partition: a wiring mistake.
    #[error("the log has no partition {0}")]
    UnknownPartition(Partition),
    /// A segment of another log lies in this log's directory. Nothing was changed; remove or restore the right files.
    #[error("{} belongs to log {found}, not to {expected}", path.display())]
    ForeignSegment {
        /// The file.
        path: PathBuf,
        /// The id in its header.
        found: LogId,
        /// This log's id.
        expected: LogId,
    },
    /// A file that must be readable (log id) is damaged or of a version that this program does not know.
    #[error("{} is damaged or of an unknown version: {reason}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The log is closed: the process is stopping. Nothing was stored.
    #[error("the log is closed")]
    Closed,
    /// The deadline came first. Unknown, never "did not happen".
    #[error("deadline passed")]
    DeadlineExceeded,
}

impl Error {
    /// Whether the same call can succeed later without anyone's help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Overloaded { .. }
            | Self::DiskFull { .. }
            | Self::NotDurable(_)
            | Self::Io { .. }
            | Self::Closed
            | Self::DeadlineExceeded => true,
            Self::RecordTooLarge { .. }
            | Self::OutOfRange { .. }
            | Self::UnknownPartition(_)
            | Self::ForeignSegment { .. }
            | Self::Unreadable { .. } => false,
        }
    }

    /// When trying again is worthwhile, if the log has an opinion.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after } | Self::DiskFull { retry_after } => Some(*retry_after),
            Self::RecordTooLarge { .. }
            | Self::NotDurable(_)
            | Self::Io { .. }
            | Self::OutOfRange { .. }
            | Self::UnknownPartition(_)
            | Self::ForeignSegment { .. }
            | Self::Unreadable { .. }
            | Self::Closed
            | Self::DeadlineExceeded => None,
        }
    }

    /// Wraps a failed file operation; a full volume becomes [`Error::DiskFull`].
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        if is_disk_full(&source) {
            return Self::disk_full();
        }
        Self::Io { action, path: path.into(), source: Arc::new(source) }
    }

    /// A batch that could not be made durable.
    pub(crate) fn not_durable(source: io::Error) -> Self {
        if is_disk_full(&source) { Self::disk_full() } else { Self::NotDurable(Arc::new(source)) }
    }

    fn disk_full() -> Self {
        Self::DiskFull { retry_after: DISK_FULL_RETRY_AFTER }
    }
}

/// Room appears when blocks are flushed and segments go, which takes seconds rather than milliseconds.
const DISK_FULL_RETRY_AFTER: Duration = Duration::from_secs(5);

fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
