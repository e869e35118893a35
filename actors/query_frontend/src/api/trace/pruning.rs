//! Span pruning of the second trace endpoint: many similar sibling spans without children become one summary span, and so do
//! their parents when nothing but summaries is left below them.

use std::collections::{BTreeMap, HashMap, HashSet};

use prost::Message;
use regex::Regex;
use vivace_protocol::otlp::common::{AnyValue, ArrayValue, KeyValue, any_value::Value};
use vivace_protocol::otlp::trace::Span;
use vivace_protocol::tempopb::Trace;

use crate::config::TraceByIdConfig;
use crate::params::{BadParam, Params};

/// Upper bounds of the histogram of durations, in nanoseconds; above is one bucket more.
const BOUNDS_NS: [u64; 11] = [
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];
const IS_SUMMARY: &str = "aggregation.is_summary";

/// What is pruned.
#[derive(Debug)]
pub(crate) struct Pruning {
    /// Attributes that tell spans apart.
    group_by: Vec<Regex>,
    min_spans: usize,
    /// Levels of parents above the leaves.
    parents: u32,
}

impl Pruning {
    /// What a request wants; none where pruning is off, and then nothing is looked at.
    pub(crate) fn of(config: &TraceByIdConfig, params: &Params) -> Result<Option<Self>, BadParam> {
        if !config.span_pruning_enabled {
            return Ok(None);
        }
        let wanted = params.bool("span_pruning").map_err(|_not_a_boolean| {
            let value = serde_json::Value::from(params.get("span_pruning").unwrap_or_default());
            BadParam(format!("invalid span_pruning value {value}: must be a boolean"))
        })?;
        if !wanted.unwrap_or(config.span_pruning_enabled_by_default) {
            return Ok(None);
        }
        let min_spans = params.u32("span_pruning_min_spans")?.unwrap_or(5);
        if min_spans < 2 {
            return Err(BadParam("invalid span pruning config: min_spans_to_aggregate must be at least 2".to_owned()));
        }
        let globs = params.get("span_pruning_group_by").unwrap_or_default().split(',').map(str::trim);
        let group_by = globs.filter(|glob| !glob.is_empty()).map(glob).collect::<Result<_, _>>()?;
        let parents = match params.i64("span_pruning_max_parent_depth")?.unwrap_or(1) {
            -1 => u32::MAX,
            depth => u32::try_from(depth).map_err(|_below_or_above| {
                let only = "max_parent_depth must be -1 (unlimited) or >= 0";
                BadParam(format!("invalid span pruning config: {only}"))
            })?,
        };
        Ok(Some(Self { group_by, min_spans: usize::try_from(min_spans).unwrap_or(usize::MAX), parents }))
    }

    /// Puts summaries in the place of groups; what to tell the client, if there is anything.
    pub(crate) fn apply(&self, trace: &mut Trace) -> Option<String> {
        let mut forest = Forest::of(trace);
        if forest.spans.iter().any(|span| span.attributes.iter().any(|a| a.key == IS_SUMMARY)) {
            return Some("Spans were pruned on write, summary spans stand for groups of similar spans".to_owned());
        }
        for level in 0..=self.parents {
            if !self.level(&mut forest, level > 0) {
                break;
            }
        }
        let gone = forest.gone.len();
        if gone == 0 {
            return None;
        }
        let summaries = forest.summaries.len();
        forest.write(trace);
        Some(format!(
            "Spans were pruned on read, {summaries} summary spans stand for groups of similar spans ({gone} spans left out)"
        ))
    }

    /// Merges the groups of one level: leaves, or parents of nothing but summaries. Whether there were any.
    fn level(&self, forest: &mut Forest, parents: bool) -> bool {
        let children = forest.children();
        let mut groups: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
        for at in 0..forest.spans.len() {
            let span = &forest.spans[at];
            if forest.gone.contains(&at) || forest.summaries.contains_key(&at) || span.parent_span_id.is_empty() {
                continue;
            }
            let below = children.get(&span.span_id).map_or(&[][..], Vec::as_slice);
            let fits = below.iter().all(|child| forest.summaries.contains_key(child)) && below.is_empty() != parents;
            if fits {
                let mut key = span.parent_span_id.clone();
                key.extend(self.likeness(span, forest.resource[at]));
                groups.entry(key).or_default().push(at);
            }
        }
        groups.retain(|_, members| members.len() >= self.min_spans);
        let any = !groups.is_empty();
        for members in groups.into_values() {
            let below =
                members.iter().flat_map(|at| children.get(&forest.spans[*at].span_id).cloned().unwrap_or_default());
            let mut alike: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
            for child in below {
                let key = self.likeness(&forest.spans[child], forest.resource[child]);
                alike.entry(key).or_default().push(child);
            }
            let stays = forest.merge(members);
            let parent = forest.spans[stays].span_id.clone();
            for children in alike.into_values() {
                let child = forest.merge(children);
                forest.spans[child].parent_span_id.clone_from(&parent);
            }
        }
        any
    }

