//! The simulation decides nothing by itself: one seed, one story.

use crate::faults::lived;

#[test]
fn the_same_seed_gives_the_same_log() {
    for seed in [3, 4] {
        assert_eq!(lived(seed, |_| ()).log(), lived(seed, |_| ()).log(), "seed {seed}");
    }
    assert_ne!(lived(3, |_| ()).log(), lived(4, |_| ()).log());
}
