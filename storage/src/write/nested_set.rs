//! Numbers that let readers decide ancestry without building the tree.
//!
//! A depth-first walk from each root counts: `left` on entry, `right` on exit, `parent` = the parent's `left`, -1 for
//! roots. What can't be reached from a root keeps 0, which readers take as unknown.

/// What of a span decides its place in the tree.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    id: u64,
    parent: u64,
    is_root: bool,
    kind: u8,
}

impl Place {
    /// Of a span with these ids and this kind; without a parent it is a root.
    pub(crate) fn new(id: &[u8], parent: &[u8], kind: u64) -> Self {
        let kind = u8::try_from(kind).unwrap_or(u8::MAX);
        Self { id: short_id(id), parent: short_id(parent), is_root: parent.is_empty(), kind }
    }

    /// Of a span whose ids are numbers already.
    pub(crate) fn of(id: u64, parent: Option<u64>, kind: u8) -> Self {
        Self { id, parent: parent.unwrap_or_default(), is_root: parent.is_none(), kind }
    }

    pub(crate) fn set_parent(&mut self, parent: &[u8]) {
        (self.parent, self.is_root) = (short_id(parent), parent.is_empty());
    }

    pub(crate) fn set_kind(&mut self, kind: u64) {
        self.kind = u8::try_from(kind).unwrap_or(u8::MAX);
    }
}

/// A span's numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    pub(crate) left: i32,
    pub(crate) right: i32,
    pub(crate) parent: i32,
    pub(crate) children: i32,
}

const KIND_SERVER: u8 = 2;
const KIND_CLIENT: u8 = 3;
const NONE: u32 = u32::MAX;

/// Room for the walk, kept between traces.
#[derive(Debug, Default)]
pub(crate) struct NestedSet {
    by_id: Vec<(u64, u32)>,
    first_child: Vec<u32>,
    next_sibling: Vec<u32>,
    stack: Vec<u32>,
}

/// The first eight bytes of a span id, shorter ids filled with zeros.
pub(super) fn short_id(id: &[u8]) -> u64 {
    if let Some(first) = id.first_chunk::<8>() {
        return u64::from_be_bytes(*first);
    }
    let mut bytes = [0; 8];
    bytes[..id.len()].copy_from_slice(id);
    u64::from_be_bytes(bytes)
}

impl NestedSet {
    /// Writes the numbers of the spans of one trace, in the same order.
    pub(crate) fn number(&mut self, spans: &[Place], out: &mut Vec<Numbers>) {
        out.clear();
        out.resize(spans.len(), Numbers::default());
        if spans.iter().all(|span| !span.is_root) {
            return;
        }
        self.by_id.clear();
        self.by_id.extend((0u32..).zip(spans).map(|(index, span)| (span.id, index)));
        self.by_id.sort_unstable();
        if self.by_id.windows(3).any(|three| three[0].0 == three[2].0) {
            return;
        }
        self.link(spans, out);
        self.walk(spans, out);
    }

    /// Finds parents and chains children in the order of the spans.
    fn link(&mut self, spans: &[Place], out: &mut [Numbers]) {
        for list in [&mut self.first_child, &mut self.next_sibling] {
            list.clear();
            list.resize(spans.len(), NONE);
        }
        for (index, span) in spans.iter().enumerate().rev() {
            let own = u32::try_from(index).expect("spans of a trace fit its bytes");
            let Some(parent) = self.find_parent(spans, span) else { continue };
            self.next_sibling[index] = self.first_child[parent as usize];
            self.first_child[parent as usize] = own;
            out[parent as usize].children += 1;
        }
    }

    fn find_parent(&self, spans: &[Place], span: &Place) -> Option<u32> {
        if span.is_root {
            return None;
        }
        let wanted = span.parent;
        let at = self.by_id.partition_point(|(id, _)| *id < wanted);
        let mut found = self.by_id[at..].iter().take_while(|(id, _)| *id == wanted).map(|(_, index)| *index);
        let first = found.next()?;
        let Some(second) = found.next() else { return Some(first) };
        // Client and server of one call may share an id: the server is the client's child, all others are the server's. Who
        // fits neither is an orphan.
        let role = if span.kind == KIND_SERVER { KIND_CLIENT } else { KIND_SERVER };
        [first, second].into_iter().find(|index| spans[*index as usize].kind == role)
    }

