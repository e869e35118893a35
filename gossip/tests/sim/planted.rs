//! The harness finds what it is there to find: without anti-entropy the liveness invariant fails.

use crate::faults::{lived, members};
use crate::whole::LIMIT;

#[test]
fn without_anti_entropy_liveness_fails() {
    let broken = |seed: &u64| {
        let mut world = lived(*seed, |world| world.tuning.anti_entropy = false);
        let places = members(&world);
        world.run_until(LIMIT, |world| world.agree(&places)).is_none()
    };
    let found = (1..=40).find(broken);
    assert!(found.is_some(), "no story of forty needs anti-entropy: the harness finds nothing");
}
