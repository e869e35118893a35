//! Searching a source: results per trace, and how results of several parts merge.

use std::{collections::HashMap, sync::Arc};

use crate::{
    budget::{Budget, Held, OverBudget},
    column::hex,
    eval::Choice,
    fetch::{Cursor, FetchError, FetchStats, Loaded, ServiceStat, Source, SpanBatch, SpanHandle, TimeRange},
    field::{Field, Intrinsic, Level},
    plan::{EvalError, SearchPlan, Survivor},
    value::Value,
};

/// A span in a result.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanHit {
    /// Span id.
    pub id: [u8; 8],
    /// Nanoseconds since the epoch.
    pub start_ns: u64,
    /// Nanoseconds.
    pub duration_ns: u64,
    /// Empty unless the query refers to the name.
    pub name: Arc<str>,
    /// What the query read of the span: bare attribute names or canonical intrinsics; never nil.
    pub attributes: Vec<(Arc<str>, Value)>,
}

/// A spanset in a result.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanSet {
    /// The first spans in storage order, at most as many as asked for.
    pub spans: Vec<SpanHit>,
    /// Spans before the cut.
    pub matched: u32,
    /// Group and aggregate values in pipeline order.
    pub attributes: Vec<(Arc<str>, Value)>,
}

/// A trace in a result.
#[derive(Clone, Debug, PartialEq)]
pub struct TraceHit {
    /// Trace id.
    pub trace_id: [u8; 16],
    /// Empty when the root has not been seen.
    pub root_service: Arc<str>,
    /// Empty when the root has not been seen.
    pub root_name: Arc<str>,
    /// Nanoseconds since the epoch.
    pub start_ns: u64,
    /// Nanoseconds.
    pub duration_ns: u64,
    /// By service name.
    pub service_stats: Vec<ServiceStat>,
    /// At least one.
    pub span_sets: Vec<SpanSet>,
}

impl TraceHit {
    /// Hex without leading zeros, as clients get it.
    #[must_use]
    pub fn trace_id_text(&self) -> String {
        hex(&self.trace_id).trim_start_matches('0').to_owned()
    }

    /// About how much memory it takes.
    #[must_use]
    pub fn memory(&self) -> usize {
        let attributes = |list: &[(Arc<str>, Value)]| list.iter().map(|(_, value)| 40 + value.memory()).sum::<usize>();
        let span = |span: &SpanHit| size_of::<SpanHit>() + span.name.len() + attributes(&span.attributes);
        let set = |set: &SpanSet| {
            size_of::<SpanSet>() + attributes(&set.attributes) + set.spans.iter().map(span).sum::<usize>()
        };
        let stat = |stat: &ServiceStat| size_of::<ServiceStat>() + stat.service.len();
        size_of::<Self>()
            + self.root_service.len()
            + self.root_name.len()
            + self.service_stats.iter().map(stat).sum::<usize>()
            + self.span_sets.iter().map(set).sum::<usize>()
    }

    /// Overlays another part's result for the same trace: root names fill empty ones, start is the earlier, duration
    /// the longer, counts are the larger; of spansets of one group the one with more matches stays.
    fn overlay(&mut self, other: Self) {
        if self.root_service.is_empty() {
            self.root_service = other.root_service;
        }
        if self.root_name.is_empty() {
            self.root_name = other.root_name;
        }
        self.start_ns = self.start_ns.min(other.start_ns);
        self.duration_ns = self.duration_ns.max(other.duration_ns);
        for stat in other.service_stats {
            match self.service_stats.iter_mut().find(|known| known.service == stat.service) {
                Some(known) => {
                    known.spans = known.spans.max(stat.spans);
                    known.errors = known.errors.max(stat.errors);
                }
                None => self.service_stats.push(stat),
            }
        }
        self.service_stats.sort_by(|a, b| a.service.cmp(&b.service));
        for set in other.span_sets {
            let same_group = |known: &SpanSet| groups(known).eq(groups(&set));
            match self.span_sets.iter_mut().find(|known| same_group(known)) {
                Some(known) if known.matched < set.matched => *known = set,
                Some(_) => {}
                None => self.span_sets.push(set),
            }
        }
    }
}

fn groups(set: &SpanSet) -> impl Iterator<Item = &(Arc<str>, Value)> {
    set.attributes.iter().filter(|(key, _)| key.starts_with("by"))
}

