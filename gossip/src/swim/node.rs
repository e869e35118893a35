//! Who a member is.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::families::Family;
use crate::frame::Malformed;
use crate::frame::wire::{Reader, Writer};

/// Longest name that travels. A host name has at most 253 bytes; a random part may follow.
pub const NAME_BYTES_MAX: usize = 255;

/// Highest generation that is believed: nobody comes back so often, and one can still go above what is believed.
const GENERATION_MAX: u32 = 1 << 24;

/// One life of one member: the identity that SWIM works with.
///
/// `id` is random and drawn once per process, so two processes never share one, whatever their names. `generation` grows
/// within a process when the cluster has declared it down and it comes back; a higher one beats everything said of a lower.
#[derive(Clone)]
pub struct Node {
    /// The process.
    pub id: u64,
    /// The life of the process in the cluster.
    pub generation: u32,
    /// Set in the last generation: the member leaves on purpose and will not come back.
    pub left: bool,
    about: Arc<About>,
}

/// What does not change during a process's life.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    /// The name for people, by default the host name with a random part.
    pub name: String,
    /// Where it is reached over IPv4.
    pub v4: Option<SocketAddr>,
    /// Where it is reached over IPv6.
    pub v6: Option<SocketAddr>,
    /// It hears datagrams.
    pub datagrams: bool,
}

impl Node {
    /// The first life of a process.
    #[must_use]
    pub fn new(id: u64, mut about: About) -> Self {
        about.name.truncate(about.name.floor_char_boundary(NAME_BYTES_MAX));
        Self { id, generation: 1, left: false, about: Arc::new(about) }
    }

    /// A node of which only the identity is known.
    pub(crate) fn bare(id: u64, generation: u32, left: bool) -> Self {
        Self { id, generation, left, about: Arc::default() }
    }

    /// The next life; with `left`, the last one.
    pub(crate) fn next(&self, left: bool) -> Self {
        Self { generation: self.generation.saturating_add(1), left, ..self.clone() }
    }

    /// A life above one that somebody knows; none if there is none, and the process has to begin anew.
    pub(crate) fn above(&self, other: &Self) -> Option<Self> {
        let generation = self.generation.max(other.generation) + 1;
        (generation <= GENERATION_MAX).then(|| Self { generation, left: false, ..self.clone() })
    }

    /// The name for people.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.about.name
    }

    /// Where it is reached over one family.
    #[must_use]
    pub fn endpoint(&self, family: Family) -> Option<SocketAddr> {
        match family {
            Family::V4 => self.about.v4,
            Family::V6 => self.about.v6,
        }
    }

    /// Every endpoint.
    pub fn endpoints(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.about.v6.into_iter().chain(self.about.v4)
    }

    /// It hears datagrams.
    #[must_use]
    pub fn datagrams(&self) -> bool {
        self.about.datagrams
    }

    /// Whether what is said of this node beats what is said of `other`, another life of the same process.
    pub(crate) fn beats(&self, other: &Self) -> bool {
        (self.generation, self.left) > (other.generation, other.left)
    }

    pub(crate) fn write_bare(&self, out: &mut Writer) {
        out.u64(self.id);
        out.u32(self.generation);
        out.u8(self.left.into());
    }

    pub(crate) fn read_bare(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (id, generation) = (from.u64()?, believed(from.u32()?)?);
        match from.u8()? {
            left @ 0..=1 => Ok(Self::bare(id, generation, left == 1)),
            _ => Err(Malformed::Value("flags of an identity")),
        }
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.u64(self.id);
        out.u32(self.generation);
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out.u8(flag(self.left, 1)
            | flag(self.about.v4.is_some(), 2)
            | flag(self.about.v6.is_some(), 4)
            | flag(self.about.datagrams, 8));
        out.u8(u8::try_from(self.about.name.len()).unwrap_or(u8::MAX));
        out.raw(self.about.name.as_bytes());
        for endpoint in [self.about.v4, self.about.v6].into_iter().flatten() {
            match endpoint.ip() {
                IpAddr::V4(ip) => out.raw(&ip.octets()),
                IpAddr::V6(ip) => out.raw(&ip.octets()),
            }
            out.u16(endpoint.port());
        }
    }

    /// Steps over a member that was written in full.
    pub(crate) fn skip(from: &mut Reader<'_>) -> Result<(), Malformed> {
        from.take(8 + 4)?;
        let (flags, name) = (from.u8()?, usize::from(from.u8()?));
        let endpoint = |bit: u8, bytes: usize| if flags & bit == 0 { 0 } else { bytes };
        from.take(name + endpoint(2, 4 + 2) + endpoint(4, 16 + 2)).map(drop)
    }

    pub(crate) fn read(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (id, generation, flags) = (from.u64()?, believed(from.u32()?)?, from.u8()?);
        if flags & !15 != 0 {
            return Err(Malformed::Value("flags of a member"));
        }
        let length = usize::from(from.u8()?);
        let name = std::str::from_utf8(from.take(length)?).map_err(|_invalid| Malformed::Value("name"))?.to_owned();
        let v4 = match flags & 2 {
            0 => None,
            _ => Some(SocketAddr::new(IpAddr::from(from.array::<4>()?), from.u16()?)),
        };
        let v6 = match flags & 4 {
            0 => None,
            _ => Some(SocketAddr::new(IpAddr::from(from.array::<16>()?), from.u16()?)),
        };
        let about = About { name, v4, v6, datagrams: flags & 8 != 0 };
        Ok(Self { id, generation, left: flags & 1 != 0, about: Arc::new(about) })
    }
}

fn believed(generation: u32) -> Result<u32, Malformed> {
    if generation <= GENERATION_MAX { Ok(generation) } else { Err(Malformed::Value("generation")) }
}

/// Two nodes are the same life of the same process; what is known about it does not matter.
impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        (self.id, self.generation, self.left) == (other.id, other.generation, other.left)
    }
}

impl Eq for Node {}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{:016x}.{}", self.name(), self.id, self.generation)?;
        if self.left { f.write_str(" (left)") } else { Ok(()) }
    }
}

impl foca::Identity for Node {
    type Addr = u64;

    fn renew(&self) -> Option<Self> {
        if self.left { None } else { self.above(self) }
    }

    fn addr(&self) -> u64 {
        self.id
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.beats(adversary)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_written_member_is_read_as_it_was(
            id in any::<u64>(), generation in 0..=GENERATION_MAX, left in any::<bool>(), name in "\\PC{0,80}",
            v4 in proptest::option::of(any::<([u8; 4], u16)>()), v6 in proptest::option::of(any::<([u8; 16], u16)>()),
            datagrams in any::<bool>(),
        ) {
            let about = About {
                name,
                v4: v4.map(|(ip, port)| SocketAddr::new(IpAddr::from(ip), port)),
                v6: v6.map(|(ip, port)| SocketAddr::new(IpAddr::from(ip), port)),
                datagrams,
            };
            let node = Node { generation, left, ..Node::new(id, about) };
            let mut out = Writer::default();
            node.write(&mut out);
            let mut from = Reader(&out.0);
            let read = Node::read(&mut from).unwrap();
            prop_assert!(from.end().is_ok());
            prop_assert_eq!(&read, &node);
            prop_assert_eq!(read.about, node.about);
            let mut from = Reader(&out.0);
            Node::skip(&mut from).unwrap();
            prop_assert!(from.end().is_ok());
        }

        #[test]
        fn garbage_is_no_member_or_a_bounded_one(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(node) = Node::read(&mut Reader(&bytes)) {
                prop_assert!(node.name().len() <= NAME_BYTES_MAX);
            }
        }
    }
}
