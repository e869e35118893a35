//! Rules of ways, each for itself.

use super::way::{BELIEVED, DATAGRAM_FAILURES, DATAGRAM_PROVEN, RETRY_MIN, STREAM_PROVEN, STREAM_RETRY_MAX, UNTRIED};
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
        paths.unanswered(T0, 1, Route::Datagram(address), T0);
    }
    assert_ne!(first(&paths, T0), Route::Datagram(address));
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
    assert!(matches!(first(&paths, later), Route::Stream(a) if Family::of(a) == Family::V4), "nothing waits for it");
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
    paths.knocks_silent(later, 1, v4, later);
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

/// Two knocks at each address of a peer that nothing answers, though the peer is heard by other ways.
fn takes_no_datagrams(paths: &mut Paths, now: Duration, id: u64) {
    for address in paths.knocks(now, &dual(id)) {
        paths.heard(now, id, Some(Family::V4), None, None);
        paths.knocks_silent(now, id, address, now);
    }
}

#[test]
fn beside_the_datagram_way_that_is_taken_the_one_of_the_other_family_is_left_to_try() {
    let mut paths = paths();
    assert_eq!(paths.datagrams(T0, &dual(1)), [], "none was answered yet");
    let [v6, v4] = paths.knocks(T0, &dual(1))[..] else { panic!("both families") };
    for address in [v6, v4] {
        paths.knock_answered(T0, 1, address);
    }
    assert_eq!(first(&paths, T0), Route::Datagram(v6));
    assert_eq!(paths.datagrams(T0, &dual(1)), [Route::Datagram(v6), Route::Datagram(v4)]);
    paths.knocks_silent(T0, 1, v4, T0);
    assert_eq!(paths.datagrams(T0, &dual(1)), [Route::Datagram(v6)]);
}

#[test]
fn where_datagrams_never_arrive_others_are_told() {
    let mut paths = paths();
    assert!(paths.hears_datagrams());
    for id in 0..2 {
        takes_no_datagrams(&mut paths, T0, id);
    }
    assert!(!paths.hears_datagrams());
}

#[test]
fn members_that_are_silent_by_all_ways_say_nothing_of_datagrams() {
    let mut paths = paths();
    for id in 0..10 {
        for address in paths.knocks(T0, &dual(id)) {
            paths.knocks_silent(T0, id, address, T0);
            paths.unanswered(T0, id, Route::Datagram(address), T0);
        }
    }
    assert!(paths.hears_datagrams());
}

#[test]
fn a_peer_that_cannot_be_called_is_sent_datagrams_that_it_answers_whatever_it_thinks_of_them() {
    let mut paths = paths();
    let knocked = paths.knocks(T0, &dual(1))[0];
    paths.knock_answered(T0, 1, knocked);
    paths.takes_datagrams(1, false);
    assert!(matches!(first(&paths, T0), Route::Stream(_)), "it is better not to");
    let later = T0 + Duration::from_secs(1);
    for path in paths.view(T0, &dual(1)) {
        paths.stream_failed(later, 1, path.endpoint);
    }
    assert!(paths.knocks(later, &dual(1)).contains(&knocked), "it was proven just now, and before the streams failed");
    paths.knock_answered(later + Duration::from_millis(1), 1, knocked);
    assert_eq!(first(&paths, later + Duration::from_millis(1)), Route::Datagram(knocked));
}

#[test]
fn a_datagram_that_was_answered_after_a_stream_was_tried_says_that_the_family_works() {
    let mut paths = Paths::new(Own { v4: false, v6: true, datagrams: true }, Family::V6);
    let knocked = paths.knocks(T0, &dual(1))[0];
    paths.knock_answered(T0 + Duration::from_millis(1), 1, knocked);
    paths.stream_silent(T0 + Duration::from_secs(1), 1, knocked, T0);
    assert_eq!(first(&paths, T0 + Duration::from_secs(1)), Route::Datagram(knocked));
}