/// Collects results of several parts into one list of at most `limit` traces.
///
/// Without `most_recent` the first `limit` distinct traces are kept and later parts only add to these; with it the
/// newest are kept, whatever the order of arrival.
#[derive(Debug)]
pub struct Merger {
    limit: usize,
    most_recent: bool,
    traces: HashMap<[u8; 16], TraceHit>,
    held: Held,
}

impl Merger {
    /// Keeps up to `limit` traces.
    #[must_use]
    pub fn new(limit: usize, most_recent: bool) -> Self {
        Self { limit, most_recent, traces: HashMap::new(), held: Held::default() }
    }

    /// Counts what is held against `budget`.
    #[must_use]
    pub fn within(self, budget: &Budget) -> Self {
        Self { held: budget.hold(), ..self }
    }

    /// # Errors
    /// All who share the budget hold more than may be.
    pub fn check(&self) -> Result<(), OverBudget> {
        self.held.check()
    }

    /// Takes a result in; true when it is kept.
    pub fn add(&mut self, hit: TraceHit) -> bool {
        if let Some(known) = self.traces.get_mut(&hit.trace_id) {
            self.held.sub(known.memory());
            known.overlay(hit);
            self.held.add(known.memory());
            return true;
        }
        if self.limit == 0 {
            return false;
        }
        if self.traces.len() >= self.limit {
            let oldest = self.oldest();
            match oldest {
                Some(oldest) if self.most_recent && newer(&hit, &self.traces[&oldest]) => {
                    if let Some(gone) = self.traces.remove(&oldest) {
                        self.held.sub(gone.memory());
                    }
                }
                _ => return false,
            }
        }
        self.held.add(hit.memory());
        self.traces.insert(hit.trace_id, hit);
        true
    }

    fn oldest(&self) -> Option<[u8; 16]> {
        let oldest = self.traces.values().reduce(|oldest, hit| if newer(oldest, hit) { hit } else { oldest });
        oldest.map(|hit| hit.trace_id)
    }

    /// True when nothing can be added: `limit` traces are held, and with `most_recent` all of them started after
    /// `outstanding_ns`, the newest instant not yet searched.
    #[must_use]
    pub fn is_full(&self, outstanding_ns: u64) -> bool {
        self.traces.len() >= self.limit
            && (!self.most_recent || self.oldest().is_some_and(|oldest| self.traces[&oldest].start_ns > outstanding_ns))
    }

    /// What started before this instant can change nothing any more.
    #[must_use]
    pub fn floor(&self) -> Option<u64> {
        let full = self.most_recent && self.traces.len() >= self.limit;
        self.oldest().filter(|_| full).map(|oldest| self.traces[&oldest].start_ns)
    }

    /// Those of a batch's survivors that can be kept, in batch order: everything about the others need not be loaded.
    /// `limit` newest ones and what adds to traces that are held; without `most_recent` all.
    fn candidates(&self, batch: &SpanBatch, mut survivors: Vec<Survivor>) -> Vec<Survivor> {
        if !self.most_recent || survivors.len() <= self.limit {
            return survivors;
        }
        let floor = self.floor().unwrap_or(0);
        let info = |survivor: &Survivor| &batch.traces[survivor.trace as usize];
        let rank = |survivor: &Survivor| {
            let trace = info(survivor);
            (self.traces.contains_key(&trace.id), trace.start_ns, std::cmp::Reverse(trace.id))
        };
        survivors.retain(|survivor| rank(survivor).0 || info(survivor).start_ns >= floor);
        let held = survivors.iter().filter(|survivor| rank(survivor).0).count();
        let wanted = held.saturating_add(self.limit);
        if survivors.len() > wanted {
            survivors.select_nth_unstable_by(wanted, |a, b| rank(b).cmp(&rank(a)));
            survivors.truncate(wanted);
            survivors.sort_unstable_by_key(|survivor| survivor.trace);
        }
        survivors
    }

    /// Traces held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.traces.len()
    }

    /// True when none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.traces.is_empty()
    }

    /// Newest first; traces of one instant by id.
    #[must_use]
    pub fn finish(self) -> Vec<TraceHit> {
        let mut hits: Vec<TraceHit> = self.traces.into_values().collect();
        hits.sort_by(|a, b| b.start_ns.cmp(&a.start_ns).then(a.trace_id.cmp(&b.trace_id)));
        hits
    }
}

