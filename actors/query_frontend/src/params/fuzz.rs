//! Fuzzing of query strings and of the tenants of a query.

use http::{HeaderMap, HeaderValue};
use vivace_fuzzkit::{Campaign, likeness};
use vivace_protocol::TraceId;

use super::*;
use crate::tenant::tenants;

const RULES: TimeRules = TimeRules { now: 1_700_000_000, cutoff: 30, default_window: 900, max_window: 604_800 };

const TOKENS: [&str; 26] = [
    "start=",
    "end=",
    "since=",
    "limit=",
    "spss=",
    "q=",
    "minDuration=",
    "&",
    "=",
    "%",
    "%7B",
    "%zz",
    "%00",
    "+",
    "1h",
    "-1",
    "4294967296",
    "1700000000000000000",
    "1.5e9",
    "NaN",
    "inf",
    "2023-11-14T20:26:40.5%2B01:00",
    "9999-12-31T23:59:60Z",
    "0000-00-00T00:00:00Z",
    "\u{e9}",
    "2023-11-14T20:26:40-23:59",
];

#[test]
fn any_query_string_is_refused_or_gives_a_window_within_the_rules() {
    let campaign = Campaign::new(env!("CARGO_MANIFEST_DIR"), "params").max_bytes(500).tokens(&TOKENS).runs(250_000);
    let seeds = [
        "start=1699990000&end=1699999000&q=%7B%7D&limit=20",
        "start=2023-11-14T19:26:40Z&end=1700000000.25",
        "since=1h30m&limit=abc",
        "q=%7B+.a%20%3D%201+%7D&x=100%&empty=&spss=3&minDuration=5ms",
    ];
    seeds.iter().fold(campaign, |campaign, seed| campaign.seed_input(seed.as_bytes().to_vec())).run(|input| {
        let text = String::from_utf8_lossy(input);
        let params = Params::parse(&text);
        let mut like = String::new();
        for flexible in [false, true] {
            match window(&params, &RULES, flexible) {
                Ok(window) => {
                    assert!(window.start <= window.end, "{window:?}");
                    assert!(window.end <= RULES.now - RULES.cutoff && window.end - window.start <= RULES.max_window);
                    like.push('w');
                }
                Err(error) => {
                    // A character may be written as six in an error, and both ends are quoted.
                    assert!(error.0.len() <= 300 + 12 * text.len());
                    like.push_str(error.0.split(['"', '=']).next().unwrap_or_default());
                }
            }
        }
        for name in ["limit", "spss", "start"] {
            like.push(match params.u32(name) {
                Ok(Some(number)) => {
                    assert_eq!(params.get(name).and_then(|text| text.parse::<u32>().ok()), Some(number));
                    'n'
                }
                Ok(None) => '-',
                Err(_) => 'e',
            });
        }
        like.push(if params.i64("limit").is_ok() { 'i' } else { 'e' });
        like.push(if params.go_duration("minDuration").is_ok() { 'd' } else { 'e' });
        if let Some(q) = params.get("q") {
            assert!(q.len() <= 3 * text.len());
        }
        likeness(&like)
    });
}

#[test]
fn any_header_gives_a_query_safe_tenants_in_order_or_none() {
    let campaign = Campaign::new(env!("CARGO_MANIFEST_DIR"), "tenants")
        .max_bytes(300)
        .tokens(&["|", ":", "a", "b", "..", "/"])
        .runs(250_000);
    let seeds: [&[u8]; 4] = [b"a|b|a", b"team-1", b"b:x|a:y", b"||"];
    seeds.into_iter().fold(campaign, |campaign, seed| campaign.seed_input(seed.to_vec())).run(|input| {
        let Ok(value) = HeaderValue::from_bytes(input) else { return likeness("no header") };
        let headers = HeaderMap::from_iter([(http::HeaderName::from_static("x-scope-orgid"), value)]);
        match tenants(&headers, true, true) {
            Ok(found) => {
                assert!(!found.is_empty() && found.is_sorted_by(|a, b| a < b));
                assert!(found.iter().all(|tenant| !tenant.as_str().contains(['/', '|', ':'])));
                assert_eq!(tenants(&headers, true, false).is_ok(), found.len() == 1);
                likeness(&"t".repeat(found.len().min(9)))
            }
            Err(_) => likeness("refused"),
        }
    });
}

#[test]
fn any_text_is_a_trace_id_or_none() {
    let campaign = Campaign::new(env!("CARGO_MANIFEST_DIR"), "trace_id").max_bytes(60).tokens(&["0", "f", "g", "é"]);
    let seeds: [&[u8]; 3] = [b"5b8efff798038103d269b633813fc60c", b"0", b"eee19b7ec3c1b174"];
    seeds.into_iter().fold(campaign, |campaign, seed| campaign.seed_input(seed.to_vec())).runs(200_000).run(|input| {
        let text = String::from_utf8_lossy(input);
        match TraceId::parse_hex(&text) {
            Ok(id) => {
                assert_eq!(TraceId::parse_hex(&id.to_string()), Ok(id));
                assert_eq!(TraceId::parse_hex(&id.short_hex()), Ok(id));
                likeness("id")
            }
            Err(error) => likeness(error.to_string().split('\'').next().unwrap_or_default()),
        }
    });
}
