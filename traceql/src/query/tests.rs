//! The corpus both ways, the messages clients know, print-then-parse, and a bounded fuzz of the parser.

use proptest::prelude::*;
use serde::Deserialize;

use super::*;
use crate::error::ErrorKind;

#[derive(Deserialize)]
struct Corpus {
    valid: Vec<Valid>,
    invalid: Vec<Invalid>,
}

#[derive(Deserialize)]
struct Valid {
    q: String,
    norm: Option<String>,
    fixed: Option<bool>,
}

#[derive(Deserialize)]
struct Invalid {
    q: String,
    why: String,
}

fn corpus() -> Corpus {
    serde_saphyr::from_str(include_str!("../../tests/fixtures/corpus.yaml")).unwrap()
}

/// All texts of the corpus, right and wrong ones.
fn corpus_texts() -> &'static [String] {
    static TEXTS: std::sync::LazyLock<Vec<String>> = std::sync::LazyLock::new(|| {
        let Corpus { valid, invalid } = corpus();
        valid.into_iter().map(|case| case.q).chain(invalid.into_iter().map(|case| case.q)).collect()
    });
    &TEXTS
}

#[test]
fn nil_may_come_first_on_either_side_of_and_and_or() {
    let printed = |text: &str| Query::parse(text).unwrap().to_string();
    for joined in ["&&", "||"] {
        for test in ["=", "!="] {
            let due = printed(&format!("{{ .a = 1 {joined} .b {test} nil }}"));
            assert_eq!(printed(&format!("{{ .a = 1 {joined} nil {test} .b }}")), due);
            assert_eq!(printed(&format!("{{ .a = 1 {joined} .b {test} nil {joined} true }}")), {
                printed(&format!("{{ .a = 1 {joined} nil {test} .b {joined} true }}"))
            });
        }
    }
    assert!(Query::parse("{ .a = 1 && nil }").is_err() && Query::parse("{ .a > nil }").is_err());
}

