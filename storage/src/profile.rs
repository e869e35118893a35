//! How a block was read for a query: row groups, columns, requests, time. Kept only for queries that ask for it; the others do
//! not come this way.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vivace_protocol::vivace::{Profile, ProfileColumn};
use vivace_traceql::{Cursor, FetchError, FetchSpec, FetchStats, LoadSpec, Loaded, Source, SpanBatch, SpanHandle};

use crate::{BlockCursor, BlockSource, OpenBlock, TraceRow};

/// A block that takes notes while it is queried.
#[derive(Debug)]
pub struct ProfiledBlock {
    source: BlockSource,
    profile: RefCell<Profile>,
    began: Instant,
}

impl ProfiledBlock {
    /// Begins to take notes.
    #[must_use]
    pub fn new(block: Arc<OpenBlock>) -> Self {
        Self { source: BlockSource::new(block), profile: RefCell::default(), began: Instant::now() }
    }

    /// Without these traces, which somebody else asks for.
    pub(crate) fn passing_over(self, apart: Arc<[TraceRow]>) -> Self {
        Self { source: self.source.passing_over(apart), ..self }
    }

    /// The notes. What was neither reading nor loading since the beginning was evaluating.
    #[must_use]
    pub fn finish(self) -> Profile {
        completed(self.profile.into_inner(), self.source.block(), self.began.elapsed())
    }
}

/// Notes of all that was read of a block, in so much time.
pub(crate) fn completed(mut profile: Profile, block: &OpenBlock, took: Duration) -> Profile {
    profile.stored_spans = stored_spans(block);
    let fetching = profile.read_nanos.saturating_add(profile.load_nanos);
    profile.evaluate_nanos = nanos(took).saturating_sub(fetching);
    profile
}

/// The notes of one cursor.
pub(crate) fn of_cursor(block: &OpenBlock, cursor: &BlockCursor<'_>, read: Duration, load: Duration) -> Profile {
    let counts = cursor.group_counts();
    let columns = cursor.costs().into_iter().map(|(path, cost)| ProfileColumn {
        stored_bytes: stored_bytes(block, &path),
        path,
        bytes: cost.bytes,
        pages: cost.pages,
        pages_skipped: cost.skipped,
        requests: cost.requests,
    });
    Profile {
        columns: columns.collect(),
        row_groups_read: counts.read,
        row_groups_by_predicate: counts.by_predicate,
        row_groups_by_time: counts.by_time,
        row_groups_by_selection: counts.by_selection,
        read_nanos: nanos(read),
        load_nanos: nanos(load),
        ..Profile::default()
    }
}

impl Source for ProfiledBlock {
    type Cursor<'a> = ProfiledCursor<'a>;

    fn fetch(&self, spec: &FetchSpec) -> Result<ProfiledCursor<'_>, FetchError> {
        Ok(ProfiledCursor {
            cursor: self.source.fetch(spec)?,
            block: self.source.block(),
            profile: &self.profile,
            read: Duration::ZERO,
            load: Duration::ZERO,
        })
    }
}

/// One fetch. Its notes are complete when it is dropped.
pub struct ProfiledCursor<'a> {
    cursor: BlockCursor<'a>,
    block: &'a OpenBlock,
    profile: &'a RefCell<Profile>,
    read: Duration,
    load: Duration,
}

impl Cursor for ProfiledCursor<'_> {
    fn next(&mut self) -> Result<Option<SpanBatch>, FetchError> {
        let began = Instant::now();
        let batch = self.cursor.next();
        self.read += began.elapsed();
        batch
    }

    fn load(&mut self, traces: &[u32], spans: &[SpanHandle], spec: &LoadSpec) -> Result<Loaded, FetchError> {
        let began = Instant::now();
        let loaded = self.cursor.load(traces, spans, spec);
        self.load += began.elapsed();
        loaded
    }

    fn ignore_before(&mut self, start_ns: u64) {
        self.cursor.ignore_before(start_ns);
    }

    fn stats(&self) -> FetchStats {
        self.cursor.stats()
    }
}

