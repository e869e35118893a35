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
    /// Kafka cannot be reached, is busy, or has no leader for the partition just now. Nothing was stored as far as is known; trying
    /// again helps as soon as the brokers are back.
    #[error("{action}: Kafka is not available: {reason}")]
    BrokerUnavailable {
        /// A bare verb phrase: what was attempted.
        action: &'static str,
        /// What the brokers, or the network, said.
        reason: String,
    },
    /// Kafka refuses for good: rights, a missing topic, a format. Nothing was stored; an operator must act first.
    #[error("{action}: Kafka refuses: {reason}")]
    BrokerRefused {
        /// A bare verb phrase: what was attempted.
        action: &'static str,
        /// What the broker said, and what to do about it.
        reason: String,
    },
    /// One record alone is larger than the topic takes. Nothing was stored; a retry cannot succeed until an operator raises the
    /// limit of the topic, or lowers `ingest.kafka.producer_max_record_size_bytes`.
    #[error(
        "record of {bytes} bytes is larger than Kafka takes: {reason}; raise that limit or lower \
         ingest.kafka.producer_max_record_size_bytes"
    )]
    TooLargeForBroker {
        /// The record's encoded size, before compression.
        bytes: usize,
        /// What the broker said.
        reason: String,
    },
    /// The topic was deleted and created again while this process used it: offsets and everything derived from the log's id mean
    /// something else now. Whoever opens the log anew has the new topic: consumers do, a distributor has to be restarted for it.
    #[error("Kafka topic {topic} was created again: its id was {expected} and is now {found}")]
    TopicReplaced {
        /// The topic.
        topic: String,
        /// The id that this log was opened with.
        expected: LogId,
        /// The id that it has now.
        found: LogId,
    },
    /// A key of the configuration holds what cannot be used. Nothing was started.
    #[error("{key}: {what}")]
    Configuration {
        /// The key, from the root.
        key: String,
        /// What is wrong with it, and what to do.
        what: String,
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
            | Self::BrokerUnavailable { .. }
            | Self::Closed
            | Self::DeadlineExceeded => true,
            Self::RecordTooLarge { .. }
            | Self::TooLargeForBroker { .. }
            | Self::BrokerRefused { .. }
            | Self::TopicReplaced { .. }
            | Self::Configuration { .. }
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
            | Self::TooLargeForBroker { .. }
            | Self::BrokerUnavailable { .. }
            | Self::BrokerRefused { .. }
            | Self::TopicReplaced { .. }
            | Self::Configuration { .. }
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
