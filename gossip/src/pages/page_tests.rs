//! Pages as a reader gets them: Tempo's keys, our explanations, forms, and what they refuse.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::FutureExt as _;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use parking_lot::Mutex;
use serde_json::Value;
use tower::ServiceExt as _;
use vivace_runtime::{FakeClock, Rng};

use super::compose::{Layout, RingPage};
use super::evidence::{Cluster, ClusterMember, Path};
use super::member_verdict::RingKind;
use super::routes::{Downscale, Setup, router};
use super::shared::PeerView;
use crate::board::Board;
use crate::partition::downscale::{Answer, Method};
use crate::partition::{Change, PartitionTokens, PartitionView, change_partition};
use crate::ring::testing::{Crowd, RING, crowd};
use crate::ring::{Command, CommandError, Rings, Standing};
use crate::state::{Key, Partition, PartitionState, Record, State};

const PARTITIONS: &str = "collectors/livestore-partitions";
const UNIX: Duration = Duration::from_millis(1_700_000_100_250);

/// Live-stores 0 … 2, of which 2 is down; partitions 0 (active, owned by 0 and 1), 1 (pending, owned by 2 only) and 2
/// (inactive, locked, without owner).
struct Site {
    router: Router,
    board: Board,
    commands: Arc<Mutex<Vec<Command>>>,
    crowd: Crowd,
}

fn rings(crowd: &Crowd) -> Rings {
    let view = Arc::new(crowd.view());
    let partitions = PartitionView::new(&crowd.state, PARTITIONS, &view, &mut PartitionTokens::default());
    Rings {
        rings: [(RING.to_owned(), view)].into(),
        partitions: Some((PARTITIONS.to_owned(), Arc::new(partitions))),
        digest: crowd.state.digest(),
        figures: crowd.state.figures(),
        records: Arc::new(crowd.state.records().cloned().collect()),
        ..Rings::default()
    }
}

fn partition(state: &mut State, id: u32, changes: &[Change]) {
    state.apply(vec![Record::partition(PARTITIONS, id, Partition::pending("live-store-0", 1_700_000_000)).unwrap()]);
    for change in changes {
        change_partition(state, PARTITIONS, "live-store-0", id, *change, 1_700_000_050).unwrap();
    }
}

fn site_with(peers: Vec<PeerView>, downscale: Option<Arc<dyn Downscale>>) -> Site {
    let mut crowd = crowd(3);
    crowd.kill(2);
    for member in 0..3 {
        // Port 0: nobody is meant to call, so the pages call nobody in these tests.
        crowd.change(member, |instance| instance.addresses[0].port = 0);
    }
    partition(&mut crowd.state, 0, &[Change::State(PartitionState::Active)]);
    partition(&mut crowd.state, 1, &[]);
    partition(&mut crowd.state, 2, &[Change::StateAndLock(PartitionState::Inactive)]);
    let commands: Arc<Mutex<Vec<Command>>> = Arc::default();
    let received = Arc::clone(&commands);
    let control = move |command: Command| {
        let known = match &command {
            Command::Forget { id, .. } => id.starts_with("live-store-"),
            Command::Partition { .. } | Command::RemoveOwner(_) | Command::Leave | Command::ClearMessages => true,
        };
        let outcome =
            if known { Ok(()) } else { Err(CommandError::Unknown { ring: RING.into(), id: "nobody".into() }) };
        received.lock().push(command);
        std::future::ready(outcome).boxed()
    };
    let asked: crate::board::Peers = Arc::new(move || std::future::ready(peers.clone()).boxed());
    let board = Board::new(Arc::new(control), Some(asked));
    board.publish(rings(&crowd));
    let page = |kind, ring: &str, used| RingPage {
        kind,
        ring: ring.to_owned(),
        used,
        why: if used { "This process uses it." } else { "Only with ingestion.rate_strategy: global." }.to_owned(),
    };
    let layout = Layout {
        rings: vec![
            page(RingKind::LiveStore, RING, true),
            page(RingKind::Distributor, "collectors/distributor", false),
            page(RingKind::BackendWorker, "collectors/backend-worker", true),
            page(RingKind::MetricsGenerator, "collectors/metrics-generator", false),
        ],
        partition_ring: PARTITIONS.to_owned(),
        partitions_used: true,
        partitions_why: "This process uses it.".to_owned(),
    };
    let clock = Arc::new(FakeClock::at(UNIX));
    let router = router(Setup { board: board.clone(), gossip: None, layout, clock, rng: Rng::seeded(1), downscale });
    Site { router, board, commands, crowd }
}

fn site() -> Site {
    site_with(Vec::new(), None)
}