    /// Equal for spans of one kind below different parents.
    fn likeness(&self, span: &Span, resource: usize) -> Vec<u8> {
        let code = span.status.as_ref().map_or(0, |status| status.code);
        let mut key = format!("\0{resource}\0{}\0{}\0{code}\0", span.name, span.kind).into_bytes();
        let grouping = |attribute: &&KeyValue| self.group_by.iter().any(|glob| glob.is_match(&attribute.key));
        let mut attributes: Vec<Vec<u8>> =
            span.attributes.iter().filter(grouping).map(Message::encode_length_delimited_to_vec).collect();
        attributes.sort();
        key.extend(attributes.concat());
        key
    }
}

/// `*` is any text, `?` any character, `[a-c]` and `[!a-c]` one of some characters, `\` takes the next one as it is.
fn glob(glob: &str) -> Result<Regex, BadParam> {
    let invalid = |why: &str| {
        BadParam(format!("invalid span pruning config: invalid glob in span_pruning_group_by {glob:?}: {why}"))
    };
    let mut pattern = String::new();
    let mut chars = glob.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' => pattern.push_str(".*"),
            '?' => pattern.push('.'),
            '[' => {
                let (class, rest) = chars.as_str().split_once(']').ok_or_else(|| invalid("a [ without its ]"))?;
                chars = rest.chars();
                let (not, class) = class.strip_prefix('!').map_or(("", class), |class| ("^", class));
                // All but the dash stands for itself.
                let class = regex::escape(class).replace("\\-", "-");
                pattern.extend(["[", not, &class, "]"]);
            }
            '\\' => pattern.push_str(&regex::escape(&chars.next().unwrap_or('\\').to_string())),
            other => pattern.push_str(&regex::escape(&other.to_string())),
        }
    }
    Regex::new(&format!("^(?s:{pattern})$")).map_err(|error| invalid(&error.to_string()))
}

/// Durations of the spans behind a summary.
#[derive(Debug, Clone)]
struct Durations {
    count: u64,
    min: u64,
    max: u64,
    total: u64,
    buckets: [u64; BOUNDS_NS.len() + 1],
}

impl Durations {
    fn of(span: &Span) -> Self {
        let nanos = span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano);
        let mut buckets = [0; BOUNDS_NS.len() + 1];
        buckets[BOUNDS_NS.partition_point(|bound| *bound < nanos)] = 1;
        Self { count: 1, min: nanos, max: nanos, total: nanos, buckets }
    }

    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.total = self.total.saturating_add(other.total);
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, count)| *sum += count);
    }

    fn attributes(&self) -> Vec<KeyValue> {
        let int = |value: u64| Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX));
        let array = |values: Vec<Value>| {
            let values = values.into_iter().map(|value| AnyValue { value: Some(value) }).collect();
            Value::ArrayValue(ArrayValue { values })
        };
        let bounds = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10"];
        let bounds = bounds.iter().filter_map(|bound| bound.parse().ok()).map(Value::DoubleValue).collect();
        // Each bucket counts those below it as well; the last counts all.
        let mut sum = 0;
        let counts = self.buckets.iter().map(|count| {
            sum += count;
            int(sum)
        });
        let counts = counts.collect();
        let attributes = [
            (IS_SUMMARY, Value::BoolValue(true)),
            ("aggregation.span_count", int(self.count)),
            ("aggregation.duration_min_ns", int(self.min)),
            ("aggregation.duration_max_ns", int(self.max)),
            ("aggregation.duration_total_ns", int(self.total)),
            ("aggregation.duration_avg_ns", int(self.total / self.count.max(1))),
            ("aggregation.histogram_bucket_bounds_s", array(bounds)),
            ("aggregation.histogram_bucket_counts", array(counts)),
        ];
        let attribute = |(key, value): (&str, Value)| KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
            ..KeyValue::default()
        };
        attributes.into_iter().map(attribute).collect()
    }
}

/// The spans of a trace side by side.
struct Forest {
    spans: Vec<Span>,
    resource: Vec<usize>,
    gone: HashSet<usize>,
    summaries: HashMap<usize, Durations>,
}

impl Forest {
    fn of(trace: &Trace) -> Self {
        let mut forest =
            Self { spans: Vec::new(), resource: Vec::new(), gone: HashSet::new(), summaries: HashMap::new() };
        for (number, resource) in trace.resource_spans.iter().enumerate() {
            for span in resource.scope_spans.iter().flat_map(|scope| &scope.spans) {
                forest.spans.push(span.clone());
                forest.resource.push(number);
            }
        }
        forest
    }

