//! The virtual network: which frame arrives where, when, and how often.
//!
//! A datagram is lost, doubled and delayed on its own. A stream keeps the order; what is lost on it comes later, and when
//! nothing gets through for two seconds it breaks. Opening one needs both directions.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use vivace_gossip::families::Family;
use vivace_runtime::Rng;

/// How long a stream waits before it counts as failed.
const STREAM_TIMEOUT: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_secs(15);

/// Conditions of the whole network.
#[derive(Debug, Clone)]
pub(crate) struct Weather {
    /// Of a thousand packets, how many are lost.
    pub(crate) loss: u64,
    /// Of a thousand datagrams, how many arrive twice.
    pub(crate) doubled: u64,
    /// Delay of a packet in microseconds: at least, and at most.
    pub(crate) delay: (u64, u64),
}

impl Default for Weather {
    fn default() -> Self {
        Self { loss: 0, doubled: 0, delay: (200, 1200) }
    }
}

/// What does not get through, by place or pair of places.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    /// Group of each place; different groups do not reach each other.
    pub(crate) groups: BTreeMap<usize, usize>,
    /// From, to.
    pub(crate) one_way: BTreeSet<(usize, usize)>,
    /// Places that get and send no datagrams.
    pub(crate) datagrams: BTreeSet<usize>,
    /// Nobody's datagrams arrive.
    pub(crate) all_datagrams: bool,
    /// Family that is down between two places, either way.
    pub(crate) families: BTreeSet<(usize, usize, Family)>,
    /// Streams cannot be opened from, to.
    pub(crate) opening: BTreeSet<(usize, usize)>,
    /// Places that get no datagrams, and send them.
    pub(crate) deaf: BTreeSet<usize>,
    /// Places that nobody can call: streams to them break, and none is opened. Their own calls work.
    pub(crate) uncallable: BTreeSet<usize>,
}

impl Blocks {
    fn packet(&self, from: usize, to: usize, family: Family) -> bool {
        self.groups.get(&from).copied().unwrap_or(0) != self.groups.get(&to).copied().unwrap_or(0)
            || self.one_way.contains(&(from, to))
            || self.families.contains(&(from.min(to), from.max(to), family))
    }

    fn datagram(&self, from: usize, to: usize, family: Family) -> bool {
        self.all_datagrams
            || self.datagrams.contains(&from)
            || self.datagrams.contains(&to)
            || self.deaf.contains(&to)
            || self.packet(from, to, family)
    }
}

/// A connection, from the one who opened it.
#[derive(Debug, Clone)]
struct Conn {
    to: usize,
    to_life: u64,
    from_life: u64,
    address: SocketAddr,
    ready: Duration,
    used: Duration,
    arrivals: [Duration; 2],
}

/// What becomes of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It arrives at this place and time; for streams, on this connection.
    Arrives { place: usize, at: Duration, conn: u64, opener: bool },
    /// The one who opened the stream hears that it failed.
    Fails { at: Duration },
    /// Nobody hears of it.
    Lost,
}

#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) weather: Weather,
    pub(crate) blocks: Blocks,
    pub(crate) places: BTreeMap<SocketAddr, usize>,
    /// The life of the process at each place; none where no process is.
    pub(crate) lives: Vec<Option<u64>>,
    conns: BTreeMap<u64, Conn>,
    opened: BTreeMap<(usize, SocketAddr), u64>,
    serial: u64,
}

impl Network {
    fn delay(&self, rng: &mut Rng) -> Duration {
        let (least, most) = self.weather.delay;
        Duration::from_micros(least + rng.below(most.saturating_sub(least).max(1)))
    }

    fn lost(&self, rng: &mut Rng) -> bool {
        rng.chance(self.weather.loss, 1000)
    }

    /// Once or twice, or not at all.
    pub(crate) fn datagram(&mut self, now: Duration, from: usize, to: SocketAddr, rng: &mut Rng) -> [Option<Fate>; 2] {
        let mut fates = [None; 2];
        let Some(place) = self.places.get(&to).copied() else { return fates };
        let copies = if rng.chance(self.weather.doubled, 1000) { 2 } else { 1 };
        let blocked = self.blocks.datagram(from, place, Family::of(to));
        for fate in fates.iter_mut().take(copies) {
            let (lost, delay) = (self.lost(rng), self.delay(rng));
            if !lost && !blocked && self.lives[place].is_some() {
                *fate = Some(Fate::Arrives { place, at: now + delay, conn: 0, opener: false });
            }
        }
        fates
    }

