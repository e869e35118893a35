//! A partition: two registers with Lamport versions, one for its state and one for its lock.
//!
//! A register's order is version, then writer, then value. Whoever changes one takes the version that it has read, plus
//! one. The time of a change is carried for people and for the delay of a deletion; it decides nothing here.

use serde::Serialize;

use super::codec::{Reader, Writer};
use super::{COUNTER_MAX, DecodeError};

/// What a partition is used for. The order decides between two changes of one version and one writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum PartitionState {
    /// Created, waits for its owners; not written to, but read.
    Pending,
    /// Written to and read.
    Active,
    /// Going away: not written to, but read.
    Inactive,
    /// Gone. The record stays for ever, so that no member that slept brings the partition back.
    Deleted,
}

impl PartitionState {
    /// The number in JSON; 0 is unknown.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Pending => 1,
            Self::Active => 2,
            Self::Inactive => 3,
            Self::Deleted => 4,
        }
    }

    fn of_number(number: u8) -> Option<Self> {
        [Self::Pending, Self::Active, Self::Inactive, Self::Deleted].into_iter().find(|state| state.number() == number)
    }

    /// The name in forms and in answers of the downscale endpoints.
    #[must_use]
    pub fn enum_name(self) -> &'static str {
        match self {
            Self::Pending => "PartitionPending",
            Self::Active => "PartitionActive",
            Self::Inactive => "PartitionInactive",
            Self::Deleted => "PartitionDeleted",
        }
    }

    /// The state that a form names.
    #[must_use]
    pub fn of_enum_name(name: &str) -> Option<Self> {
        [Self::Pending, Self::Active, Self::Inactive, Self::Deleted].into_iter().find(|state| state.enum_name() == name)
    }

    /// The name for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        self.enum_name().trim_start_matches("Partition")
    }
}

/// A value that several may write; the greatest wins. Fields are in the order of comparison.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Register<T> {
    /// How many changes led here.
    pub version: u64,
    /// Who wrote, by its instance id or member name.
    pub writer: String,
    /// What it says.
    pub value: T,
    /// When it was written, in seconds since the epoch by the writer's clock.
    pub changed_at: i64,
}

impl<T> Register<T> {
    /// The register after a change by `writer`.
    #[must_use]
    pub fn changed(&self, value: T, writer: &str, at: i64) -> Self {
        Self { version: self.version + 1, writer: writer.to_owned(), value, changed_at: at }
    }

    fn write(&self, out: &mut Writer, code: impl Fn(&T) -> u8) {
        out.u64(self.version);
        out.text(&self.writer);
        out.u8(code(&self.value));
        out.i64(self.changed_at);
    }

    fn read(from: &mut Reader<'_>, value: impl Fn(u8) -> Option<T>) -> Result<Self, DecodeError> {
        let version = from.u64()?;
        if version > COUNTER_MAX {
            return Err(DecodeError::Value("version"));
        }
        Ok(Self {
            version,
            writer: from.text("writer")?.to_owned(),
            value: value(from.u8()?).ok_or(DecodeError::Value("value of a partition"))?,
            changed_at: from.i64()?,
        })
    }
}

/// A partition's record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Partition {
    /// What it is used for.
    pub state: Register<PartitionState>,
    /// Whether `state` may change.
    pub lock: Register<bool>,
}

impl Partition {
    /// A partition that did not exist.
    #[must_use]
    pub fn pending(writer: &str, at: i64) -> Self {
        Self {
            state: Register { version: 1, writer: writer.to_owned(), value: PartitionState::Pending, changed_at: at },
            lock: Register { version: 0, writer: String::new(), value: false, changed_at: 0 },
        }
    }

    /// The greater of both, register by register.
    #[must_use]
    pub fn merge(&self, other: &Self) -> Self {
        Self { state: Ord::max(&self.state, &other.state).clone(), lock: Ord::max(&self.lock, &other.lock).clone() }
    }

    pub(super) fn write(&self, out: &mut Writer) {
        self.state.write(out, |state| state.number());
        self.lock.write(out, |locked| u8::from(*locked));
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            state: Register::read(from, PartitionState::of_number)?,
            lock: Register::read(from, |byte| match byte {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            })?,
        })
    }
}
