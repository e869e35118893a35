//! Metrics answers in messages of bounded size: cut between series. Figures stand in each message, the status in the last.

use prost::Message;
use vivace_protocol::tempopb::{InstantSeries, QueryInstantResponse, QueryRangeResponse, TimeSeries};

use crate::api::streaming::Parts;

impl Parts for QueryRangeResponse {
    type Entry = TimeSeries;

    fn take_entries(&mut self) -> Vec<TimeSeries> {
        std::mem::take(&mut self.series)
    }

    fn put(&mut self, entry: TimeSeries) {
        self.series.push(entry);
    }

    fn bytes(entry: &TimeSeries) -> usize {
        entry.encoded_len()
    }

    fn head(&self) -> Self {
        Self { metrics: self.metrics.clone(), ..Self::default() }
    }

    fn close(&mut self, whole: &Self) {
        self.status = whole.status;
        self.message.clone_from(&whole.message);
    }
}

impl Parts for QueryInstantResponse {
    type Entry = InstantSeries;

    fn take_entries(&mut self) -> Vec<InstantSeries> {
        std::mem::take(&mut self.series)
    }

    fn put(&mut self, entry: InstantSeries) {
        self.series.push(entry);
    }

    fn bytes(entry: &InstantSeries) -> usize {
        entry.encoded_len()
    }

    fn head(&self) -> Self {
        Self { metrics: self.metrics.clone(), ..Self::default() }
    }

    fn close(&mut self, whole: &Self) {
        self.status = whole.status;
        self.message.clone_from(&whole.message);
    }
}

#[cfg(test)]
mod tests {
    use vivace_protocol::tempopb::{PartialStatus, Sample, SearchMetrics};

    use super::*;
    use crate::api::streaming::split;

    #[test]
    fn every_message_has_the_figures_and_the_last_the_status() {
        let series = |n: i64| TimeSeries {
            samples: (0..20).map(|at| Sample { value: 1.0, timestamp_ms: n * 1_000_000 + at }).collect(),
            ..TimeSeries::default()
        };
        let whole = QueryRangeResponse {
            series: (1..=9).map(series).collect(),
            metrics: Some(SearchMetrics { inspected_bytes: 7, ..SearchMetrics::default() }),
            status: PartialStatus::Partial.into(),
            message: "incomplete".to_owned(),
        };
        let parts: Vec<QueryRangeResponse> = split(whole.clone(), 1000).into_iter().map(Result::unwrap).collect();
        assert!(parts.len() > 2);
        let (last, rest) = parts.split_last().unwrap();
        assert!(rest.iter().all(|part| part.status == 0 && part.message.is_empty() && part.metrics == whole.metrics));
        assert_eq!((last.status, last.message.as_str()), (whole.status, "incomplete"));
        let joined: Vec<TimeSeries> = parts.into_iter().flat_map(|part| part.series).collect();
        assert_eq!(joined, whole.series);
    }
}
