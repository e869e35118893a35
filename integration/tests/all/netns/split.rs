//! The network between a querier and a live-store is cut, while everybody else reaches both, and heals.

use std::time::{Duration, Instant};

use vivace_integration::watch::{Asker, Watch};

use super::lab::{Lab, Stack};
use super::roles::OnHosts;
use crate::cluster::{PATIENCE, SPANS, found_by_id, send_at};

/// After healing answers are whole within this time.
const RECOVERED: Duration = Duration::from_secs(5);
/// Partial answers that are looked at.
const PARTIAL: usize = 12;
/// The first questions wait as long as somebody who is slow may take. Once it is known that a live-store says nothing, nobody waits
/// longer for it than a second for each of its addresses.
const KNOWN: Duration = Duration::from_secs(3);
/// Between two requests of a connection.
const PACE: Duration = Duration::from_millis(50);

#[test]
fn a_split_between_querier_and_live_store_makes_answers_partial_and_is_over_seconds_after_it_heals() {
    let Some(lab) = Lab::new("split") else { return };
    let roles = [
        ("distributor-0", "distributor"),
        ("live-store-0", "live-store"),
        ("live-store-1", "live-store"),
        ("querier-0", "querier"),
        ("query-frontend-0", "query-frontend"),
    ];
    let Some(mut on) = OnHosts::new(&lab, Stack::Dual, &roles) else { return };
    let (querier, store) = (on.host("querier-0"), on.host("live-store-1"));
    let (v4, v6) = (store.v4.unwrap(), store.v6.unwrap());
    let from = [format!("ip saddr {v4} drop"), format!("ip6 saddr {v6} drop")];
    let to = [format!("ip daddr {v4} drop"), format!("ip6 daddr {v6} drop")];
    let client = on.client.clone();
    client.run(|| {
        let cluster = &mut on.cluster;
        cluster.start_all().unwrap();
        let sending = send_at(cluster, 550, 0, PACE);
        sending.wait_for_more(60, PATIENCE).unwrap();
        let frontend = cluster.http("query-frontend-0");
        let watching = Watch { seed: 550, spans: SPANS, frontend }.begin(&sending.book());
        watching.wait_for_whole(20, PATIENCE).unwrap();
        let pids = [cluster.node("querier-0").pid(), cluster.node("live-store-1").pid()];

        querier.firewall(&[&from[0], &from[1]], &[&to[0], &to[1]]);
        let cut = Instant::now();
        let enough = || watching.seen().partial.len() >= PARTIAL;
        cluster.wait_until("answers are partial", &["querier-0"], enough).unwrap();
        println!("{PARTIAL} partial answers after {:?}: {:?}", cut.elapsed(), watching.seen().partial[0].said);

        querier.open();
        let healed = Instant::now();
        let (book, _) = sending.end();
        let (mut asker, sample) = (Asker::new(550, SPANS, frontend), book.sample(0, 5));
        let whole = || asker.missing(&sample).unwrap().is_empty();
        cluster.wait_until("answers are whole", &["querier-0"], whole).unwrap();
        println!("whole {:?} after the network healed", healed.elapsed());
        assert!(healed.elapsed() < RECOVERED, "{:?}", healed.elapsed());
        let recovered = Instant::now();
        watching.wait_for_whole(20, PATIENCE).unwrap();
        let seen = watching.end();
        println!(
            "{} whole and {} partial answers, the slowest after {:?}",
            seen.whole,
            seen.partial.len(),
            seen.slowest
        );
        assert!(seen.wrong.is_empty(), "{:#?}", seen.wrong);
        let first = seen.partial.iter().map(|partial| partial.began + partial.took).min().unwrap();
        for partial in &seen.partial {
            let said = &partial.said;
            assert!(partial.began < recovered, "partial after all was whole: {said}");
            assert!(
                said.contains("partition 1") && said.contains("live-store-1"),
                "it must name what is missing: {said}"
            );
            assert!(partial.began <= first || partial.took < KNOWN, "{:?}: {said}", partial.took);
        }
        assert_eq!([cluster.node("querier-0").pid(), cluster.node("live-store-1").pid()], pids, "nobody was restarted");
        found_by_id(&book, &book.acknowledged(), frontend);
        cluster.check_logs(&[]).unwrap();
    });
}