    /// A frame on the stream from `from` to an address.
    pub(crate) fn stream(&mut self, now: Duration, from: usize, to: SocketAddr, rng: &mut Rng) -> Fate {
        let Some(place) = self.places.get(&to).copied() else { return Fate::Fails { at: now + STREAM_TIMEOUT } };
        let family = Family::of(to);
        let blocked = self.blocks.packet(from, place, family)
            || self.blocks.packet(place, from, family)
            || self.blocks.uncallable.contains(&place);
        let held = self.opened.get(&(from, to)).copied().filter(|id| self.usable(*id, now));
        let id = match held {
            Some(id) => id,
            None => {
                if blocked || self.blocks.opening.contains(&(from, place)) {
                    return Fate::Fails { at: now + STREAM_TIMEOUT };
                }
                let (Some(to_life), Some(from_life)) = (self.lives[place], self.lives[from]) else {
                    // The host answers that nobody listens.
                    return Fate::Fails { at: now + self.delay(rng) * 2 };
                };
                let mut ready = now + self.delay(rng) * 2;
                while self.lost(rng) || self.lost(rng) {
                    ready += Duration::from_secs(1);
                }
                if ready > now + STREAM_TIMEOUT {
                    return Fate::Fails { at: now + STREAM_TIMEOUT };
                }
                self.serial += 1;
                let conn = Conn { to: place, to_life, from_life, address: to, ready, used: now, arrivals: [ready; 2] };
                self.conns.insert(self.serial, conn);
                self.opened.insert((from, to), self.serial);
                self.serial
            }
        };
        if blocked {
            self.conns.remove(&id);
            return Fate::Fails { at: now + STREAM_TIMEOUT };
        }
        if self.conns.get(&id).is_some_and(|conn| self.lives[conn.to] != Some(conn.to_life)) {
            // The process that accepted it is gone; its host says so.
            self.conns.remove(&id);
            return Fate::Fails { at: now + self.delay(rng) * 2 };
        }
        let at = self.arrival(id, 0, now, rng);
        Fate::Arrives { place, at, conn: id, opener: false }
    }

    /// A frame back on a connection that the other side opened.
    pub(crate) fn answer(
        &mut self,
        now: Duration,
        from: usize,
        id: u64,
        opener: usize,
        rng: &mut Rng,
    ) -> (Fate, Option<SocketAddr>) {
        let Some(conn) = self.conns.get(&id).cloned().filter(|_| self.usable(id, now)) else {
            return (Fate::Lost, None);
        };
        let family = Family::of(conn.address);
        let blocked = self.blocks.packet(from, opener, family)
            || self.blocks.packet(opener, from, family)
            || self.blocks.uncallable.contains(&from);
        if blocked || self.lives[opener] != Some(conn.from_life) {
            self.conns.remove(&id);
            return (Fate::Lost, None);
        }
        let at = self.arrival(id, 1, now, rng);
        (Fate::Arrives { place: opener, at, conn: id, opener: true }, Some(conn.address))
    }

    fn usable(&self, id: u64, now: Duration) -> bool {
        self.conns.get(&id).is_some_and(|conn| now < conn.used + IDLE)
    }

    fn arrival(&mut self, id: u64, direction: usize, now: Duration, rng: &mut Rng) -> Duration {
        let mut wait = self.delay(rng);
        let mut again = Duration::from_millis(200);
        while self.lost(rng) {
            wait += again;
            again *= 2;
        }
        let conn = self.conns.get_mut(&id).expect("looked up before");
        conn.used = now;
        let at = (now.max(conn.ready) + wait).max(conn.arrivals[direction]);
        conn.arrivals[direction] = at;
        at
    }

    /// Drops what nobody uses any more.
    pub(crate) fn sweep(&mut self, now: Duration) {
        self.conns.retain(|_, conn| now < conn.used + IDLE);
        let conns = &self.conns;
        self.opened.retain(|_, id| conns.contains_key(id));
    }
}