/// A strict order, so that what is kept does not depend on the order of arrival.
fn newer(a: &TraceHit, b: &TraceHit) -> bool {
    (b.start_ns, a.trace_id) < (a.start_ns, b.trace_id)
}

type Attributes = Vec<(Arc<str>, Value)>;

/// A trace that was found, without what has to be loaded to show it.
#[derive(Clone, Debug, Default)]
pub struct Draft {
    /// Index into the traces of its batch.
    pub trace: u32,
    sets: Vec<DraftSet>,
}

#[derive(Clone, Debug)]
struct DraftSet {
    /// The first spans, each with the event and link that are shown of it, and its nested-set numbers.
    spans: Vec<(SpanHandle, Choice, Attributes)>,
    matched: u32,
    attributes: Attributes,
}

impl Draft {
    /// The spans that have to be loaded for some drafts of one source, ascending and without repeats.
    #[must_use]
    pub fn spans(drafts: &[Self]) -> Vec<SpanHandle> {
        let sets = drafts.iter().flat_map(|draft| &draft.sets);
        let mut spans: Vec<_> = sets.flat_map(|set| set.spans.iter().map(|(span, ..)| *span)).collect();
        spans.sort_unstable();
        spans.dedup();
        spans
    }

    /// About how much memory it takes.
    #[must_use]
    pub fn memory(&self) -> usize {
        let attributes = |list: &Attributes| list.iter().map(|(_, value)| 40 + value.memory()).sum::<usize>();
        let set = |set: &DraftSet| {
            let spans = set.spans.iter().map(|(.., structure)| 56 + attributes(structure));
            size_of::<DraftSet>() + attributes(&set.attributes) + spans.sum::<usize>()
        };
        size_of::<Self>() + self.sets.iter().map(set).sum::<usize>()
    }
}

/// Why a search failed.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// Data could not be read.
    #[error("read spans")]
    Fetch(#[from] FetchError),
    /// The query is not defined for the data.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// What was found takes too much memory.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
}

/// Searches one source for traces that overlap `window`, keeping up to `spans_per_set` spans of every spanset, until
/// the source ends or `merger` is full.
///
/// # Errors
/// When reading or evaluating fails; what `merger` holds by then is valid.
pub fn search<S: Source>(
    source: &S,
    plan: &SearchPlan,
    window: Option<TimeRange>,
    spans_per_set: usize,
    merger: &mut Merger,
) -> Result<FetchStats, SearchError> {
    if plan.is_empty() {
        return Ok(FetchStats::default());
    }
    let mut spec = plan.spec(window);
    (spec.ids, spec.trace_fields.times) = (true, true);
    spec.newest_first = merger.most_recent;
    let mut cursor = source.fetch(&spec)?;
    let mut evaluator = plan.evaluator();
    while let Some(batch) = cursor.next()? {
        let mut survivors = evaluator.evaluate(&batch)?;
        if let Some(window) = window {
            survivors.retain(|survivor| {
                let trace = &batch.traces[survivor.trace as usize];
                window.overlaps(trace.start_ns, trace.start_ns.saturating_add(trace.duration_ns))
            });
        }
        let survivors = merger.candidates(&batch, survivors);
        for hit in plan.hits(&batch, &survivors, spans_per_set, &mut cursor)? {
            merger.add(hit);
        }
        merger.check()?;
        if merger.is_full(u64::MAX) {
            break;
        }
        if let Some(floor) = merger.floor() {
            cursor.ignore_before(floor);
        }
    }
    Ok(cursor.stats())
}

impl SearchPlan {
    /// What is known of a survivor of a batch before the second pass, with up to `spans_per_set` spans of every spanset.
    #[must_use]
    pub fn draft(&self, batch: &SpanBatch, survivor: &Survivor, spans_per_set: usize) -> Draft {
        let sets = survivor.sets.iter().map(|set| DraftSet {
            spans: set
                .rows
                .iter()
                .take(spans_per_set)
                .map(|row| {
                    let row = *row as usize;
                    (batch.handles[row], survivor.chosen.of(batch, row), self.structure_attributes(batch, row))
                })
                .collect(),
            matched: u32::try_from(set.rows.len()).unwrap_or(u32::MAX),
            attributes: set.attributes.clone(),
        });
        Draft { trace: survivor.trace, sets: sets.collect() }
    }

