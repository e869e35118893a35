//! Safety: a member of another cluster is never taken for one of ours, whatever address it has.

use crate::faults::lived;
use crate::seeds;

#[test]
fn no_member_of_another_cluster_is_ever_known() {
    let mut strangers = 0;
    for seed in seeds(60, 0, 1) {
        let world = lived(seed, |_| ());
        let foreign: Vec<u64> = (0..world.processes.len())
            .filter_map(|place| world.processes[place].as_ref())
            .filter(|process| process.label != "cluster")
            .map(|process| process.swim.node().id)
            .collect();
        strangers += foreign.len();
        for place in world.living() {
            let swim = world.swim(place);
            let own = swim.node().id;
            let known = swim.roster().iter().find(|entry| entry.node.id != own && foreign.contains(&entry.node.id));
            let ours = world.processes[place].as_ref().is_some_and(|process| process.label == "cluster");
            assert!(!ours || known.is_none(), "seed {seed}: place {place} knows {known:?}");
        }
    }
    assert!(
        strangers > 0 || std::env::var_os("VIVACE_SIM_SEED").is_some(),
        "no story had a stranger: it proved nothing"
    );
}
