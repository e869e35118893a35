//! Listeners and channels over real sockets, with certificates made here.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::{ServerConfig, ServerTlsConfig, TlsClientConfig};
use crate::server::{Server, ServerLimits};

const LONG: Duration = Duration::from_secs(60);

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for a name and its key, as PEM.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// Two authorities, and a folder with the files of a listener for `localhost` that the first has signed.
struct World {
    dir: TempDir,
    ours: Authority,
    theirs: Authority,
}

impl World {
    fn new() -> Self {
        let world =
            Self { dir: TempDir::new().unwrap(), ours: Authority::new("ours"), theirs: Authority::new("theirs") };
        world.write("ours.pem", &world.ours.pem);
        world.write("theirs.pem", &world.theirs.pem);
        world.serve_as(&world.ours);
        world
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn serve_as(&self, authority: &Authority) {
        let (chain, key) = authority.sign("localhost");
        self.write("chain.pem", &chain);
        self.write("key.pem", &key);
    }

    fn config(&self) -> ServerTlsConfig {
        ServerTlsConfig {
            cert_file: self.path("chain.pem"),
            key_file: self.path("key.pem"),
            ..ServerTlsConfig::default()
        }
    }

    fn tls(&self, change: impl FnOnce(&mut ServerTlsConfig)) -> Result<Tls, TlsError> {
        let mut config = self.config();
        change(&mut config);
        Ok(Tls::of_server(&ServerConfig::default(), "http_tls_config", &config)?.unwrap())
    }

    /// A client that trusts an authority by the name of its file.
    fn client(&self, trusts: &str, change: impl FnOnce(&mut TlsClientConfig)) -> ClientTls {
        let mut config = TlsClientConfig { tls_ca_path: self.path(trusts), ..TlsClientConfig::default() };
        change(&mut config);
        ClientTls::open("client", &config).unwrap()
    }

    /// The same with a certificate of an authority.
    fn known_client(&self, signer: &Authority) -> ClientTls {
        let (chain, key) = signer.sign("client");
        self.write("client.pem", &chain);
        self.write("client-key.pem", &key);
        self.client("ours.pem", |config| {
            config.tls_cert_path = self.path("client.pem");
            config.tls_key_path = self.path("client-key.pem");
        })
    }
}

struct Listening {
    address: SocketAddr,
    stop: CancellationToken,
    serving: tokio::task::JoinHandle<bool>,
}

impl Listening {
    async fn with(tls: Tls) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, router) = (CancellationToken::new(), Router::new().route("/x", get(|| async { "served" })));
        let until = stop.clone();
        let server = Server::new(ServerLimits::default()).tls(Some(tls));
        let serving = tokio::spawn(async move { server.serve(listener, router, until, LONG).await });
        Self { address, stop, serving }
    }

    async fn get(&self, client: &ClientTls) -> io::Result<String> {
        let stream = TcpStream::connect(self.address).await?;
        let mut stream = client.connect("localhost", stream).await?;
        stream.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    async fn served(&self, client: &ClientTls) -> bool {
        self.get(client).await.is_ok_and(|answer| answer.ends_with("served"))
    }

    async fn end(self) {
        self.stop.cancel();
        assert!(self.serving.await.unwrap());
    }
}

#[tokio::test]
async fn who_trusts_the_authority_is_served_and_others_and_plain_clients_are_not() {
    let world = World::new();
    let listening = Listening::with(world.tls(|_| {}).unwrap()).await;
    assert!(listening.served(&world.client("ours.pem", |_| {})).await);
    let error = listening.get(&world.client("theirs.pem", |_| {})).await.unwrap_err();
    assert!(error.to_string().contains("invalid peer certificate"), "{error}");
    // Another name than the certificate's is refused, unless the client is told which one to expect, or to look away.
    let (stream, client) = (TcpStream::connect(listening.address).await.unwrap(), world.client("ours.pem", |_| {}));
    assert!(client.connect("elsewhere", stream).await.is_err());
    let client = world.client("ours.pem", |config| config.tls_server_name = "localhost".into());
    let stream = TcpStream::connect(listening.address).await.unwrap();
    assert!(client.connect("elsewhere", stream).await.is_ok());
    assert!(listening.served(&world.client("theirs.pem", |config| config.tls_insecure_skip_verify = true)).await);

    let mut plain = TcpStream::connect(listening.address).await.unwrap();
    plain.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The connection may be reset while the alert is read.
    plain.read_to_end(&mut answer).await.unwrap_or_default();
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    listening.end().await;
}

