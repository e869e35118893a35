//! Nested-set numbers of the spans of one trace, as blocks store them.

pub(super) use crate::write::Position;
use crate::write::{NestedSet, Place};

/// What the tree is built from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) id: u64,
    /// None for a root.
    pub(super) parent: Option<u64>,
    pub(super) kind: u8,
}

/// Positions in the order of `nodes`. All unknown when there is no root or an id is used by more than two spans.
pub(super) fn positions(nodes: &[Node]) -> Vec<Position> {
    let places: Vec<Place> = nodes.iter().map(|node| Place::of(node.id, node.parent, node.kind)).collect();
    let mut positions = Vec::new();
    NestedSet::default().number(&places, &mut positions);
    positions
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: u8 = 2;
    const CLIENT: u8 = 3;

    fn node(id: u64, parent: u64, kind: u8) -> Node {
        Node { id, parent: (parent != 0).then_some(parent), kind }
    }

    fn numbers(nodes: &[Node]) -> Vec<(i32, i32, i32)> {
        positions(nodes).iter().map(|position| (position.left, position.right, position.parent)).collect()
    }

    #[test]
    fn a_chain_is_numbered_from_outside_in() {
        let chain = [node(1, 0, 1), node(2, 1, 3), node(3, 2, 2)];
        assert_eq!(numbers(&chain), [(1, 6, -1), (2, 5, 1), (3, 4, 2)]);
    }

    #[test]
    fn without_a_root_or_with_an_id_used_thrice_nothing_is_known() {
        assert_eq!(numbers(&[node(1, 9, 1), node(2, 1, 1)]), [(0, 0, 0); 2]);
        assert_eq!(numbers(&[node(1, 0, 1), node(2, 1, 1), node(2, 1, 2), node(2, 1, 3)]), [(0, 0, 0); 4]);
    }

    #[test]
    fn a_child_of_a_shared_id_belongs_to_the_opposite_role() {
        let shared = [node(1, 0, CLIENT), node(1, 0, SERVER), node(2, 1, SERVER), node(3, 1, 1)];
        let found = positions(&shared);
        assert_eq!(found[2].parent, found[0].left);
        assert_eq!(found[3].parent, found[1].left);
    }

    #[test]
    fn who_fits_neither_of_a_shared_id_is_an_orphan_and_who_is_its_own_parent_counts_itself() {
        let all = |nodes: &[Node]| -> Vec<(i32, i32, i32, i32)> {
            positions(nodes).iter().map(|p| (p.left, p.right, p.parent, p.children)).collect()
        };
        // As blocks have it.
        let shared = [node(1, 0, 1), node(2, 1, 1), node(2, 2, SERVER), node(3, 2, 1), node(4, 2, SERVER)];
        assert_eq!(all(&shared), [(1, 4, -1, 1), (2, 3, 1, 0), (0, 0, 0, 1), (0, 0, 0, 0), (0, 0, 0, 0)]);
        assert_eq!(all(&[node(1, 0, 1), node(2, 2, 1), node(3, 2, 1)]), [(1, 2, -1, 0), (0, 0, 0, 2), (0, 0, 0, 0)]);
    }
}
