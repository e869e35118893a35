//! Fuzzing of compressed bodies: an error, or bytes within the limit, with the memory paid for before it is taken.

use std::time::Duration;

use vivace_fuzzkit::{Campaign, likeness};
use vivace_log::Budget;

use super::tests::{COMPRESSED, compress};
use super::*;
use crate::reservation::tests::reservation;

/// What may come out.
const LIMIT: usize = 40_000;

/// The first byte of an input chooses the encoding, so that one campaign covers all and heads get mixed up.
fn inputs() -> impl Iterator<Item = Vec<u8>> {
    let text = b"the same words again and again and again, and 0123456789 other ones ".repeat(9);
    let zeros = vec![0; 30_000];
    COMPRESSED.into_iter().enumerate().flat_map(move |(number, (_, encoding))| {
        let with = |body: &[u8]| {
            let mut input = vec![u8::try_from(number).expect("few encodings")];
            input.extend(compress(encoding, body));
            input
        };
        [with(&text), with(&zeros), with(b""), with(b"x")]
    })
}

fn kind(error: &DecompressError) -> u64 {
    match error {
        DecompressError::Corrupt(source) => likeness(&source.to_string()),
        other => likeness(&other.to_string()),
    }
}

#[test]
fn any_body_is_refused_or_stays_within_its_limit_and_its_budget() {
    let campaign = Campaign::new(env!("CARGO_MANIFEST_DIR"), "encoding").max_bytes(3000).runs(60_000);
    inputs().fold(campaign, Campaign::seed_input).run(|input| {
        let Some((&first, body)) = input.split_first() else { return 0 };
        let (_, encoding) = COMPRESSED[usize::from(first) % COMPRESSED.len()];
        let budget = Budget::new(8 << 20, Duration::from_secs(1));
        // Somebody else holds a byte, so that nothing passes as the only one.
        let _other = budget.acquire(1).expect("there is room");
        let mut reserved = reservation(&budget);
        let body = Bytes::copy_from_slice(body);
        let mut work = match Decompression::new(encoding, body.clone(), LIMIT, &mut reserved) {
            Ok(work) => work,
            Err(error) => return kind(&error),
        };
        let mut pauses = 0;
        loop {
            pauses += 1;
            match work.run(pauses * 7_000, &mut reserved) {
                Ok(true) => break,
                Ok(false) => assert!(pauses * 7_000 <= LIMIT + 7_000, "it paused above the limit"),
                Err(error) => return kind(&error),
            }
        }
        let out = work.finish();
        assert!(out.len() <= LIMIT);
        assert!(
            out.is_empty() || out.as_ptr() == body.as_ptr() || budget.used_bytes() > out.len(),
            "memory was not paid for"
        );
        // What came out is compressed again and comes back.
        let again = Bytes::from(compress(encoding, &out));
        let back = Decompression::new(encoding, again, LIMIT, &mut reserved)
            .and_then(|mut work| work.run(usize::MAX, &mut reserved).map(|done| (done, work.finish())));
        match back {
            Ok((done, back)) => assert!(done && back == out),
            Err(error) => assert!(matches!(error, DecompressError::Overloaded(_)), "{error}"),
        }
        likeness(&format!("{first} {}", "b".repeat(out.len().checked_ilog2().map_or(0, |log| log as usize))))
    });
}