#[tokio::test]
async fn clients_must_have_what_is_asked_of_them() {
    let world = World::new();
    let asks = |auth: &str| {
        let ca = world.path("ours.pem");
        world.tls(|config| {
            config.client_auth_type = auth.into();
            config.client_ca_file = ca;
        })
    };
    let unknown = world.client("ours.pem", |_| {});
    // (asked, served without a certificate, with one of our authority, with one of another)
    let cases = [
        ("RequestClientCert", true, true, true),
        ("RequireAnyClientCert", false, true, true),
        ("VerifyClientCertIfGiven", true, true, false),
        ("RequireAndVerifyClientCert", false, true, false),
    ];
    for (auth, without, ours, theirs) in cases {
        let listening = Listening::with(asks(auth).unwrap()).await;
        assert_eq!(listening.served(&unknown).await, without, "{auth} without");
        assert_eq!(listening.served(&world.known_client(&world.ours)).await, ours, "{auth} ours");
        assert_eq!(listening.served(&world.known_client(&world.theirs)).await, theirs, "{auth} theirs");
        listening.end().await;
    }
    let error = asks("NoClientCert").unwrap_err().to_string();
    assert!(error.starts_with("server.http_tls_config.client_ca_file: has no use unless "), "{error}");
}

#[tokio::test]
async fn changed_files_count_for_new_connections_and_bad_ones_leave_the_last_good() {
    let world = World::new();
    let tls = world.tls(|_| {}).unwrap();
    let listening = Listening::with(tls.clone()).await;
    let old = world.client("ours.pem", |_| {});
    let stream = TcpStream::connect(listening.address).await.unwrap();
    let mut open = old.connect("localhost", stream).await.unwrap();
    assert!(!tls.reload().unwrap(), "nothing has changed");

    world.serve_as(&world.theirs);
    assert!(tls.reload().unwrap());
    assert!(listening.served(&world.client("theirs.pem", |_| {})).await);
    assert!(!listening.served(&old).await);
    open.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    open.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("served"), "a connection from before goes on: {answer}");

    // Half of a change: the key is not the certificate's.
    world.write("key.pem", &world.ours.sign("localhost").1);
    assert!(tls.reload().unwrap_err().text().starts_with("server.http_tls_config cannot be used: "));
    std::fs::remove_file(world.path("chain.pem")).unwrap();
    let error = tls.reload().unwrap_err().text();
    assert!(
        error.starts_with(&format!("server.http_tls_config.cert_file: read {}: ", world.path("chain.pem"))),
        "{error}"
    );
    assert!(listening.served(&world.client("theirs.pem", |_| {})).await, "the last good goes on");
    listening.end().await;
}

#[tokio::test]
async fn files_are_followed_at_their_interval() {
    let world = World::new();
    let mut settings =
        TlsSettings::of_server(&ServerConfig::default(), "http_tls_config", &world.config()).unwrap().unwrap();
    settings.reload = Some(Duration::from_millis(1));
    let listening = Listening::with(Tls::open(settings).unwrap()).await;
    world.serve_as(&world.theirs);
    let client = world.client("theirs.pem", |_| {});
    tokio::time::timeout(LONG, async { while !listening.served(&client).await {} }).await.unwrap();
    listening.end().await;
}

