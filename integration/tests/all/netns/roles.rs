//! A whole cluster with a host for each process, in each family of addresses, that finds itself by names from a real name server.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};
use vivace_integration::cluster::{BROKER, Cluster, Home};
use vivace_integration::watch::{Asker, Said, Watch};

use super::lab::{Host, Lab, Stack};
use super::names::NameServer;
use crate::cluster::{PATIENCE, SPANS, STOP_MAX, counted, found_by_id, send};

/// Answers are whole again this soon after the return of a live-store.
const WHOLE: Duration = Duration::from_secs(5);

/// A cluster on hosts of one family, not started, and what belongs to it.
pub(crate) struct OnHosts {
    pub(crate) cluster: Cluster,
    /// Where the test is to be run.
    pub(crate) client: Host,
    hosts: Vec<(String, Host)>,
    _names: NameServer,
}

impl OnHosts {
    /// `roles` are names and roles. None where there is no name server.
    pub(crate) fn new(lab: &Lab, stack: Stack, roles: &[(&str, &str)]) -> Option<Self> {
        let server = lab.host(Stack::Dual);
        let names = NameServer::on(lab, &server)?;
        let asked: IpAddr = match stack {
            Stack::V6 => server.v6?.into(),
            Stack::V4 | Stack::Dual => server.v4?.into(),
        };
        let host = || {
            let host = lab.host(stack);
            host.name_server(asked);
            host
        };
        let broker = host();
        let mut cluster = Cluster::on_hosts(lab.dir(), 2, "lab", home(&broker));
        let mut hosts = vec![(BROKER.to_owned(), broker)];
        for (name, role) in roles {
            let host = host();
            cluster.add_on(home(&host), name, role, settings(stack));
            hosts.push(((*name).to_owned(), host));
        }
        let known = cluster.names();
        let known: Vec<(&str, Vec<IpAddr>)> = known.iter().map(|(name, all)| (name.as_str(), all.clone())).collect();
        names.knows(&known);
        Some(Self { cluster, client: host(), hosts, _names: names })
    }

    pub(crate) fn host(&self, name: &str) -> Host {
        let found = self.hosts.iter().find(|(known, _)| known == name);
        found.map(|(_, host)| host.clone()).unwrap()
    }
}

fn home(host: &Host) -> Home {
    let addresses = host.v4.map(IpAddr::V4).into_iter().chain(host.v6.map(IpAddr::V6)).collect();
    Home { addresses, wrapper: host.wrapper() }
}

/// What `configs/variants` says of a family, beside the addresses to listen on.
fn settings(stack: Stack) -> Value {
    match stack {
        Stack::V4 => json!({
            "server": { "http_listen_address": "0.0.0.0", "grpc_listen_address": "0.0.0.0" },
            "memberlist": { "bind_addr": ["0.0.0.0"] },
            "distributor": { "receivers": { "otlp": { "protocols": {
                "grpc": { "endpoint": "0.0.0.0:4317" }, "http": { "endpoint": "0.0.0.0:4318" },
            } } } },
            "live_store": { "ring": { "enable_inet6": false } },
        }),
        Stack::V6 => json!({
            "distributor": { "ring": { "enable_inet6": true } },
            "live_store": { "ring": { "enable_inet6": true } },
        }),
        Stack::Dual => json!({}),
    }
}

/// Starts, takes traces, finds them in live-stores and in blocks, survives the death of a live-store, ends.
fn works(name: &str, stack: Stack, seed: u64) {
    let Some(lab) = Lab::new(name) else { return };
    let Some(mut on) = OnHosts::new(&lab, stack, &Cluster::EACH_ROLE) else { return };
    let client = on.client.clone();
    client.run(|| {
        let cluster = &mut on.cluster;
        let ready = cluster.start_all().unwrap();
        println!("{stack:?}: ready after {ready:?}");
        let addresses = || {
            let page = cluster.page("querier-0", "/live-store/ring").unwrap();
            let shards = page["shards"].as_array().cloned().unwrap_or_default();
            let shown = shards.iter().map(|shard| shard["address"].as_str().unwrap_or_default().to_owned());
            shown.collect::<Vec<String>>()
        };
        cluster.wait_until("the querier knows both live-stores", &["querier-0"], || addresses().len() == 2).unwrap();
        let wanted = |text: &String| match stack {
            Stack::V4 => text.starts_with("10.77.0."),
            Stack::V6 => text.starts_with("[fd77::"),
            Stack::Dual => text.starts_with("10.77.0.") || text.starts_with("[fd77::"),
        };
        assert!(addresses().iter().all(wanted), "{:?}", addresses());

        let sending = send(cluster, seed, 0);
        sending.wait_for_more(60, PATIENCE).unwrap();
        let frontend = cluster.http("query-frontend-0");
        let watching = Watch { seed, spans: SPANS, frontend }.begin(&sending.book());
        watching.wait_for_whole(30, PATIENCE).unwrap();
        let seen = watching.end();
        assert!(seen.wrong.is_empty() && seen.partial.is_empty(), "{seen:#?}");
        let (book, _) = sending.end();
        let newest = book.newest(5);

        let mut asker = Asker::new(seed, SPANS, frontend);
        let in_blocks = || {
            let all = book.acknowledged();
            let last = all[all.len() - 1];
            (0..2).all(|trace| matches!(asker.by_id(last, trace, "?mode=blocks"), Ok(Said::Whole)))
        };
        cluster.wait_until("blocks have everything", &["block-builder-0"], in_blocks).unwrap();

        cluster.kill("live-store-1").unwrap();
        cluster.start(&["live-store-1"]).unwrap();
        let mut asker = Asker::new(seed, SPANS, frontend);
        let whole = || asker.missing(&newest).unwrap().is_empty();
        let took = cluster.wait_until("answers are whole again", &["querier-0", "live-store-1"], whole).unwrap();
        println!("whole {took:?} after the return of a live-store");
        assert!(took < WHOLE, "{took:?}");
        let checked = found_by_id(&book, &book.acknowledged(), frontend);
        let (count, answer) = counted(frontend);
        assert!(
            (count - (book.acknowledged().len() * SPANS) as f64).abs() < 0.5,
            "{checked} traces, {count}: {answer}"
        );

        let names = Cluster::EACH_ROLE.map(|(name, _)| name);
        let times = cluster.stop_together(&names).unwrap();
        assert!(times.iter().all(|(_, took)| *took < STOP_MAX), "{times:?}");
        assert!(cluster.stop(BROKER).unwrap().0.success());
        cluster.check_logs(&[]).unwrap();
    });
}

#[test]
fn a_whole_cluster_works_on_hosts_with_ipv6_alone() {
    works("all-six", Stack::V6, 560);
}

/// In the long form; what is different there is tested for gossip in every run.
#[test]
fn a_whole_cluster_works_on_hosts_with_ipv4_alone_and_with_both_families() {
    if std::env::var_os("VIVACE_LONG").is_some() {
        works("all-four", Stack::V4, 561);
        works("all-dual", Stack::Dual, 562);
    }
}
