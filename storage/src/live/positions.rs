//! Nested-set numbers of the spans of one trace, as blocks store them.

use std::collections::HashMap;

/// What the tree is built from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node {
    pub(super) id: u64,
    /// None for a root.
    pub(super) parent: Option<u64>,
    pub(super) kind: u8,
}

/// Position of one span; all zero when it is unknown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) left: i32,
    pub(super) right: i32,
    pub(super) parent: i32,
    pub(super) children: i32,
}

const SERVER: u8 = 2;
const CLIENT: u8 = 3;
const NONE: u32 = u32::MAX;

/// Positions in the order of `nodes`. All unknown when there is no root or an id is used by more than two spans.
pub(super) fn positions(nodes: &[Node]) -> Vec<Position> {
    let mut positions = vec![Position::default(); nodes.len()];
    if nodes.iter().all(|node| node.parent.is_some()) {
        return positions;
    }
    let mut by_id: HashMap<u64, (u32, u32), foldhash::fast::RandomState> = HashMap::default();
    by_id.reserve(nodes.len());
    for (row, node) in (0u32..).zip(nodes) {
        match by_id.entry(node.id) {
            std::collections::hash_map::Entry::Vacant(entry) => {
                entry.insert((row, NONE));
            }
            std::collections::hash_map::Entry::Occupied(mut entry) if entry.get().1 == NONE => entry.get_mut().1 = row,
            std::collections::hash_map::Entry::Occupied(_) => return positions,
        }
    }
    // Children as linked lists: first child, and next sibling of each, in order because rows are added from the back.
    let mut first = vec![NONE; nodes.len()];
    let mut next = vec![NONE; nodes.len()];
    for (index, node) in nodes.iter().enumerate().rev() {
        let row = u32::try_from(index).unwrap_or(NONE);
        let Some(parent) = node.parent.and_then(|id| by_id.get(&id)) else { continue };
        let parent = match *parent {
            (only, NONE) => only,
            // A client and a server span share the id: the child belongs to the one of the opposite role.
            (a, b) => {
                let wanted = if node.kind == SERVER { CLIENT } else { SERVER };
                match [a, b].into_iter().find(|shared| nodes[*shared as usize].kind == wanted) {
                    Some(parent) => parent,
                    None => continue,
                }
            }
        };
        let parent = parent as usize;
        next[row as usize] = first[parent];
        first[parent] = row;
        positions[parent].children += 1;
    }
    let mut counter = 1;
    let mut stack: Vec<u32> = Vec::new();
    for root in (0..nodes.len()).filter(|row| nodes[*row].parent.is_none()) {
        positions[root].parent = -1;
        positions[root].left = counter;
        counter += 1;
        stack.push(u32::try_from(root).unwrap_or(NONE));
        while let Some(row) = stack.last().map(|row| *row as usize) {
            let child = first[row];
            if child == NONE {
                positions[row].right = counter;
                counter += 1;
                stack.pop();
            } else {
                // The list is used up while walking, so each child is entered once.
                first[row] = next[child as usize];
                positions[child as usize].left = counter;
                positions[child as usize].parent = positions[row].left;
                counter += 1;
                stack.push(child);
            }
        }
    }
    positions
}

#[cfg(test)]
mod tests {
    use super::*;

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
