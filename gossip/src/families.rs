//! IPv4 and IPv6 side by side: which endpoints a member tells others, and by which way each pair of members talks.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

mod endpoints;
mod host;
mod paths;

pub use endpoints::{BadEndpoints, Binds, Endpoints};
pub use host::host_candidates;
pub use paths::{Own, PathView, Paths, Route};

/// An address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, the preferred one first.
    pub const BOTH: [Self; 2] = [Self::V6, Self::V4];

    /// The family of an address. An IPv4 address written as IPv6 is IPv4: that is what travels.
    #[must_use]
    pub fn of(address: SocketAddr) -> Self {
        match address.ip().to_canonical() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    fn index(self) -> usize {
        match self {
            Self::V4 => 0,
            Self::V6 => 1,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}
