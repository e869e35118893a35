//! Ways to each peer: per family a stream and, while it answers, datagrams; what failed is tried again later.
//!
//! Rules, without clock and IO. A stream way is good when a frame came over a connection that we opened; a datagram way is
//! good when a knock was answered. Ways that were never tried count by what others of their kind did: where nobody's
//! datagrams are answered, nobody is sent any.
//!
//! A way that is not in use dies silently, so ways are checked for their own sake: datagram ways of both families whenever the
//! peer is probed, a stream way where datagrams of its family are not answered or not used. A proof that is old counts as
//! none on pages.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::Family;
use crate::swim::Node;

/// Failures in a row after which a datagram way that worked is left.
const DATAGRAM_FAILURES: u8 = 2;
const RETRY_MIN: Duration = Duration::from_secs(15);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The longest a stream way is left alone: a healed family must be found again soon.
const STREAM_RETRY_MAX: Duration = Duration::from_secs(20);
/// A datagram way, and a stream way, that was proven less than this ago need not be checked.
const DATAGRAM_PROVEN: Duration = Duration::from_secs(3);
const STREAM_PROVEN: Duration = Duration::from_secs(10);
/// A way that failed is not taken until it was tried, or until this long after it should have been.
const UNTRIED: Duration = Duration::from_secs(60);
/// An older proof says nothing of now.
const BELIEVED: Duration = Duration::from_secs(120);
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

#[derive(Debug, Clone, Copy, Default)]
struct Way {
    good: Option<Duration>,
    /// Set by a failure, taken away by a success.
    retry_at: Option<Duration>,
    /// When it failed for the first time since it was good.
    failed_at: Option<Duration>,
    failures: u8,
}

impl Way {
    fn works(&self, now: Duration) -> Option<bool> {
        if self.retry_at.is_some() { Some(false) } else { self.proven_within(now, BELIEVED).then_some(true) }
    }

    fn proven_within(&self, now: Duration, span: Duration) -> bool {
        self.good.is_some_and(|good| now.saturating_sub(good) < span)
    }

    fn is_due(&self, now: Duration) -> bool {
        self.retry_at.is_some_and(|at| now >= at)
    }

    /// It failed, and was not proven since. It is tried again for its own sake, so that nothing that matters waits for it; where
    /// that did not happen, as in a cluster so large that the pair seldom meets, it is as good as any other after a while.
    fn is_left(&self, now: Duration) -> bool {
        self.retry_at.is_some_and(|at| now < at + UNTRIED)
    }

    fn succeeded(&mut self, now: Duration) {
        *self = Self { good: Some(now), ..Self::default() };
    }

