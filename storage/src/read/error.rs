//! What can go wrong when a block is read.

/// Why a block could not be read.
///
/// Everything but [`Error::Io`] and [`Error::Store`] is a property of the bytes of the block: asking again gives the same answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The local file could not be read. A retry may help.
    #[error("read local object {name}")]
    Io {
        /// Name of the object inside the block.
        name: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The object store failed. A retry may help.
    #[error("read object {name}")]
    Store {
        /// Name of the object inside the block.
        name: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An object that the block must have is not there.
    #[error("object {0} is missing from the block")]
    Missing(String),
    /// The bytes are not what the Parquet format allows.
    #[error("malformed {what}: {why}")]
    Malformed {
        /// The part of the file.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// Valid Parquet that this reader refuses, for instance brotli.
    #[error("unsupported {0}")]
    Unsupported(String),
    /// The columns of the file are not those that `meta.json` promises; reading by position would mislabel values.
    #[error("columns of the file do not fit its meta: {0}")]
    Schema(String),
}

impl Error {
    pub(crate) fn malformed(what: &'static str, why: &'static str) -> Self {
        Self::Malformed { what, why }
    }

    /// True when the same read may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Store { .. })
    }
}

/// Result of reading.
pub(crate) type Result<T> = std::result::Result<T, Error>;
