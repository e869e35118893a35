//! Rings: who takes part in what, which keys belong to whom, and how each member is.
//!
//! A ring is a view of the replicated state. Nothing here stores health: a member is healthy while membership sees this
//! life of its process alive or suspected. Read in this order: [`RingSettings`], [`RingMember`](crate::RingMember),
//! [`RingView`], [`Forgetter`].

mod address;
mod command;
mod forget;
mod generations;
mod keeper;
mod liveness;
mod settings;
mod shard;
mod tokens;
mod view;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub(crate) use tokens::TokenTable;

pub use address::{Candidate, NoAddress, choose_addresses, is_callable};
pub use command::{Command, CommandError};
pub use forget::{Forgetter, Forgetting};
pub use generations::Generations;
pub use keeper::{Keeper, KeeperEvent, Now, Rings};
pub use liveness::{Liveness, Sight, Standing};
pub use settings::{Families, Host, RingConfigError, RingSettings, Store, partition_of, store};
pub use shard::shuffle_shard;
pub use tokens::instance_tokens;
pub use view::{Operation, RingEntry, RingView};