#[test]
fn valid_queries_of_the_corpus_parse_and_print_in_normal_form() {
    let mut wrong = Vec::new();
    for case in corpus().valid {
        let query = match Query::parse(&case.q) {
            Ok(query) => query,
            Err(error) => {
                wrong.push(format!("{}\n  refused: {error}", case.q));
                continue;
            }
        };
        let printed = query.to_string();
        if case.norm.as_ref().is_some_and(|norm| *norm != printed) {
            wrong.push(format!("{}\n  printed  {printed}\n  expected {}", case.q, case.norm.unwrap_or_default()));
        }
        if case.fixed != Some(false) {
            match Query::parse(&printed) {
                Ok(again) if again == query && again.to_string() == printed => {}
                Ok(again) => wrong.push(format!("{}\n  printed {printed}\n  again   {again}", case.q)),
                Err(error) => wrong.push(format!("{}\n  printed {printed}\n  refused {error}", case.q)),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn invalid_queries_of_the_corpus_are_refused_for_the_right_reason() {
    let mut wrong = Vec::new();
    for case in corpus().invalid {
        let expected = match case.why.as_str() {
            "parse" => ErrorKind::Parse,
            "type" => ErrorKind::Type,
            _ => ErrorKind::Unsupported,
        };
        match Query::parse(&case.q) {
            Ok(query) => wrong.push(format!("{}\n  accepted as {query}, expected {expected:?}", case.q)),
            Err(error) if error.kind != expected => {
                wrong.push(format!("{}\n  {:?} instead of {expected:?}: {error}", case.q, error.kind));
            }
            Err(error) => {
                assert_eq!(expected == ErrorKind::Unsupported, error.message.ends_with("not yet supported"), "{error}");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn clients_get_the_messages_they_know() {
    for (query, message) in [
        ("", "parse error : syntax error: unexpected $end"),
        ("{", "parse error at line 1, col 2: syntax error: unexpected $end"),
        ("{ foo = }", "parse error at line 1, col 3: unknown identifier: foo"),
        ("{ span.a = 1 } | rat()", "parse error at line 1, col 18: syntax error: unexpected IDENTIFIER"),
        ("{ duration > \"x\" }", "binary operations must operate on the same type: duration > `x`"),
        ("{ .a =~ \"(\" }", "invalid regex: `(`"),
        ("{ status = purple }", "parse error at line 1, col 12: unknown identifier: purple"),
        ("{} | topk(3)", "parse error at line 1, col 6: syntax error: unexpected topk"),
        ("{ span.a + 1 }", "span filter field expressions must resolve to a boolean: { span.a + 1 }"),
    ] {
        assert_eq!(Query::parse(query).unwrap_err().to_string(), message);
    }
}

#[test]
fn the_long_form_points_at_the_place() {
    let error = Query::parse("{ .ok = 1 &&\n\t.b = = 2 }").unwrap_err();
    assert_eq!(error.render(), "parse error at line 2, col 7: syntax error: unexpected =\n  \t.b = = 2 }\n  \t     ^");
}

#[test]
fn fields_parse_on_their_own() {
    for text in [".x", "span.http.route", "name", "resource.service.name", "event:name", "span.\"a b\""] {
        assert_eq!(text.parse::<Field>().unwrap().to_string(), text);
    }
    assert_eq!("span:status".parse::<Field>().unwrap().to_string(), "status");
    for text in ["", "foo bar", "foo", ".x .y", "{.x}", "1"] {
        assert!(text.parse::<Field>().is_err(), "{text}");
    }
}

#[test]
fn hints_of_the_wrong_type_are_ignored() {
    let query = Query::parse("{} with(most_recent=true, sample=1, exemplars=false)").unwrap();
    assert_eq!(query.hint_bool("most_recent"), Some(true));
    assert_eq!(query.hint_float("sample"), Some(1.0));
    assert_eq!(query.hint_int("exemplars"), None);
}

#[test]
fn deep_nesting_and_long_chains_are_refused_not_overflowed() {
    for text in [
        format!("{{ {}true{} }}", "(".repeat(50_000), ")".repeat(50_000)),
        format!("{{ {}.a }}", "!".repeat(100_000)),
        format!("{{ {}1 = 1 }}", "-".repeat(100_000)),
        format!("{}{{}}", "(".repeat(100_000)),
        format!("{{ .a{} }}", " ^ .a".repeat(50_000)),
        format!("{{ .a{} }}", " || .a".repeat(50_000)),
        format!("{{}}{}", " && {}".repeat(50_000)),
        format!("{{}} | {}1 < count()", "-".repeat(50_000)),
    ] {
        assert_eq!(Query::parse(&text).unwrap_err().kind, ErrorKind::Parse);
    }
    let long = format!("{{ .a = 0{} }}", " || .a = 1".repeat(270));
    let query = Query::parse(&long).unwrap();
    assert!(Query::parse(&query.to_string()).unwrap() == query, "the normal form nests one level per operator");
}

#[test]
fn thousands_of_conditions_in_a_row_are_one_expression() {
    let chain = |operator: &str, count: usize| {
        let conditions: Vec<String> = (0..count).map(|number| format!(".a = {number}")).collect();
        format!("{{ {} }}", conditions.join(operator))
    };
    for (operator, count) in [(" || ", 129), (" || ", 300), (" && ", 1000), (" || ", 4096)] {
        let query = Query::parse(&chain(operator, count)).unwrap();
        let printed = query.to_string();
        assert_eq!(printed.matches(operator).count(), count - 1);
        // In the order in which they stand.
        let places: Vec<usize> = (0..count).map(|number| printed.find(&format!(".a = {number})")).unwrap()).collect();
        assert!(places.is_sorted());
        assert_eq!(Query::parse(&printed), Ok(query));
    }
    let error = Query::parse(&chain(" || ", 4097)).unwrap_err();
    assert_eq!(&*error.message, "more than 4096 conditions joined in one expression");
    // Those of fewer stand as they always did, and the operator that comes later joins all before it.
    assert_eq!(Query::parse("{ .a || .b || .c && .d }").unwrap().to_string(), "{ ((.a || .b) || .c) && .d }");
    let mixed = format!("{{ {} && .b }}", vec![".a"; 200].join(" || "));
    assert!(Query::parse(&mixed).unwrap().to_string().ends_with(") && .b }"));

    let patterns = |count: usize| {
        let all: Vec<String> = (0..count).map(|number| format!(".a =~ \"x{number}\"")).collect();
        Query::parse(&format!("{{ {} }}", all.join(" || ")))
    };
    assert!(patterns(512).is_ok());
    assert!(patterns(513).unwrap_err().message.contains("more than 512 regular expressions"));
}

#[test]
fn what_only_the_normal_form_nests_too_deeply_is_refused_at_once() {
    for text in [
        format!("{{ {}.a }}", "-".repeat(149)),
        format!("{{ .a{} > 0 }}", " ^ .a".repeat(200)),
        format!("{{}}{}", " || {}".repeat(100)),
    ] {
        let error = Query::parse(&text).unwrap_err();
        assert_eq!((error.kind, &*error.message), (ErrorKind::Parse, "query is nested too deeply"), "{text}");
    }
    for text in [
        format!("{{ {}.a > 0 }}", "-".repeat(100)),
        format!("{{ .a{} > 0 }}", " ^ .a".repeat(100)),
        format!("{{}}{}", " || {}".repeat(40)),
    ] {
        let query = Query::parse(&text).unwrap();
        assert_eq!(Query::parse(&query.to_string()), Ok(query));
    }
}

#[test]
fn a_whole_query_in_parentheses_is_what_they_hold() {
    for (text, printed) in
        [("({ .a } | { .b })", "{ .a }|{ .b }"), ("(({ .a } | count() > 1))", "{ .a }|(count()) > 1")]
    {
        let query = Query::parse(text).unwrap();
        assert_eq!(query.to_string(), printed);
        assert_eq!(Query::parse(printed), Ok(query));
    }
}

/// Queries put together from the grammar; not all of them are well typed.
pub(crate) fn query_text() -> impl Strategy<Value = String> {
    let field = prop_oneof![
        Just(".a"),
        Just(".b"),
        Just("span.a"),
        Just("resource.a"),
        Just("resource.b"),
        Just("event.e"),
        Just("link.l"),
        Just("name"),
        Just("duration"),
        Just("status"),
        Just("kind"),
        Just("span:childCount"),
        Just("nestedSetLeft"),
        Just("traceDuration"),
        Just("rootName"),
        Just("event:name"),
        Just("span.\"q \\\" r\""),
        Just(".\"5\""),
        Just("trace:id"),
        Just("span:id"),
        Just("instrumentation:name"),
        Just("event:timeSinceStart"),
    ]
    .prop_map(str::to_owned);
    let literal = prop_oneof![
        any::<i32>().prop_map(|n| n.to_string()),
        (-3_i64..4).prop_map(|n| n.to_string()),
        (-4_i32..5).prop_map(|n| format!("{:?}", f64::from(n) / 2.0)),
        any::<f64>().prop_filter("no literal", |f| f.is_finite()).prop_map(|f| format!("{f:e}")),
        (0_u32..5000).prop_map(|n| format!("{n}ms")),
        prop_oneof![
            Just("\"x\""),
            Just("\"y\""),
            Just("`x.*`"),
            Just("\"\""),
            Just("\"`\\r\\n\\t\\x01\""),
            Just("\"é\"")
        ]
        .prop_map(str::to_owned),
        prop_oneof![Just("true"), Just("false"), Just("error"), Just("ok"), Just("server"), Just("client")]
            .prop_map(str::to_owned),
    ];
    let leaf = prop_oneof![field.clone(), literal];
    let expr = leaf.prop_recursive(5, 24, 3, |inner| {
        let op = prop_oneof![
            Just("="),
            Just("!="),
            Just("<"),
            Just("<="),
            Just(">"),
            Just(">="),
            Just("&&"),
            Just("||"),
            Just("+"),
            Just("-"),
            Just("*"),
            Just("/"),
            Just("%"),
            Just("^"),
        ];
        prop_oneof![
            4 => (inner.clone(), op, inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            1 => (inner.clone(), prop_oneof![Just("=~"), Just("!~")]).prop_map(|(a, op)| format!("{a} {op} \"x.*|y\"")),
            1 => inner.clone().prop_map(|a| format!("({a})")),
            1 => inner.clone().prop_map(|a| format!("-{a}")),
            1 => inner.clone().prop_map(|a| format!("!{a}")),
            1 => inner.clone().prop_map(|a| format!("{a} = nil")),
            1 => inner.prop_map(|a| format!("nil != {a}")),
        ]
    });
    let filter = expr.clone().prop_map(|expr| format!("{{ {expr} }}"));
    let set = filter.prop_recursive(2, 6, 2, |inner| {
        let op = prop_oneof![
            Just("&&"),
            Just("||"),
            Just(">"),
            Just("<"),
            Just(">>"),
            Just("<<"),
            Just("~"),
            Just("!>"),
            Just("!<"),
            Just("!>>"),
            Just("!<<"),
            Just("!~"),
            Just("&>"),
            Just("&<"),
            Just("&>>"),
            Just("&<<"),
            Just("&~"),
        ];
        prop_oneof![
            (inner.clone(), op, inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            inner.prop_map(|a| format!("({a})")),
        ]
    });
    let stage = prop_oneof![
        set.clone(),
        expr.clone().prop_map(|e| format!("by({e})")),
        Just("coalesce()".to_owned()),
        field.clone().prop_map(|f| format!("select({f}, .z)")),
        Just("count() > 1".to_owned()),
        (expr, -5_i32..5).prop_map(|(e, n)| format!("max({e}) != {n}")),
    ];
    (set, prop::collection::vec(stage, 0..3), prop::option::of((0..7, field)), any::<bool>()).prop_map(
        |(set, stages, metric, hint)| {
            let mut text = set;
            for stage in stages {
                text += " | ";
                text += &stage;
            }
            if let Some((kind @ 5.., field)) = &metric {
                // Arithmetic of two sub-queries, with a constant.
                let op = if *kind == 5 { "/" } else { "-" };
                return format!(
                    "({text} | rate() by ({field})) {op} ({text} | avg_over_time({field}) by ({field}) | topk(2)) * 100 > 3"
                );
            }
            if let Some((kind, field)) = metric {
                text += &match kind {
                    0 => format!(" | rate() by({field}) | topk(3) > 1.5"),
                    1 => format!(" | quantile_over_time({field}, .5, 0.123456)"),
                    2 => " | compare({ .a = 1 }, 5, 1, 2)".to_owned(),
                    3 => format!(" | max_over_time({field}) >= 10ms < 2 | bottomk(2)"),
                    4 => format!(" | histogram_over_time({field}) by ({field}, .z) != 0.25"),
                    _ => format!(" | sum_over_time({field})"),
                };
            }
            if hint {
                text += " with(sample=0.5)";
            }
            text
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn what_is_printed_parses_back_to_the_same_query(text in query_text()) {
        if let Ok(query) = Query::parse(&text) {
            let printed = query.to_string();
            let again = Query::parse(&printed);
            prop_assert!(again.is_ok(), "{text}\nprinted {printed}\n{again:?}");
            let again = again.unwrap();
            prop_assert_eq!(&again, &query, "{}\nprinted {}", text, printed);
            prop_assert_eq!(again.to_string(), printed);
        }
    }

    #[test]
    fn mutated_texts_of_the_corpus_are_refused_or_print_what_parses_back(
        first in any::<prop::sample::Index>(), second in any::<prop::sample::Index>(),
        cuts in prop::array::uniform4(any::<prop::sample::Index>()), how in 0..4,
    ) {
        let texts = corpus_texts();
        let chars = |index: prop::sample::Index| -> Vec<char> { index.get(texts).chars().collect() };
        let (mut text, other) = (chars(first), chars(second));
        let range = |length: usize, a: usize, b: usize| {
            let (a, b) = (cuts[a].index(length + 1), cuts[b].index(length + 1));
            a.min(b)..a.max(b)
        };
        let (own, foreign) = (range(text.len(), 0, 1), range(other.len(), 2, 3));
        match how {
            // A piece goes, a piece of another text comes, a piece is said twice, two texts follow each other.
            0 => drop(text.drain(own)),
            1 => drop(text.splice(own, other[foreign].iter().copied())),
            2 => {
                let piece: Vec<char> = text[own.clone()].to_vec();
                drop(text.splice(own.end..own.end, piece));
            }
            _ => text.extend(&other),
        }
        let text: String = text.into_iter().collect();
        survives(&text);
        if let Ok(query) = Query::parse(&text) {
            let printed = query.to_string();
            // The least integer, and no number, can be computed but not written.
            if !printed.contains("9223372036854775808") && !printed.contains("NaN") {
                let again = Query::parse(&printed);
                prop_assert!(again.as_ref() == Ok(&query), "{}\nprinted {}\n{:?}", text, printed, again);
                prop_assert_eq!(again.map(|again| again.to_string()), Ok(printed));
            }
        }
    }

    #[test]
    fn the_parser_survives_any_text(text in ".{0,60}") {
        survives(&text);
    }

    #[test]
    fn the_parser_survives_mutated_queries(text in query_text(), at in any::<prop::sample::Index>(), with in "[-{}()|&!~<>=.\"`a0 +*/^,:µ\\\\]{0,3}") {
        let mut chars: Vec<char> = text.chars().collect();
        let at = at.index(chars.len());
        chars.splice(at..(at + 1).min(chars.len()), with.chars());
        survives(&chars.into_iter().collect::<String>());
    }
}

fn survives(text: &str) {
    if let Err(error) = Query::parse(text) {
        let rendered = error.render();
        assert!(rendered.contains(&error.message));
        if let Some(position) = error.position {
            assert!(position.offset <= text.len() && position.line >= 1 && position.column >= 1);
        }
    }
    let _parsed = text.parse::<Field>();
}
