//! Figures of membership: Tempo's name for the members, our own for what Tempo does not have.

use vivace_runtime::metrics::Registry;

use crate::board::Board;
use crate::ring::Standing;

/// Exports what the board shows of membership, at each scrape. Once for a registry.
pub fn export_membership(board: Board, registry: &Registry) {
    registry.collector(move |text| {
        let Some(cluster) = board.cluster() else { return };
        let count = |wanted: &dyn Fn(Standing) -> bool| {
            number(cluster.members.iter().filter(|member| wanted(member.standing)).count() as u64)
        };
        let name = "tempo_memberlist_client_cluster_members_count";
        text.family(name, "gauge", "Members that are alive or suspected, as seen from this process.");
        text.sample(name, "", &[], None, count(&Standing::is_up));
        let name = "vivace_gossip_members";
        text.family(name, "gauge", "Known members by standing (alive, suspect, down, left).");
        for standing in [Standing::Alive, Standing::Suspect, Standing::Down, Standing::Left] {
            text.sample(name, "", &[("standing", standing.word())], None, count(&|other| other == standing));
        }
        let help = "Frames and connections refused by reason (http, handshake, version, size, label, plain, key, replayed, malformed).";
        text.family("vivace_gossip_refused_total", "counter", help);
        for (reason, refused) in &cluster.refused {
            text.sample("vivace_gossip_refused_total", "", &[("reason", *reason)], None, number(*refused));
        }
        let help = "Messages passed on for members that share no working family.";
        text.family("vivace_gossip_relayed_total", "counter", help);
        text.sample("vivace_gossip_relayed_total", "", &[], None, number(cluster.relayed));
    });
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus values are doubles")]
fn number(count: u64) -> f64 {
    count as f64
}