    fn children(&self) -> HashMap<Vec<u8>, Vec<usize>> {
        let mut children: HashMap<Vec<u8>, Vec<usize>> = HashMap::new();
        for (at, span) in self.spans.iter().enumerate().filter(|(at, _)| !self.gone.contains(at)) {
            children.entry(span.parent_span_id.clone()).or_default().push(at);
        }
        children
    }

    /// Makes the earliest of similar spans stand for all of them, and gives its place.
    fn merge(&mut self, mut members: Vec<usize>) -> usize {
        members.sort_by_key(|at| (self.spans[*at].start_time_unix_nano, self.spans[*at].span_id.clone()));
        let (stays, others) = (members[0], &members[1..]);
        let durations = |forest: &Self, at: usize| {
            forest.summaries.get(&at).cloned().unwrap_or_else(|| Durations::of(&forest.spans[at]))
        };
        let mut sum = durations(self, stays);
        let mut summary = self.spans[stays].clone();
        for at in others {
            sum.add(&durations(self, *at));
            let other = &self.spans[*at];
            summary.end_time_unix_nano = summary.end_time_unix_nano.max(other.end_time_unix_nano);
            summary.attributes.retain(|attribute| other.attributes.contains(attribute));
            if let Some(status) = &mut summary.status
                && other.status.as_ref().is_none_or(|other| other.message != status.message)
            {
                status.message.clear();
            }
            self.gone.insert(*at);
            self.summaries.remove(at);
        }
        summary.events.clear();
        summary.links.clear();
        self.spans[stays] = summary;
        self.summaries.insert(stays, sum);
        stays
    }

