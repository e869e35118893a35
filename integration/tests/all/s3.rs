//! Blocks behind the S3 protocol, on a server that is not ours (moto).

mod block_builder;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use tempfile::TempDir;
use uuid::Uuid;
use vivace_integration::http;
use vivace_integration::ledger::{self, Outcome, hex};
use vivace_integration::load::{Template, trace_id};
use vivace_integration::process::{Node, Setup, binary};
use vivace_integration::s3::{S3Server, program};
use vivace_integration::skip::skip;
use vivace_runtime::config::{S3Config, Secret};
use vivace_storage::config::TraceConfig;
use vivace_storage::{
    Backend, BlockKey, BlockMeta, BlockOpener, LocalBlock, OpenBlock, Place, StoreEnvironment, find_trace, rows,
};

use crate::crash::{SMALL_BLOCKS, SPANS, now_ns};

const BUCKET: &str = "blocks";

fn server() -> Option<S3Server> {
    let Some(program) = program() else {
        skip("no S3 server (PyPI: moto with Flask, in .venv, or VIVACE_MOTO names moto_server)");
        return None;
    };
    Some(S3Server::start(&program, &[BUCKET]).unwrap())
}

fn config(server: &S3Server, prefix: &str) -> TraceConfig {
    TraceConfig {
        backend: "s3".into(),
        s3: S3Config {
            bucket: BUCKET.into(),
            prefix: prefix.into(),
            endpoint: server.addr.to_string(),
            insecure: true,
            access_key: "test".into(),
            secret_key: Secret::new("test"),
            ..S3Config::default()
        },
        ..TraceConfig::default()
    }
}

fn open(config: &TraceConfig) -> Backend {
    Backend::open(config, &StoreEnvironment::default()).unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// The folder of a block that real Tempo wrote.
fn block_of_tempo() -> PathBuf {
    let id = "ecbeb5d1-3e1a-42cb-8100-087b5302bd41";
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../storage/tests/fixtures/vparquet5/single-tenant").join(id)
}

#[test]
fn a_block_is_read_from_the_bucket_like_from_a_local_file() {
    let Some(server) = server() else { return };
    let runtime = runtime();
    let folder = block_of_tempo();
    let meta = BlockMeta::from_json(&std::fs::read(folder.join("meta.json")).unwrap()).unwrap();
    let key = BlockKey::new("single-tenant", meta.block_id);
    let backend = runtime.block_on(async {
        let backend = open(&config(&server, "some/prefix"));
        backend.check().await.unwrap();
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            backend.put(Place::Block(&key, &name), std::fs::read(&path).unwrap().into()).await.unwrap();
        }
        assert_eq!(backend.list_tenants().await.unwrap(), ["single-tenant"]);
        assert_eq!(backend.list_blocks("single-tenant").await.unwrap().live, [meta.block_id]);
        assert_eq!(backend.read_meta(&key).await.unwrap(), meta);
        backend
    });
    let stored = BlockOpener::new(backend.clone(), runtime.handle().clone()).open(&meta).unwrap();
    let local = OpenBlock::open(meta, Arc::new(LocalBlock::open(folder).unwrap())).unwrap();
    let traces: Vec<_> = rows(&local).collect::<Result<_, _>>().unwrap();
    assert_eq!(rows(&stored).collect::<Result<Vec<_>, _>>().unwrap(), traces);
    for (id, trace) in traces.iter().step_by(17) {
        assert_eq!(find_trace(&stored, *id).unwrap().as_ref(), Some(trace));
    }
    runtime.block_on(async {
        backend.mark_compacted(&key).await.unwrap();
        assert_eq!(backend.list_blocks("single-tenant").await.unwrap().compacted.len(), 1);
        backend.delete_block(&key).await.unwrap();
        assert_eq!(backend.list_blocks("single-tenant").await.unwrap().compacted.len(), 0);
    });
}

#[test]
fn uploads_of_many_parts_arrive_whole() {
    let Some(server) = server() else { return };
    runtime().block_on(async {
        let backend = open(&config(&server, ""));
        let place = Place::Root("large");
        let mut upload = backend.upload(place).await.unwrap();
        let mut expected = Vec::new();
        for n in 0..13_u8 {
            let part = vec![n; 1_000_003];
            expected.extend_from_slice(&part);
            upload.write(part.into()).await.unwrap();
        }
        assert_eq!(upload.finish().await.unwrap(), 13 * 1_000_003);
        assert!(backend.get(place).await.unwrap() == expected);
        let ranges = [0..3, 5 << 20..(5 << 20) + 5, 13_000_000..13_000_039];
        let parts = backend.get_ranges(place, &ranges).await.unwrap();
        for (range, part) in ranges.iter().zip(parts) {
            let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
            assert_eq!(part, expected[range]);
        }
    });
}

#[test]
fn of_many_conditional_creates_exactly_one_wins() {
    let Some(server) = server() else { return };
    runtime().block_on(async {
        let backend = open(&config(&server, "p"));
        for round in 0..10 {
            let name = format!("commit-{round}");
            let create = |n: u8| {
                let (backend, name) = (backend.clone(), name.clone());
                async move { backend.create(Place::Root(&name), Bytes::from(vec![n])).await.unwrap() }
            };
            let won = futures::future::join_all((0..6).map(create)).await;
            assert_eq!(won.iter().filter(|won| **won).count(), 1, "{won:?}");
            let winner = u8::try_from(won.iter().position(|won| *won).unwrap()).unwrap();
            assert_eq!(backend.get(Place::Root(&name)).await.unwrap(), [winner].as_slice());
        }
    });
}

