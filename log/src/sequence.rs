//! The header `vivace-seq`: which producer wrote a record, and the how-manieth of its records in the partition it is.

use bytes::Bytes;

use crate::record::{Header, Record};

/// Who produced a record and in what order. A producer that must send a request again (its connection broke, the broker asked it to
/// wait) sends the same sequence again, so that consumers see the copy for what it is. Tempo's consumers ignore the header.
///
/// Within one session the numbers of a partition grow by one with each new record; a producer has one request in flight per
/// partition, so a lower number behind a higher one is always a copy, or a record that was refused to its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequence {
    /// Drawn at random when a producer of a partition starts.
    pub session: u64,
    /// From 1.
    pub number: u64,
}

impl Sequence {
    /// The header's name.
    pub const HEADER: &'static str = "vivace-seq";

    /// The header's value: session and number, eight bytes each, big-endian. Frozen.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.session) << 64 | u128::from(self.number)).to_be_bytes()
    }

    /// The sequence in a header's value.
    #[must_use]
    pub fn from_bytes(value: &[u8]) -> Option<Self> {
        let (session, number) = value.split_first_chunk::<8>()?;
        Some(Self { session: u64::from_be_bytes(*session), number: u64::from_be_bytes(number.try_into().ok()?) })
    }

    /// The header.
    #[must_use]
    pub fn to_header(self) -> Header {
        Header { name: Bytes::from_static(Self::HEADER.as_bytes()), value: Bytes::copy_from_slice(&self.to_bytes()) }
    }

    /// The sequence of a record, if its producer gave it one; Tempo's does not.
    #[must_use]
    pub fn of(record: &Record) -> Option<Self> {
        let header = record.headers.iter().find(|header| header.name == Self::HEADER.as_bytes())?;
        Self::from_bytes(&header.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_sixteen_bytes_and_reads_back() {
        let sequence = Sequence { session: 0x0102_0304_0506_0708, number: 9 };
        assert_eq!(sequence.to_bytes(), [1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 9]);
        let record = Record { headers: vec![sequence.to_header()], ..Record::default() };
        assert_eq!(Sequence::of(&record), Some(sequence));
    }

    #[test]
    fn a_header_of_another_length_is_no_sequence() {
        for length in [0, 7, 8, 15, 17] {
            assert_eq!(Sequence::from_bytes(&vec![1; length]), None);
        }
        assert_eq!(Sequence::of(&Record::default()), None);
    }
}
