//! A walked trace with what was derived from it.

use vivace_protocol::wire::WireError;
use vivace_traceql::{ServiceStat, TraceFields, TraceInfo};

use super::{
    LiveTrace,
    conditions::all_hold,
    positions::Position,
    trace::Bounds,
    walk::{ResourceView, TraceView, Way},
    wants::Plan,
};
use crate::read::cells::lossy;

/// One trace.
pub(super) struct Walked<'a> {
    pub(super) view: TraceView<'a>,
    pub(super) positions: Vec<Position>,
    pub(super) info: TraceInfo,
    /// Facts for conditions, whether or not the answer shows them.
    pub(super) duration: u64,
}

impl<'a> Walked<'a> {
    /// Walks a trace, of which something may be known already. `view` is what the walk works with.
    pub(super) fn walk(
        mut view: TraceView<'a>,
        trace: &'a LiveTrace,
        known: Option<Bounds>,
        plan: &Plan,
    ) -> Result<Self, WireError> {
        let parts = trace.parts().iter().map(|part| &part[..]);
        // Where a span comes twice, the second must not stand in for one that was passed over.
        let known = known.filter(|known| !known.repeats);
        let (wants, unique) = (&plan.wants, known.is_some());
        if unique && !plan.resources.is_empty() {
            let pass_over = |resource: &ResourceView<'a>| Ok(!all_hold(&plan.resources, resource)?);
            view.walk(parts, &Way { wants, unique, pass_over })?;
        } else {
            view.walk(parts, &Way { wants, unique, pass_over: |_: &ResourceView<'a>| Ok(false) })?;
        }
        let positions = if wants.positions { view.positions() } else { Vec::new() };
        let bounds = known.map_or_else(|| view.bounds(), |known| (known.start, known.end));
        let (info, duration) = info(&view, bounds, trace.id().as_bytes(), wants.trace)?;
        Ok(Self { view, positions, info, duration })
    }

    /// Clears what was derived for conditions only.
    pub(super) fn trim(&mut self, fields: TraceFields) {
        if !fields.times {
            (self.info.start_ns, self.info.duration_ns) = (0, 0);
        }
        if !fields.root {
            (self.info.root_name, self.info.root_service) = ("".into(), "".into());
        }
    }
}

fn info(
    view: &TraceView<'_>,
    (start, end): (u64, u64),
    id: &[u8; 16],
    wanted: TraceFields,
) -> Result<(TraceInfo, u64), WireError> {
    let duration = end.wrapping_sub(start);
    let mut info = TraceInfo { id: *id, start_ns: start, duration_ns: duration, ..TraceInfo::default() };
    if wanted.root
        && let Some(root) = view.root(id)?
    {
        info.root_name = lossy(root.name).into();
        info.root_service = lossy(view.resource(root).service).into();
    }
    if wanted.service_stats {
        let mut stats: Vec<(&[u8], u32, u32)> = Vec::new();
        for span in &view.spans {
            let service = view.resource(span).service;
            let at = stats.iter().position(|(known, ..)| *known == service).unwrap_or_else(|| {
                stats.push((service, 0, 0));
                stats.len() - 1
            });
            stats[at].1 += 1;
            stats[at].2 += u32::from(span.status == 2);
        }
        info.service_stats = stats
            .into_iter()
            .map(|(service, spans, errors)| ServiceStat { service: lossy(service).into(), spans, errors })
            .collect();
    }
    Ok((info, duration))
}