#[test]
fn a_wrong_bucket_or_address_ends_the_start_with_what_to_do() {
    let Some(server) = server() else { return };
    let folder = TempDir::new().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cases = [
        (server.environment("no-such-bucket", ""), "create the bucket"),
        (
            S3Server::environment(&server, BUCKET, "")
                .into_iter()
                .map(|(name, value)| match name.as_str() {
                    "VIVACE_STORAGE__TRACE__S3__ENDPOINT" => (name, nobody.to_string()),
                    _ => (name, value),
                })
                .collect(),
            "can be reached from here",
        ),
    ];
    for (environment, remedy) in cases {
        let setup = Setup { env: environment, ..Setup::new(folder.path()) };
        let node = setup.spawn().unwrap();
        let line = node.wait_log(|line| line.contains("level=error")).unwrap();
        assert!(line.contains("storage.trace.s3") && line.contains(remedy), "{line}");
        assert!(!line.contains("AWS_SECRET"), "{line}");
    }
}

#[test]
fn a_node_keeps_its_blocks_in_a_bucket_and_finds_every_trace_after_its_disk_is_gone() {
    let Some(server) = server() else { return };
    let folder = TempDir::new().unwrap();
    let environment = server.environment(BUCKET, "traces");
    let setup = Setup { env: environment.clone(), ..Setup::new(folder.path()).yaml(SMALL_BLOCKS) };
    let node = setup.start().unwrap();
    let addr = node.addr("otlp_http").unwrap();
    let seed = 4711;
    let (mut template, mut connection) = (Template::new(seed, SPANS), None);
    for sequence in 0..60 {
        let body = template.fill(seed, sequence, now_ns());
        assert_eq!(ledger::send(&mut connection, addr, body), Outcome::Acknowledged, "{sequence}");
    }
    let (status, _, log) = node.stop().unwrap();
    assert!(status.success());
    Node::check_no_error(&log).unwrap();
    // Everything that was acknowledged is in the bucket now; the disk may go.
    std::fs::remove_dir_all(folder.path().join("data")).unwrap();
    let node = setup.start().unwrap();
    let http = node.addr("http").unwrap();
    for sequence in 0..60 {
        let path = format!("/api/traces/{}", hex(&trace_id(seed, sequence, 0)));
        let answer = http::get(http, &path).unwrap();
        assert_eq!(answer.status, 200, "{sequence}: {}", answer.text());
    }
    let answer = http::get(http, "/api/search?q=%7B%7D&limit=200").unwrap();
    let found = answer.json().unwrap()["traces"].as_array().unwrap().len();
    assert!(found >= 60, "{found} traces are found");
    let (status, _, log) = node.stop().unwrap();
    assert!(status.success());
    Node::check_no_error(&log).unwrap();
    let listed = Command::new(binary().unwrap())
        .args(["blocks", "list", &format!("-config.file={}", folder.path().join("vivace.yaml").display())])
        .envs(environment)
        .output()
        .unwrap();
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    assert!(String::from_utf8_lossy(&listed.stdout).contains("single-tenant "), "{listed:?}");
}

/// There is no bucket: that is an answer of the server, behind the handshake.
#[test]
fn under_tls_the_server_is_verified_by_the_authority_that_is_named() {
    let Some(program) = program() else {
        return skip("no S3 server (PyPI: moto with Flask, in .venv, or VIVACE_MOTO names moto_server)");
    };
    let folder = TempDir::new().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (authority, key) =
        (file("ca.pem", certified.cert.pem()), file("key.pem", certified.signing_key.serialize_pem()));
    let server = S3Server::start_tls(&program, &authority, &key).unwrap();
    runtime().block_on(async {
        let mut trusting = config(&server, "");
        trusting.s3.insecure = false;
        trusting.s3.retry_max_attempts = 1;
        let suspicious = trusting.clone();
        trusting.s3.tls_ca_path = authority.to_string_lossy().into_owned();
        let text = |error: vivace_storage::BackendError| vivace_runtime::Failure::from(error).to_string();
        let answer = text(open(&trusting).check().await.unwrap_err());
        assert!(answer.contains("create the bucket"), "{answer}");
        let refused = text(open(&suspicious).check().await.unwrap_err());
        assert!(refused.contains("TLS handshake") && !refused.contains("create the bucket"), "{refused}");
        let mut careless = suspicious;
        careless.s3.tls_insecure_skip_verify = true;
        assert!(text(open(&careless).check().await.unwrap_err()).contains("create the bucket"));
    });
}

#[test]
fn names_of_objects_need_no_escape() {
    let Some(server) = server() else { return };
    runtime().block_on(async {
        let backend = open(&config(&server, ""));
        let key = BlockKey::new("te-nant_1.(x)*'!", Uuid::from_u128(7));
        backend.put(Place::Block(&key, "data.parquet"), Bytes::from_static(b"x")).await.unwrap();
        assert_eq!(backend.list_tenants().await.unwrap(), [&*key.tenant]);
        assert_eq!(backend.list_blocks(&key.tenant).await.unwrap().incomplete.len(), 1);
        backend.delete_block(&key).await.unwrap();
        assert!(backend.list_tenants().await.unwrap().is_empty());
    });
}
