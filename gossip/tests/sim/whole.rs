//! Liveness (design 5): once faults stop, all living members agree on who is there and hold the same records.

use std::time::Duration;

use crate::faults::{lived, members};
use crate::seeds;

/// Time within which everything must be whole again.
pub(crate) const LIMIT: Duration = Duration::from_secs(45);

/// Stories of 7 to 25 members.
const STORIES: u64 = 1000;

#[test]
fn when_faults_stop_all_members_agree_on_everything_in_the_first_quarter_of_the_stories() {
    all_agree(0);
}

#[test]
fn when_faults_stop_all_members_agree_on_everything_in_the_second_quarter_of_the_stories() {
    all_agree(1);
}

#[test]
fn when_faults_stop_all_members_agree_on_everything_in_the_third_quarter_of_the_stories() {
    all_agree(2);
}

#[test]
fn when_faults_stop_all_members_agree_on_everything_in_the_last_quarter_of_the_stories() {
    all_agree(3);
}

fn all_agree(quarter: u64) {
    for seed in seeds(STORIES, quarter, 4) {
        let mut world = lived(seed, |_| ());
        let places = members(&world);
        let done = world.run_until(LIMIT, |world| world.agree(&places));
        assert!(
            done.is_some(),
            "seed {seed}: after {LIMIT:?} {}; replay with VIVACE_SIM_SEED={seed} cargo test -p vivace-gossip --test sim whole",
            world.disagreement(&places).unwrap_or_default()
        );
        // Questions that were asked before are answered, with a new life where somebody was held for dead; then it stays so.
        world.run(Duration::from_secs(12));
        world.false_deaths.clear();
        assert_eq!(world.disagreement(&places), None, "seed {seed}: agreed and fell apart again");
        world.run(Duration::from_secs(10));
        assert_eq!(world.disagreement(&places), None, "seed {seed}: agreed and fell apart again, late");
        assert_eq!(world.false_deaths, [], "seed {seed}");
    }
}