    fn failed(&mut self, now: Duration, tolerated: u8, longest: Duration) {
        self.failures = self.failures.saturating_add(1);
        self.failed_at.get_or_insert(now);
        if self.failures >= tolerated || self.good.is_none() {
            let doublings = u32::from(self.failures.saturating_sub(tolerated).min(8));
            self.retry_at = Some(now + (RETRY_MIN * 2_u32.pow(doublings)).min(longest));
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Peer {
    streams: [Way; 2],
    datagrams: [Way; 2],
    refuses_datagrams: bool,
    heard: Option<Duration>,
    via: Option<u64>,
}

/// The ways to all peers.
#[derive(Debug)]
pub struct Paths {
    own: Own,
    preferred: Family,
    peers: HashMap<u64, Peer>,
    /// How datagrams fare in general: above zero they are trusted before the pair has tried them.
    score: i8,
    /// How each family's streams fare in general.
    families: [i8; 2],
}

impl Paths {
    /// Ways of a member that speaks `own` and tries `preferred` first.
    #[must_use]
    pub fn new(own: Own, preferred: Family) -> Self {
        Self { own, preferred, peers: HashMap::new(), score: 0, families: [0; 2] }
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
    fn families(&self, now: Duration, node: &Node) -> Vec<(Family, SocketAddr, bool)> {
        let peer = self.peers.get(&node.id);
        let mut found: Vec<_> = Family::BOTH
            .into_iter()
            .filter(|family| self.own.speaks(*family))
            .filter_map(|family| {
                let endpoint = node.endpoint(family)?;
                let way = peer.map(|peer| peer.streams[family.index()]).unwrap_or_default();
                let suspected = way.good.is_none() && self.families[family.index()] < -2;
                let rank = (way.is_left(now), suspected, way.good.is_none(), family != self.preferred);
                Some((rank, family, endpoint, !way.is_left(now)))
            })
            .collect();
        found.sort_by_key(|(rank, ..)| *rank);
        found.into_iter().map(|(_, family, endpoint, fresh)| (family, endpoint, fresh)).collect()
    }

    /// Direct ways to `node`: the first is the one to take, the others are for when it is not answered. Empty: no family is
    /// shared. The flag says whether the first one is expected to work.
    #[must_use]
    pub fn routes(&self, now: Duration, node: &Node, packet: bool) -> (Vec<Route>, bool) {
        let families = self.families(now, node);
        let expected = families.first().is_some_and(|(_, _, fresh)| *fresh);
        let mut routes: Vec<_> = families.iter().map(|(_, endpoint, _)| Route::Stream(*endpoint)).collect();
        if packet
            && let Some((_, endpoint, _)) = families.iter().find(|(family, ..)| self.datagram_fits(now, node, *family))
        {
            routes.insert(0, Route::Datagram(*endpoint));
            return (routes, true);
        }
        (routes, expected)
    }

    fn datagram_fits(&self, now: Duration, node: &Node, family: Family) -> bool {
        if !self.own.datagrams || !node.datagrams() {
            return false;
        }
        let Some(peer) = self.peers.get(&node.id) else { return self.score > 0 };
        let (way, stream) = (peer.datagrams[family.index()], peer.streams[family.index()]);
        let trusted = way.good.is_some() || self.score > 0;
        // Where streams fail, the whole family may be gone; unless a datagram was answered since.
        let family_works = !stream.is_left(now) || way.good > stream.failed_at;
        !peer.refuses_datagrams && way.retry_at.is_none() && trusted && family_works
    }

    /// Where to answer a datagram of this family by a datagram, unless datagrams to there are known to fail.
    #[must_use]
    pub fn datagram_back(&self, node: &Node, family: Family) -> Option<SocketAddr> {
        let endpoint = node.endpoint(family).filter(|_| self.own.datagrams && node.datagrams())?;
        let peer = self.peers.get(&node.id)?;
        let open = !peer.refuses_datagrams && peer.datagrams[family.index()].retry_at.is_none();
        open.then_some(endpoint)
    }

    /// Addresses to knock at by datagram: of ways whose state is unknown or old, or that are due to be tried again.
    #[must_use]
    pub fn knocks(&self, now: Duration, node: &Node) -> Vec<SocketAddr> {
        if !self.own.datagrams || !node.datagrams() {
            return Vec::new();
        }
        let wanted = |(family, endpoint, _): (Family, SocketAddr, bool)| {
            let way = self.peers.get(&node.id).map(|peer| peer.datagrams[family.index()]).unwrap_or_default();
            let old = way.retry_at.is_none() && !way.proven_within(now, DATAGRAM_PROVEN);
            (old || way.is_due(now)).then_some(endpoint)
        };
        self.families(now, node).into_iter().filter_map(wanted).collect()
    }

    /// The address of a stream way that should be checked, because nothing else would tell whether it works.
    #[must_use]
    pub fn stream_to_check(&self, now: Duration, node: &Node) -> Option<SocketAddr> {
        let peer = self.peers.get(&node.id)?;
        let uses_datagrams = self.own.datagrams && node.datagrams() && !peer.refuses_datagrams;
        self.families(now, node).into_iter().find_map(|(family, endpoint, _)| {
            let (stream, datagram) = (peer.streams[family.index()], peer.datagrams[family.index()]);
            let silent = !uses_datagrams || datagram.retry_at.is_some();
            let old = stream.retry_at.is_none() && !stream.proven_within(now, STREAM_PROVEN);
            ((silent && old) || stream.is_due(now)).then_some(endpoint)
        })
    }

    /// Something came from the peer, through `via` or directly by a family. `opened` is the address of a connection that we
    /// opened.
    pub fn heard(&mut self, now: Duration, id: u64, by: Option<Family>, via: Option<u64>, opened: Option<SocketAddr>) {
        let peer = self.peers.entry(id).or_default();
        peer.heard = Some(now);
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
        self.peers.entry(id).or_default().streams[index].succeeded(now);
    }

    /// A knock was not answered; it is repeated before the way is left.
    pub fn knock_silent(&mut self) {
        self.score = (self.score - 1).max(-SCORE_MAX);
    }

    /// A repeated knock was not answered either: the way is left.
    pub fn knocks_silent(&mut self, now: Duration, id: u64, address: SocketAddr) {
        self.score = (self.score - 1).max(-SCORE_MAX);
        let way = &mut self.peers.entry(id).or_default().datagrams[Family::of(address).index()];
        way.failures = way.failures.max(DATAGRAM_FAILURES - 1);
        way.failed(now, DATAGRAM_FAILURES, RETRY_MAX);
    }

    /// A knock was answered.
    pub fn knock_answered(&mut self, now: Duration, id: u64, address: SocketAddr) {
        self.score = (self.score + 1).min(SCORE_MAX);
        self.peers.entry(id).or_default().datagrams[Family::of(address).index()].succeeded(now);
    }

    /// What was sent by this way was not answered in time.
    pub fn unanswered(&mut self, now: Duration, id: u64, route: Route) {
        let peer = self.peers.entry(id).or_default();
        match route {
            Route::Datagram(address) => {
                self.score = (self.score - 1).max(-SCORE_MAX);
                peer.datagrams[Family::of(address).index()].failed(now, DATAGRAM_FAILURES, RETRY_MAX);
            }
            Route::Stream(address) => self.stream_failed(now, id, address),
            Route::Via(_) => peer.via = None,
        }
    }

    /// A stream to the peer could not be opened, or was cut off.
    pub fn stream_failed(&mut self, now: Duration, id: u64, address: SocketAddr) {
        let index = Family::of(address).index();
        self.families[index] = (self.families[index] - 1).max(-SCORE_MAX);
        self.peers.entry(id).or_default().streams[index].failed(now, 1, STREAM_RETRY_MAX);
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

    /// Forgets peers that nobody knows.
    pub fn retain(&mut self, known: impl Fn(u64) -> bool) {
        self.peers.retain(|id, _| known(*id));
    }

    /// The peer is gone for good.
    pub fn forget(&mut self, id: u64) {
        self.peers.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::swim::About;

    const T0: Duration = Duration::from_secs(100);

    fn dual(id: u64) -> Node {
        let about = About {
            name: "d".into(),
            v4: Some("192.0.2.1:7946".parse().unwrap()),
            v6: Some("[2001:db8::1]:7946".parse().unwrap()),
            datagrams: true,
        };
        Node::new(id, about)
    }

    fn paths() -> Paths {
        Paths::new(Own { v4: true, v6: true, datagrams: true }, Family::V6)
    }

    fn first(paths: &Paths, now: Duration) -> Route {
        paths.routes(now, &dual(1), true).0[0]
    }

    #[test]
    fn streams_come_first_and_datagrams_once_they_are_answered() {
        let mut paths = paths();
        assert!(matches!(first(&paths, T0), Route::Stream(a) if Family::of(a) == Family::V6));
        let knocked = paths.knocks(T0, &dual(1))[0];
        paths.knock_answered(T0, 1, knocked);
        assert_eq!(first(&paths, T0), Route::Datagram(knocked));
    }

    #[test]
    fn datagrams_that_stay_silent_are_left_and_tried_again_later() {
        let mut paths = paths();
        let address = paths.knocks(T0, &dual(1))[0];
        paths.knock_answered(T0, 1, address);
        for _ in 0..DATAGRAM_FAILURES {
            assert_eq!(first(&paths, T0), Route::Datagram(address));
            paths.unanswered(T0, 1, Route::Datagram(address));
        }
        assert!(matches!(first(&paths, T0), Route::Stream(_)));
        let later = T0 + RETRY_MIN;
        assert!(paths.knocks(later, &dual(1)).contains(&address));
    }

    #[test]
    fn a_dead_family_is_left_for_the_other_one_and_found_again() {
        let mut paths = paths();
        let Route::Stream(v6) = first(&paths, T0) else { panic!("a stream") };
        paths.stream_failed(T0, 1, v6);
        assert!(matches!(first(&paths, T0), Route::Stream(a) if Family::of(a) == Family::V4));
        let later = T0 + STREAM_RETRY_MAX;
        assert!(
            matches!(first(&paths, later), Route::Stream(a) if Family::of(a) == Family::V4),
            "nothing waits for it"
        );
        assert_eq!(paths.stream_to_check(later, &dual(1)), Some(v6), "the preferred family is tried again");
        assert_eq!(first(&paths, later + UNTRIED), Route::Stream(v6), "nobody tried it");
        paths.stream_proved(later, 1, v6);
        assert_eq!(first(&paths, later), Route::Stream(v6));
    }

    #[test]
    fn a_way_that_failed_once_is_tried_again_when_the_peer_is_heard_by_it() {
        let mut paths = paths();
        let Route::Stream(v6) = first(&paths, T0) else { panic!("a stream") };
        for tried_again in [true, false] {
            paths.stream_failed(T0, 1, v6);
            paths.heard(T0, 1, Some(Family::V6), None, None);
            assert_eq!(first(&paths, T0) == Route::Stream(v6), tried_again);
        }
    }

    #[test]
    fn a_peer_without_a_shared_family_has_no_direct_way() {
        let paths = Paths::new(Own { v4: true, v6: false, datagrams: true }, Family::V6);
        let v6 = Node::new(2, About { v6: Some("[2001:db8::2]:7946".parse().unwrap()), ..About::default() });
        assert!(paths.routes(T0, &v6, true).0.is_empty());
        assert!(paths.knocks(T0, &v6).is_empty());
    }

    fn works(paths: &Paths, now: Duration, family: Family) -> (Option<bool>, Option<bool>) {
        let view = paths.view(now, &dual(1));
        view.iter().find(|path| path.family == family).map(|path| (path.stream, path.datagram)).unwrap()
    }

    #[test]
    fn a_family_that_is_lost_silently_is_noticed_way_by_way_though_the_other_one_is_in_use() {
        let mut paths = paths();
        let [v6, v4] = paths.knocks(T0, &dual(1))[..] else { panic!("both families") };
        for address in [v6, v4] {
            paths.knock_answered(T0, 1, address);
            paths.stream_proved(T0, 1, address);
        }
        assert!(paths.knocks(T0, &dual(1)).is_empty(), "just proven");
        assert_eq!(paths.stream_to_check(T0 + STREAM_PROVEN, &dual(1)), None, "datagrams of that family tell");
        let later = T0 + DATAGRAM_PROVEN;
        assert_eq!(paths.knocks(later, &dual(1)), [v6, v4]);
        // IPv4 is lost; IPv6 is what the pair uses.
        paths.knock_answered(later, 1, v6);
        paths.knock_silent();
        assert_eq!(works(&paths, later, Family::V4), (Some(true), Some(true)), "one lost packet says nothing");
        paths.knocks_silent(later, 1, v4);
        assert_eq!(works(&paths, later, Family::V4), (Some(true), Some(false)));
        let checked = later + STREAM_PROVEN;
        assert_eq!(paths.stream_to_check(checked, &dual(1)), Some(v4));
        paths.stream_failed(checked, 1, v4);
        assert_eq!(works(&paths, checked, Family::V4), (Some(false), Some(false)));
        assert_eq!(works(&paths, checked, Family::V6), (Some(true), Some(true)));
        assert_eq!(paths.stream_to_check(checked, &dual(1)), None, "not before it is due");
        // It is back: both ways are found again.
        let due = checked + STREAM_RETRY_MAX;
        assert!(paths.knocks(due, &dual(1)).contains(&v4) && paths.stream_to_check(due, &dual(1)) == Some(v4));
    }

    #[test]
    fn where_no_stream_can_be_opened_datagrams_are_used_once_they_were_answered() {
        let mut paths = paths();
        for address in paths.knocks(T0, &dual(1)) {
            paths.knock_answered(T0, 1, address);
        }
        let (soon, later) = (T0 + Duration::from_secs(4), T0 + Duration::from_secs(5));
        for path in paths.view(T0, &dual(1)) {
            paths.stream_failed(soon, 1, path.endpoint);
        }
        assert!(matches!(first(&paths, soon), Route::Stream(_)), "the family may be gone");
        let address = paths.knocks(later, &dual(1))[0];
        paths.knock_answered(later, 1, address);
        assert_eq!(first(&paths, later), Route::Datagram(address));
        let again = later + STREAM_RETRY_MAX;
        paths.stream_failed(again, 1, address);
        assert_eq!(first(&paths, again), Route::Datagram(address), "that it still fails is no news");
    }

    #[test]
    fn a_proof_of_long_ago_is_not_shown_as_one_of_now() {
        let mut paths = paths();
        let address = paths.knocks(T0, &dual(1))[0];
        paths.knock_answered(T0, 1, address);
        assert_eq!(works(&paths, T0 + Duration::from_secs(60), Family::V6).1, Some(true));
        assert_eq!(works(&paths, T0 + BELIEVED, Family::V6).1, None);
    }

    #[test]
    fn where_no_datagrams_are_used_the_stream_way_that_is_not_in_use_is_checked() {
        let mut paths = Paths::new(Own { v4: true, v6: true, datagrams: false }, Family::V6);
        let Route::Stream(v6) = first(&paths, T0) else { panic!("a stream") };
        paths.stream_proved(T0, 1, v6);
        let v4 = paths.stream_to_check(T0, &dual(1)).unwrap();
        assert_eq!(Family::of(v4), Family::V4);
        paths.stream_proved(T0, 1, v4);
        assert_eq!(paths.stream_to_check(T0, &dual(1)), None);
    }

    #[test]
    fn where_datagrams_never_arrive_others_are_told() {
        let mut paths = paths();
        assert!(paths.hears_datagrams());
        for id in 0..3 {
            paths.unanswered(T0, id, Route::Datagram("192.0.2.1:7946".parse().unwrap()));
        }
        assert!(!paths.hears_datagrams());
    }
}
