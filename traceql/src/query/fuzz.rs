//! Fuzzing of query texts: refused with a place inside the text, or a query whose normal form says the same.

use vivace_fuzzkit::{Campaign, likeness};

use super::*;
use crate::{
    Merger, SearchPlan,
    memory::{MemorySource, MemorySpan, MemoryTrace},
    search,
};

const QUERIES: [&str; 12] = [
    "{}",
    "{ .a = 1 && resource.service.name =~ `sh.p` || !(duration > 1.5s) }",
    "({ kind = server } >> { status = error }) &&  { span.\"a b\" != nil }",
    "{ name !~ \"a|b\" } | count() > 2 | by(resource.region) | coalesce()",
    "{ .x ^ 2 * -3 % .y < 10 } | avg(duration) >= 10ms | select(span.z, name)",
    "{ trace:id = \"0a\" } &>> { event:name = `e` } !< { link.relation = 1 }",
    "{ span.list = [1, 2, 3] } ~ { .s = [\"a\"] }",
    "{ true } | rate() by (.a, .b) with(sample=0.1, exemplars=true)",
    "{} | quantile_over_time(duration, .5, .99) by (name)",
    "{ rootServiceName = \"x\" } | max(.n) != min(.n) + 1",
    "{ nestedSetParent < 0 && event.attempt >= 2 && instrumentation.vendor = \"acme\" }",
    "{ parent.a = parent.b } | { childCount > 1 }",
];

const TOKENS: [&str; 54] = [
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "|",
    "||",
    "&&",
    "&>>",
    "&<<",
    "&~",
    "!>>",
    "!~",
    ">>",
    "<<",
    ">",
    "<",
    "=",
    "!=",
    "=~",
    "~",
    "!",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "`",
    "\"",
    "\\",
    ",",
    ".",
    "..",
    ":",
    "count()",
    "by(",
    "select(",
    "rate()",
    "with(",
    "span.",
    "resource.",
    "parent.",
    "event:",
    "trace:id",
    "duration",
    "nil",
    "true",
    "1e9",
    "9223372036854775807",
    "3us",
    "µ",
    "\n",
];

/// The one number that is printed as a literal which cannot be written; and no number that is none equals itself.
const LEAST: &str = "-9223372036854775808";

/// Two spans, so that whatever is planned is also run.
fn source() -> MemorySource {
    let span = |id: u8, parent: u8, name: &str| MemorySpan {
        id: [id; 8],
        parent_id: [parent; 8],
        name: name.into(),
        duration_ns: u64::from(id) * 1_000_000_000,
        attributes: vec![("a".into(), Value::Int(1)), ("list".into(), Value::str("x"))],
        ..MemorySpan::default()
    };
    MemorySource::new(vec![MemoryTrace { id: [7; 16], spans: vec![span(1, 0, "root"), span(2, 1, "child")] }], 8)
}

#[test]
fn any_text_is_refused_with_its_place_or_has_a_normal_form_that_means_the_same() {
    let source = source();
    let campaign = Campaign::new(env!("CARGO_MANIFEST_DIR"), "query").max_bytes(1500).tokens(&TOKENS).runs(500_000);
    QUERIES.iter().fold(campaign, |campaign, query| campaign.seed_input(query.as_bytes().to_vec())).run(|input| {
        let text = String::from_utf8_lossy(input);
        match Query::parse(&text) {
            Ok(query) => {
                let printed = query.to_string();
                assert!(printed.len() <= 64 + 24 * text.len(), "a normal form of {} bytes", printed.len());
                if printed.contains(LEAST) || printed.contains("NaN") {
                    return likeness("least");
                }
                let again = match Query::parse(&printed) {
                    Ok(again) => again,
                    // The brackets of the normal form count, too: one near the limit has too many.
                    Err(error) if error.message.contains("nested too deeply") => return likeness("deep"),
                    Err(error) => panic!("{text}\nprinted {printed}\nrefused {error}"),
                };
                assert_eq!(again, query, "{text}\nprinted {printed}");
                assert_eq!(again.to_string(), printed, "{text}");
                if let Ok(plan) = SearchPlan::new(&query) {
                    let mut merger = Merger::new(10, false);
                    // An operator over several spansets is refused while it runs; everything else has an answer.
                    search(&source, &plan, None, 3, &mut merger).ok();
                }
                let kinds: String = printed.chars().filter(|c| !c.is_alphanumeric() && *c != ' ').take(6).collect();
                likeness(&kinds)
            }
            Err(error) => {
                let rendered = error.render();
                assert!(rendered.contains(&error.message));
                assert!(rendered.len() <= 512 + 4 * text.len(), "an error of {} bytes", rendered.len());
                if let Some(position) = error.position {
                    assert!(text.is_char_boundary(position.offset.min(text.len())) && position.offset <= text.len());
                }
                likeness(error.message.split([':', '`', '"']).next().unwrap_or_default())
            }
        }
    });
}

#[test]
fn any_text_is_a_field_or_none() {
    let campaign = Campaign::new(env!("CARGO_MANIFEST_DIR"), "field").max_bytes(200).tokens(&TOKENS).runs(1_500_000);
    let fields = [".a", "span.\"a b\"", "resource.service.name", "event:name", "duration", "instrumentation:version"];
    fields.iter().fold(campaign, |campaign, field| campaign.seed_input(field.as_bytes().to_vec())).run(|input| {
        let text = String::from_utf8_lossy(input);
        match text.parse::<Field>() {
            Ok(field) => {
                let printed = field.to_string();
                assert_eq!(printed.parse::<Field>().as_ref(), Ok(&field), "{text}\nprinted {printed}");
                likeness(&printed.chars().filter(|c| !c.is_alphanumeric()).take(4).collect::<String>())
            }
            Err(error) => likeness(error.message.split([':', '`', '"']).next().unwrap_or_default()),
        }
    });
}
