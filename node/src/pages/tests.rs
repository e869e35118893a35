//! The pages over their router, without a process around them.

use http::Method;
use tower::ServiceExt;
use vivace_runtime::config::Limits;
use vivace_runtime::telemetry::{LogFormat, init_log};
use vivace_runtime::{FakeClock, Placement};

use super::*;
use crate::config::TenantLimits;

async fn ask(router: &Router, method: Method, path: &str) -> (StatusCode, String) {
    let request = http::Request::builder().method(method).uri(path).body(axum::body::Body::empty()).unwrap();
    let response = router.clone().oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

// One test, because a process can set up its log only once.
#[tokio::test]
async fn limits_usage_and_the_log_level_have_their_pages() {
    let clock: Arc<dyn Clock> = Arc::new(FakeClock::default());
    let overrides = Arc::new(Overrides::new(Limits::default(), Vec::new()));
    let file = "overrides: {a: {ingestion: {rate_limit_bytes: 5, burst_size_bytes: 30000000}}}";
    overrides.replace(&TenantLimits::parse(file, &Limits::default(), false).unwrap());
    let pages = Pages {
        root: Supervisor::root("root", Arc::clone(&clock), Placement::Here),
        registry: Registry::new(),
        config: Box::default(),
        stopping: CancellationToken::new(),
        overrides,
        clock,
        log: init_log(LogFormat::Logfmt, "error").unwrap(),
        rules: vec![Box::new(|| None), Box::new(|| Some("nobody is connected".to_owned()))],
        endpoints: Vec::new(),
    };
    let router = pages.router("/tempo");
    let get = async |path: &str| ask(&router, Method::GET, path).await;

    let unready = (StatusCode::SERVICE_UNAVAILABLE, "nobody is connected\n".to_owned());
    assert_eq!(get("/ready").await, unready, "all its parts run, but a rule has a reason");
    let (status, text) = get("/status/runtime_config?mode=diff").await;
    assert_eq!(status, 200);
    assert!(text.starts_with("GET /status/runtime_config\n---\noverrides:\n    a:\n"), "{text}");
    assert!(text.contains("            rate_limit_bytes: 5\n") && !text.contains("burst_size_bytes"), "{text}");
    assert!(get("/status/runtime_config").await.1.contains("burst_size_bytes: 30000000\n"));
    let unknown = "unknown value for mode query parameter: zz\n".to_owned();
    assert_eq!(get("/status/runtime_config?mode=zz").await, (StatusCode::INTERNAL_SERVER_ERROR, unknown.clone()));
    assert_eq!(get("/status/config?mode=zz").await, (StatusCode::INTERNAL_SERVER_ERROR, unknown));
    let all = get("/status?mode=defaults").await.1;
    let sections: Vec<_> = all.lines().filter_map(|line| line.strip_prefix("GET /status/")).collect();
    assert_eq!(sections, ["version", "services", "endpoints", "runtime_config", "config"]);

    assert_eq!(get("/tempo/status/usage-stats").await, (StatusCode::OK, "usage-stats is not enabled\n".to_owned()));
    assert_eq!(get("/status/nothing").await.0, StatusCode::NOT_FOUND);
    assert_eq!(get("/status/overrides").await.0, StatusCode::OK);
    assert!(get("/status/overrides/a").await.1.contains("rate_limit_bytes: 5\n"));

    let level = async || get("/status/log_level").await.1;
    assert_eq!(level().await, "Current log level is error\n");
    let set = async |path: &str| ask(&router, Method::POST, path).await;
    assert_eq!(set("/status/log_level?log_level=warn").await.1, "Log level set to warn\n");
    assert_eq!(level().await, "Current log level is warn\n");
    assert_eq!(set("/status/log_level?log_level=a=b=c").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(set("/status/log_level").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(level().await, "Current log level is warn\n");
}

#[test]
fn paths_are_cleaned_of_empty_parts_and_dots_and_stay_on_this_host() {
    let due = [
        ("//api/echo", Some("/api/echo")),
        ("/api//search/", Some("/api/search/")),
        ("/a/./b/../c", Some("/a/c")),
        ("//evil.example/..//x", Some("/x")),
        ("/../..", Some("/")),
        ("//", Some("/")),
        ("/", None),
        ("/api/echo", None),
        ("/api/echo/", None),
    ];
    for (path, clean) in due {
        assert_eq!(cleaned(path).as_deref(), clean, "{path}");
    }
}