fn due(paths: &Paths, now: Duration) -> Vec<SocketAddr> {
    let knocks = paths.knocks(now, &dual(1));
    knocks.into_iter().chain(paths.stream_to_check(now, &dual(1))).collect()
}

/// Both ways over IPv6 fail within two seconds. The peer is heard in between, or it is silent by every way.
fn failed_from(t: Duration, heard_meanwhile: bool) -> (Paths, SocketAddr) {
    let mut paths = paths();
    let [v6, v4] = paths.knocks(T0, &dual(1))[..] else { panic!("both families") };
    for address in [v6, v4] {
        paths.knock_answered(T0, 1, address);
        paths.stream_proved(T0, 1, address);
    }
    paths.heard(T0, 1, Some(Family::V4), None, None);
    if heard_meanwhile {
        paths.heard(t + Duration::from_millis(1), 1, Some(Family::V4), None, None);
    }
    let failed = t + Duration::from_secs(2);
    paths.knocks_silent(failed, 1, v6, t);
    paths.knocks_silent(failed, 1, v6, t);
    paths.stream_silent(failed, 1, v6, t);
    paths.stream_silent(failed, 1, v6, t);
    (paths, v6)
}

#[test]
fn ways_that_failed_while_the_peer_was_silent_by_all_of_them_are_tried_again_once_it_is_heard() {
    let begun = T0 + Duration::from_secs(1);
    let (mut paths, v6) = failed_from(begun, false);
    let heard = begun + Duration::from_secs(3);
    assert!(!due(&paths, heard).contains(&v6), "nothing was heard yet");
    paths.heard(heard, 1, Some(Family::V4), None, None);
    assert_eq!(due(&paths, heard).iter().filter(|address| **address == v6).count(), 2, "datagrams and streams");
    assert_eq!(works(&paths, heard, Family::V6), (Some(false), Some(false)), "until they are answered");
    // The peer is heard, and the way still is not answered: now that says something.
    paths.heard(heard + Duration::from_millis(1), 1, Some(Family::V4), None, None);
    let failed = heard + Duration::from_secs(2);
    paths.knocks_silent(failed, 1, v6, heard);
    paths.stream_silent(failed, 1, v6, heard);
    paths.heard(failed, 1, Some(Family::V4), None, None);
    assert!(!due(&paths, failed).contains(&v6));
}

#[test]
fn ways_that_failed_while_the_peer_was_heard_by_another_are_left_alone_for_a_while() {
    let begun = T0 + Duration::from_secs(1);
    let (mut paths, v6) = failed_from(begun, true);
    let heard = begun + Duration::from_secs(3);
    paths.heard(heard, 1, Some(Family::V4), None, None);
    assert!(!due(&paths, heard).contains(&v6));
}

#[test]
fn that_one_peer_still_takes_no_datagrams_is_not_told_as_a_fault_of_ones_own() {
    let mut paths = paths();
    for round in 0..10 {
        let now = T0 + Duration::from_secs(100 * round);
        takes_no_datagrams(&mut paths, now, 1);
        takes_no_datagrams(&mut paths, now + Duration::from_secs(1), 1);
    }
    assert!(paths.hears_datagrams());
}

#[test]
fn strangers_are_forgotten_and_members_are_kept_until_they_are_gone() {
    let mut paths = paths();
    for id in [1, 2] {
        paths.heard(T0, id, Some(Family::V4), None, None);
    }
    paths.retain(|id| id == 1);
    assert_eq!((paths.last_heard(1), paths.last_heard(2)), (Some(T0), None));
    paths.heard(T0, 2, Some(Family::V4), None, None);
    paths.retain(|_| false);
    assert_eq!(
        (paths.last_heard(1), paths.last_heard(2)),
        (Some(T0), None),
        "one that was known is not asked for again"
    );
    paths.forget(1);
    assert_eq!(paths.last_heard(1), None);
}
