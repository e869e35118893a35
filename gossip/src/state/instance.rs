//! What a member of a ring says about itself.

use std::fmt;

use serde::Serialize;

use super::DecodeError;
use super::codec::{Reader, Writer};

/// Where in its life a member is. How it is doing is not written here: membership tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum InstanceState {
    /// Takes part.
    Active,
    /// Stops; still answers.
    Leaving,
    /// Registered, takes no part yet.
    Pending,
    /// Takes over what it will own.
    Joining,
}

impl InstanceState {
    fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match from.u8()? {
            0 => Ok(Self::Active),
            1 => Ok(Self::Leaving),
            2 => Ok(Self::Pending),
            3 => Ok(Self::Joining),
            _ => Err(DecodeError::Value("instance state")),
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Active => 0,
            Self::Leaving => 1,
            Self::Pending => 2,
            Self::Joining => 3,
        }
    }

    /// The name in JSON and on pages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Leaving => "LEAVING",
            Self::Pending => "PENDING",
            Self::Joining => "JOINING",
        }
    }
}

/// Where calls for a member go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Address {
    /// Whether a proxy takes the calls.
    pub via: Via,
    /// An IP address without brackets, or a name.
    pub host: String,
    /// The port; 0 where nobody is meant to call.
    pub port: u16,
}

/// Who listens at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// The process itself.
    Direct,
    /// A proxy beside it: `instance_addr` or `instance_port` differs from what the process listens on.
    Proxy,
}

impl Address {
    /// Which family the address is of; none for a name.
    #[must_use]
    pub fn ip(&self) -> Option<std::net::IpAddr> {
        self.host.parse().ok()
    }
}

/// `host:port`, with brackets around an IPv6 address.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A member's own description.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    /// Where in its life it is.
    pub state: InstanceState,
    /// The name in membership of the process that wrote this, for people. Its id there is the nonce of the claim.
    pub member: String,
    /// Where calls go, the preferred address first; at most [`ADDRESSES_MAX`].
    pub addresses: Vec<Address>,
    /// Availability zone, or empty.
    pub zone: String,
    /// How many tokens it has. Their values follow from its id.
    pub tokens: u16,
    /// The partition that it owns, for live-stores.
    pub partition: Option<u32>,
    /// When it registered first, in seconds since the epoch by its own clock; 0 if unknown.
    pub registered_at: i64,
    /// Whether it takes no new data.
    pub read_only: bool,
    /// When that changed last, in seconds since the epoch by its own clock; 0 if never.
    pub read_only_changed_at: i64,
    /// The version of the program.
    pub software: String,
    /// Fields of a later version, kept as they came.
    pub extra: Vec<u8>,
}

/// Most addresses of one member.
pub const ADDRESSES_MAX: usize = 8;

impl Instance {
    pub(super) fn write(&self, out: &mut Writer) {
        out.u8(self.state.code());
        out.text(&self.member);
        out.u8(u8::try_from(self.addresses.len().min(ADDRESSES_MAX)).unwrap_or(0));
        for address in self.addresses.iter().take(ADDRESSES_MAX) {
            out.flag(address.via == Via::Proxy);
            out.text(&address.host);
            out.u16(address.port);
        }
        out.text(&self.zone);
        out.u16(self.tokens);
        out.flag(self.partition.is_some());
        out.u32(self.partition.unwrap_or_default());
        out.i64(self.registered_at);
        out.flag(self.read_only);
        out.i64(self.read_only_changed_at);
        out.text(&self.software);
        out.raw(&self.extra);
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let state = InstanceState::read(from)?;
        let member = from.text("member")?.to_owned();
        let count = usize::from(from.u8()?);
        if count > ADDRESSES_MAX {
            return Err(DecodeError::Value("number of addresses"));
        }
        let mut addresses = Vec::with_capacity(count);
        for _ in 0..count {
            let via = if from.flag("proxy")? { Via::Proxy } else { Via::Direct };
            addresses.push(Address { via, host: from.text("address")?.to_owned(), port: from.u16()? });
        }
        let zone = from.text("zone")?.to_owned();
        let tokens = from.u16()?;
        let partition = match (from.flag("partition")?, from.u32()?) {
            (true, partition) => Some(partition),
            (false, 0) => None,
            (false, _) => return Err(DecodeError::Value("partition")),
        };
        Ok(Self {
            state,
            member,
            addresses,
            zone,
            tokens,
            partition,
            registered_at: from.i64()?,
            read_only: from.flag("read-only")?,
            read_only_changed_at: from.i64()?,
            software: from.text("software")?.to_owned(),
            extra: from.rest().to_vec(),
        })
    }
}
