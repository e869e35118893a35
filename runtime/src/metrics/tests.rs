use super::*;

#[test]
fn names_are_emitted_exactly_as_given() {
    let registry = Registry::new();
    let accepted = registry.counters("tempo_receiver_accepted_spans", "Spans taken.", ["receiver", "transport"]);
    accepted.with(["otlp", "grpc"]).add(3);
    accepted.with(["otlp", "ht\"tp\\\n"]).inc();
    registry.gauge("a_gauge", "Line\nbreak.").set(-1.5);
    assert_eq!(
        registry.render(),
        "# HELP a_gauge Line\\nbreak.\n# TYPE a_gauge gauge\na_gauge -1.5\n\
         # HELP tempo_receiver_accepted_spans Spans taken.\n# TYPE tempo_receiver_accepted_spans counter\n\
         tempo_receiver_accepted_spans{receiver=\"otlp\",transport=\"grpc\"} 3\n\
         tempo_receiver_accepted_spans{receiver=\"otlp\",transport=\"ht\\\"tp\\\\\\n\"} 1\n"
    );
}

#[test]
fn histograms_are_cumulative_and_bounds_belong_to_their_bucket() {
    let registry = Registry::new();
    let seconds = registry.histograms("h", "H.", ["op"], &Buckets::new([1.0, 0.5]));
    for value in [0.5, 0.7, 9.0] {
        seconds.with(["x"]).observe(value);
    }
    let text = registry.render();
    let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert_eq!(
        samples,
        [
            "h_bucket{op=\"x\",le=\"0.5\"} 1",
            "h_bucket{op=\"x\",le=\"1\"} 2",
            "h_bucket{op=\"x\",le=\"+Inf\"} 3",
            "h_sum{op=\"x\"} 10.2",
            "h_count{op=\"x\"} 3"
        ]
    );
    assert_eq!(Buckets::exponential(2.0, 2.0, 3), Buckets::new([2.0, 4.0, 8.0]));
}

#[test]
fn a_name_registered_twice_is_one_family() {
    let registry = Registry::new();
    registry.counter("c", "C.").inc();
    registry.counter("c", "C.").inc();
    assert!(registry.render().ends_with("c 2\n"));
    registry.gauge("c", "Not this.").set(9.0);
    assert!(registry.render().ends_with("c 2\n"));
    assert_eq!(registry.names(), ["c counter"]);
}

#[test]
fn counters_take_fractions_beside_whole_numbers() {
    let counter = Counter::default();
    counter.add(2);
    counter.add_f64(0.25);
    counter.add_f64(-7.0);
    assert!((counter.value() - 2.25).abs() < f64::EPSILON);
}

#[test]
fn removed_series_are_not_shown() {
    let registry = Registry::new();
    let tenants = registry.gauges("g", "G.", ["tenant"]);
    tenants.with(["a"]).set(1.0);
    tenants.with(["b"]).set(2.0);
    tenants.remove(["a"]);
    assert!(!registry.render().contains("\"a\"") && registry.render().contains("\"b\""));
    tenants.clear();
    assert_eq!(registry.render(), "");
}

#[test]
fn collectors_write_at_every_scrape() {
    let registry = Registry::new();
    registry.collector(|text| {
        text.family("s", "summary", "S.");
        text.sample("s", "", &[], Some(("quantile", 0.5)), 7.0);
        text.sample("s", "_count", &[], None, f64::NAN);
    });
    assert!(registry.render().contains("s{quantile=\"0.5\"} 7\ns_count NaN\n"));
}
