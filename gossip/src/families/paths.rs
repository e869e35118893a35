//! Ways to each peer: per family a stream and, while it answers, datagrams; what failed is tried again later.
//!
//! Rules, without clock and IO. A stream way is good when a frame came over a connection that we opened; a datagram way is
//! good when a knock was answered. Ways that were never tried count by what others of their kind did: where nobody's
//! datagrams are answered, nobody is sent any.
//!
//! A way that is not in use dies silently, so ways are checked for their own sake: datagram ways of both families whenever the
//! peer is probed, a stream way where datagrams of its family are not answered or not used. A proof that is old counts as
//! none on pages.
//!
//! A way that failed is left for a while. If nothing at all came from the peer while it was tried, the peer may have stood
//! still: then the way is tried again as soon as the peer is heard.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::Family;
use crate::swim::Node;

mod way;

#[cfg(test)]
mod tests;

use way::{DATAGRAM_FAILURES, DATAGRAM_PROVEN, RETRY_MAX, STREAM_PROVEN, STREAM_RETRY_MAX, Tried, Way};

const SCORE_MAX: i8 = 8;

/// What this member can speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// It has an IPv4 endpoint.
    pub v4: bool,
    /// It has an IPv6 endpoint.
    pub v6: bool,
    /// It sends and hears datagrams.
    pub datagrams: bool,
}

impl Own {
    fn speaks(self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// One way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// A datagram to this address.
    Datagram(SocketAddr),
    /// A stream to this address.
    Stream(SocketAddr),
    /// Through another member.
    Via(u64),
}

/// What is known about the ways to one peer over one family, for pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PathView {
    /// The family.
    pub family: Family,
    /// The peer's endpoint.
    pub endpoint: SocketAddr,
    /// Whether streams work; unknown while none was tried lately.
    pub stream: Option<bool>,
    /// Whether datagrams work; unknown while none was tried lately.
    pub datagram: Option<bool>,
}

#[derive(Debug, Clone, Default)]
struct Peer {
    streams: [Way; 2],
    datagrams: [Way; 2],
    refuses_datagrams: bool,
    heard: Option<Duration>,
    via: Option<u64>,
}

impl Peer {
    /// An attempt that began then and failed now.
    fn tried(&self, begun: Duration) -> Tried {
        Tried { begun, mute: self.heard.is_none_or(|heard| heard < begun) }
    }
}

/// The ways to all peers.
#[derive(Debug)]
pub struct Paths {
    own: Own,
    preferred: Family,
    peers: HashMap<u64, Peer>,
    /// Peers of which nobody said yet whether they are known.
    unsure: Vec<u64>,
    /// How datagrams fare in general: above zero they are trusted before the pair has tried them.
    score: i8,
    /// How each family's streams fare in general.
    families: [i8; 2],
}

impl Paths {
    /// Ways of a member that speaks `own` and tries `preferred` first.
    #[must_use]
    pub fn new(own: Own, preferred: Family) -> Self {
        Self { own, preferred, peers: HashMap::new(), unsure: Vec::new(), score: 0, families: [0; 2] }
    }

    /// What this member speaks.
    #[must_use]
    pub fn own(&self) -> Own {
        self.own
    }

    /// Whether datagrams of others seem to reach this member. Told to peers, so that they need not find out one by one.
    #[must_use]
    pub fn hears_datagrams(&self) -> bool {
        self.own.datagrams && self.score >= -2
    }

    /// Whether two nodes have a family in common, by what they advertise.
    #[must_use]
    pub fn share_family(a: &Node, b: &Node) -> bool {
        Family::BOTH.iter().any(|family| a.endpoint(*family).is_some() && b.endpoint(*family).is_some())
    }

    /// Families to reach `node` by, the best first, and whether each is worth a first try.
    fn families(&self, now: Duration, node: &Node) -> impl Iterator<Item = (Family, SocketAddr, bool)> + Clone + use<> {
        let peer = self.peers.get(&node.id);
        let mut found = Family::BOTH.map(|family| {
            let endpoint = node.endpoint(family).filter(|_| self.own.speaks(family))?;
            let way = peer.map(|peer| peer.streams[family.index()]).unwrap_or_default();
            let suspected = way.good.is_none() && self.families[family.index()] < -2;
            let rank = (way.is_left(now), suspected, way.good.is_none(), family != self.preferred);
            Some((rank, (family, endpoint, !way.is_left(now))))
        });
        if let [Some((first, _)), Some((second, _))] = &found
            && second < first
        {
            found.swap(0, 1);
        }
        found.into_iter().flatten().map(|(_, family)| family)
    }

