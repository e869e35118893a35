//! Members with real sockets on this host's loopback.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use vivace_runtime::config::{RingConfig, Secret};
use vivace_runtime::{Clock as _, Compute, SimDisk, SystemClock};

use super::*;
use crate::config::Addresses;
use crate::discovery::{DnsError, Service};
use crate::ring::{Host, RingSettings, Standing, choose_addresses};

const PATIENCE: Duration = Duration::from_secs(10);

struct NoDns;

impl Dns for NoDns {
    fn addresses(&self, host: &str) -> BoxFuture<'static, Result<Vec<IpAddr>, DnsError>> {
        let error = DnsError { name: host.to_owned(), reason: "no such name".to_owned() };
        std::future::ready(Err(error)).boxed()
    }

    fn services(&self, name: &str) -> BoxFuture<'static, Result<Vec<Service>, DnsError>> {
        let error = DnsError { name: name.to_owned(), reason: "no such name".to_owned() };
        std::future::ready(Err(error)).boxed()
    }
}

fn options(name: &str, bind: &str, join: &[String]) -> Options {
    let seed = name.bytes().fold(7, |seed, byte| seed * 31 + u64::from(byte));
    Options {
        config: Config {
            bind_addr: Addresses(vec![bind.to_owned()]),
            bind_port: 0,
            join_members: Addresses(join.to_vec()),
            ..Config::default()
        },
        host_name: name.to_owned(),
        software: "test".to_owned(),
        rings: Arc::new(|identity| Ok(Keeper::new(&identity.name))),
        generations: None,
        dns: Arc::new(NoDns),
        rng: Arc::new(move || Rng::seeded(seed)),
    }
}

struct Member {
    gossip: Gossip,
    root: Supervisor,
}

impl Member {
    fn start(options: Options) -> Self {
        let root = Supervisor::root(options.host_name.clone(), Arc::new(SystemClock), Placement::Here);
        let gossip = add(&root, options, Placement::Here).unwrap();
        root.start();
        Self { gossip, root }
    }

    async fn look(&self) -> Cluster {
        self.gossip.look.ask(Look, PATIENCE).await.unwrap()
    }

    async fn endpoint(&self) -> SocketAddr {
        self.endpoints().await[0]
    }

    async fn endpoints(&self) -> Vec<SocketAddr> {
        let cluster = self.look().await;
        let me = cluster.members.iter().find(|member| member.process == cluster.me).unwrap();
        me.paths.iter().map(|path| path.endpoint).collect()
    }

