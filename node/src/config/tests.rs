//! Loading as a whole: layers, errors, notices, samples.

use vivace_runtime::config::GoDuration;

use super::{load::load_text, *};

fn line(arguments: &[&str]) -> CommandLine {
    parse_flags(arguments.iter().map(|argument| (*argument).to_owned())).unwrap()
}

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn file(text: &str) -> Loaded {
    load_text(&line(&[]), &Environment::default(), Some(text)).unwrap()
}

fn problems(text: &str) -> Vec<String> {
    match load_text(&line(&["-config.file=tempo.yaml"]), &Environment::default(), Some(text)) {
        Err(LoadError::Parse { problems, origin }) => {
            assert_eq!(origin, "configFile tempo.yaml");
            problems.iter().map(ToString::to_string).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_a_file_the_defaults_apply() {
    let loaded = load(&line(&[]), &Environment::default()).unwrap();
    let mut expected = Config::default();
    target::force(Target::All, &mut expected);
    assert_eq!(*loaded.config, expected);
    assert_eq!((loaded.notices, loaded.warnings), (vec![], vec![]));
}

#[test]
fn later_layers_win_and_are_remembered_as_source() {
    let text = "server:\n  http_listen_port: 1\n  grpc_listen_port: 2\n  log_level: debug\n";
    let environment = environment(&[
        ("VIVACE_SERVER__GRPC_LISTEN_PORT", "3"),
        ("VIVACE_SERVER__LOG_LEVEL", "warn"),
        ("VIVACE_STORAGE__TRACE__S3__SECRET_KEY", "123"),
        ("VIVACE_SERVICE_HOST", "10.0.0.1"),
        ("VIVACE_SERVER_PORT", "tcp://10.0.0.1:3200"),
        ("PATH", "/bin"),
    ]);
    let loaded = load_text(&line(&["-log.level=error"]), &environment, Some(text)).unwrap();
    let server = &loaded.config.server;
    assert_eq!((server.http_listen_port, server.grpc_listen_port, server.log_level.as_str()), (1, 3, "error"));
    assert_eq!(loaded.config.storage.trace.s3.secret_key.expose(), "123");
    assert_eq!(loaded.sources["server.http_listen_port"].to_string(), "file, line 2");
    assert_eq!(
        loaded.sources["server.grpc_listen_port"].to_string(),
        "environment variable VIVACE_SERVER__GRPC_LISTEN_PORT"
    );
    assert_eq!(loaded.sources["server.log_level"].to_string(), "flag -log.level");
}

#[test]
fn variables_reach_receivers_and_other_sections_that_may_be_absent() {
    let endpoint = "VIVACE_DISTRIBUTOR__RECEIVERS__OTLP__PROTOCOLS__GRPC__ENDPOINT";
    let inet6 = "VIVACE_LIVE_STORE__RING__ENABLE_INET6";
    let set = environment(&[(endpoint, "[::]:4317"), (inet6, "true")]);
    let text =
        "distributor:\n  receivers:\n    otlp:\n      protocols:\n        http:\n          endpoint: 0.0.0.0:4318\n";
    let loaded = load_text(&line(&[]), &set, Some(text)).unwrap();
    let config = serde_json::to_value(&loaded.config).unwrap();
    let protocols = config.pointer("/distributor/receivers/otlp/protocols").unwrap();
    assert_eq!(protocols.pointer("/grpc/endpoint").unwrap(), "[::]:4317");
    assert_eq!(protocols.pointer("/http/endpoint").unwrap(), "0.0.0.0:4318", "what the file has stays");
    assert_eq!(loaded.config.live_store.ring.enable_inet6, Some(true));

    let wrong = environment(&[("VIVACE_DISTRIBUTOR__RECEIVERS__OTLP__PROTOCOLS__GRPC__ENDPIONT", "[::]:4317")]);
    let error = load(&line(&[]), &wrong).unwrap_err().to_string();
    assert!(error.contains("did you mean `distributor.receivers.otlp.protocols.grpc.endpoint`?"), "{error}");
}

#[test]
fn variables_that_fit_no_key_are_named() {
    let environment =
        environment(&[("VIVACE_SERVER__HTTP_LISTEN_PROT", "1"), ("VIVACE_SERVER__HTTP_LISTEN_PORT", "x")]);
    let error = load(&line(&[]), &environment).unwrap_err().to_string();
    assert_eq!(
        error,
        "failed parsing config: failed to parse the environment:\n  \
         environment variable VIVACE_SERVER__HTTP_LISTEN_PORT: expected int, found `x`\n  \
         environment variable VIVACE_SERVER__HTTP_LISTEN_PROT: there is no key `server.http_listen_prot`; did you mean \
         `server.http_listen_port`?"
    );
}

#[test]
fn all_unknown_keys_are_listed_with_place_path_and_suggestion() {
    let text = "\
distributer: {}
storage:
  trace:
    blok: {}
    block:
      version: vParquet5
      v2_encoding: zstd
backend: local
ingester:
  max_block_bytes: 1
x-anchors: 1
";
    assert_eq!(
        problems(text),
        [
            "line 1 column 1: distributer: unknown key; did you mean `distributor`?",
            "line 4 column 5: storage.trace.blok: unknown key; did you mean `block`?",
            "line 7 column 7: storage.trace.block.v2_encoding: unknown key: it was removed with the block format that it \
             belonged to",
            "line 8 column 1: backend: unknown key; it exists as `storage.trace.backend`",
            "line 9 column 1: ingester: unknown key: it was removed in Tempo 3.0; recent traces are kept by `live_store`",
        ]
        .map(str::to_owned)
        .into_iter()
        .chain(problems(text).into_iter().skip(5))
        .collect::<Vec<_>>()
    );
    assert_eq!(problems(text).len(), 6);
}

#[test]
fn wrong_types_are_listed_with_their_place() {
    let text = "\
server:
  http_listen_port: abc
  grpc_listen_port: 70000
  http_listen_conn_limit: \"5\"
  graceful_shutdown_timeout: 1d
  log_level: [a]
multitenancy_enabled: maybe
memberlist:
  join_members: {a: b}
metrics_generator:
  ring_mode: partitions
storage: local
";
    assert_eq!(
        problems(text),
        [
            "line 2 column 21: server.http_listen_port: expected int, found `abc`",
            "line 3 column 21: server.grpc_listen_port: out of range, allowed is 0 to 65535",
            "line 4 column 27: server.http_listen_conn_limit: expected int, found the string \"5\"",
            "line 5 column 30: server.graceful_shutdown_timeout: unknown unit `d` in duration `1d` (units: ns, us, ms, s, m, h)",
            "line 6 column 14: server.log_level: expected string, found a list",
            "line 7 column 23: multitenancy_enabled: expected bool, found `maybe`",
            "line 9 column 17: memberlist.join_members: expected a list of string, found a section",
            "line 11 column 14: metrics_generator.ring_mode: expected one of `partition`, `generator`, found `partitions`; \
             did you mean `partition`?",
            "line 12 column 10: storage: expected a section with keys, found `local`",
        ]
    );
}

#[test]
fn a_key_that_stands_twice_is_refused_with_its_place() {
    let found = problems("server:\n  http_listen_port: 1\n  http_listen_port: 2\n");
    assert_eq!(found.len(), 1);
    assert!(found[0].starts_with("line 3 column 3: duplicate"), "{found:?}");
    assert!(found[0].contains("http_listen_port"), "{found:?}");
}

#[test]
fn sections_and_keys_without_a_value_keep_their_defaults() {
    for text in ["", "---\n", "null\n", "server:\noverrides: ~\nstorage:\n  trace:\n    wal:\n    block: null\n"] {
        assert_eq!(file(text).config, load(&line(&[]), &Environment::default()).unwrap().config, "{text:?}");
    }
    let loaded = file("server:\n  http_listen_port:\n  grpc_listen_port: 1\n");
    assert_eq!((loaded.config.server.http_listen_port, loaded.config.server.grpc_listen_port), (3200, 1));
}

#[test]
fn scalars_fit_their_keys_as_in_tempo() {
    let loaded = file(
        "live_store:
  max_block_bytes: 200e5
  ring: {instance_zone: 1, instance_id: 1.10}
  commit_interval: 1000000
multitenancy_enabled: on
query_frontend:
  search: {max_result_limit: 1e3, throughput_bytes_slo: 5}
querier:
  frontend_worker:
    grpc_client_config: {initial_stream_window_size: 64KiB}
overrides:
  per_tenant_override_period: 1m
  defaults:
    compaction: {block_retention: 14d}
    forwarders: [a, b]
memberlist:
  join_members: a:1, b:2
  bind_addr: ['::']
  rejoin_seed_nodes: c,d
block_builder:
  assigned_partitions: {builder-0: [0, 1]}
",
    );
    let config = loaded.config;
    assert_eq!(config.live_store.max_block_bytes, 20_000_000);
    assert_eq!(
        (config.live_store.ring.instance_zone.as_str(), config.live_store.ring.instance_id.as_str()),
        ("1", "1.10")
    );
    assert_eq!(config.live_store.commit_interval, GoDuration::millis(1));
    assert!(config.multitenancy());
    assert_eq!(config.query_frontend.search.max_result_limit, 1000);
    assert!((config.query_frontend.search.throughput_bytes_slo - 5.0).abs() < f64::EPSILON);
    assert_eq!(config.querier.frontend_worker.grpc_client_config.initial_stream_window_size.0, 65_536);
    assert_eq!(config.querier.frontend_worker.grpc_client_config.max_send_msg_size, 16_777_216, "its own default");
    assert_eq!(config.overrides.defaults.compaction.block_retention.as_secs(), 14 * 86_400);
    assert_eq!(config.overrides.defaults.ingestion.rate_limit_bytes, 30_000_000, "defaults stay beside what is set");
    assert_eq!(config.memberlist.join_members.0, ["a:1", "b:2"]);
    assert_eq!(config.memberlist.bind_addr.0, ["::"]);
    assert_eq!(&*config.memberlist.rejoin_seed_nodes, ["c", "d"]);
    assert_eq!(config.block_builder.assigned_partitions["builder-0"], [0, 1]);
}

#[test]
fn receivers_are_on_by_their_names() {
    let loaded = file(
        "distributor:\n  receivers:\n    otlp:\n      protocols:\n        grpc:\n        http: {endpoint: '[::]:4318'}\n    \
         zipkin:\n    jaeger: {protocols: {thrift_http: }}\n",
    );
    let otlp = loaded.config.distributor.receivers.otlp();
    assert_eq!(otlp[0].1.protocols.grpc.get().unwrap().endpoint, "localhost:4317");
    assert_eq!(otlp[0].1.protocols.http.get().unwrap().endpoint, "[::]:4318");
    assert_eq!(loaded.notices.len(), 2, "{:?}", loaded.notices);
    assert!(loaded.notices.iter().any(|notice| notice.starts_with("distributor.receivers.zipkin has no effect yet")));
    assert_eq!(
        problems("distributor: {receivers: {otlp: {protocols: {gprc: }}}}\n"),
        ["line 1 column 46: distributor.receivers.otlp.protocols.gprc: unknown key; did you mean `grpc`?"]
    );
}

#[test]
fn keys_without_effect_give_notices_and_do_not_fail() {
    let loaded = file(
        "storage: {trace: {backend: gcs, gcs: {bucket_name: b, endpoint: e}}}\nlive_store: {ring: {kvstore: {store: memberlist}}}\n",
    );
    assert_eq!(loaded.warnings, []);
    assert_eq!(
        loaded.notices,
        [
            "storage.trace.gcs.bucket_name, storage.trace.gcs.endpoint have no effect yet: only the backends local and s3 are there"
        ]
    );
    assert_eq!(loaded.config.live_store.ring.kvstore.store, "inmemory", "forced");
    assert_eq!(loaded.sources["live_store.ring.kvstore.store"], Source::Target);
    let other = load_text(&line(&["-target=querier"]), &Environment::default(), Some("")).unwrap();
    assert_eq!(other.config.live_store.ring.kvstore.store, "memberlist");
}

#[test]
fn the_flat_form_of_overrides_needs_permission_and_warns() {
    let text =
        "overrides:\n  ingestion_rate_limit_bytes: 5\n  max_bytes_per_trace: 6\n  metrics_generator_processors: [a]\n";
    let refused = problems(text);
    assert!(refused[0].contains("the flat form of older versions is not accepted"), "{refused:?}");
    let allowed = load_text(&line(&["-config.enable-legacy-overrides"]), &Environment::default(), Some(text)).unwrap();
    let defaults = &allowed.config.overrides.defaults;
    assert_eq!(defaults.ingestion.rate_limit_bytes, 5);
    assert_eq!(defaults.global.max_bytes_per_trace, 6);
    assert_eq!(defaults.metrics_generator.processors, ["a"]);
    assert_eq!(allowed.warnings.len(), 1);
}

#[test]
fn variables_in_the_file_are_expanded_only_when_asked() {
    let text = "server:\n  http_listen_port: ${PORT:-3201}\nhttp_api_prefix: /${NAME}\n";
    let environment = environment(&[("NAME", "tempo")]);
    let loaded = load_text(&line(&["-config.expand-env=true"]), &environment, Some(text)).unwrap();
    assert_eq!((loaded.config.server.http_listen_port, loaded.config.http_api_prefix.as_str()), (3201, "/tempo"));
    let literal = load_text(&line(&[]), &environment, Some("http_api_prefix: /${NAME}\n")).unwrap();
    assert_eq!(literal.config.http_api_prefix, "/${NAME}");
    let error = load_text(&line(&["-config.expand-env", "-config.file=f"]), &environment, Some("${A-b}")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "failed parsing config: failed to expand env vars from configFile f: missing closing brace"
    );
}

#[test]
fn impossible_values_and_files_say_so() {
    let message = |arguments: &[&str], text: &str| {
        load_text(&line(arguments), &Environment::default(), Some(text)).unwrap_err().to_string()
    };
    assert!(message(&[], "server: {log_level: loud}").starts_with("invalid log level"));
    assert!(message(&["-target=quierer"], "").ends_with("quierer (did you mean querier?)"));
    assert!(message(&[], "http_api_prefix: tempo").contains("must start with `/`"));
    let error = load(&line(&["-config.file=/does/not/exist.yaml"]), &Environment::default()).unwrap_err().to_string();
    assert!(error.starts_with("failed parsing config: failed to read configFile /does/not/exist.yaml: "), "{error}");
    assert!(problems("a: [1\n")[0].starts_with("line "), "{:?}", problems("a: [1\n"));
}

#[test]
fn what_is_printed_reads_back_as_the_same() {
    let text = "storage: {trace: {backend: local, local: {path: /x}}}\ndistributor: {receivers: {otlp/a: {protocols: {grpc: }}, zipkin: }}\n\
                cache: {caches: [{roles: [bloom], redis: {endpoint: 'a:1'}}]}\nserver: {http_listen_address: '::'}\n\
                overrides: {defaults: {storage: {parquet_dedicated_columns: [{scope: span, name: a, type: int}]}}}\n";
    let loaded = file(text);
    for mode in [Mode::Full, Mode::Diff] {
        let printed = render(&loaded.config, mode);
        assert_eq!(file(&printed).config, loaded.config, "{mode:?}\n{printed}");
    }
    assert_eq!(file(&render(&Config::default(), Mode::Defaults)).config, file("").config);
}

#[test]
fn samples_are_valid_and_free_of_notices_and_warnings() {
    let text = include_str!("../../../configs/monolithic.yaml");
    let loaded = file(text);
    assert_eq!(loaded.target, Target::All);
    assert_eq!(loaded.warnings, []);
    let broken: Vec<_> = loaded.config.validate(loaded.target).iter().map(ToString::to_string).collect();
    assert_eq!(broken, Vec::<String>::new());
    assert_eq!(loaded.config.storage.trace.local.path, "./data/blocks");
    let (report, good) = report(&loaded);
    assert!(good, "{report}");
    assert!(report.contains("The configuration is good for target all."), "{report}");
}

/// What `-config.verify` and a start check, and that nothing in the file is without effect.
fn is_good(name: &str, loaded: &Loaded) {
    let broken: Vec<_> = loaded.config.validate(loaded.target).iter().map(ToString::to_string).collect();
    assert_eq!(broken, Vec::<String>::new(), "{name}");
    assert_eq!((&loaded.warnings, &loaded.notices), (&vec![], &vec![]), "{name}");
}

#[test]
fn the_file_of_each_role_is_good_and_names_its_role() {
    let files = [
        ("distributor", include_str!("../../../configs/distributor.yaml")),
        ("live-store", include_str!("../../../configs/live-store.yaml")),
        ("block-builder", include_str!("../../../configs/block-builder.yaml")),
        ("querier", include_str!("../../../configs/querier.yaml")),
        ("query-frontend", include_str!("../../../configs/query-frontend.yaml")),
    ];
    let mut buckets = Vec::new();
    for (role, text) in files {
        let loaded = file(text);
        assert_eq!(loaded.target.to_string(), role);
        is_good(role, &loaded);
        buckets.push(loaded.config.storage.trace.local.path);
    }
    buckets.dedup();
    assert_eq!(buckets, ["./data/blocks"], "all of them share one bucket");
}

#[test]
fn what_gossip_and_rings_cannot_use_is_named_before_a_start() {
    let of = |target: &str, text: &str| {
        let base = "ingest: { kafka: { topic: t } }\nstorage: { trace: { backend: local, local: { path: /b } } }\n\
                    querier: { frontend_worker: { frontend_address: 'a:1' } }\n";
        let text = format!("{base}{text}");
        let loaded = load_text(&line(&["-target", target]), &Environment::default(), Some(&text)).unwrap();
        loaded.config.validate(loaded.target).iter().map(chain).collect::<Vec<_>>()
    };
    let cases = [
        ("memberlist: { join_members: ['foo+bar:1'] }", "memberlist.join_members: invalid lookup scheme \"foo\""),
        ("memberlist: { bind_addr: [eth0] }", "memberlist.bind_addr: \"eth0\" is not an IP address"),
        ("memberlist: { advertise_addr: 'fe80::1' }", "memberlist.advertise_addr: fe80::1 cannot be told"),
        ("memberlist: { advertise_addr: host }", "memberlist.advertise_addr: \"host\" is not an IP address"),
        ("memberlist: { encryption_keys: abc }", "memberlist.encryption_keys: key 1 is not base64"),
        ("live_store: { ring: { kvstore: { store: consul } } }", "live_store.ring.kvstore.store is \"consul\""),
        ("live_store: { ring: { kvstore: { store: inmemory } } }", "live_store.ring.kvstore.store is \"inmemory\""),
        (
            "live_store: { partition_ring: { kvstore: { store: etcd } } }",
            "live_store.partition_ring.kvstore.store is \"etcd\"",
        ),
    ];
    assert_eq!(of("querier", ""), Vec::<String>::new());
    let files = "memberlist: { tls_enabled: true, tls_cert_path: /not/here, tls_key_path: /not/here }";
    assert_eq!(of("querier", files), Vec::<String>::new(), "files may be on another machine");
    for (text, begins) in cases {
        let broken = of("querier", text);
        assert!(broken.len() == 1 && broken[0].starts_with(begins), "{text}: {broken:?}");
        assert_eq!(of("query-frontend", text), Vec::<String>::new(), "{text}: it takes part in no gossip");
    }
}

#[test]
fn every_file_in_the_folder_of_samples_is_looked_at_by_a_test() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs");
    let mut found: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".yaml") && name != "kustomization.yaml")
        .collect();
    found.sort();
    let known = ["block-builder", "distributor", "live-store", "monolithic", "querier", "query-frontend"];
    assert_eq!(found, known.map(|name| format!("{name}.yaml")));
}