    /// Second pass: loads what is shown of the survivors and puts the results together, in batch order.
    ///
    /// # Errors
    /// When loading fails.
    pub fn hits(
        &self,
        batch: &SpanBatch,
        survivors: &[Survivor],
        spans_per_set: usize,
        cursor: &mut impl Cursor,
    ) -> Result<Vec<TraceHit>, FetchError> {
        if survivors.is_empty() {
            return Ok(Vec::new());
        }
        let drafts: Vec<Draft> = survivors.iter().map(|survivor| self.draft(batch, survivor, spans_per_set)).collect();
        let traces: Vec<u32> = survivors.iter().map(|survivor| survivor.trace).collect();
        let spans = Draft::spans(&drafts);
        let loaded = cursor.load(&traces, &spans, self.output())?;
        Ok(self.show(drafts, &spans, &loaded))
    }

    /// Puts together what the first pass found and the second has loaded: one trace of `loaded` for each draft, in their
    /// order, and one row for each of `spans`, which come from [`Draft::spans`].
    #[must_use]
    pub fn show(&self, drafts: Vec<Draft>, spans: &[SpanHandle], loaded: &Loaded) -> Vec<TraceHit> {
        let shown = |(span, choice, structure): (SpanHandle, Choice, Attributes)| {
            let mut hit = self.span(loaded, spans.binary_search(&span).ok()?, choice);
            hit.attributes.extend(structure);
            Some(hit)
        };
        let shown = &shown;
        drafts
            .into_iter()
            .zip(&loaded.traces)
            .map(|(draft, info)| {
                let mut service_stats = info.service_stats.to_vec();
                service_stats.sort_by(|a, b| a.service.cmp(&b.service));
                let sets = draft.sets.into_iter().map(|set| SpanSet {
                    spans: set.spans.into_iter().filter_map(shown).collect(),
                    matched: set.matched,
                    attributes: set.attributes,
                });
                TraceHit {
                    trace_id: info.id,
                    root_service: info.root_service.clone(),
                    root_name: info.root_name.clone(),
                    start_ns: info.start_ns,
                    duration_ns: info.duration_ns,
                    service_stats,
                    span_sets: sets.collect(),
                }
            })
            .collect()
    }

    fn span(&self, loaded: &Loaded, at: usize, choice: Choice) -> SpanHit {
        let mut hit = SpanHit { id: [0; 8], start_ns: 0, duration_ns: 0, name: "".into(), attributes: Vec::new() };
        for (field, column) in self.output().fields.iter().zip(&loaded.columns) {
            let value = match field.level() {
                // Of events and links the one that a filter held for is shown, else the first that has a value.
                Level::Event | Level::Link => {
                    let offsets = if field.level() == Level::Event { &loaded.events } else { &loaded.links };
                    let range = match offsets {
                        Some(offsets) if at + 1 < offsets.len() => offsets[at]..offsets[at + 1],
                        _ => 0..0,
                    };
                    let place = choice.place(field.level());
                    let chosen =
                        place.map(|place| range.start.saturating_add(place)).filter(|item| range.contains(item));
                    chosen
                        .into_iter()
                        .chain(range)
                        .map(|item| column.value(item as usize, field))
                        .find(|value| !value.is_nil())
                        .unwrap_or_default()
                }
                Level::Trace | Level::Span => column.value(at, field),
            };
            match (field, value) {
                (_, Value::Nil) => {}
                (Field::Intrinsic(Intrinsic::SpanId), Value::Str(id)) => {
                    hit.id = u64::from_str_radix(&id, 16).unwrap_or(0).to_be_bytes();
                }
                (Field::Intrinsic(Intrinsic::StartTime), Value::Int(start)) => hit.start_ns = start.cast_unsigned(),
                (Field::Intrinsic(Intrinsic::Duration), Value::Duration(duration)) => {
                    hit.duration_ns = duration.cast_unsigned();
                }
                (Field::Intrinsic(Intrinsic::Name), Value::Str(name)) => hit.name = name,
                (field, value) => hit.attributes.push((field.result_key(), value)),
            }
        }
        hit
    }
}

#[cfg(test)]
mod tests;
