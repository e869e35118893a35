//! All that is stored for the spans of a batch, for queries that compare spans by whatever they have.

use std::collections::HashMap;

use vivace_protocol::wire::{Reader, WireError};
use vivace_traceql::{Column, Field, Intrinsic, Scope};

use super::{
    any::{self, GROUP_DEPTH},
    values::get,
    walk::id8,
    walked::Walked,
    wants::Getter,
};
use crate::read::cells::{Cell, Cells, lossy};

/// Every attribute and intrinsic of the spans of a batch.
#[derive(Default)]
pub(super) struct Everything {
    rows: usize,
    attributes: HashMap<(Scope, Box<[u8]>), Cells>,
    intrinsics: Vec<(Intrinsic, Getter, Cells)>,
    codes: [Vec<u8>; 2],
    ids: [Vec<[u8; 8]>; 2],
}

impl Everything {
    pub(super) fn push(&mut self, walked: &Walked<'_>, row: usize) -> Result<(), WireError> {
        if self.intrinsics.is_empty() {
            self.intrinsics = [
                (Intrinsic::Duration, Getter::Duration),
                (Intrinsic::Name, Getter::Name),
                (Intrinsic::StatusMessage, Getter::StatusMessage),
                (Intrinsic::ChildCount, Getter::ChildCount),
                (Intrinsic::InstrumentationName, Getter::ScopeName),
                (Intrinsic::InstrumentationVersion, Getter::ScopeVersion),
                (Intrinsic::NestedSetLeft, Getter::Left),
                (Intrinsic::NestedSetRight, Getter::Right),
                (Intrinsic::NestedSetParent, Getter::Parent),
            ]
            .into_iter()
            .map(|(intrinsic, getter)| (intrinsic, getter, Cells::new()))
            .collect();
        }
        let span = &walked.view.spans[row];
        for (_, getter, cells) in &mut self.intrinsics {
            cells.push(&get(getter, walked, row)?);
        }
        self.codes[0].push(span.status);
        self.codes[1].push(span.kind);
        self.ids[0].push(id8(span.id));
        self.ids[1].push(id8(span.parent));
        self.attributes(Scope::Span, span.message, 0x4a)?;
        for piece in &walked.view.resource(span).pieces {
            self.attributes(Scope::Resource, piece, 0x0a)?;
        }
        for piece in &walked.view.scope(span).pieces {
            self.attributes(Scope::Instrumentation, piece, 0x1a)?;
        }
        self.rows += 1;
        Ok(())
    }

    fn attributes(&mut self, scope: Scope, message: &[u8], wanted: u32) -> Result<(), WireError> {
        let mut reader = Reader::new(message);
        let mut unnamed = false;
        while let Some(key) = reader.key()? {
            if key != wanted {
                reader.skip(key, GROUP_DEPTH)?;
                continue;
            }
            let (name, value) = any::key_value(reader.bytes()?)?;
            let value = any::cell(value)?;
            if scope == Scope::Resource && name == b"service.name" {
                // The first counts, and without a text it is none.
                unnamed |= matches!(value, Cell::Str(b""));
                if unnamed {
                    continue;
                }
            }
            let cells = self.attributes.entry((scope, name.into())).or_insert_with(Cells::new);
            cells.pad(self.rows);
            // The first value of a key counts.
            if cells.rows() == self.rows {
                cells.push(&value);
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Vec<(Field, Column)> {
        let rows = self.rows;
        let [status, kind] = self.codes;
        let [id, parent] = self.ids;
        let mut all: Vec<(Field, Column)> = vec![
            (Intrinsic::Status.into(), Column::Code(status)),
            (Intrinsic::Kind.into(), Column::Code(kind)),
            (Intrinsic::SpanId.into(), Column::SpanId(id)),
            (Intrinsic::ParentId.into(), Column::SpanId(parent)),
        ];
        all.extend(self.intrinsics.into_iter().map(|(intrinsic, _, cells)| (intrinsic.into(), cells.finish())));
        all.extend(self.attributes.into_iter().map(|((scope, name), mut cells)| {
            cells.pad(rows);
            (Field::attribute(scope, &lossy(&name)), cells.finish())
        }));
        all
    }
}
