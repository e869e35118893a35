//! Failures on demand, as a client meets them.

use kafka_protocol::messages::{FetchRequest, MetadataRequest, ProduceRequest, metadata_request};
use kafka_protocol::protocol::StrBytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::raw::{Raw, fetch_request, produce_request};
use crate::batch::tests::batch;
use crate::{Action, DevBroker, Fault, Options, code};

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;

#[tokio::test(flavor = "multi_thread")]
async fn a_throttled_batch_is_stored_and_the_answer_says_so() {
    let broker = DevBroker::start(Options::in_memory().topic("t", 2)).await.unwrap();
    let id = broker.faults().add(Fault::of(PRODUCE, Action::Throttle { ms: 70 }).on("t", 0).times(1)).unwrap();
    let mut client = Raw::to(&broker).await;
    assert_eq!(client.ask(7, &produce_request("t", 1, batch(&[1]))).await.throttle_time_ms, 0);
    let answer = client.ask(7, &produce_request("t", 0, batch(&[1]))).await;
    assert_eq!((answer.throttle_time_ms, answer.responses[0].partition_responses[0].base_offset), (70, 0));
    assert_eq!(client.ask(7, &produce_request("t", 0, batch(&[1]))).await.throttle_time_ms, 0);
    assert_eq!(broker.faults().hits(id), 1);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_cut_before_or_after_the_append() {
    let broker = DevBroker::start(Options::in_memory().topic("t", 1)).await.unwrap();
    for (action, stored) in [(Action::CutBefore, 0), (Action::CutAfter, 1)] {
        broker.faults().add(Fault::of(PRODUCE, action).times(1)).unwrap();
        let mut client = Raw::to(&broker).await;
        assert_eq!(client.try_ask(7, &produce_request("t", 0, batch(&[1]))).await, None);
        assert_eq!(Raw::to(&broker).await.fetch("t", 0, 0).await.high_watermark, stored);
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_hangs_holds_up_its_own_connection_alone() {
    let broker = DevBroker::start(Options::in_memory().topic("t", 1)).await.unwrap();
    let hang = broker.faults().add(Fault::of(FETCH, Action::Hang)).unwrap();
    let (mut stuck, mut other) = (Raw::to(&broker).await, Raw::to(&broker).await);
    stuck.tell(7, &fetch_request("t", 0, 0)).await;
    stuck.tell(7, &produce_request("t", 0, batch(&[1]))).await;
    assert_eq!(other.produce("t", 0, batch(&[1])).await.base_offset, 0);
    assert!(broker.faults().remove(hang));
    assert_eq!(
        other.fetch("t", 0, 0).await.high_watermark,
        1,
        "what stood behind the hanging request was not carried out"
    );
    // It ends with the broker, without an answer.
    broker.stop().await;
    assert_eq!(stuck.receive().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_is_told_for_its_partition_and_a_slow_answer_comes() {
    let broker = DevBroker::start(Options::in_memory().topic("t", 2)).await.unwrap();
    broker.faults().add(Fault::of(PRODUCE, Action::Error { code: 19 }).on("t", 1).times(1)).unwrap();
    broker.faults().add(Fault::of(FETCH, Action::Error { code: 56 }).times(1)).unwrap();
    broker.faults().add(Fault::of(FETCH, Action::Slow { ms: 30 })).unwrap();
    let mut client = Raw::to(&broker).await;
    assert_eq!(client.produce("t", 0, batch(&[1])).await.error_code, code::NONE);
    assert_eq!(client.produce("t", 1, batch(&[1])).await.error_code, 19);
    assert_eq!(client.produce("t", 1, batch(&[1])).await.base_offset, 0, "nothing was stored");
    assert_eq!(client.fetch("t", 0, 0).await.error_code, 56);
    let began = std::time::Instant::now();
    assert_eq!(client.fetch("t", 0, 0).await.error_code, code::NONE);
    assert!(began.elapsed() >= std::time::Duration::from_millis(30));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_leader_is_named_and_found_at_its_address() {
    let options = Options::in_memory().topic("t", 2).listen(&["127.0.0.1:0", "127.0.0.1:0"]);
    let broker = DevBroker::start(options).await.unwrap();
    let id = broker.faults().add(Fault::leader_moved("t", 0, 2, broker.addrs()[1])).unwrap();
    let mut here = Raw::to(&broker).await;
    let asked =
        metadata_request::MetadataRequestTopic::default().with_name(Some(StrBytes::from_static_str("t").into()));
    let metadata = MetadataRequest::default().with_topics(Some(vec![asked]));
    let answer = here.ask(9, &metadata).await;
    let leaders: Vec<_> = answer.topics[0].partitions.iter().map(|p| (*p.leader_id, p.leader_epoch)).collect();
    assert_eq!(leaders, [(2, 1), (1, 1)]);
    let other = answer.brokers.iter().find(|broker| *broker.node_id == 2).unwrap();
    assert_eq!(other.port, i32::from(broker.addrs()[1].port()));

    assert_eq!(here.produce("t", 0, batch(&[1])).await.error_code, code::NOT_LEADER_OR_FOLLOWER);
    assert_eq!(here.fetch("t", 0, 0).await.error_code, code::NOT_LEADER_OR_FOLLOWER);
    assert_eq!(here.produce("t", 1, batch(&[1])).await.error_code, code::NONE);
    let mut there = Raw::to_address(broker.addrs()[1]).await;
    assert_eq!(there.produce("t", 0, batch(&[1])).await.base_offset, 0);

    assert!(broker.faults().remove(id));
    assert_eq!(here.produce("t", 0, batch(&[1])).await.base_offset, 1);
    assert_eq!(here.ask(9, &metadata).await.topics[0].partitions[0].leader_epoch, 2, "epochs never go back");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_added_and_removed_over_the_admin_port() {
    let options = Options { admin: Some("127.0.0.1:0".to_owned()), ..Options::in_memory().topic("t", 1) };
    let broker = DevBroker::start(options).await.unwrap();
    let admin = broker.admin_addr().unwrap();
    let ask = async |method: &str, path: &str, body: &str| {
        let mut stream = tokio::net::TcpStream::connect(admin).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].to_owned(), body.to_owned())
    };
    let fault = r#"{"api_key":0,"topic":"t","times":1,"action":{"error":{"code":7}}}"#;
    assert_eq!(ask("POST", "/faults", fault).await, ("200".to_owned(), r#"{"id":1}"#.to_owned()));
    assert_eq!(ask("POST", "/faults", r#"{"action":"explode"}"#).await.0, "400");
    assert!(ask("GET", "/faults", "").await.1.contains(r#""code":7"#));
    let mut client = Raw::to(&broker).await;
    assert_eq!(client.produce("t", 0, batch(&[1])).await.error_code, 7);
    assert_eq!(client.produce("t", 0, batch(&[1])).await.error_code, code::NONE);
    assert_eq!(ask("POST", "/faults", r#"{"api_key":0,"action":"hang"}"#).await.0, "200");
    assert_eq!(ask("DELETE", "/faults/2", "").await.0, "204");
    assert_eq!(ask("DELETE", "/faults/2", "").await.0, "404");
    assert_eq!(ask("DELETE", "/faults", "").await.0, "204");
    assert_eq!(client.produce("t", 0, batch(&[1])).await.error_code, code::NONE);
    broker.stop().await;
}

// The kinds of requests that the faults above name by number.
const _: () = {
    use kafka_protocol::protocol::Request;
    assert!(ProduceRequest::KEY == PRODUCE && FetchRequest::KEY == FETCH);
};
