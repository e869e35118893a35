//! Columns of a batch, built span by span.

use vivace_protocol::wire::WireError;
use vivace_traceql::{Column, Level, Offsets, Value};

use super::{
    values::{get, per_event, per_link},
    walk::{id8, number},
    walked::Walked,
    wants::Getter,
};
use crate::read::cells::{Cell, Cells};

/// Columns of a batch under construction.
pub(super) struct Columns<'p> {
    columns: Vec<(&'p Getter, Level, Builder)>,
    events: Option<Offsets>,
    links: Option<Offsets>,
}

enum Builder {
    Cells(Cells),
    Code(Vec<u8>),
    Id(Vec<[u8; 8]>),
}

impl Builder {
    fn new(getter: &Getter) -> Self {
        match getter {
            Getter::Status | Getter::Kind => Self::Code(Vec::new()),
            Getter::SpanId | Getter::ParentId => Self::Id(Vec::new()),
            _ => Self::Cells(Cells::new()),
        }
    }

    fn push(&mut self, cell: &Cell<'_>) {
        match self {
            // Only link ids come as lists of one text, and then all rows do.
            Self::Cells(cells) => match cell {
                Cell::List(items) if items.len() == 1 => match &items[0] {
                    Value::Str(text) => cells.push(&Cell::Str(text.as_bytes())),
                    Value::Int(value) => cells.push(&Cell::Int(*value)),
                    Value::Float(value) => cells.push(&Cell::Float(*value)),
                    Value::Bool(value) => cells.push(&Cell::Bool(*value)),
                    _ => cells.push(cell),
                },
                _ => cells.push(cell),
            },
            Self::Code(codes) => codes.push(0),
            Self::Id(ids) => ids.push([0; 8]),
        }
    }

    fn finish(self) -> Column {
        match self {
            Self::Cells(cells) => cells.finish(),
            Self::Code(codes) => Column::Code(codes),
            Self::Id(ids) => Column::SpanId(ids),
        }
    }
}

impl<'p> Columns<'p> {
    pub(super) fn new(fields: &'p [(Getter, Level)]) -> Self {
        let has = |wanted: Level| fields.iter().any(|(_, level)| *level == wanted).then(|| vec![0]);
        let columns = fields.iter().map(|(getter, level)| (getter, *level, Builder::new(getter))).collect();
        Self { columns, events: has(Level::Event), links: has(Level::Link) }
    }

    pub(super) fn push(&mut self, walked: &Walked<'_>, row: usize) -> Result<(), WireError> {
        let span = &walked.view.spans[row];
        let (mut events, mut links) = (0, 0);
        for (getter, level, builder) in &mut self.columns {
            match (level, builder) {
                (Level::Event, builder) => {
                    let cells = per_event(span, getter)?;
                    events = cells.len();
                    cells.iter().for_each(|cell| builder.push(cell));
                }
                (Level::Link, builder) => {
                    let cells = per_link(span, getter)?;
                    links = cells.len();
                    cells.iter().for_each(|cell| builder.push(cell));
                }
                (_, Builder::Code(codes)) => {
                    codes.push(if **getter == Getter::Kind { span.kind } else { span.status });
                }
                (_, Builder::Id(ids)) => {
                    ids.push(id8(if **getter == Getter::SpanId { span.id } else { span.parent }));
                }
                (_, builder) => builder.push(&get(getter, walked, row)?),
            }
        }
        for (offsets, count) in [(&mut self.events, events), (&mut self.links, links)] {
            if let Some(offsets) = offsets {
                let last = offsets.last().copied().unwrap_or(0);
                offsets.push(last + number(count));
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> (Vec<Column>, Option<Offsets>, Option<Offsets>) {
        (self.columns.into_iter().map(|(.., builder)| builder.finish()).collect(), self.events, self.links)
    }
}
