//! Structural operators over nested-set numbers, without comparing every pair.

use std::collections::{HashMap, HashSet};

use crate::{
    ast::{Form, Relation},
    fetch::Structure,
};

/// The rows that `left op right` returns, ascending. Both lists are ascending and of one trace.
pub(super) fn relate(relation: Relation, form: Form, left: &[u32], right: &[u32], structure: &Structure) -> Vec<u32> {
    match form {
        Form::Plain => related(relation, left, right, structure, true),
        Form::Negated => related(relation, left, right, structure, false),
        Form::Union => {
            let inverse = match relation {
                Relation::Child => Relation::Parent,
                Relation::Parent => Relation::Child,
                Relation::Descendant => Relation::Ancestor,
                Relation::Ancestor => Relation::Descendant,
                Relation::Sibling => Relation::Sibling,
            };
            let mut rows = related(relation, left, right, structure, true);
            rows.extend(related(inverse, right, left, structure, true));
            rows.sort_unstable();
            rows.dedup();
            rows
        }
    }
}

/// Rows of `right` for which "the relation holds with some row of `left`" equals `wanted`. Unknown positions (zeros)
/// relate to nothing.
fn related(relation: Relation, left: &[u32], right: &[u32], structure: &Structure, wanted: bool) -> Vec<u32> {
    let enter = |row: u32| structure.left[row as usize];
    let exit = |row: u32| structure.right[row as usize];
    let parent = |row: u32| structure.parent[row as usize];
    let keep = |holds: &dyn Fn(u32) -> bool| right.iter().copied().filter(|row| holds(*row) == wanted).collect();
    match relation {
        Relation::Child => {
            let parents: HashSet<i32> = left.iter().map(|row| enter(*row)).filter(|number| *number != 0).collect();
            keep(&|row| parents.contains(&parent(row)))
        }
        Relation::Parent => {
            let parents: HashSet<i32> = left.iter().map(|row| parent(*row)).filter(|number| *number > 0).collect();
            keep(&|row| parents.contains(&enter(row)))
        }
        Relation::Descendant => {
            // Intervals nest or are disjoint: among those that begin before a span, the one reaching furthest
            // encloses it if any does.
            let mut intervals: Vec<(i32, i32)> =
                left.iter().map(|row| (enter(*row), exit(*row))).filter(|(enter, _)| *enter != 0).collect();
            intervals.sort_unstable();
            let mut furthest = 0;
            for interval in &mut intervals {
                furthest = furthest.max(interval.1);
                interval.1 = furthest;
            }
            keep(&|row| {
                let before = intervals.partition_point(|(start, _)| *start < enter(row));
                enter(row) != 0 && before > 0 && intervals[before - 1].1 > exit(row)
            })
        }
        Relation::Ancestor => {
            let mut entries: Vec<i32> = left.iter().map(|row| enter(*row)).filter(|number| *number != 0).collect();
            entries.sort_unstable();
            keep(&|row| {
                let after = entries.partition_point(|entry| *entry <= enter(row));
                enter(row) != 0 && entries.get(after).is_some_and(|entry| *entry < exit(row))
            })
        }
        Relation::Sibling => {
            let mut per_parent: HashMap<i32, u32> = HashMap::new();
            for row in left.iter().filter(|row| parent(**row) != 0) {
                *per_parent.entry(parent(*row)).or_default() += 1;
            }
            keep(&|row| {
                let itself = u32::from(parent(row) != 0 && left.binary_search(&row).is_ok());
                per_parent.get(&parent(row)).is_some_and(|count| *count > itself)
            })
        }
    }
}