impl Drop for ProfiledCursor<'_> {
    fn drop(&mut self) {
        let own = of_cursor(self.block, &self.cursor, self.read, self.load);
        add(&mut self.profile.borrow_mut(), own);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Entries and bytes of a column in each row group.
fn chunks(block: &OpenBlock, leaf: usize) -> impl Iterator<Item = (u64, u64)> {
    let groups = (0..block.row_groups()).filter_map(|number| block.row_group(number).ok());
    groups.filter_map(move |group| group.chunks.get(leaf).map(|chunk| (chunk.values, chunk.size)))
}

fn stored_spans(block: &OpenBlock) -> u64 {
    chunks(block, block.schema().columns().span.status).map(|(spans, _)| spans).sum()
}

fn stored_bytes(block: &OpenBlock, path: &str) -> u64 {
    let leaf = block.schema().leaves().iter().position(|leaf| leaf.path == path);
    leaf.map_or(0, |leaf| chunks(block, leaf).map(|(_, bytes)| bytes).sum())
}

/// Adds the notes of another fetch or block.
pub fn add(sum: &mut Profile, other: Profile) {
    let mut columns: BTreeMap<String, ProfileColumn> =
        std::mem::take(&mut sum.columns).into_iter().map(|column| (column.path.clone(), column)).collect();
    for column in other.columns {
        let known = columns.entry(column.path.clone()).or_default();
        known.path = column.path;
        known.bytes += column.bytes;
        known.stored_bytes += column.stored_bytes;
        known.pages += column.pages;
        known.pages_skipped += column.pages_skipped;
        known.requests += column.requests;
    }
    sum.columns = columns.into_values().collect();
    for (own, more) in [
        (&mut sum.row_groups_read, other.row_groups_read),
        (&mut sum.row_groups_by_predicate, other.row_groups_by_predicate),
        (&mut sum.row_groups_by_time, other.row_groups_by_time),
        (&mut sum.row_groups_by_selection, other.row_groups_by_selection),
        (&mut sum.blocks_at_hand, other.blocks_at_hand),
        (&mut sum.blocks_opened, other.blocks_opened),
        (&mut sum.blocks_by_bloom, other.blocks_by_bloom),
        (&mut sum.stored_spans, other.stored_spans),
        (&mut sum.open_nanos, other.open_nanos),
        (&mut sum.read_nanos, other.read_nanos),
        (&mut sum.evaluate_nanos, other.evaluate_nanos),
        (&mut sum.load_nanos, other.load_nanos),
    ] {
        *own = own.saturating_add(more);
    }
}

#[cfg(test)]
mod tests {
    use vivace_protocol::vivace::SearchJob;

    use super::*;
    use crate::{query, read::tests};

    fn job(query: &str, explain: bool) -> SearchJob {
        SearchJob { query: query.to_owned(), limit: 20, spans_per_span_set: 3, explain, ..SearchJob::default() }
    }

    #[test]
    fn a_search_is_the_same_with_notes_and_they_agree_with_its_own_counts() {
        let block = Arc::new(tests::open_v5());
        let query = "{ resource.service.name = \"cart\" && duration > 1ms }";
        let plain = query::search_block(&block, &query::Share::whole(), &job(query, false)).unwrap();
        let noted = query::search_block(&block, &query::Share::whole(), &job(query, true)).unwrap();
        assert!(plain.profile.is_none() && !plain.traces.is_empty());
        assert_eq!((&noted.traces, &noted.metrics), (&plain.traces, &plain.metrics));
        let profile = noted.profile.unwrap();
        let metrics = plain.metrics.unwrap();
        let bytes: u64 = profile.columns.iter().map(|column| column.bytes).sum();
        assert_eq!((bytes, profile.row_groups_read), (metrics.inspected_bytes, 1));
        assert!(profile.stored_spans >= metrics.inspected_spans && metrics.inspected_spans > 0);
        for column in &profile.columns {
            assert!(column.bytes <= column.stored_bytes && column.requests > 0, "{column:?}");
        }
        let service = profile.columns.iter().find(|column| column.path.ends_with("ServiceName")).unwrap();
        assert!(service.pages > 0);
        assert!(profile.read_nanos > 0);
    }

    #[test]
    fn a_dictionary_without_the_value_rules_the_row_group_out() {
        let block = Arc::new(tests::open_v5());
        let batch =
            query::search_block(&block, &query::Share::whole(), &job("{ resource.service.name = \"nowhere\" }", true))
                .unwrap();
        let profile = batch.profile.unwrap();
        assert_eq!((profile.row_groups_read, profile.row_groups_by_predicate), (0, 1));
        assert!(profile.columns.iter().all(|column| column.pages == 0));
    }

    #[test]
    fn a_window_elsewhere_rules_the_row_group_out_by_time() {
        let block = Arc::new(tests::open_v5());
        let job = SearchJob { start_unix_nano: 1, end_unix_nano: 2, ..job("{ }", true) };
        let profile = query::search_block(&block, &query::Share::whole(), &job).unwrap().profile.unwrap();
        assert_eq!((profile.row_groups_read, profile.row_groups_by_time), (0, 1));
    }

    #[test]
    fn notes_of_several_blocks_add_up_by_column() {
        let column =
            |path: &str, bytes| ProfileColumn { path: path.to_owned(), bytes, requests: 1, ..Default::default() };
        let mut sum = Profile { columns: vec![column("b", 1)], row_groups_read: 1, ..Profile::default() };
        let other = Profile { columns: vec![column("a", 5), column("b", 2)], row_groups_read: 2, ..Profile::default() };
        add(&mut sum, other);
        let told: Vec<_> = sum.columns.iter().map(|c| (c.path.as_str(), c.bytes, c.requests)).collect();
        assert_eq!(told, [("a", 5, 1), ("b", 3, 2)]);
        assert_eq!(sum.row_groups_read, 3);
    }
}