    fn write(mut self, trace: &mut Trace) {
        for (at, durations) in &self.summaries {
            self.spans[*at].attributes.extend(durations.attributes());
        }
        let mut spans = self.spans.into_iter().enumerate();
        for scope in trace.resource_spans.iter_mut().flat_map(|resource| &mut resource.scope_spans) {
            let count = scope.spans.len();
            let kept = spans.by_ref().take(count).filter(|(at, _)| !self.gone.contains(at));
            scope.spans = kept.map(|(_, span)| span).collect();
        }
        for resource in &mut trace.resource_spans {
            resource.scope_spans.retain(|scope| !scope.spans.is_empty());
        }
        trace.resource_spans.retain(|resource| !resource.scope_spans.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use vivace_protocol::otlp::trace::{ResourceSpans, ScopeSpans};

    use super::*;

    fn span(name: &str, own: u64, parent: u64, millis: u64) -> Span {
        Span {
            span_id: own.to_be_bytes().to_vec(),
            parent_span_id: if parent == 0 { Vec::new() } else { parent.to_be_bytes().to_vec() },
            name: name.to_owned(),
            start_time_unix_nano: own * 1_000_000,
            end_time_unix_nano: (own + millis) * 1_000_000,
            ..Span::default()
        }
    }

    fn trace(spans: Vec<Span>) -> Trace {
        let scopes = vec![ScopeSpans { spans, ..ScopeSpans::default() }];
        Trace { resource_spans: vec![ResourceSpans { scope_spans: scopes, ..ResourceSpans::default() }] }
    }

    fn on() -> TraceByIdConfig {
        TraceByIdConfig { span_pruning_enabled: true, ..TraceByIdConfig::default() }
    }

    fn pruned(spans: Vec<Span>, parameters: &str) -> (Vec<Span>, Option<String>) {
        let pruning = Pruning::of(&on(), &Params::parse(&format!("span_pruning=true&{parameters}"))).unwrap().unwrap();
        let mut trace = trace(spans);
        let message = pruning.apply(&mut trace);
        (trace.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans).collect(), message)
    }

    fn int(span: &Span, key: &str) -> i64 {
        let value = span.attributes.iter().find(|a| a.key == key).and_then(|a| a.value.clone()).and_then(|v| v.value);
        match value {
            Some(Value::IntValue(value)) => value,
            other => panic!("{key}: {other:?}"),
        }
    }

    #[test]
    fn similar_leaves_become_one_summary() {
        let mut spans = vec![span("root", 1, 0, 100), span("other", 2, 1, 5)];
        spans.extend((0..6).map(|n| span("query", 10 + n, 1, 1 + n)));
        let (left, message) = pruned(spans, "");
        assert_eq!(left.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["root", "other", "query"]);
        assert!(message.unwrap().contains("pruned on read"));
        let summary = &left[2];
        assert_eq!(int(summary, "aggregation.span_count"), 6);
        assert_eq!(int(summary, "aggregation.duration_min_ns"), 1_000_000);
        assert_eq!(int(summary, "aggregation.duration_max_ns"), 6_000_000);
        assert_eq!(int(summary, "aggregation.duration_total_ns"), 21_000_000);
        assert_eq!(int(summary, "aggregation.duration_avg_ns"), 3_500_000);
        assert_eq!((summary.start_time_unix_nano, summary.end_time_unix_nano), (10_000_000, 21_000_000));
        let counts = summary.attributes.iter().find(|a| a.key == "aggregation.histogram_bucket_counts").unwrap();
        let Some(Value::ArrayValue(counts)) = counts.value.clone().unwrap().value else { panic!("no array") };
        assert_eq!(counts.values.len(), BOUNDS_NS.len() + 1);
        assert_eq!(counts.values[0].value, Some(Value::IntValue(5)));
        assert_eq!(counts.values[BOUNDS_NS.len()].value, Some(Value::IntValue(6)));
    }

    #[test]
    fn few_or_different_spans_stay() {
        let spans: Vec<Span> =
            [span("root", 1, 0, 100)].into_iter().chain((0..4).map(|n| span("q", 10 + n, 1, 1))).collect();
        assert_eq!(pruned(spans.clone(), ""), (spans.clone(), None));
        assert_eq!(pruned(spans.clone(), "span_pruning_min_spans=4").0.len(), 2);
        let mut told_apart = spans;
        for (n, span) in told_apart.iter_mut().enumerate() {
            let value = Some(AnyValue { value: Some(Value::StringValue(n.to_string())) });
            span.attributes.push(KeyValue { key: "db.table".to_owned(), value, ..KeyValue::default() });
        }
        assert_eq!(pruned(told_apart.clone(), "span_pruning_min_spans=4").0.len(), 2);
        let kept = pruned(told_apart.clone(), "span_pruning_min_spans=4&span_pruning_group_by=x,db.*");
        assert_eq!(kept, (told_apart, None));
    }

    #[test]
    fn parents_of_nothing_but_summaries_are_merged_up_to_the_depth_asked_for() {
        let mut spans = vec![span("root", 1, 0, 100)];
        for parent in 2..5 {
            spans.push(span("handler", parent, 1, 10));
            spans.extend((0..3).map(|n| span("query", parent * 10 + n, parent, 1)));
        }
        let (left, _) = pruned(spans.clone(), "span_pruning_min_spans=3");
        assert_eq!(left.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["root", "handler", "query"]);
        assert_eq!(int(&left[1], "aggregation.span_count"), 3);
        assert_eq!(int(&left[2], "aggregation.span_count"), 9);
        assert_eq!(left[2].parent_span_id, left[1].span_id);
        let (left, _) = pruned(spans, "span_pruning_min_spans=3&span_pruning_max_parent_depth=0");
        assert_eq!(left.len(), 7);
    }

    #[test]
    fn parameters_count_only_where_pruning_is_enabled() {
        let none = Pruning::of(&TraceByIdConfig::default(), &Params::parse("span_pruning=nonsense")).unwrap();
        assert!(none.is_none());
        assert!(Pruning::of(&on(), &Params::parse("")).unwrap().is_none());
        let by_default = TraceByIdConfig { span_pruning_enabled_by_default: true, ..on() };
        assert!(Pruning::of(&by_default, &Params::parse("")).unwrap().is_some());
        assert!(Pruning::of(&by_default, &Params::parse("span_pruning=false")).unwrap().is_none());
        let error = |text: &str| Pruning::of(&on(), &Params::parse(text)).unwrap_err().0;
        assert_eq!(error("span_pruning=x"), "invalid span_pruning value \"x\": must be a boolean");
        assert_eq!(
            error("span_pruning=1&span_pruning_min_spans=1"),
            "invalid span pruning config: min_spans_to_aggregate must be at least 2"
        );
    }

    #[test]
    fn globs_know_stars_marks_classes_and_escapes_and_what_is_none_is_told() {
        let matches = |pattern: &str, text: &str| glob(pattern).unwrap().is_match(text);
        assert!(matches("db.*", "db.table") && !matches("db.*", "dbx") && matches("a?c", "abc"));
        assert!(matches("[a-c]x", "bx") && !matches("[!a-c]x", "bx") && matches("[!a-c]x", "zx"));
        assert!(matches(r"a\*", "a*") && !matches(r"a\*", "ab") && matches("{a}", "{a}"));
        for wrong in ["[", "a[b", "[]"] {
            assert!(glob(wrong).unwrap_err().0.starts_with("invalid span pruning config: "), "{wrong}");
        }
        let of = |text: &str| Pruning::of(&on(), &Params::parse(&format!("span_pruning=1&{text}")));
        assert_eq!(of("span_pruning_max_parent_depth=-1").unwrap().unwrap().parents, u32::MAX);
        assert!(of("span_pruning_max_parent_depth=-2").unwrap_err().0.contains("-1 (unlimited)"));
    }
}