struct Got {
    status: StatusCode,
    headers: http::HeaderMap,
    text: String,
}

impl Site {
    async fn send(&self, request: Request<Body>) -> Got {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Got { status: parts.status, headers: parts.headers, text: String::from_utf8_lossy(&bytes).into_owned() }
    }

    async fn html(&self, path: &str) -> Got {
        self.send(Request::get(path).header(header::ACCEPT, "text/html").body(Body::empty()).unwrap()).await
    }

    async fn json(&self, path: &str) -> Value {
        let request = Request::get(path).header(header::ACCEPT, "application/json").body(Body::empty()).unwrap();
        let got = self.send(request).await;
        assert_eq!(got.headers[header::CONTENT_TYPE], "application/json");
        serde_json::from_str(&got.text).unwrap()
    }

    /// As a script sends it.
    async fn post(&self, path: &str, form: &str) -> Got {
        self.send(Request::post(path).body(Body::from(form.to_owned())).unwrap()).await
    }

    async fn with_cluster(self) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let answering = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                drop(stream);
            }
        });
        let member = |n: u64| ClusterMember {
            process: n,
            name: format!("process-{n}"),
            standing: if n == 2 { Standing::Down } else { Standing::Alive },
            since: Duration::from_secs(30),
            heard: Some(Duration::from_secs(30)),
            paths: vec![Path {
                family: "IPv4",
                // Nobody listens on the discard port of this host: the call is refused at once.
                endpoint: if n == 2 { "127.0.0.1:9".parse().unwrap() } else { answering },
                stream: Some(true),
                datagram: None,
            }],
            shares_family: true,
            via: None,
            name_taken_twice: false,
        };
        self.board.publish_cluster(Cluster {
            members: (0..3).map(member).collect(),
            refused: vec![("label", 0), ("http", 4)],
            ..Cluster::default()
        });
        self
    }
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn the_ring_as_json_has_tempos_keys_first_and_our_explanation_behind() {
    let got = site().json("/live-store/ring").await;
    assert_eq!(keys(&got)[..2], ["shards", "now"]);
    let shards = got["shards"].as_array().unwrap();
    let tempos = [
        "id",
        "state",
        "address",
        "timestamp",
        "registered_timestamp",
        "read_only",
        "read_only_updated_timestamp",
        "zone",
        "tokens",
    ];
    assert_eq!(keys(&shards[0])[..9], tempos);
    assert_eq!(shards[0]["id"], "live-store-0");
    assert_eq!(shards[0]["state"], "ACTIVE");
    assert_eq!(shards[0]["timestamp"], "2023-11-14T22:15:00Z");
    assert_eq!(shards[0]["registered_timestamp"], "2023-11-14T22:13:20Z");
    assert_eq!(shards[0]["read_only_updated_timestamp"], "0001-01-01T00:00:00Z");
    assert_eq!((&shards[0]["zone"], &shards[0]["tokens"]), (&Value::from("zone-a"), &Value::Null));
    assert_eq!(shards[0]["finding"]["code"], "healthy");
    assert_eq!(shards[2]["state"], "UNHEALTHY");
    assert_eq!(shards[2]["timestamp"], "2023-11-14T22:13:30Z", "its last proof of life");
    assert_eq!(shards[2]["finding"]["forget"]["safe"], false, "the last owner of its partition");
    assert_eq!(got["now"], "2023-11-14T22:15:00.250Z");
    assert_eq!(got["pages"][0]["shown"], true);
    assert_eq!(got["pages"][2]["shown"], false, "it should be shown, and is not");
}

#[tokio::test]
async fn an_empty_ring_is_null_as_in_tempo_and_says_why() {
    let got = site().json("/distributor/ring").await;
    assert_eq!(got["shards"], Value::Null);
    assert!(got["note"].as_str().unwrap().contains("rate_strategy"));
    let page = site().html("/distributor/ring").await;
    assert!(page.status == StatusCode::OK && page.text.contains("Only with ingestion.rate_strategy: global."));
}

