//! Spans into cells, a batch at a time.
//!
//! ```text
//! batch ─▶ selected rows ─▶ interval per row
//!                       └─▶ argument per row (rows without one leave)
//!                       └─▶ group code per row ─▶ group per code ─▶ cells[group][interval]
//! ```

use super::{
    exemplar::Exemplar,
    groups::Codes,
    measure::Measure,
    numbers,
    partial::{Cells, MetricsError, PartialLeaf, add_exactly, run},
    plan::Leaf,
    request::{MetricsRequest, Window},
};
use crate::{
    ast::MetricFunction,
    column::Column,
    eval::View,
    fetch::{Cursor, FetchSpec, FetchStats, Source, SpanBatch, TimeRange},
    plan::Selection,
    value::Value,
};

/// Exemplars that are put together before most of them are dropped again.
const PENDING: usize = 128;

/// Fills one leaf from one source.
pub(crate) struct Observer<'a> {
    pub(crate) leaf: &'a Leaf,
    pub(crate) request: &'a MetricsRequest,
    pub(crate) window: Window,
    pub(crate) own: &'a mut PartialLeaf,
    pub(crate) truncated: &'a mut bool,
}

/// The spans of a batch that count, in parallel lists.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    pub(crate) rows: Vec<u32>,
    pub(crate) starts: Vec<u64>,
    pub(crate) intervals: Vec<u32>,
    /// Arguments; empty when the function needs none.
    pub(crate) values: Vec<f64>,
    /// Powers of two of the arguments; for histograms only.
    pub(crate) exponents: Vec<u8>,
}