    async fn until(&self, what: &str, done: impl Fn(&Cluster) -> bool) -> Cluster {
        let begun = SystemClock.now();
        loop {
            let picture = self.look().await;
            if done(&picture) {
                return picture;
            }
            assert!(SystemClock.now() - begun < PATIENCE, "not within {PATIENCE:?}: {what}; {picture:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stop(self) {
        assert!(self.root.drain(PATIENCE).await);
    }
}

fn refused(picture: &Cluster, reason: &str) -> u64 {
    picture.refused.iter().find(|(known, _)| *known == reason).map_or(0, |(_, count)| *count)
}

fn ups(picture: &Cluster) -> usize {
    picture.members.iter().filter(|member| member.standing.is_up()).count()
}

#[test]
fn three_members_find_each_other_and_one_that_leaves_is_known_to_have_left() {
    actix::System::new().block_on(async {
        let a = Member::start(options("a", "127.0.0.1", &[]));
        let seed = a.endpoint().await.to_string();
        let b = Member::start(options("b", "127.0.0.1", std::slice::from_ref(&seed)));
        let c = Member::start(options("c", "127.0.0.1", &[seed]));
        for member in [&a, &b, &c] {
            member.until("three are up", |picture| ups(picture) == 3).await;
        }
        // Datagrams are knocked at and found to work, streams were used before that.
        let works = |picture: &Cluster| {
            picture.members.iter().flat_map(|member| &member.paths).filter(|path| path.datagram == Some(true)).count()
                == 2
        };
        a.until("datagrams work with both", works).await;
        let registry = vivace_runtime::metrics::Registry::new();
        export_membership(a.gossip.board.clone(), &registry);
        let counted = || registry.render().contains("\ntempo_memberlist_client_cluster_members_count 3\n");
        a.until("three are counted", |_| counted()).await;
        let id = c.look().await.me;
        c.stop().await;
        let left = |picture: &Cluster| {
            picture.members.iter().any(|member| member.process == id && member.standing == Standing::Left)
        };
        a.until("c left", left).await;
        b.until("c left", left).await;
        a.stop().await;
        b.stop().await;
    });
}

#[test]
fn members_with_a_key_understand_each_other_and_name_one_without() {
    actix::System::new().block_on(async {
        let keyed = |name: &str, join: &[String]| {
            let mut options = options(name, "127.0.0.1", join);
            // 32 times the byte 7.
            options.config.encryption_keys = Secret::new("BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=");
            options
        };
        let a = Member::start(keyed("a", &[]));
        let seed = a.endpoint().await.to_string();
        let b = Member::start(keyed("b", std::slice::from_ref(&seed)));
        a.until("two are up", |picture| ups(picture) == 2).await;
        b.until("two are up", |picture| ups(picture) == 2).await;
        let c = Member::start(options("c", "127.0.0.1", &[seed]));
        let picture = a.until("one is refused", |picture| refused(picture, "plain") > 0).await;
        assert_eq!(picture.strangers[0].address, IpAddr::from([127, 0, 0, 1]));
        assert_eq!(ups(&picture), 2);
        for member in [a, b, c] {
            member.stop().await;
        }
    });
}

#[test]
fn an_http_request_is_answered_with_a_line_and_counted() {
    actix::System::new().block_on(async {
        let a = Member::start(options("a", "127.0.0.1", &[]));
        let mut stream = tokio::net::TcpStream::connect(a.endpoint().await).await.unwrap();
        stream.write_all(b"GET /memberlist HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains("This is the gossip port"), "{answer}");
        a.until("it is counted", |picture| refused(picture, "http") == 1).await;
        // What is announced too long is not waited for.
        let mut stream = tokio::net::TcpStream::connect(a.endpoint().await).await.unwrap();
        stream.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        a.until("it is counted", |picture| refused(picture, "size") == 1).await;
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0, "the connection is closed");
        a.stop().await;
    });
}

#[test]
fn a_name_that_cannot_be_resolved_is_shown_and_does_not_stop_the_process() {
    actix::System::new().block_on(async {
        let a = Member::start(options("a", "127.0.0.1", &["dns+nowhere.example.:7946".to_owned()]));
        let picture = a.until("the failure is shown", |picture| picture.seeds[0].error.is_some()).await;
        assert_eq!(picture.seeds[0].error.as_deref(), Some("look up nowhere.example.: no such name"));
        a.stop().await;
    });
}

#[test]
fn members_of_one_family_each_are_joined_by_one_that_has_both() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        eprintln!("skipped: this host has no IPv6");
        return;
    }
    actix::System::new().block_on(async {
        let mut dual = options("dual", "127.0.0.1", &[]);
        dual.config.bind_addr = Addresses(vec!["127.0.0.1".into(), "::1".into()]);
        let dual = Member::start(dual);
        let endpoints = dual.endpoints().await;
        let at = |v6: bool| endpoints.iter().find(|endpoint| endpoint.is_ipv6() == v6).unwrap().to_string();
        let v4 = Member::start(options("v4", "127.0.0.1", &[at(false)]));
        let v6 = Member::start(options("v6", "::1", &[at(true)]));
        for member in [&dual, &v4, &v6] {
            member.until("three are up", |picture| ups(picture) == 3).await;
        }
        let relayed = |picture: &Cluster| picture.relayed > 0;
        dual.until("messages are passed on", relayed).await;
        let heard = |picture: &Cluster| picture.members.iter().filter(|member| member.heard.is_some()).count() == 2;
        let picture = v4.until("the other family is heard", heard).await;
        let other = picture.members.iter().find(|member| member.name.starts_with("v6")).unwrap();
        assert!(!other.shares_family);
        assert!(other.via.as_ref().is_some_and(|via| via.starts_with("dual")), "{:?}", other.via);
        for member in [dual, v4, v6] {
            member.stop().await;
        }
    });
}

/// An authority and a certificate of it for this host's loopback, in files.
fn certificates(dir: &std::path::Path) -> Config {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    Config {
        tls_enabled: true,
        tls_cert_path: file("cert.pem", &own.pem()),
        tls_key_path: file("key.pem", &key.serialize_pem()),
        tls_ca_path: file("ca.pem", &authority_pem),
        ..Config::default()
    }
}

