//! Which event and which link of a span its filters held for.

use crate::{
    column::NIL_ID,
    fetch::{Offsets, SpanBatch},
    field::Level,
};

/// The choices of the spans of one batch. Where several filters hold for a span the last one chooses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// By span: a row of the event-level columns, [`NIL_ID`] for none. Empty as long as nothing was chosen.
    events: Vec<u32>,
    /// The same of links.
    links: Vec<u32>,
}

/// What was chosen of one span, as places in its own lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Choice {
    event: Option<u32>,
    link: Option<u32>,
}

impl Chosen {
    /// Notes the rows of a span's event and link; [`NIL_ID`] says nothing.
    pub(super) fn note(&mut self, spans: usize, span: usize, event: u32, link: u32) {
        for (list, item) in [(&mut self.events, event), (&mut self.links, link)] {
            if item != NIL_ID {
                list.resize(spans, NIL_ID);
                list[span] = item;
            }
        }
    }

    /// The row that was chosen of the events (links) of a span.
    pub(super) fn row(&self, level: Level, span: usize) -> Option<u32> {
        let list = if level == Level::Event { &self.events } else { &self.links };
        list.get(span).copied().filter(|item| *item != NIL_ID)
    }

    /// What was chosen of a span of the batch.
    pub(crate) fn of(&self, batch: &SpanBatch, span: usize) -> Choice {
        let place = |level, offsets: &Option<Offsets>| {
            let start = *offsets.as_ref()?.get(span)?;
            self.row(level, span)?.checked_sub(start)
        };
        Choice { event: place(Level::Event, &batch.events), link: place(Level::Link, &batch.links) }
    }
}

impl Choice {
    /// The place in the list of a level.
    pub(crate) fn place(self, level: Level) -> Option<u32> {
        if level == Level::Event { self.event } else { self.link }
    }
}
