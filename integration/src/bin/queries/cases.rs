//! The kinds of queries.

use vivace_integration::http::encode;
use vivace_integration::{ledger, load};

use crate::options::Options;

/// Path and parameters of a query; the number makes each run another one.
type Asked = Box<dyn Fn(&Options, u64) -> String>;

/// One kind of query.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) path: Asked,
}

fn window(options: &Options, n: u64) -> (u64, u64) {
    (options.end - options.window - n % 30, options.end - n % 7)
}

/// A search over all that there is.
pub(crate) fn everything(options: &Options) -> String {
    let (start, end) = window(options, 0);
    format!("/api/search?q={}&limit=20&start={start}&end={end}", encode("{}"))
}

fn search(query: impl Fn(u64) -> String + 'static) -> Asked {
    Box::new(move |options, n| {
        let (start, end) = window(options, n);
        format!("/api/search?q={}&limit=20&start={start}&end={end}", encode(&query(n)))
    })
}

fn series(query: &'static str) -> Asked {
    Box::new(move |options, n| {
        let (start, end) = window(options, n);
        format!("/api/metrics/query_range?q={}&start={start}&end={end}&step=15s", encode(query))
    })
}

pub(crate) fn all() -> Vec<Case> {
    const SERVICES: [&str; 6] = ["frontend", "checkout", "cart", "payment", "shipping", "catalog"];
    const KINDS: [&str; 3] = ["TimeoutError", "ConnectionRefused", "OutOfStock"];
    let of = |n: u64, len: usize| usize::try_from(n).unwrap_or(0) % len;
    let case = |name, path| Case { name, path };
    vec![
        case("all", search(|_| "{}".to_owned())),
        case("service", search(move |n| format!(r#"{{ resource.service.name = "{}" }}"#, SERVICES[of(n, 6)]))),
        case(
            "status and duration",
            search(|n| format!("{{ span.http.response.status_code >= 500 && duration > {}ms }}", 50 + n % 20)),
        ),
        case(
            "structural",
            search(move |n| {
                format!(
                    r#"{{ resource.service.name = "{}" }} >> {{ resource.service.name = "{}" }}"#,
                    SERVICES[of(n, 6)],
                    SERVICES[of(n / 6 + n + 1, 6)]
                )
            }),
        ),
        case("no match", search(|n| format!(r#"{{ span.app.user.id = "nobody-{n}" }}"#))),
        case("count", search(|n| format!("{{ status = error }} | count() > {}", 2 + n % 2))),
        case(
            "name regex, avg",
            search(|n| format!(r#"{{ name =~ "GET /api/(cart|orders).*" }} | avg(duration) > {}ms"#, 40 + n % 20)),
        ),
        case("substring regex", search(|n| format!(r#"{{ span.app.user.id =~ ".*-1{:03}.*" }}"#, n % 1000))),
        case(
            "event, select",
            search(move |n| {
                format!(
                    r#"{{ event.exception.type = "{}" }} | select(span.http.route, span.thread.id)"#,
                    KINDS[of(n, 3)]
                )
            }),
        ),
        case("rate by service", series("{} | rate() by (resource.service.name)")),
        case("error rate", series("{ status = error } | rate()")),
        case("quantiles by route", series("{} | quantile_over_time(duration, .5, .9, .99) by (span.http.route)")),
        case("histogram", series("{} | histogram_over_time(duration)")),
        case(
            "tags",
            Box::new(|options, n| {
                let (start, end) = window(options, n);
                format!("/api/v2/search/tags?start={start}&end={end}")
            }),
        ),
        case(
            "values",
            Box::new(|options, n| {
                let (start, end) = window(options, n);
                format!("/api/v2/search/tag/span.http.route/values?start={start}&end={end}")
            }),
        ),
        case(
            "by id",
            Box::new(|options, n| {
                let id =
                    load::trace_id(options.seed, n * 97 % options.requests(), usize::try_from(n % 60).unwrap_or(0));
                format!("/api/traces/{}", ledger::hex(&id))
            }),
        ),
    ]
}