#[test]
fn under_tls_everything_goes_by_streams_and_who_does_not_speak_it_is_not_heard() {
    actix::System::new().block_on(async {
        let dir = tempfile::TempDir::new().unwrap();
        let tls = certificates(dir.path());
        let with_tls = |name: &str, join: &[String]| {
            let mut options = options(name, "127.0.0.1", join);
            let Config { bind_addr, bind_port, join_members, .. } = options.config;
            options.config = Config { bind_addr, bind_port, join_members, ..tls.clone() };
            options
        };
        let a = Member::start(with_tls("a", &[]));
        let seed = a.endpoint().await.to_string();
        let b = Member::start(with_tls("b", std::slice::from_ref(&seed)));
        a.until("two are up", |picture| ups(picture) == 2).await;
        let picture = b.until("two are up", |picture| ups(picture) == 2).await;
        assert!(picture.members.iter().flat_map(|member| &member.paths).all(|path| path.datagram.is_none()));
        let c = Member::start(options("c", "127.0.0.1", &[seed]));
        let picture = a.until("one is refused", |picture| refused(picture, "handshake") > 0).await;
        assert_eq!(ups(&picture), 2);
        // HTTP is still answered in words.
        let mut stream = tokio::net::TcpStream::connect(a.endpoint().await).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("This is the gossip port"), "{answer}");
        for member in [a, b, c] {
            member.stop().await;
        }
    });
}

const RING: &str = "collectors/live-store";

/// Options of a member that is in the ring of live-stores.
fn live_store(name: &str, join: &[String]) -> Options {
    let config =
        RingConfig { instance_id: name.to_owned(), instance_addr: "127.0.0.1".to_owned(), ..RingConfig::default() };
    let settings = RingSettings::live_store(&config, Host { name: "host", grpc_port: 1 }).unwrap();
    let rings: BuildRings = Arc::new(move |identity| {
        let mut keeper = Keeper::new(&identity.name);
        keeper.join(&settings, identity, choose_addresses(&settings, &[])?, None)?;
        Ok(keeper)
    });
    Options { rings, ..options(name, "127.0.0.1", join) }
}

impl Member {
    /// The generation of its own record, once it is in its ring, and how long that took from `begun`.
    async fn registered(&self, id: &str, begun: Instant) -> (u64, Duration) {
        let generation = |rings: &Rings| rings.rings.get(RING)?.get(id).map(|entry| entry.generation);
        let mut rings = self.gossip.rings.clone();
        let there = tokio::time::timeout(2 * PATIENCE, rings.wait_for(|rings| generation(rings).is_some()));
        let found = generation(&there.await.unwrap().unwrap()).unwrap();
        (found, SystemClock.now() - begun)
    }
}

#[test]
fn a_member_that_names_only_itself_registers_at_once_and_one_that_names_another_waits_for_it() {
    actix::System::new().block_on(async {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let itself = format!("127.0.0.1:{port}");
        let start = |others: &[&str]| {
            let mut options = live_store("lone", std::slice::from_ref(&itself));
            options.config.join_members.0.extend(others.iter().map(ToString::to_string));
            options.config.bind_port = port;
            options
        };
        let mut alone = start(&[]);
        alone.config.abort_if_cluster_join_fails = true;
        let patience = join_patience(&alone.config);
        let begun = SystemClock.now();
        let member = Member::start(alone);
        let (_, took) = member.registered("lone", begun).await;
        assert!(took < patience / 4, "there is nobody to wait for: {took:?} of {patience:?}");
        member.stop().await;
        // Nobody answers there, yet somebody might.
        let mut with_another = start(&["127.0.0.1:1"]);
        with_another.config.max_join_retries = 1;
        let patience = join_patience(&with_another.config);
        let begun = SystemClock.now();
        let member = Member::start(with_another);
        let (_, took) = member.registered("lone", begun).await;
        assert!(took >= patience, "{took:?} of {patience:?}");
        member.stop().await;
    });
}

#[test]
fn a_restart_that_meets_nobody_begins_above_the_life_before_unless_its_disk_is_lost() {
    actix::System::new().block_on(async {
        let (kept, lost) = (SimDisk::new(1), SimDisk::new(2));
        for (disk, expected) in [(&kept, 1), (&kept, 2), (&kept, 3), (&lost, 1)] {
            let mut options = live_store("again", &[]);
            let disk_of_life = Arc::new(disk.clone());
            options.generations = Some(Generations::open(disk_of_life, Path::new("/rings"), Compute::inline()));
            let member = Member::start(options);
            assert_eq!(member.registered("again", SystemClock.now()).await.0, expected);
            // Nothing is said on the way out, as with a loss of power.
            disk.crash();
            member.stop().await;
        }
    });
}
