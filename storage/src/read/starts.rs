//! Which spans of a row start when: for reading a large trace page by page, and of its rows only those that have some of the page.

use std::ops::RangeInclusive;

use super::{ColumnRows, block::OpenBlock, cursor::inconsistent, error::Result, find::TraceRow, values::Values};

/// All spans, whenever they start.
pub(crate) const ANY_START: RangeInclusive<u64> = 0..=u64::MAX;

/// The first spans of a row from some time on; see [`first_starts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstStarts {
    /// When the first of them starts.
    pub first: u64,
    /// When the last of as many as were asked for starts; the end of time if there are fewer.
    pub last: u64,
}

/// The spans of a row that start at `from`, and of those that start later the first `count`; none if there are none. One column is read.
pub fn first_starts(block: &OpenBlock, row: TraceRow, from: u64, count: usize) -> Result<Option<FirstStarts>> {
    let mut column = ColumnRows::new(block, block.schema().columns().span.start)?;
    let stored = column.at(row.group, row.row, 1)?;
    let Values::Ints(starts) = &stored.page.values else { return Err(inconsistent()) };
    let mut later = Vec::new();
    let mut first = None;
    for at in stored.span.values.clone() {
        let start = starts.get(at).ok_or_else(inconsistent)?.cast_unsigned();
        if start >= from {
            first = Some(first.map_or(start, |first: u64| first.min(start)));
        }
        if start > from {
            later.push(start);
        }
    }
    let last = match count.checked_sub(1).filter(|last| *last < later.len()) {
        Some(last) => *later.select_nth_unstable(last).1,
        None => u64::MAX,
    };
    Ok(first.map(|first| FirstStarts { first, last }))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use vivace_protocol::trace_walk::{SpanHead, for_each_span};
    use vivace_protocol::wire::WireError;

    use super::{
        super::{
            locate_trace, read_trace_in_pieces, rows,
            tests::{open_v4, open_v5},
        },
        *,
    };

    fn starts(pieces: &[Bytes]) -> Vec<u64> {
        let mut starts = Vec::new();
        for piece in pieces {
            let seen = for_each_span(piece, |span| {
                starts.push(SpanHead::read(span.span)?.start_unix_nano);
                Ok::<_, WireError>(())
            });
            seen.unwrap();
        }
        starts.sort_unstable();
        starts
    }

    #[test]
    fn the_first_spans_from_a_time_on_are_told_and_read_alone() {
        for block in [open_v5(), open_v4()] {
            for row in rows(&block).step_by(16) {
                let (id, trace) = row.unwrap();
                let at = locate_trace(&block, id).unwrap().unwrap();
                let all = starts(&[trace]);
                for from in [0, all[0], all[all.len() / 2], all[all.len() - 1] + 1] {
                    for count in [1, 2, all.len() + 1] {
                        let told = first_starts(&block, at, from, count).unwrap();
                        let later: Vec<u64> = all.iter().copied().filter(|start| *start > from).collect();
                        let last = later.get(count - 1).copied().unwrap_or(u64::MAX);
                        let due: Vec<u64> = all.iter().copied().filter(|start| (from..=last).contains(start)).collect();
                        assert_eq!(told, due.first().map(|first| FirstStarts { first: *first, last }));
                        let read = read_trace_in_pieces(&block, at, 1, from..=last).unwrap();
                        assert_eq!(starts(&read), due);
                    }
                }
            }
        }
    }
}
