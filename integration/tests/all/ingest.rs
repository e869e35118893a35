//! Malformed, truncated, oversized and wrongly encoded requests over real sockets: a clear status, and the process lives on.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use vivace_integration::http;
use vivace_integration::load::Template;
use vivace_integration::process::{Node, Setup};

use crate::crash::now_ns;

#[test]
fn broken_requests_are_refused_and_hurt_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let node = Setup::new(dir.path()).start().unwrap();
    let addr = node.addr("otlp_http").unwrap();
    let mut template = Template::new(2, 50);
    let good = template.fill(2, 1, now_ns()).to_vec();
    let kind = ("Content-Type", "application/x-protobuf");
    let post = |headers: &[(&str, &str)], body: &[u8]| {
        let answer = http::request(addr, "POST", "/v1/traces", headers, body).unwrap();
        (answer.status, answer.text())
    };
    assert_eq!(post(&[kind], &good).0, 200);
    assert_eq!(post(&[], &good).0, 415);
    assert_eq!(post(&[kind, ("Content-Encoding", "gzip")], &good).0, 400);
    let (status, text) = post(&[("Content-Type", "application/json"), ("Content-Encoding", "br")], b"{}");
    assert_eq!(status, 400);
    assert!(text.contains("unsupported Content-Encoding: br"), "{text}");
    assert_eq!(http::get(addr, "/v1/traces").unwrap().status, 405);
    assert_eq!(http::request(addr, "POST", "/v1/metrics", &[kind], &good).unwrap().status, 404);
    assert_eq!(post(&[("Content-Type", "application/json")], b"{\"resourceSpans\": [{]}").0, 400);
    let huge = vec![0x0a; 21 << 20];
    assert!(matches!(post(&[kind], &huge).0, 400 | 413));

    let mut rng = StdRng::seed_from_u64(9);
    for _ in 0..300 {
        let mut body = good.clone();
        match rng.random_range(0..3u8) {
            0 => body.truncate(rng.random_range(0..good.len())),
            1 => {
                for _ in 0..rng.random_range(1..20) {
                    let at = rng.random_range(0..body.len());
                    body[at] = rng.random();
                }
            }
            _ => {
                let at = rng.random_range(0..body.len());
                body.insert(at, rng.random());
            }
        }
        let (status, text) = post(&[kind], &body);
        assert!(matches!(status, 200 | 400), "{status}: {text}");
    }
    assert_eq!(post(&[kind], &good).0, 200);
    let (status, _, log) = node.stop().unwrap();
    assert!(status.success());
    assert!(!log.iter().any(|l| l.contains("panic")), "{}", log.join("\n"));
    Node::check_log(&log, &["refuse malformed request"]).unwrap();
}