#[test]
fn one_file_serves_every_target() {
    let text = "
stream_over_http_enabled: true
memberlist: { join_members: ['dns+gossip-ring.ns.svc.cluster.local:7946'] }
ingest: { kafka: { address: 'kafka:9092', topic: tempo, auto_create_topic_default_partitions: 2 } }
live_store: { ring: { instance_zone: zone-a }, readiness_target_lag: 5s }
block_builder: { partitions_per_instance: 1 }
querier: { frontend_worker: { frontend_address: 'query-frontend:9095' } }
backend_worker: { backend_scheduler_addr: 'backend-scheduler:9095', ring: { kvstore: { store: memberlist } } }
storage: { trace: { backend: s3, s3: { bucket: tempo, endpoint: 'minio:9000', insecure: true, access_key: x, secret_key: y } } }
";
    for name in ["distributor", "live-store", "block-builder", "querier", "query-frontend", "backend-worker"] {
        let loaded = load_text(&line(&["-target", name]), &Environment::default(), Some(text)).unwrap();
        let broken: Vec<_> = loaded.config.validate(loaded.target).iter().map(ToString::to_string).collect();
        assert_eq!(broken, Vec::<String>::new(), "{name}");
        assert_eq!(loaded.warnings, [], "{name}");
    }
}

/// Key, default: from the reference of Tempo 3, where ours does not differ on purpose.
const DEFAULTS: &[(&str, &str)] = &include!("tests/defaults.in");

#[test]
fn defaults_are_those_of_tempo() {
    let tree = render::tree(&Config::default());
    for (key, expected) in DEFAULTS {
        let found = match render::at(&tree, key) {
            Some(serde_json::Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => "absent".into(),
        };
        assert_eq!(found, *expected, "{key}");
    }
}

#[test]
fn the_environment_of_a_container_is_no_configuration() {
    let environment =
        environment(&[("VIVACE_TARGET", "querier"), ("VIVACE_SERVER", "x"), ("VIVACE_PORT", "tcp://1:2")]);
    assert_eq!(load(&line(&[]), &environment).unwrap().target, Target::Querier);
}