#[tokio::test]
async fn a_peer_that_never_finishes_its_handshake_is_cut_off() {
    let world = World::new();
    let settings =
        TlsSettings::of_server(&ServerConfig::default(), "http_tls_config", &world.config()).unwrap().unwrap();
    let tls = Tls::open_with(settings, Duration::from_millis(10), 1).unwrap();
    let (silent, ours) = tokio::io::duplex(1024);
    assert_eq!(tls.accept(ours).await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    drop(silent);
}

#[tokio::test]
async fn handshakes_above_the_bound_wait_for_their_turn() {
    let world = World::new();
    let settings =
        TlsSettings::of_server(&ServerConfig::default(), "http_tls_config", &world.config()).unwrap().unwrap();
    let tls = Tls::open_with(settings, LONG, 1).unwrap();
    let (_silent, ours) = tokio::io::duplex(1024);
    let mut first = Box::pin(tls.accept(ours));
    assert!(futures::poll!(&mut first).is_pending());
    assert_eq!(tls.free_turns(), 0);
    let (theirs, ours) = tokio::io::duplex(1024);
    let client = world.client("ours.pem", |_| {});
    let connecting = tokio::spawn(async move { client.connect("localhost", theirs).await });
    let mut second = Box::pin(tls.accept(ours));
    assert!(futures::poll!(&mut second).is_pending());
    drop(first);
    // Both ends stay open until the other is done.
    let _served = second.await.unwrap();
    let _connected = connecting.await.unwrap().unwrap();
    assert_eq!(tls.free_turns(), 1);
}

#[tokio::test]
async fn the_own_process_can_be_asked_without_knowing_its_authority() {
    let world = World::new();
    let listening = Listening::with(world.tls(|_| {}).unwrap()).await;
    let address = listening.address;
    let ask = move || -> io::Result<String> {
        use std::io::{Read, Write};
        let mut stream = unverified("localhost", std::net::TcpStream::connect(address)?)?;
        stream.write_all(b"GET /x HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = tokio::task::spawn_blocking(ask).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("served"), "{answer}");
    listening.end().await;
}

#[tokio::test]
async fn a_channel_speaks_tls_and_reads_a_renewed_certificate_when_it_connects_again() {
    let world = World::new();
    let ca = world.path("ours.pem");
    let tls = world.tls(|config| {
        config.client_auth_type = "RequireAndVerifyClientCert".into();
        config.client_ca_file = ca;
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stop = CancellationToken::new();
    let until = stop.clone();
    let router = tonic::service::Routes::default().into_axum_router();
    let server = Server::default().tls(Some(tls.unwrap()));
    let serving = tokio::spawn(async move { server.serve(listener, router, until, LONG).await });

    let ask_at = async |client: &ClientTls, address: String, name: Option<&str>| {
        let dial = crate::Dial { tls: Some(client.clone()), ..crate::Dial::default() };
        let channel = dial.channel_to(&address, name).unwrap();
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
        let codec = tonic_prost::ProstCodec::<(), ()>::default();
        grpc.unary(tonic::Request::new(()), "/none/There".parse().unwrap(), codec).await
    };
    let ask = async |client: &ClientTls| ask_at(client, format!("https://localhost:{port}"), None).await;
    // Whoever is let in hears that there is no such method.
    let client = world.known_client(&world.ours);
    // The certificate is for the name that was looked up, not for the address that came of it.
    let named = ask_at(&client, format!("127.0.0.1:{port}"), Some("localhost")).await;
    assert_eq!(named.unwrap_err().code(), tonic::Code::Unimplemented);
    let nameless = ask_at(&client, format!("127.0.0.1:{port}"), None).await;
    assert_ne!(nameless.unwrap_err().code(), tonic::Code::Unimplemented);
    assert_eq!(ask(&client).await.unwrap_err().code(), tonic::Code::Unimplemented);
    let (chain, key) = world.theirs.sign("client");
    world.write("client.pem", &chain);
    world.write("client-key.pem", &key);
    assert_ne!(ask(&client).await.unwrap_err().code(), tonic::Code::Unimplemented, "the renewed one is not known");
    // What cannot be read leaves the last that could, which is still not known.
    world.write("client.pem", "");
    assert_ne!(ask(&client).await.unwrap_err().code(), tonic::Code::Unimplemented);
    stop.cancel();
    assert!(serving.await.unwrap());
}

#[test]
fn an_empty_section_is_plain_text_and_errors_name_their_key_and_file() {
    let world = World::new();
    let server = ServerConfig::default();
    assert!(TlsSettings::of_server(&server, "http_tls_config", &ServerTlsConfig::default()).unwrap().is_none());
    let fails = |change: &dyn Fn(&mut ServerTlsConfig)| world.tls(change).unwrap_err().text();
    let key = "server.http_tls_config";
    let missing = fails(&|config| config.cert_file = "/does/not/exist".into());
    assert!(missing.starts_with(&format!("{key}.cert_file: read /does/not/exist: ")), "{missing}");
    assert_eq!(fails(&|config| config.key_file.clear()), format!("{key}.key_file: is required for TLS"));
    let both = fails(&|config| config.cert = "x".into());
    assert_eq!(both, format!("{key}.cert: cannot be set together with {key}.cert_file"));
    let swapped = fails(&|config| config.cert_file.clone_from(&config.key_file));
    let path = world.path("key.pem");
    assert_eq!(swapped, format!("{key}.cert_file: {path}: there is no certificate in it"));
    let no_key = fails(&|config| config.key_file.clone_from(&config.cert_file));
    assert!(no_key.ends_with("chain.pem: there is no private key in it"), "{no_key}");
    let unknown = fails(&|config| config.client_auth_type = "Maybe".into());
    assert!(unknown.starts_with(&format!("{key}.client_auth_type: there is no `Maybe`")), "{unknown}");
    let no_ca = fails(&|config| config.client_auth_type = "RequireAndVerifyClientCert".into());
    assert_eq!(no_ca, format!("{key}.client_ca_file: is required with client_auth_type: RequireAndVerifyClientCert"));

    let strict = ServerConfig { tls_min_version: "VersionTLS99".into(), ..ServerConfig::default() };
    assert!(TlsSettings::of_server(&strict, "grpc_tls_config", &world.config()).is_err());
    let half = TlsClientConfig { tls_cert_path: world.path("chain.pem"), ..TlsClientConfig::default() };
    let error = ClientTls::open("live_store_client.grpc_client_config", &half).unwrap_err().to_string();
    assert_eq!(error, "live_store_client.grpc_client_config.tls_key_path: is required with tls_cert_path");
}

#[test]
fn inline_texts_do_as_well_as_files() {
    let world = World::new();
    let read = |name: &str| std::fs::read_to_string(Path::new(&world.path(name))).unwrap();
    let config = ServerTlsConfig {
        cert: read("chain.pem"),
        key: crate::config::Secret::new(read("key.pem")),
        client_ca: world.ours.pem.clone(),
        client_auth_type: "RequireAndVerifyClientCert".into(),
        ..ServerTlsConfig::default()
    };
    let tls = Tls::of_server(&ServerConfig::default(), "http_tls_config", &config).unwrap().unwrap();
    assert!(!tls.reload().unwrap());
}
