//! The columns of a row group: a node for each repeated group of the schema.

use super::{
    BlockSpec, Error, attributes,
    chunk::{Chunk, ClosedChunk},
    node::{Node, PageRoom, Presence},
};
use crate::schema::{AttrLeaves, DedicatedLeaf, Schema};

/// Places of the leaves within their nodes.
pub(super) mod leaf {
    pub(in crate::write) mod trace {
        pub(in crate::write) const ID: usize = 0;
        pub(in crate::write) const ID_TEXT: usize = 1;
        pub(in crate::write) const START: usize = 2;
        pub(in crate::write) const END: usize = 3;
        pub(in crate::write) const DURATION: usize = 4;
        pub(in crate::write) const ROOT_SERVICE: usize = 5;
        pub(in crate::write) const ROOT_NAME: usize = 6;
    }
    pub(in crate::write) mod stats {
        pub(in crate::write) const SERVICE: usize = 0;
        pub(in crate::write) const SPANS: usize = 1;
        pub(in crate::write) const ERRORS: usize = 2;
    }
    pub(in crate::write) mod resource {
        pub(in crate::write) const SERVICE: usize = 0;
        pub(in crate::write) const DROPPED: usize = 1;
        pub(in crate::write) const DEDICATED: usize = 2;
    }
    pub(in crate::write) mod scope {
        pub(in crate::write) const NAME: usize = 0;
        pub(in crate::write) const VERSION: usize = 1;
        pub(in crate::write) const DROPPED: usize = 2;
        pub(in crate::write) const SPANS: usize = 3;
    }
    pub(in crate::write) mod span {
        pub(in crate::write) const ID: usize = 0;
        pub(in crate::write) const PARENT_ID: usize = 1;
        pub(in crate::write) const PARENT: usize = 2;
        pub(in crate::write) const LEFT: usize = 3;
        pub(in crate::write) const RIGHT: usize = 4;
        pub(in crate::write) const CHILDREN: usize = 5;
        pub(in crate::write) const NAME: usize = 6;
        pub(in crate::write) const KIND: usize = 7;
        pub(in crate::write) const STATE: usize = 8;
        pub(in crate::write) const START: usize = 9;
        pub(in crate::write) const DURATION: usize = 10;
        pub(in crate::write) const STATUS: usize = 11;
        pub(in crate::write) const STATUS_MESSAGE: usize = 12;
        pub(in crate::write) const DROPPED: usize = 13;
        pub(in crate::write) const DROPPED_EVENTS: usize = 14;
        pub(in crate::write) const DROPPED_LINKS: usize = 15;
        pub(in crate::write) const ROUNDED: usize = 16;
        pub(in crate::write) const DEDICATED: usize = 20;
    }
    pub(in crate::write) mod event {
        pub(in crate::write) const SINCE_START: usize = 0;
        pub(in crate::write) const NAME: usize = 1;
        pub(in crate::write) const DROPPED: usize = 2;
        pub(in crate::write) const DEDICATED: usize = 3;
    }
    pub(in crate::write) mod link {
        pub(in crate::write) const TRACE_ID: usize = 0;
        pub(in crate::write) const SPAN_ID: usize = 1;
        pub(in crate::write) const STATE: usize = 2;
        pub(in crate::write) const DROPPED: usize = 3;
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct RowGroup {
    pub(super) trace: Node,
    pub(super) stats: Node,
    pub(super) resource: Node,
    pub(super) resource_attrs: Node,
    pub(super) scope: Node,
    pub(super) scope_attrs: Node,
    pub(super) span: Node,
    pub(super) span_attrs: Node,
    pub(super) event: Node,
    pub(super) event_attrs: Node,
    pub(super) link: Node,
    pub(super) link_attrs: Node,
    pub(super) rows: u64,
}

impl RowGroup {
    pub(super) fn new(schema: &Schema) -> Self {
        let columns = schema.columns();
        let own = |leaf: usize| Chunk::new(leaf, &schema.leaves()[leaf], Presence::Always);
        let node = |depth: u8, leaves: &[usize], dedicated: &[DedicatedLeaf]| {
            let spares = dedicated
                .iter()
                .map(|column| Chunk::new(column.leaf, &schema.leaves()[column.leaf], Presence::Own(Vec::new())));
            Node::new(depth, leaves.iter().map(|leaf| own(*leaf)).chain(spares).collect())
        };
        let list = |depth: u8, a: &AttrLeaves| {
            let leaves = [a.key, a.is_array, a.value, a.value_int, a.value_double, a.value_bool, a.unsupported];
            let chunks = leaves.into_iter().zip(attributes::presences());
            Node::new(
                depth,
                chunks.map(|(leaf, presence)| Chunk::new(leaf, &schema.leaves()[leaf], presence)).collect(),
            )
        };
        let (t, s, r) = (&columns.trace, &columns.stats, &columns.resource);
        let (c, p) = (&columns.scope, &columns.span);
        let (e, l) = (&p.events, &p.links);
        let of_v5 = "the schema is vParquet5's";
        let [by15, by60, by300, by3600] = p.rounded.expect(of_v5);
        let span = [
            p.span_id,
            p.parent_span_id,
            p.parent,
            p.left,
            p.right,
            p.child_count.expect(of_v5),
            p.name,
            p.kind,
            p.trace_state,
            p.start,
            p.duration,
            p.status,
            p.status_message,
            p.dropped,
            p.dropped_events,
            p.dropped_links,
            by15,
            by60,
            by300,
            by3600,
        ];
        let trace = [t.trace_id, t.trace_id_text, t.start, t.end, t.duration, t.root_service, t.root_name];
        let scope = [c.name, c.version, c.dropped, c.span_count.expect(of_v5)];
        Self {
            trace: node(0, &trace, &[]),
            stats: node(1, &[s.service, s.spans, s.errors], &[]),
            resource: node(1, &[r.service, r.dropped], &r.dedicated),
            resource_attrs: list(2, &r.attrs),
            scope: node(2, &scope, &[]),
            scope_attrs: list(3, &c.attrs),
            span: node(3, &span, &p.dedicated),
            span_attrs: list(4, &p.attrs),
            event: node(4, &[e.since_start, e.name, e.dropped], &e.dedicated),
            event_attrs: list(5, &e.attrs),
            link: node(4, &[l.trace_id, l.span_id, l.trace_state, l.dropped], &[]),
            link_attrs: list(5, &l.attrs),
            rows: 0,
        }
    }