    fn walk(&mut self, spans: &[Place], out: &mut [Numbers]) {
        let mut next = 1;
        let roots = (0u32..).zip(spans).filter(|(_, span)| span.is_root);
        for (root, _) in roots {
            self.enter(root, -1, &mut next, out);
            while let Some(&top) = self.stack.last() {
                let child = self.first_child[top as usize];
                if child == NONE {
                    out[top as usize].right = next;
                    next += 1;
                    self.stack.pop();
                } else {
                    self.first_child[top as usize] = self.next_sibling[child as usize];
                    let parent = out[top as usize].left;
                    self.enter(child, parent, &mut next, out);
                }
            }
        }
    }

    fn enter(&mut self, span: u32, parent: i32, next: &mut i32, out: &mut [Numbers]) {
        let numbers = &mut out[span as usize];
        (numbers.left, numbers.parent) = (*next, parent);
        *next += 1;
        self.stack.push(span);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(spans: &[(&'static str, &'static str, u64)]) -> Vec<(i32, i32, i32, i32)> {
        let place = |&(id, parent, kind): &(&'static str, &'static str, u64)| {
            Place::new(id.as_bytes(), parent.as_bytes(), kind)
        };
        let mut out = Vec::new();
        NestedSet::default().number(&spans.iter().map(place).collect::<Vec<_>>(), &mut out);
        out.iter().map(|n| (n.left, n.right, n.parent, n.children)).collect()
    }

    #[test]
    fn a_chain_is_nested() {
        let chain = [("a", "", 1), ("b", "a", 3), ("c", "b", 2)];
        assert_eq!(numbers(&chain), [(1, 6, -1, 1), (2, 5, 1, 1), (3, 4, 2, 0)]);
    }

    #[test]
    fn roots_share_one_count_and_orphans_stay_unknown() {
        let spans = [("a", "", 1), ("x", "gone", 1), ("y", "x", 1), ("b", "", 1), ("c", "b", 1)];
        assert_eq!(numbers(&spans), [(1, 2, -1, 0), (0, 0, 0, 1), (0, 0, 0, 0), (3, 6, -1, 1), (4, 5, 3, 0)]);
    }

    #[test]
    fn without_a_root_or_with_an_id_used_thrice_all_is_unknown() {
        assert_eq!(numbers(&[("a", "b", 1), ("b", "a", 1)]), [(0, 0, 0, 0); 2]);
        assert_eq!(numbers(&[("a", "", 1), ("a", "a", 1), ("a", "", 1)]), [(0, 0, 0, 0); 3]);
    }

    #[test]
    fn client_and_server_with_one_id_are_told_apart_by_kind() {
        let spans = [("r", "", 1), ("s", "r", 3), ("s", "s", 2), ("t", "s", 1)];
        assert_eq!(numbers(&spans), [(1, 8, -1, 1), (2, 7, 1, 1), (3, 6, 2, 1), (4, 5, 3, 0)]);
    }

    #[test]
    fn who_fits_neither_of_two_spans_with_one_id_is_an_orphan() {
        let spans = [("r", "", 1), ("s", "r", 1), ("s", "s", 2), ("t", "s", 1), ("u", "s", 2)];
        assert_eq!(numbers(&spans), [(1, 4, -1, 1), (2, 3, 1, 0), (0, 0, 0, 1), (0, 0, 0, 0), (0, 0, 0, 0)]);
    }

    #[test]
    fn a_span_that_is_its_own_parent_counts_itself() {
        let spans = [("r", "", 1), ("s", "s", 1), ("t", "s", 1)];
        assert_eq!(numbers(&spans), [(1, 2, -1, 0), (0, 0, 0, 2), (0, 0, 0, 0)]);
    }

    #[test]
    fn circles_and_deep_chains_end() {
        let mut spans = vec![("r", "", 1), ("a", "b", 1), ("b", "a", 1), ("c", "c", 1)];
        assert_eq!(numbers(&spans)[0], (1, 2, -1, 0));
        spans.clear();
        let names: Vec<String> = (0..50_000).map(|n| format!("{n:08}")).collect();
        let mut out = Vec::new();
        let parent = |n: usize| n.checked_sub(1).map_or(&b""[..], |n| names[n].as_bytes());
        let places: Vec<Place> = (0..names.len()).map(|n| Place::new(names[n].as_bytes(), parent(n), 1)).collect();
        NestedSet::default().number(&places, &mut out);
        assert_eq!((out[0].right, out[49_999].left), (100_000, 50_000));
    }
}
