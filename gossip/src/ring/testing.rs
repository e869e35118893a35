//! A small ring for tests.

use std::sync::Arc;
use std::time::Duration;

use super::liveness::{Liveness, Sight, Standing};
use super::view::RingView;
use crate::state::{Address, Body, Claim, Instance, InstanceState, Key, Record, State, Via};

pub(crate) const RING: &str = "collectors/live-store";

pub(crate) fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

/// Members `live-store-0` … with processes `process-0` … that can be killed.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) state: State,
    members: Vec<Standing>,
    rivals: Vec<(u64, bool)>,
}

pub(crate) fn crowd(size: u32) -> Crowd {
    let mut crowd = Crowd { state: State::new(), members: Vec::new(), rivals: Vec::new() };
    for member in 0..size {
        crowd.state.apply(vec![record(crowd.key(member), 1, 1, u64::from(member), &instance(member))]);
        crowd.members.push(Standing::Alive);
    }
    crowd
}

pub(crate) fn instance(member: u32) -> Instance {
    Instance {
        state: InstanceState::Active,
        member: format!("process-{member}"),
        addresses: vec![Address { via: Via::Direct, host: format!("10.0.0.{}", member + 1), port: 9095 }],
        zone: format!("zone-{}", if member.is_multiple_of(2) { "a" } else { "b" }),
        tokens: 0,
        partition: Some(member / 2),
        registered_at: 1_700_000_000,
        read_only: false,
        read_only_changed_at: 0,
        software: "0.1.0".into(),
        extra: Vec::new(),
    }
}

pub(crate) fn record(key: Key, generation: u64, version: u64, nonce: u64, instance: &Instance) -> Record {
    Record::claim(key, Claim { generation, version, nonce, body: Body::Live(Arc::new(instance.clone())) }).unwrap()
}

impl Crowd {
    pub(crate) fn key(&self, member: u32) -> Key {
        Key::instance(RING, &format!("live-store-{member}"))
    }

    pub(crate) fn kill(&mut self, member: usize) {
        self.members[member] = Standing::Down;
    }

    pub(crate) fn revive(&mut self, member: usize) {
        self.members[member] = Standing::Alive;
    }

    pub(crate) fn touch(&mut self, member: u32) {
        let claim = self.state.record(&self.key(member)).unwrap().as_claim().unwrap().clone();
        let changed = Claim { version: claim.version + 1, ..claim };
        self.state.apply(vec![Record::claim(self.key(member), changed).unwrap()]);
    }

    pub(crate) fn change(&mut self, member: u32, change: impl FnOnce(&mut Instance)) {
        let mut changed = instance(member);
        change(&mut changed);
        self.state.apply(vec![record(self.key(member), 2, 1, u64::from(member), &changed)]);
    }

    pub(crate) fn add_rival(&mut self, member: u32, nonce: u64, alive: bool) {
        let mut rival = instance(member);
        rival.member = format!("rival-{nonce}");
        rival.addresses[0].host = "10.9.9.9".into();
        self.rivals.push((nonce, alive));
        let key = Key::rival(RING, &format!("live-store-{member}"), nonce);
        self.state.apply(vec![record(key, 1, 1, nonce, &rival)]);
    }

    pub(crate) fn liveness(&self) -> Liveness {
        let sight = |standing: Standing| Sight {
            standing,
            silent_for: if standing.is_up() { Duration::ZERO } else { Duration::from_secs(90) },
        };
        let members = (0..).zip(&self.members).map(|(process, standing)| (process, sight(*standing)));
        let rivals = self
            .rivals
            .iter()
            .map(|(process, alive)| (*process, sight(if *alive { Standing::Alive } else { Standing::Down })));
        Liveness::new(members.chain(rivals))
    }

    pub(crate) fn view(&self) -> RingView {
        RingView::new(&self.state, RING, &self.liveness())
    }
}
