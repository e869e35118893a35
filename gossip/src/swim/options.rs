//! What a member is started with.

use std::time::Duration;

use vivace_runtime::Rng;

use super::Node;
use crate::families::Family;
use crate::frame::Keys;

/// Everything that a member needs to know before it begins.
#[derive(Debug)]
pub struct Options {
    /// Its identity.
    pub node: Node,
    /// The cluster that it belongs to.
    pub label: String,
    /// Hear members of every label.
    pub any_label: bool,
    /// Keys of encryption; none: frames are plain.
    pub keys: Keys,
    /// The family to try first where both are shared.
    pub preferred: Family,
    /// Times and counts.
    pub tuning: Tuning,
    /// Chance.
    pub rng: Rng,
}

/// Times and counts of the protocol.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// Time between two probes.
    pub probe_period: Duration,
    /// How long a probe waits before others are asked to probe.
    pub probe_rtt: Duration,
    /// How long a probe waits before it is sent by the other ways as well. Below `probe_rtt`.
    pub escalate_after: Duration,
    /// How long a suspect has to object.
    pub suspicion: Duration,
    /// Time between two rounds of gossip, while there are news.
    pub gossip_interval: Duration,
    /// Members told in one round.
    pub gossip_nodes: usize,
    /// Factor of how often news are repeated.
    pub retransmit_factor: u32,
    /// Time between two comparisons with a random member, differences or not; zero: never.
    pub pull_push_interval: Duration,
    /// First wait between attempts to join while nobody is known.
    pub rejoin_min: Duration,
    /// Longest wait between attempts to join while nobody is known. Beyond 10 s it is 10 s, or a healed network would
    /// wait for it.
    pub rejoin_max: Duration,
    /// How long a member that is down is remembered.
    pub forget_down_after: Duration,
    /// Compare sums and pull differences. Off only in tests that must fail without it.
    pub anti_entropy: bool,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            probe_period: Duration::from_secs(1),
            probe_rtt: Duration::from_millis(500),
            escalate_after: Duration::from_millis(200),
            suspicion: Duration::from_secs(6),
            gossip_interval: Duration::from_millis(200),
            gossip_nodes: 3,
            retransmit_factor: 2,
            pull_push_interval: Duration::from_secs(30),
            rejoin_min: Duration::from_secs(1),
            rejoin_max: Duration::from_secs(10),
            forget_down_after: Duration::from_secs(30 * 60),
            anti_entropy: true,
        }
    }
}
