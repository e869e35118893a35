//! Results of searches on their way between components: a batch that is too large for one message becomes several.

use prost::Message as _;

use crate::find_trace::BATCH_BYTES;
use crate::vivace::SearchBatch;

impl SearchBatch {
    /// The same in batches of a few MiB, a trace never cut. What is not traces is in the first.
    #[must_use]
    pub fn split(self) -> Vec<Self> {
        self.split_at(BATCH_BYTES)
    }

    fn split_at(mut self, max_bytes: usize) -> Vec<Self> {
        let traces = std::mem::take(&mut self.traces);
        let (mut batches, mut bytes) = (vec![self], 0);
        for trace in traces {
            let size = trace.encoded_len();
            if bytes > 0 && bytes + size > max_bytes {
                batches.push(Self::default());
                bytes = 0;
            }
            bytes += size;
            if let Some(last) = batches.last_mut() {
                last.traces.push(trace);
            }
        }
        batches
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tempopb::{SearchMetrics, TraceSearchMetadata};

    #[test]
    fn large_batches_become_several_with_everything_once() {
        let trace = |n: usize| TraceSearchMetadata { root_trace_name: "n".repeat(n), ..TraceSearchMetadata::default() };
        let metrics = Some(SearchMetrics { inspected_traces: 3, ..SearchMetrics::default() });
        let whole =
            SearchBatch { traces: [400, 500, 200, 5000, 1].map(trace).into(), metrics, ..SearchBatch::default() };
        let split = whole.clone().split_at(1000);
        let sizes: Vec<usize> = split.iter().map(|batch| batch.traces.len()).collect();
        assert_eq!(sizes, [2, 1, 1, 1]);
        assert!(split[0].metrics.is_some() && split[1..].iter().all(|batch| batch.metrics.is_none()));
        let together: Vec<_> = split.into_iter().flat_map(|batch| batch.traces).collect();
        assert_eq!(together, whole.traces);
        assert_eq!(SearchBatch::default().split(), [SearchBatch::default()]);
    }
}
