//! Two traces side by side: their spans as trees, and which span of one is which of the other.

use std::collections::{HashMap, VecDeque};

use vivace_protocol::otlp::common::any_value::Value;
use vivace_protocol::otlp::trace::Span;
use vivace_protocol::tempopb::Trace;

/// A span with its place.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) span: Span,
    pub(super) service: String,
    pub(super) parent: Option<usize>,
    /// Among its siblings, which are ordered by start, then id.
    pub(super) index: usize,
    /// Parents above it.
    pub(super) depth: usize,
}

impl Node {
    /// What spans of two traces have in common when they are the same.
    pub(super) fn identity(&self) -> (&str, &str, i32) {
        (&self.service, &self.span.name, self.span.kind)
    }

    pub(super) fn nanos(&self) -> u64 {
        self.span.end_time_unix_nano.saturating_sub(self.span.start_time_unix_nano)
    }

    pub(super) fn failed(&self) -> bool {
        self.span.status.as_ref().is_some_and(|status| status.code == 2)
    }
}

/// The spans of a trace, parents before children.
#[derive(Debug, Default)]
pub(super) struct Forest {
    pub(super) nodes: Vec<Node>,
}

impl Forest {
    pub(super) fn of(trace: Trace) -> Self {
        let mut spans: Vec<(Span, String)> = Vec::new();
        for group in trace.resource_spans {
            let attributes = group.resource.map(|resource| resource.attributes).unwrap_or_default();
            let service = attributes.iter().find(|attribute| attribute.key == "service.name");
            let service = match service.and_then(|a| a.value.as_ref()).and_then(|any| any.value.as_ref()) {
                Some(Value::StringValue(name)) => name.clone(),
                _ => String::new(),
            };
            for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                spans.push((span, service.clone()));
            }
        }
        spans.sort_by(|(a, _), (b, _)| (a.start_time_unix_nano, &a.span_id).cmp(&(b.start_time_unix_nano, &b.span_id)));
        let by_id: HashMap<Vec<u8>, usize> =
            spans.iter().enumerate().rev().map(|(at, (span, _))| (span.span_id.clone(), at)).collect();
        let mut children: HashMap<Option<usize>, Vec<usize>> = HashMap::new();
        for (at, (span, _)) in spans.iter().enumerate() {
            let parent = by_id.get(&span.parent_span_id).copied().filter(|parent| *parent != at);
            children.entry(parent).or_default().push(at);
        }
        let mut spans: Vec<Option<(Span, String)>> = spans.into_iter().map(Some).collect();
        let mut forest = Self { nodes: Vec::with_capacity(spans.len()) };
        let mut roots: VecDeque<usize> = children.remove(&None).unwrap_or_default().into();
        let mut root_index = 0;
        // What no root leads to stands in a circle: each circle is cut at its first span.
        let mut first_left = 0;
        loop {
            let Some(root) = roots.pop_front() else {
                while first_left < spans.len() && spans[first_left].is_none() {
                    first_left += 1;
                }
                if first_left == spans.len() {
                    break;
                }
                roots.push_back(first_left);
                continue;
            };
            let mut stack = vec![(root, None, root_index, 0)];
            root_index += 1;
            while let Some((at, parent, index, depth)) = stack.pop() {
                let Some((span, service)) = spans[at].take() else { continue };
                let place = forest.nodes.len();
                let below = children.remove(&Some(at)).unwrap_or_default();
                for (number, child) in below.into_iter().enumerate().rev() {
                    stack.push((child, Some(place), number, depth + 1));
                }
                forest.nodes.push(Node { span, service, parent, index, depth });
            }
        }
        forest
    }

    /// Indexes among siblings from the root on.
    pub(super) fn path(&self, at: usize) -> Vec<usize> {
        let above = std::iter::successors(Some(at), |at| self.nodes[*at].parent);
        let mut path: Vec<usize> = above.map(|at| self.nodes[at].index).collect();
        path.reverse();
        path
    }

    /// Latest end minus earliest start.
    pub(super) fn latency(&self) -> u64 {
        let start = self.nodes.iter().map(|node| node.span.start_time_unix_nano).min().unwrap_or(0);
        let end = self.nodes.iter().map(|node| node.span.end_time_unix_nano).max().unwrap_or(0);
        end.saturating_sub(start)
    }

    pub(super) fn sum_nanos(&self) -> u64 {
        self.nodes.iter().map(Node::nanos).fold(0, u64::saturating_add)
    }

    pub(super) fn errors(&self) -> usize {
        self.nodes.iter().filter(|node| node.failed()).count()
    }
}

/// For each span of `base` its counterpart in `compare`: of the same service, name and kind; below the counterpart of its parent
/// if there is one, else wherever one is left.
pub(super) fn pairs(base: &Forest, compare: &Forest) -> Vec<Option<usize>> {
    let mut below: HashMap<(_, Option<usize>), VecDeque<usize>> = HashMap::new();
    for (at, node) in compare.nodes.iter().enumerate() {
        below.entry((node.identity(), node.parent)).or_default().push_back(at);
    }
    let mut taken = vec![false; compare.nodes.len()];
    let mut pairs: Vec<Option<usize>> = vec![None; base.nodes.len()];
    for (at, node) in base.nodes.iter().enumerate() {
        // A root's counterpart is a root; the child of an unmatched parent waits.
        let parent = match node.parent.map(|parent| pairs[parent]) {
            None => None,
            Some(Some(parent)) => Some(parent),
            Some(None) => continue,
        };
        if let Some(found) = below.get_mut(&(node.identity(), parent)).and_then(VecDeque::pop_front) {
            pairs[at] = Some(found);
            taken[found] = true;
        }
    }
    let mut left: HashMap<_, VecDeque<usize>> = HashMap::new();
    for (at, node) in compare.nodes.iter().enumerate().filter(|(at, _)| !taken[*at]) {
        left.entry(node.identity()).or_default().push_back(at);
    }
    for (at, node) in base.nodes.iter().enumerate() {
        if pairs[at].is_none() {
            pairs[at] = left.get_mut(&node.identity()).and_then(VecDeque::pop_front);
        }
    }
    pairs
}
