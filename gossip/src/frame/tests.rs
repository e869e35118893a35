use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const NOW: Duration = Duration::from_secs(1);

fn from() -> SocketAddr {
    "192.0.2.7:1234".parse().unwrap()
}

fn keyed(label: &str, keys: &[[u8; 32]], session: u64) -> Frames {
    Frames::new(label, Keys::new(keys).unwrap(), session)
}

fn plain(label: &str) -> Frames {
    keyed(label, &[], 1)
}

#[test]
fn a_frame_is_opened_by_its_own_cluster_only() {
    let frame = plain("blue").seal(b"hello".to_vec());
    assert_eq!(plain("blue").open(NOW, from(), &frame), Ok(b"hello".to_vec()));
    let mut green = plain("green");
    assert_eq!(green.open(NOW, from(), &frame), Err(Refused::Label(label_hash("blue"))));
    let offender = &green.refusals().offenders()[0];
    assert_eq!((offender.address, offender.count), (from().ip(), 1));
    assert_eq!(plain("green").any_label(true).open(NOW, from(), &frame), Ok(b"hello".to_vec()));
}

#[test]
fn keys_rotate_without_a_moment_in_which_somebody_is_deaf() {
    let (old, new) = ([1; 32], [2; 32]);
    // Every pair of neighbouring steps of a rotation must understand each other.
    let steps: [&[[u8; 32]]; 4] = [&[old], &[old, new], &[new, old], &[new]];
    for pair in steps.windows(2) {
        for (sender, receiver) in [(pair[0], pair[1]), (pair[1], pair[0])] {
            let frame = keyed("", sender, 1).seal(b"x".to_vec());
            assert_eq!(keyed("", receiver, 2).open(NOW, from(), &frame), Ok(b"x".to_vec()));
        }
    }
}

#[test]
fn a_wrong_key_is_counted_with_its_sender() {
    let frame = keyed("", &[[1; 32]], 1).seal(b"x".to_vec());
    let mut other = keyed("", &[[2; 32]], 2);
    assert_eq!(other.open(NOW, from(), &frame), Err(Refused::Key));
    assert_eq!(other.refusals().count("key"), 1);
    assert_eq!(other.refusals().offenders()[0].address, from().ip());
    let mut open = plain("");
    assert_eq!(open.open(NOW, from(), &frame), Err(Refused::Key));
    assert_eq!(keyed("", &[[2; 32]], 2).open(NOW, from(), &plain("").seal(vec![1])), Err(Refused::Plain));
}

#[test]
fn a_recorded_frame_is_refused() {
    let mut receiver = keyed("", &[[1; 32]], 2);
    let frame = keyed("", &[[1; 32]], 1).seal(b"x".to_vec());
    assert!(receiver.open(NOW, from(), &frame).is_ok());
    assert_eq!(receiver.open(NOW, from(), &frame), Err(Refused::Replayed));
}

#[test]
fn a_key_of_another_length_is_named() {
    let error = Keys::new(&[vec![0; 32], vec![0; 31]]).unwrap_err();
    assert_eq!(error.to_string(), "gossip key 2 has 31 bytes; it takes 32");
}

#[test]
fn an_http_request_is_recognised() {
    let mut frames = plain("");
    assert_eq!(frames.open(NOW, from(), b"GET /memberlist HTTP/1.1\r\n\r\n"), Err(Refused::Http));
    assert_eq!(frames.open(NOW, from(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Err(Refused::Http));
    assert_eq!(frames.refusals().count("http"), 2);
}

proptest! {
    #[test]
    fn garbage_is_refused_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), keys in any::<bool>()) {
        let mut frames = if keys { keyed("a", &[[3; 32]], 9) } else { plain("a") };
        prop_assert!(frames.open(NOW, from(), &bytes).is_err());
    }

    #[test]
    fn what_is_sealed_is_opened(body in proptest::collection::vec(any::<u8>(), 0..2000), keys in any::<bool>()) {
        let keys: &[[u8; 32]] = if keys { &[[3; 32]] } else { &[] };
        let frame = keyed("a", keys, 1).seal(body.clone());
        prop_assert!(frame.len() <= body.len() + OVERHEAD_BYTES_MAX);
        prop_assert_eq!(keyed("a", keys, 2).open(NOW, from(), &frame), Ok(body));
    }

    #[test]
    fn a_changed_bit_of_an_encrypted_frame_is_refused(
        body in proptest::collection::vec(any::<u8>(), 0..100), place in any::<prop::sample::Index>(), bit in 0..8_u8,
    ) {
        let mut frame = keyed("a", &[[3; 32]], 1).seal(body);
        let place = place.index(frame.len());
        frame[place] ^= 1 << bit;
        prop_assert!(keyed("a", &[[3; 32]], 2).open(NOW, from(), &frame).is_err());
    }
}