impl Observer<'_> {
    pub(crate) fn run<S: Source>(&mut self, source: &S, stop: &dyn Fn() -> bool) -> Result<FetchStats, MetricsError> {
        let leaf = self.leaf;
        self.own.room = leaf.room(self.request);
        let mut cursor = source.fetch(&self.spec())?;
        let mut evaluator = leaf.search.evaluator();
        loop {
            if stop() {
                return Err(MetricsError::Cancelled);
            }
            let Some(batch) = cursor.next()? else { break };
            let selection = evaluator.select(&batch)?;
            let chosen = self.choose(&selection);
            if leaf.is_compare() {
                self.compare(&batch, &selection, &chosen)?;
                leaf.prune(self.own);
            } else {
                self.fill(&batch, &selection.view, chosen)?;
            }
            self.own.check_size()?;
            if *self.truncated {
                break;
            }
        }
        Ok(cursor.stats())
    }

    /// Traces outside of the window are left out by the source. Spans are not: hardly any span of a trace within lies
    /// outside, and asking for it would have the start of every span read before what the query is about.
    fn spec(&self) -> FetchSpec {
        let range = TimeRange { start_ns: self.window.after_ns.saturating_add(1), end_ns: self.window.until_ns };
        let mut spec = self.leaf.search.spec(Some(range));
        spec.select_all = self.leaf.is_compare();
        // Which spans are shown as examples is decided by the ids of their traces.
        spec.ids |= self.leaf.slots.wanted();
        spec
    }

    /// The selected spans within the window, with what the function reads of them.
    fn choose(&self, selection: &Selection<'_>) -> Chosen {
        let view = &selection.view;
        let (column, field) = view.column(self.leaf.start);
        let start = |row: usize| match column {
            Column::Int { values, valid: None } => values.get(row).map(|time| time.cast_unsigned()),
            other => match other.value(row, field) {
                Value::Int(time) => Some(time.cast_unsigned()),
                _ => None,
            },
        };
        let mut chosen = Chosen::default();
        for row in selection.spans.ones_iter() {
            let Some(time) = start(row).filter(|time| *time > self.window.after_ns && *time <= self.window.until_ns)
            else {
                continue;
            };
            let (Some(interval), Ok(row)) = (self.request.interval_of(time), u32::try_from(row)) else { continue };
            chosen.rows.push(row);
            chosen.starts.push(time);
            chosen.intervals.push(interval);
        }
        if let Some(argument) = self.leaf.argument {
            if self.leaf.measure == Measure::Histogram {
                chosen.exponents = numbers::exponents(view, argument, &chosen.rows);
                chosen.values = if self.leaf.slots.wanted() {
                    numbers::floats(view, argument, &chosen.rows)
                } else {
                    vec![0.0; chosen.rows.len()]
                };
                let present: Vec<bool> = chosen.exponents.iter().map(|exponent| *exponent > 0).collect();
                chosen.keep(&present);
            } else {
                chosen.values = numbers::floats(view, argument, &chosen.rows);
                let present: Vec<bool> = chosen.values.iter().map(|value| !value.is_nan()).collect();
                chosen.keep(&present);
            }
        }
        chosen
    }

    fn fill(&mut self, batch: &SpanBatch, view: &View<'_>, mut chosen: Chosen) -> Result<(), MetricsError> {
        if chosen.rows.is_empty() {
            return Ok(());
        }
        let leaf = self.leaf;
        let mut codes = Codes::of_slots(view, &leaf.by, &chosen.rows);
        let keys = codes.keys(view, &leaf.by);
        let most = leaf.max_groups(self.request);
        let mut groups = Vec::with_capacity(keys.len());
        for key in &keys {
            let room = most == 0 || self.own.groups.len() < most;
            groups.push(self.own.group(key.clone(), room));
        }
        if groups.contains(&None) {
            *self.truncated = true;
            let present: Vec<bool> = codes.of.iter().map(|code| groups[*code as usize].is_some()).collect();
            chosen.keep(&present);
            keep(&mut codes.of, &present);
        }
        let groups: Vec<usize> = groups.into_iter().map(|group| group.unwrap_or(0) as usize).collect();
        self.count(&chosen, &codes, &groups)?;
        if leaf.slots.wanted() {
            self.exemplify(batch, view, &chosen, &codes, &keys);
        }
        Ok(())
    }

    fn count(&mut self, chosen: &Chosen, codes: &Codes, groups: &[usize]) -> Result<(), MetricsError> {
        let measure = self.leaf.measure;
        let (own, each) = (&mut *self.own, codes.of.iter().zip(&chosen.intervals));
        if measure == Measure::Histogram {
            const NONE: u8 = u8::MAX;
            // Where the run of an exponent is, for each code of the batch.
            let mut runs = vec![[NONE; 64]; groups.len()];
            for ((code, interval), exponent) in each.zip(&chosen.exponents) {
                let cells = &mut own.groups[groups[*code as usize]].cells;
                let at = &mut runs[*code as usize][usize::from(*exponent)];
                if *at == NONE {
                    let place = cells.iter().position(|cells| cells.exponent == u32::from(*exponent));
                    let place = place.unwrap_or_else(|| {
                        own.runs += 1;
                        cells.push(Cells { exponent: u32::from(*exponent), ..Cells::default() });
                        cells.len() - 1
                    });
                    *at = u8::try_from(place).unwrap_or(NONE - 1);
                }
                let cells = &mut cells[usize::from(*at)];
                let slot = cells.slot(*interval, measure, &mut own.used);
                cells.counts[slot] += 1;
                // Checked where it can grow, so that one batch cannot take all memory.
                own.check_size()?;
            }
            return Ok(());
        }
        for (at, (code, interval)) in each.enumerate() {
            let cells = run(&mut own.groups[groups[*code as usize]].cells, 0, &mut own.runs);
            let slot = cells.slot(*interval, measure, &mut own.used);
            match measure {
                Measure::Count | Measure::Histogram => cells.counts[slot] += 1,
                Measure::Sum => {
                    cells.counts[slot] += 1;
                    add_exactly(&mut cells.values[slot], &mut cells.errors[slot], chosen.values[at]);
                }
                Measure::Least | Measure::Greatest => measure.extreme(&mut cells.values[slot], chosen.values[at]),
            }
            own.check_size()?;
        }
        Ok(())
    }

    fn exemplify(&mut self, batch: &SpanBatch, view: &View<'_>, chosen: &Chosen, codes: &Codes, keys: &[Box<[Value]>]) {
        let slots = self.leaf.slots;
        let mut found: Vec<Exemplar> = Vec::new();
        let mut at = 0;
        // Of each slot that a trace may be shown in, the earliest start.
        let mut seen: Vec<(u32, Option<u64>)> = Vec::new();
        for trace in &batch.traces {
            // What was found so far decides soon which traces need not be looked at: nearly all of them.
            if found.len() >= PENDING {
                slots.add(&mut self.own.exemplars, found.drain(..));
            }
            seen.clear();
            let first = found.len();
            while at < chosen.rows.len() && chosen.rows[at] < trace.spans.end {
                let (start, here) = (chosen.starts[at], at);
                at += 1;
                let slot = slots.of(start);
                let known = seen.iter().position(|(known, _)| *known == slot).unwrap_or_else(|| {
                    let wanted = slots.may_take(&self.own.exemplars, slot, &trace.id);
                    seen.push((slot, wanted.then_some(u64::MAX)));
                    seen.len() - 1
                });
                let Some(earliest) = &mut seen[known].1 else { continue };
                if start > *earliest {
                    continue;
                }
                *earliest = start;
                let exemplar = Exemplar {
                    slot,
                    trace_id: trace.id,
                    start_ns: start,
                    value: match self.leaf.measure {
                        Measure::Count => f64::NAN,
                        _ => chosen.values[here],
                    },
                    exponent: chosen.exponents.get(here).map_or(0, |exponent| u32::from(*exponent)),
                    key: keys[codes.of[here] as usize].clone(),
                    labels: self.labels(view, chosen.rows[here]),
                };
                // An earlier one replaces what this trace had for the slot; equals are told apart when they are added.
                if let Some(same) = found[first..].iter_mut().find(|other| other.slot == slot && other.start_ns > start)
                {
                    *same = exemplar;
                } else {
                    found.push(exemplar);
                }
            }
        }
        slots.add(&mut self.own.exemplars, found);
    }

    fn labels(&self, view: &View<'_>, row: u32) -> Vec<(std::sync::Arc<str>, Value)> {
        let each = self.leaf.shown.iter().enumerate().filter_map(|(index, name)| Some((index, name.as_ref()?)));
        each.filter_map(|(index, name)| {
            let (column, field) = view.column(index);
            let value = column.value(row as usize, field);
            (!value.is_nil()).then(|| (name.clone(), value))
        })
        .collect()
    }

    /// The verdict of `compare`'s own filter, per chosen row.
    pub(crate) fn sides(&self, selection: &Selection<'_>, chosen: &Chosen) -> Vec<bool> {
        let window = match &self.leaf.function {
            MetricFunction::Compare { window: (after, until), .. } if *until > 0 => {
                Window { after_ns: after.cast_unsigned(), until_ns: until.cast_unsigned() }
            }
            _ => Window::ALL,
        };
        let each = chosen.rows.iter().zip(&chosen.starts);
        each.map(|(row, start)| {
            *start > window.after_ns
                && *start <= window.until_ns
                && selection.filters.last().is_some_and(|filter| filter.get(*row as usize))
        })
        .collect()
    }
}

impl Chosen {
    fn keep(&mut self, present: &[bool]) {
        if present.iter().all(|present| *present) {
            return;
        }
        keep(&mut self.rows, present);
        keep(&mut self.starts, present);
        keep(&mut self.intervals, present);
        keep(&mut self.values, present);
        keep(&mut self.exponents, present);
    }
}

/// Keeps the entries that are present; a list that is not in use stays empty.
fn keep<T>(list: &mut Vec<T>, present: &[bool]) {
    let mut present = present.iter();
    list.retain(|_| present.next().copied().unwrap_or(false));
}