    /// Direct ways to `node`: the first is the one to take, the others are for when it is not answered. Empty: no family is
    /// shared. The flag says whether the first one is expected to work.
    #[must_use]
    pub fn routes(&self, now: Duration, node: &Node, packet: bool) -> (Vec<Route>, bool) {
        let mut families = self.families(now, node);
        let streams = families.clone().map(|(_, endpoint, _)| Route::Stream(endpoint));
        let datagram = families.clone().find(|(family, ..)| packet && self.datagram_fits(now, node, *family));
        match datagram {
            Some((_, endpoint, _)) => (std::iter::once(Route::Datagram(endpoint)).chain(streams).collect(), true),
            None => (streams.collect(), families.next().is_some_and(|(_, _, fresh)| fresh)),
        }
    }

    fn datagram_fits(&self, now: Duration, node: &Node, family: Family) -> bool {
        if !self.own.datagrams || !node.datagrams() {
            return false;
        }
        let Some(peer) = self.peers.get(&node.id) else { return self.score > 0 };
        let (way, stream) = (peer.datagrams[family.index()], peer.streams[family.index()]);
        let trusted = way.good.is_some() || self.score > 0;
        // Where streams fail, the whole family may be gone; unless a datagram was answered since. Then it is the way to take,
        // whatever the peer thinks of datagrams.
        let answered = way.good > stream.failed_at;
        let open = if stream.is_left(now) { answered } else { !peer.refuses_datagrams };
        way.retry_at.is_none() && trusted && open
    }

    /// Datagram ways to `node` that were answered and are not known to fail since, of both families: what is left to try when
    /// one of them is not answered and no stream can be opened.
    #[must_use]
    pub fn datagrams(&self, now: Duration, node: &Node) -> Vec<Route> {
        let ways = self.peers.get(&node.id).map(|peer| peer.datagrams).unwrap_or_default();
        let answered = |family: Family| ways[family.index()].good.is_some() && ways[family.index()].retry_at.is_none();
        let families = self.families(now, node).filter(|_| self.own.datagrams && node.datagrams());
        families.filter(|(family, ..)| answered(*family)).map(|(_, endpoint, _)| Route::Datagram(endpoint)).collect()
    }

    /// Where to answer a datagram of this family by a datagram, unless datagrams to there are known to fail.
    #[must_use]
    pub fn datagram_back(&self, node: &Node, family: Family) -> Option<SocketAddr> {
        let endpoint = node.endpoint(family).filter(|_| self.own.datagrams && node.datagrams())?;
        let peer = self.peers.get(&node.id)?;
        let open = !peer.refuses_datagrams && peer.datagrams[family.index()].retry_at.is_none();
        open.then_some(endpoint)
    }

    /// Addresses to knock at by datagram: of ways whose state is unknown or old, or that are due to be tried again; and of those
    /// that may be the only ones left, since streams of their family fail.
    #[must_use]
    pub fn knocks(&self, now: Duration, node: &Node) -> Vec<SocketAddr> {
        if !self.own.datagrams || !node.datagrams() {
            return Vec::new();
        }
        let wanted = |(family, endpoint, _): (Family, SocketAddr, bool)| {
            let ways =
                self.peers.get(&node.id).map(|peer| (peer.datagrams[family.index()], peer.streams[family.index()]));
            let (way, stream) = ways.unwrap_or_default();
            let proven = way.proven_within(now, DATAGRAM_PROVEN) && way.good >= stream.failed_at;
            let old = way.retry_at.is_none() && !proven;
            (old || way.is_due(now)).then_some(endpoint)
        };
        self.families(now, node).filter_map(wanted).collect()
    }

    /// The address of a stream way that should be checked, because nothing else would tell whether it works.
    #[must_use]
    pub fn stream_to_check(&self, now: Duration, node: &Node) -> Option<SocketAddr> {
        let peer = self.peers.get(&node.id)?;
        let uses_datagrams = self.own.datagrams && node.datagrams() && !peer.refuses_datagrams;
        self.families(now, node).find_map(|(family, endpoint, _)| {
            let (stream, datagram) = (peer.streams[family.index()], peer.datagrams[family.index()]);
            let silent = !uses_datagrams || datagram.retry_at.is_some();
            let old = stream.retry_at.is_none() && !stream.proven_within(now, STREAM_PROVEN);
            ((silent && old) || stream.is_due(now)).then_some(endpoint)
        })
    }

    /// Something came from the peer, through `via` or directly by a family. `opened` is the address of a connection that we
    /// opened.
    pub fn heard(&mut self, now: Duration, id: u64, by: Option<Family>, via: Option<u64>, opened: Option<SocketAddr>) {
        let peer = self.peer(id);
        peer.heard = Some(now);
        peer.streams.iter_mut().chain(&mut peer.datagrams).for_each(|way| way.peer_heard(now));
        if via.is_some() {
            peer.via = via;
        }
        if let Some(address) = opened {
            self.stream_proved(now, id, address);
        } else if let Some(family) = by {
            // It was not there yet, and is now. A way that failed more often may be blocked in our direction alone.
            let way = &mut peer.streams[family.index()];
            if way.failures == 1 {
                way.retry_at = None;
            }
        }
    }