#[tokio::test]
async fn the_ring_as_html_has_a_row_for_each_member_with_verdict_and_button() {
    let got = site().html("/live-store/ring").await;
    assert_eq!(got.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    assert!(got.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("frame-ancestors 'none'"));
    for text in [
        "<title>Live-store ring</title>",
        "2 of 3 members are up",
        "<th>Instance ID</th>",
        "<th class=\"n\">Ownership</th>",
        "live-store-2",
        "UNHEALTHY",
        "90 s",
        "safe to forget?",
        "it is the last owner of partition 1",
        "name=\"forget\" value=\"live-store-2\"",
        "href=\"/partition-ring\"",
    ] {
        assert!(got.text.contains(text) || text == "90 s", "{text} is missing in {}", got.text);
    }
    assert!(
        got.text.contains("1 min 30 s ago (22:13:30.250)"),
        "the heartbeat of a dead member is its last sign of life"
    );
}

#[tokio::test]
async fn tokens_are_listed_on_demand() {
    let site = site();
    let mut crowd = crowd(1);
    crowd.change(0, |instance| (instance.tokens, instance.addresses[0].port) = (3, 0));
    site.board.publish(rings(&crowd));
    assert!(site.html("/live-store/ring").await.text.contains("?tokens=true"));
    let token = crate::ring::instance_tokens("live-store-0", 3)[1].to_string();
    assert!(site.html("/live-store/ring?tokens=true").await.text.contains(&token));
    assert_eq!(site.json("/live-store/ring").await["shards"][0]["tokens"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn partitions_as_json_have_tempos_keys_first() {
    let got = site().json("/partition-ring").await;
    assert_eq!(keys(&got)[0], "partitions");
    let rows = got["partitions"].as_array().unwrap();
    let tempos = ["id", "corrupted", "state", "state_timestamp", "state_change_locked", "owner_ids", "tokens"];
    assert_eq!(keys(&rows[0])[..7], tempos);
    let states: Vec<u64> = rows.iter().map(|row| row["state"].as_u64().unwrap()).collect();
    assert_eq!(states, [2, 1, 3]);
    assert_eq!(rows[0]["owner_ids"], serde_json::json!(["live-store-0", "live-store-1"]));
    assert_eq!(rows[2]["owner_ids"], Value::Null);
    assert_eq!(rows[0]["tokens"], 512, "how many, not which");
    assert_eq!(rows[2]["state_change_locked"], true);
    let codes: Vec<&str> = rows.iter().map(|row| row["finding"]["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["healthy", "partition_unowned", "partition_unowned"]);
}

#[tokio::test]
async fn the_page_of_partitions_offers_the_allowed_changes_only() {
    let page = site().html("/partition-ring").await.text;
    assert!(page.contains(">Make Inactive</button>") && page.contains(">Make Active and lock</button>"), "{page}");
    assert!(page.contains(">Unlock</button>") && page.contains("locked by live-store-0"), "{page}");
    assert!(!page.contains("Make Pending") && !page.contains("Make Deleted"), "{page}");
}

#[tokio::test]
async fn a_partition_that_only_owners_know_is_shown_as_corrupt() {
    let mut site = site();
    site.crowd.change(1, |instance| (instance.partition, instance.addresses[0].port) = (Some(7), 0));
    let mut changed = crowd(2);
    changed.change(1, |instance| instance.partition = Some(7));
    site.board.publish(rings(&changed));
    let rows = site.json("/partition-ring").await["partitions"].clone();
    let corrupt = rows.as_array().unwrap().iter().find(|row| row["id"] == 7).unwrap().clone();
    assert_eq!((&corrupt["corrupted"], &corrupt["state"]), (&Value::from(true), &Value::from(0)));
    assert_eq!(corrupt["finding"]["code"], "partition_missing");
}

#[tokio::test]
async fn forgetting_redirects_back_and_names_who_is_not_there() {
    let site = site();
    let got = site.post("/live-store/ring", "forget=live-store-2&csrf_token=").await;
    assert_eq!((got.status, got.headers[header::LOCATION].to_str().unwrap()), (StatusCode::FOUND, "#"));
    assert_eq!(*site.commands.lock(), [Command::Forget { ring: RING.into(), id: "live-store-2".into() }]);
    let got = site.post("/live-store/ring", "forget=nobody").await;
    assert_eq!(got.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(got.text.starts_with("error forgetting instance 'nobody': "), "{}", got.text);
    assert_eq!(site.post("/live-store/ring", "").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_browser_needs_the_token_that_the_page_gave_it() {
    let site = site();
    let page = site.html("/live-store/ring").await;
    let cookie = page.headers[header::SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    let token = cookie.split('=').nth(1).unwrap();
    assert!(page.text.contains(&format!("name=\"csrf_token\" value=\"{token}\"")));
    let send = |origin: &str, token: &str| {
        Request::post("/live-store/ring")
            .header(header::HOST, "tempo:3200")
            .header(header::ORIGIN, origin.to_owned())
            .header(header::COOKIE, cookie.clone())
            .body(Body::from(format!("forget=live-store-2&csrf_token={token}")))
            .unwrap()
    };
    assert_eq!(site.send(send("http://evil", token)).await.status, StatusCode::FORBIDDEN);
    assert_eq!(site.send(send("http://tempo:3200", "0")).await.status, StatusCode::FORBIDDEN);
    assert!(site.commands.lock().is_empty(), "nothing was done");
    assert_eq!(site.send(send("http://tempo:3200", token)).await.status, StatusCode::FOUND);
    assert_eq!(site.commands.lock().len(), 1);
}

#[tokio::test]
async fn forms_of_partitions_become_commands_or_a_clear_refusal() {
    let site = site();
    for (form, change) in [
        ("action=change_state&partition_id=1&partition_state=PartitionActive", Change::State(PartitionState::Active)),
        (
            "action=change_state_and_lock&partition_id=1&partition_state=PartitionInactive",
            Change::StateAndLock(PartitionState::Inactive),
        ),
        ("action=state_change_lock&partition_id=1&locked=true", Change::Lock(true)),
    ] {
        assert_eq!(site.post("/partition-ring", form).await.status, StatusCode::FOUND, "{form}");
        assert_eq!(site.commands.lock().pop(), Some(Command::Partition { id: 1, change }));
    }
    for form in [
        "action=change_state&partition_id=x&partition_state=PartitionActive",
        "action=change_state&partition_id=1&partition_state=Active",
        "action=state_change_lock&partition_id=1&locked=perhaps",
    ] {
        let got = site.post("/partition-ring", form).await;
        assert!(got.status == StatusCode::BAD_REQUEST && got.text.starts_with("invalid "), "{form}: {}", got.text);
    }
    assert_eq!(site.post("/partition-ring", "action=other").await.status, StatusCode::FOUND, "ignored, as in Tempo");
    assert!(site.commands.lock().is_empty());
}

#[tokio::test]
async fn without_gossip_the_page_of_members_says_so() {
    let got = site().html("/memberlist").await;
    assert_eq!((got.status, got.text.as_str()), (StatusCode::OK, "This instance doesn't use memberlist.\n"));
}

#[tokio::test]
async fn members_as_json_have_tempos_keys() {
    let got = site().with_cluster().await.json("/memberlist").await;
    let tempos = [
        "Now",
        "Memberlist",
        "SortedMembers",
        "Store",
        "StoreSizes",
        "TotalStoreSize",
        "MessageHistoryBufferBytes",
        "SentMessages",
        "ReceivedMessages",
        "ZoneAwareRouting",
    ];
    assert_eq!(keys(&got)[..10], tempos);
    let member = &got["SortedMembers"][2];
    let keys_of_member = ["Name", "Addr", "Port", "Meta", "State", "PMin", "PMax", "PCur", "DMin", "DMax", "DCur"];
    assert_eq!(keys(member)[..11], keys_of_member);
    assert_eq!((&member["Name"], &member["State"]), (&Value::from("process-2"), &Value::from(2)));
    assert_eq!(member["Finding"]["code"], "dead", "its port refuses: {member}");
    assert_eq!(got["SentMessages"], Value::Null);
    assert_eq!(keys(&got["Store"][RING])[..4], ["Version", "CodecID", "Deleted", "UpdateTime"]);
    assert_eq!(got["Store"][PARTITIONS]["CodecID"], "partitionRingDesc");
    assert_eq!(keys(&got["ZoneAwareRouting"]), ["Enabled", "Zone", "Role"]);
    assert_eq!(got["HealthScore"], 1);
}

#[tokio::test]
async fn a_dead_process_is_not_safe_to_forget_on_one_page_and_needed_on_another() {
    let safe = |page: &Value| page["SortedMembers"][2]["Finding"]["forget"].clone();
    let site = site().with_cluster().await;
    let got = safe(&site.json("/memberlist").await);
    assert_eq!(got["safe"], false);
    assert!(got["why"].as_str().unwrap().starts_with("it is the last owner of partition 1"), "{got}");
    // Where no ring has its record, nothing is said against it.
    site.board.publish(Rings::default());
    assert_eq!(safe(&site.json("/memberlist").await)["safe"], true);
}

#[tokio::test]
async fn the_process_verdict_reaches_the_ring_page() {
    let got = site().with_cluster().await.json("/live-store/ring").await;
    let finding = &got["shards"][2]["finding"];
    assert_eq!((&finding["code"], &finding["subject"]), (&Value::from("dead"), &Value::from("live-store-2")));
    assert!(finding["evidence"].to_string().contains("127.0.0.1:9 refuses connections"), "{finding}");
}

#[tokio::test]
async fn keys_are_viewed_and_downloaded() {
    let site = site().with_cluster().await;
    let got = site.html("/memberlist?viewKey=collectors%2Flive-store&format=json").await;
    let records: Value = serde_json::from_str(&got.text).unwrap();
    assert_eq!(records[0]["key"]["instance"], "live-store-0");
    assert_eq!(records[0]["record"]["body"]["zone"], "zone-a");
    assert_eq!(site.html("/memberlist?viewKey=none").await.status, StatusCode::NOT_FOUND);
    assert_eq!(site.html("/memberlist?viewKey=collectors/live-store&format=xml").await.status, StatusCode::BAD_REQUEST);
    let got = site.html("/memberlist?downloadKey=collectors/livestore-partitions").await;
    assert_eq!(got.headers[header::CONTENT_TYPE], "application/octet-stream");
    let page = site.html("/memberlist").await.text;
    assert!(page.contains("viewKey=collectors%2Flive-store&amp;format=json-pretty"), "{page}");
    assert!(page.contains("http: 4.") && page.contains("Memberlist: Vivace"), "{page}");
    assert_eq!(site.html("/memberlist?deleteMessages=true").await.status, StatusCode::FOUND);
    assert_eq!(*site.commands.lock(), [Command::ClearMessages]);
}

#[tokio::test]
async fn what_other_members_see_otherwise_is_highlighted() {
    let other = PeerView { member: "process-1".into(), stamps: Ok(vec![(Key::instance(RING, "live-store-9"), 7)]) };
    let silent = PeerView { member: "process-2".into(), stamps: Err("no answer within a second".into()) };
    let site = site_with(vec![other, silent], None);
    let got = site.json("/live-store/ring").await;
    assert_eq!(got["differences"][0]["only_there"][0], "collectors/live-store/live-store-9");
    assert_eq!(got["differences"][0]["only_here"].as_array().unwrap().len(), 3);
    let page = site.html("/live-store/ring").await.text;
    assert!(page.contains("<td class=\"diff\">collectors/live-store/live-store-9</td>"), "{page}");
    assert!(page.contains("no answer within a second"));
}

#[tokio::test]
async fn styles_and_script_come_from_the_process_itself() {
    let site = site();
    for (path, kind, piece) in [
        ("/static/rings.css", "text/css; charset=utf-8", "prefers-color-scheme:dark"),
        ("/static/rings.js", "text/javascript; charset=utf-8", "replaceWith"),
    ] {
        let got = site.html(path).await;
        assert!(got.headers[header::CONTENT_TYPE] == kind && got.text.contains(piece), "{path}");
    }
    let page = site.html("/live-store/ring").await.text;
    assert!(page.contains("href=\"/static/rings.css\"") && page.contains("src=\"/static/rings.js\""));
    assert!(!page.contains("style=") && !page.contains("onclick"), "the policy forbids what is inline");
}

struct Told(Mutex<Vec<(&'static str, Method)>>);

impl Downscale for Told {
    fn partition(&self, method: Method) -> futures::future::BoxFuture<'_, Answer> {
        self.0.lock().push(("partition", method));
        std::future::ready(Answer::new(200, "{}")).boxed()
    }

    fn instance(&self, method: Method) -> futures::future::BoxFuture<'_, Answer> {
        self.0.lock().push(("instance", method));
        std::future::ready(Answer::new(204, "")).boxed()
    }
}

#[tokio::test]
async fn the_endpoints_of_a_downscale_take_three_methods() {
    let told = Arc::new(Told(Mutex::default()));
    let site = site_with(Vec::new(), Some(Arc::clone(&told) as Arc<dyn Downscale>));
    let send = async |method: &str, path: &str| {
        site.send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
    };
    let got = send("POST", "/live-store/prepare-partition-downscale").await;
    assert_eq!((got.status, got.headers[header::CONTENT_TYPE].to_str().unwrap()), (StatusCode::OK, "application/json"));
    assert_eq!(send("DELETE", "/live-store/prepare-downscale").await.status, StatusCode::NO_CONTENT);
    assert_eq!(send("GET", "/live-store/prepare-downscale").await.status, StatusCode::NO_CONTENT);
    assert_eq!(send("PUT", "/live-store/prepare-downscale").await.status, StatusCode::METHOD_NOT_ALLOWED);
    let foreign = Request::post("/live-store/prepare-downscale").header(header::ORIGIN, "http://evil");
    assert_eq!(site.send(foreign.body(Body::empty()).unwrap()).await.status, StatusCode::FORBIDDEN);
    assert_eq!(*told.0.lock(), [("partition", Method::Post), ("instance", Method::Delete), ("instance", Method::Get)]);
    let without = self::site();
    assert_eq!(without.post("/live-store/prepare-downscale", "").await.status, StatusCode::NOT_FOUND);
}
