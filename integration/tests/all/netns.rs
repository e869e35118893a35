//! Gossip and rings of real processes in network namespaces: hosts with IPv4 and IPv6 addresses of their own, whose network fails
//! as real networks do. Needs root, iproute2 and nftables.

mod clocks;
mod cost;
mod families;
mod faults;
mod lab;
mod live_stores;
mod member;
mod names;
mod roles;
mod split;
mod survival;
mod verdicts;
