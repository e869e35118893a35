//! Discovery: turns `memberlist.join_members` into addresses, again and again.
//!
//! | entry | meaning |
//! |---|---|
//! | `host`, `host:port`, `name/host:port` | every address of the host; the port is 7946 if none is given |
//! | `192.0.2.1:7946`, `[2001:db8::1]:7946`, `2001:db8::1` | this address |
//! | `dns+host:port` | every A and AAAA record, with this port |
//! | `dnssrv+name`, `dnssrv+name:port` | every target of the SRV records, with their ports or with this one |
//! | `dnssrvnoa+name` | the same: a target is a name, and is looked up when it is dialled, which is now |
//!
//! What a name once resolved to stays in use while it cannot be resolved.

mod book;
mod dns;
mod entry;

pub use book::{Discovery, Found, SeedView};
pub use dns::{Dns, DnsError, Service, SystemDns};
pub use entry::{BadEntry, DEFAULT_PORT, Entry};
