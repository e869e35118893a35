//! What listens, and what does not start.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use vivace_log::{Budget, LogId, MemoryLog, Offset, Progress};
use vivace_protocol::otlp::collector::trace_service_client::TraceServiceClient;
use vivace_runtime::config::{Presence, TlsClientConfig};
use vivace_runtime::metrics::Registry;
use vivace_runtime::tls::ClientTls;
use vivace_runtime::{Dial, Network, Placement, Supervisor, SystemClock};

use super::super::{Distributor, address, network};
use super::harness::{LONG, Setup, good};
use crate::config::ReceiverTlsConfig;

#[actix_rt::test]
async fn a_port_in_use_names_the_key_and_leaves_nothing_behind() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let setup = Setup::new().with(|setup| setup.http.endpoint = taken.local_addr().unwrap().to_string());
    let log = MemoryLog::new(LogId::from_random([1; 16]), Budget::new(1000, LONG));
    let root = Supervisor::root("root", Arc::new(SystemClock), Placement::Here);
    let wiring = setup.wiring(&log, &Progress::new(Offset(0)), &Registry::new());
    let error = Distributor::wire(wiring, &root).unwrap_err().to_string();
    assert!(error.starts_with("distributor.receivers.otlp.protocols.http.endpoint: cannot listen on"), "{error}");
    assert!(root.services().is_empty());

    let setup = Setup::new().with(|setup| setup.grpc.tls = Presence(Some(ReceiverTlsConfig::default())));
    let wiring = setup.wiring(&log, &Progress::new(Offset(0)), &Registry::new());
    let error = Distributor::wire(wiring, &root).unwrap_err().to_string();
    assert_eq!(error, "distributor.receivers.otlp.protocols.grpc.tls.cert_file: is required for TLS");
}

/// An authority's certificate, and one of `127.0.0.1` that it has signed with its key, in files of a folder.
fn certificates(dir: &std::path::Path) -> [String; 3] {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "authority");
    let (authority_key, key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let own = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let own_pem = own.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap().pem();
    let texts = [("ca.pem", authority_pem), ("chain.pem", own_pem), ("key.pem", key.serialize_pem())];
    texts.map(|(name, text)| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    })
}

#[actix_rt::test]
async fn a_receiver_with_tls_serves_who_trusts_it_and_nobody_in_plain_text() {
    let dir = tempfile::tempdir().unwrap();
    let [ca, chain, key] = certificates(dir.path());
    let tls = ReceiverTlsConfig { cert_file: chain, key_file: key, ..ReceiverTlsConfig::default() };
    let harness = Setup::new()
        .with(|setup| {
            setup.grpc.tls = Presence(Some(tls.clone()));
            setup.http.tls = Presence(Some(tls));
        })
        .start()
        .await;
    let trusting = TlsClientConfig { tls_ca_path: ca, ..TlsClientConfig::default() };
    let dial = Dial { tls: Some(ClientTls::open("client", &trusting).unwrap()), ..Dial::default() };
    let mut client = TraceServiceClient::new(dial.channel(&harness.grpc.to_string()).unwrap());
    client.export(good()).await.unwrap();
    assert_eq!(harness.spans_in_log().len(), 3);
    // The HTTP receiver knows nothing of gRPC, but answers under TLS.
    let mut client = TraceServiceClient::new(dial.channel(&harness.http.to_string()).unwrap());
    let error = client.export(good()).await.unwrap_err();
    assert!(error.message().contains("404"), "{error}");
    for address in [harness.grpc, harness.http] {
        let mut plain = TcpStream::connect(address).await.unwrap();
        plain.write_all(b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        // The connection may be reset while the alert is read.
        plain.read_to_end(&mut answer).await.unwrap_or_default();
        assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    }
    assert_eq!(harness.spans_in_log().len(), 3);
    harness.stop().await;
}

#[test]
fn endpoints_are_a_host_and_a_port() {
    let parse = |endpoint| address("k".into(), endpoint, Network::Tcp).map(|listen| (listen.host, listen.port));
    assert_eq!(parse("[::]:4317").unwrap(), ("[::]".into(), 4317));
    assert_eq!(parse(":0").unwrap(), (String::new(), 0));
    assert_eq!(parse("4317").unwrap_err().to_string(), "k: `4317` is not a host and a port");
    assert!(parse("a:b").is_err());
    assert!(network("k", "unix").is_err());
}
