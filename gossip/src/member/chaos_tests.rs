//! Many processes with few ids, over any sequence of starts, deaths, duplicates, forgetting, exchanges and days that pass;
//! then the faults stop. Every view must become one, every id must have exactly one living owner if it has a living process,
//! and every other living process with that id must be named as its rival. And then nothing may change any more.

use proptest::prelude::*;
use vivace_runtime::config::RingConfig;

use super::*;
use crate::ring::{Host, RingView, Sight, Store, choose_addresses};

const RING: &str = "collectors/live-store";
const IDS: usize = 3;

#[derive(Debug, Clone)]
enum Happening {
    /// A process starts with an id, after an exchange with somebody or knowing nobody, at whatever its clock says, and with or
    /// without the generation that was kept on disk.
    Start { id: usize, meets: bool, unix: i64, lost: bool },
    /// `kill -9`.
    Kill(prop::sample::Index),
    /// It leaves as it should.
    Stop(prop::sample::Index),
    /// Two exchange what differs.
    Exchange(prop::sample::Index, prop::sample::Index),
    /// One looks at its own id.
    Look(prop::sample::Index),
    /// One is used to forget an id, dead or alive.
    Forget(prop::sample::Index, usize),
    /// Time passes.
    Wait(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        3 => (0..IDS, any::<bool>(), -5..2_000_000_000_i64, any::<bool>())
            .prop_map(|(id, meets, unix, lost)| Happening::Start { id, meets, unix, lost }),
        1 => index().prop_map(Happening::Kill),
        1 => index().prop_map(Happening::Stop),
        4 => (index(), index()).prop_map(|(a, b)| Happening::Exchange(a, b)),
        3 => index().prop_map(Happening::Look),
        1 => (index(), 0..IDS).prop_map(|(by, id)| Happening::Forget(by, id)),
        1 => prop_oneof![Just(1), Just(30), Just(90_000)].prop_map(Happening::Wait),
    ]
}

struct Process {
    id: usize,
    state: State,
    member: RingMember,
}

#[derive(Default)]
struct Crowd {
    living: Vec<Process>,
    started: u64,
    dead: Vec<u64>,
    /// The highest generation of each id, on disks that were not lost since.
    kept: [u64; IDS],
    now: Duration,
}

impl Crowd {
    fn liveness(&self) -> Liveness {
        let up = self.living.iter().map(|process| (process.member.process, Sight::ALIVE));
        let down = Sight { standing: Standing::Down, silent_for: Duration::ZERO };
        Liveness::new(up.chain(self.dead.iter().map(|process| (*process, down))))
    }

    fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Start { id, meets, unix, lost } => self.start(*id, *meets, *unix, *lost),
            Happening::Kill(which) => drop(self.remove(*which)),
            Happening::Stop(which) => {
                if let Some(mut process) = self.remove(*which) {
                    process.member.unregister(&mut process.state);
                    // Its farewell reaches one other.
                    if let Some(other) = self.living.first_mut() {
                        other.state.apply(process.state.records().cloned().collect());
                    }
                }
            }
            Happening::Exchange(a, b) if !self.living.is_empty() => {
                let size = self.living.len();
                self.exchange(a.index(size), b.index(size));
            }
            Happening::Look(which) if !self.living.is_empty() => self.look(which.index(self.living.len())),
            Happening::Forget(by, id) if !self.living.is_empty() => {
                let at = by.index(self.living.len());
                let state = &mut self.living[at].state;
                let key = Key::instance(RING, &name(*id));
                let seen = state.record(&key).and_then(|record| record.as_claim().cloned());
                if let Some(claim) = seen.filter(|claim| claim.live().is_some()) {
                    let grave = claim.buried(GraveReason::Forgotten, "somebody");
                    state.put(Record::claim(key, grave).unwrap());
                }
            }
            Happening::Wait(seconds) => {
                self.now += Duration::from_secs(*seconds);
                for process in &mut self.living {
                    process.state.advance(self.now);
                }
            }
            Happening::Exchange(..) | Happening::Look(_) | Happening::Forget(..) => {}
        }
    }

    fn start(&mut self, id: usize, meets: bool, unix: i64, lost: bool) {
        self.started += 1;
        let config = RingConfig { instance_id: name(id), instance_addr: "10.0.0.1".into(), ..RingConfig::default() };
        let settings = RingSettings::live_store(&config, Host { name: "h", grpc_port: 1 }).unwrap();
        assert_eq!(settings.store, Store::Gossip);
        let identity =
            Identity { process: self.started, name: format!("process-{}", self.started), software: "0".into() };
        let addresses = choose_addresses(&settings, &[]).unwrap();
        let mut state = State::new();
        state.advance(self.now);
        if meets && let Some(other) = self.living.first() {
            state.apply(other.state.records().cloned().collect());
        }
        let mut member = RingMember::new(&settings, &identity, addresses, None).unwrap();
        let kept = if lost { 0 } else { self.kept[id] };
        member.start(&mut state, kept, unix);
        assert!(member.generation() > kept, "a life begins above the one before");
        self.kept[id] = member.generation();
        self.living.push(Process { id, state, member });
    }

    fn remove(&mut self, which: prop::sample::Index) -> Option<Process> {
        if self.living.is_empty() {
            return None;
        }
        let process = self.living.remove(which.index(self.living.len()));
        self.dead.push(process.member.process);
        Some(process)
    }

    fn exchange(&mut self, a: usize, b: usize) {
        let of_a: Vec<Record> = self.living[a].state.records().cloned().collect();
        self.living[b].state.apply(of_a);
        let of_b: Vec<Record> = self.living[b].state.records().cloned().collect();
        self.living[a].state.apply(of_b);
    }

    fn look(&mut self, at: usize) {
        let (liveness, now) = (self.liveness(), self.now);
        let process = &mut self.living[at];
        process.member.look(&mut process.state, &liveness, now);
        let kept = &mut self.kept[process.id];
        *kept = (*kept).max(process.member.generation());
    }

    /// Everybody exchanges with everybody and looks, time passes.
    fn round(&mut self) {
        for a in 0..self.living.len() {
            for b in 0..a {
                self.exchange(a, b);
            }
        }
        for at in 0..self.living.len() {
            self.look(at);
        }
        self.now += Duration::from_secs(6);
    }

    fn digests(&self) -> Vec<u64> {
        self.living.iter().map(|process| process.state.digest().0).collect()
    }
}

fn name(id: usize) -> String {
    format!("live-store-{id}")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn whatever_happened_each_id_has_one_living_owner_in_the_end(
        happenings in prop::collection::vec(happening(), 1..40),
    ) {
        let mut crowd = Crowd::default();
        for happening in &happenings {
            crowd.happen(happening);
        }
        // At most: one round for news to spread, one for each process of an id to give way, and one to tell so.
        for _ in 0..crowd.living.len() + 4 {
            crowd.round();
        }
        let settled = crowd.digests();
        prop_assert!(settled.windows(2).all(|pair| pair[0] == pair[1]), "one view");
        let liveness = crowd.liveness();
        for process in &crowd.living {
            let view = RingView::new(&process.state, RING, &liveness);
            for id in 0..IDS {
                let with_id: Vec<&Process> = crowd.living.iter().filter(|other| other.id == id).collect();
                let owners: Vec<u64> =
                    with_id.iter().filter(|p| p.member.is_registered()).map(|p| p.member.process).collect();
                if with_id.is_empty() {
                    continue;
                }
                prop_assert_eq!(owners.len(), 1, "one owner of {}", name(id));
                let entry = view.get(&name(id)).expect("its record is there");
                prop_assert!(entry.is_healthy() && entry.nonce == owners[0]);
                let mut rivals: Vec<u64> = view.rivals_of(&name(id)).map(|rival| rival.nonce).collect();
                rivals.sort_unstable();
                let mut others: Vec<u64> = with_id.iter().map(|p| p.member.process).filter(|p| *p != owners[0]).collect();
                others.sort_unstable();
                prop_assert_eq!(rivals, others, "every other one is named");
            }
        }
        crowd.round();
        prop_assert_eq!(crowd.digests(), settled, "and nothing changes any more");
    }
}