    fn nodes(&mut self) -> [&mut Node; 12] {
        [
            &mut self.trace,
            &mut self.stats,
            &mut self.resource,
            &mut self.resource_attrs,
            &mut self.scope,
            &mut self.scope_attrs,
            &mut self.span,
            &mut self.span_attrs,
            &mut self.event,
            &mut self.event_attrs,
            &mut self.link,
            &mut self.link_attrs,
        ]
    }

    /// Ends a row: pages that are large enough are cut, so that every page begins with a row.
    pub(super) fn end_row(&mut self, spec: &BlockSpec, room: &mut PageRoom) -> Result<(), Error> {
        self.rows += 1;
        let rows = self.rows;
        for node in self.nodes() {
            if node.entries() >= spec.page_entries || node.pending_bytes() >= spec.page_bytes {
                node.cut_page(rows, room)?;
            }
        }
        Ok(())
    }

    /// Bytes of finished pages and dictionaries.
    pub(super) fn finished_bytes(&mut self) -> usize {
        self.nodes().iter().flat_map(|node| &node.chunks).map(Chunk::finished_bytes).sum()
    }

    /// Ends the row group, which begins at `offset` in the file: its chunks in file order.
    pub(super) fn close(
        &mut self,
        schema: &Schema,
        mut offset: u64,
        room: &mut PageRoom,
    ) -> Result<Vec<ClosedChunk>, Error> {
        let rows = std::mem::take(&mut self.rows);
        for node in self.nodes() {
            node.cut_page(rows, room)?;
            node.reset();
        }
        let mut chunks: Vec<&mut Chunk> = self.nodes().into_iter().flat_map(|node| &mut node.chunks).collect();
        chunks.sort_unstable_by_key(|chunk| chunk.leaf);
        let mut closed = Vec::with_capacity(chunks.len());
        for chunk in chunks {
            let descriptor = schema.descriptor().column(chunk.leaf);
            let chunk = chunk.close(offset, rows, descriptor, &mut room.compressor)?;
            offset += chunk.size();
            closed.push(chunk);
        }
        Ok(closed)
    }
}