    /// When something last came from the peer.
    #[must_use]
    pub fn last_heard(&self, id: u64) -> Option<Duration> {
        self.peers.get(&id)?.heard
    }

    /// The member through which the peer was last heard.
    #[must_use]
    pub fn via(&self, id: u64) -> Option<u64> {
        self.peers.get(&id)?.via
    }

    /// The peer says whether it can be sent datagrams.
    pub fn takes_datagrams(&mut self, id: u64, takes: bool) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.refuses_datagrams = !takes;
        }
    }

    /// A knock by stream was answered.
    pub fn stream_proved(&mut self, now: Duration, id: u64, address: SocketAddr) {
        let index = Family::of(address).index();
        self.families[index] = (self.families[index] + 1).min(SCORE_MAX);
        self.peer(id).streams[index].succeeded(now);
    }

    /// A knock that was repeated, for the first time at `begun`, was not answered: the way is left.
    pub fn knocks_silent(&mut self, now: Duration, id: u64, address: SocketAddr, begun: Duration) {
        let mut score = self.score;
        let peer = self.peer(id);
        let tried = peer.tried(begun);
        let way = &mut peer.datagrams[Family::of(address).index()];
        // That a peer which says nothing at all takes no datagrams either tells nothing of datagrams in general, nor does
        // what is known already.
        if way.retry_at.is_none() && !tried.mute {
            score = (score - 1).max(-SCORE_MAX);
        }
        way.failures = way.failures.max(DATAGRAM_FAILURES - 1);
        way.failed(now, DATAGRAM_FAILURES, RETRY_MAX, tried);
        self.score = score;
    }

    /// A knock by stream at `begun` was not answered.
    pub fn stream_silent(&mut self, now: Duration, id: u64, address: SocketAddr, begun: Duration) {
        let tried = self.peer(id).tried(begun);
        self.stream_left(now, id, address, tried);
    }

    /// A knock was answered.
    pub fn knock_answered(&mut self, now: Duration, id: u64, address: SocketAddr) {
        self.score = (self.score + 1).min(SCORE_MAX);
        self.peer(id).datagrams[Family::of(address).index()].succeeded(now);
    }

    /// What was sent by this way at `sent` was not answered in time, and nothing else came from the peer since.
    pub fn unanswered(&mut self, now: Duration, id: u64, route: Route, sent: Duration) {
        let (peer, tried) = (self.peer(id), Tried { begun: sent, mute: true });
        match route {
            Route::Datagram(address) => {
                peer.datagrams[Family::of(address).index()].failed(now, DATAGRAM_FAILURES, RETRY_MAX, tried);
            }
            Route::Stream(address) => self.stream_left(now, id, address, tried),
            Route::Via(_) => peer.via = None,
        }
    }

    /// A stream to the peer could not be opened, or was cut off.
    pub fn stream_failed(&mut self, now: Duration, id: u64, address: SocketAddr) {
        self.stream_left(now, id, address, Tried { begun: now, mute: false });
    }

    fn stream_left(&mut self, now: Duration, id: u64, address: SocketAddr, tried: Tried) {
        let index = Family::of(address).index();
        self.families[index] = (self.families[index] - 1).max(-SCORE_MAX);
        self.peer(id).streams[index].failed(now, 1, STREAM_RETRY_MAX, tried);
    }

    /// What is known of the ways to a node.
    #[must_use]
    pub fn view(&self, now: Duration, node: &Node) -> Vec<PathView> {
        let peer = self.peers.get(&node.id).cloned().unwrap_or_default();
        Family::BOTH
            .into_iter()
            .filter_map(|family| {
                let endpoint = node.endpoint(family)?;
                let (stream, datagram) = (peer.streams[family.index()], peer.datagrams[family.index()]);
                Some(PathView { family, endpoint, stream: stream.works(now), datagram: datagram.works(now) })
            })
            .collect()
    }

    fn peer(&mut self, id: u64) -> &mut Peer {
        self.peers.entry(id).or_insert_with(|| {
            self.unsure.push(id);
            Peer::default()
        })
    }

    /// Forgets peers that are not known. Only those are asked for that were not known yet: of the others it is said when they are
    /// [gone](Self::forget).
    pub fn retain(&mut self, known: impl Fn(u64) -> bool) {
        for id in std::mem::take(&mut self.unsure) {
            if !known(id) {
                self.peers.remove(&id);
            }
        }
    }

    /// The peer is gone for good.
    pub fn forget(&mut self, id: u64) {
        self.peers.remove(&id);
    }
}
