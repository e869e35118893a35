use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tonic::Code;

use super::*;
use crate::contract::{each_form, each_stream_form};
use crate::{Bounds, Child, Cx, Part, Placement, Reply, Serve, Supervisor, SystemClock};

const LONG: Duration = Duration::from_secs(60);

#[derive(Clone, PartialEq, prost::Message)]
struct Ask {
    #[prost(string, tag = "1")]
    what: String,
    #[prost(bytes = "bytes", tag = "2")]
    body: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Told {
    #[prost(bytes = "bytes", tag = "1")]
    body: Bytes,
}

impl prost::Name for Ask {
    const NAME: &'static str = "Ask";
    const PACKAGE: &'static str = "vivace.test";
}

impl prost::Name for Told {
    const NAME: &'static str = "Told";
    const PACKAGE: &'static str = "vivace.test";
}

struct Oracle;

impl Part for Oracle {}

impl Serve<Ask> for Oracle {
    type Reply = Told;

    fn serve(&mut self, ask: Ask, _cx: &mut Cx<Self>) -> Reply<Told> {
        match ask.what.as_str() {
            "echo" => Reply::ok(Told { body: ask.body }),
            "hang" => Reply::later(std::future::pending()),
            "panic" => panic!("told to"),
            _ => {
                let details = Bytes::from_static(b"\x08\x05details");
                let mut status = Status::with_details(Code::FailedPrecondition, "wrong: ü %", details);
                status.metadata_mut().insert("x-reason", "because".parse().unwrap());
                Reply::err(status)
            }
        }
    }
}

fn stream(ask: &Ask) -> Replies<Told> {
    let told = |n: u8| Ok(Told { body: vec![n].into() });
    match ask.what.as_str() {
        "three" => futures::stream::iter([1, 2, 3].map(told)).boxed(),
        "broken" => futures::stream::iter([told(1), Err(Status::data_loss("gone")), told(2)]).boxed(),
        _ => futures::stream::iter([told(1)]).chain(futures::stream::pending()).boxed(),
    }
}

struct Streams;

impl Part for Streams {}

impl Serve<Ask> for Streams {
    type Reply = Replies<Told>;

    fn serve(&mut self, ask: Ask, _cx: &mut Cx<Self>) -> Reply<Replies<Told>> {
        if ask.what == "refused" { Reply::err(Status::not_found("no such")) } else { Reply::ok(stream(&ask)) }
    }
}

fn root() -> Supervisor {
    Supervisor::root("root", Arc::new(SystemClock), Placement::Here)
}

fn oracle(root: &Supervisor, bounds: Bounds) -> Endpoint<Ask, Told> {
    let child = Child::<Oracle>::new("oracle", bounds).restart(crate::Restart::forever().waiting());
    let endpoint = Endpoint::local(child.mailbox());
    root.add(child, |_| Ok(Oracle));
    root.start();
    endpoint
}

fn ask(what: &str) -> Ask {
    Ask { what: what.into(), body: Bytes::from_static(b"body") }
}

#[actix::test]
async fn the_path_is_the_service_and_the_name_of_the_request() {
    assert_eq!(path::<Ask>("vivace.test.Oracle").path(), "/vivace.test.Oracle/Ask");
}

#[actix::test]
async fn replies_and_errors_with_their_details_are_the_same_in_every_form() {
    let root = root();
    each_form(oracle(&root, Bounds::messages(4)), async |form, endpoint| {
        assert_eq!(endpoint.call(ask("echo"), LONG).await.unwrap().body, "body", "{form:?}");
        let status = endpoint.call(ask("fail"), LONG).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, "wrong: ü %"), "{form:?}");
        assert_eq!(status.details(), b"\x08\x05details", "{form:?}");
        assert_eq!(status.metadata().get("x-reason").unwrap(), "because", "{form:?}");
        assert_eq!(endpoint.call(ask("panic"), LONG).await.unwrap_err().code(), Code::Internal, "{form:?}");
        assert_eq!(endpoint.call(ask("echo"), LONG).await.unwrap().body, "body", "{form:?}");
    })
    .await
    .unwrap();
    root.drain(LONG).await;
}

#[actix::test]
async fn a_deadline_is_the_same_error_in_every_form() {
    let root = root();
    each_form(oracle(&root, Bounds::messages(4)), async |form, endpoint| {
        let status = endpoint.call(ask("hang"), Duration::from_millis(30)).await.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{form:?}");
    })
    .await
    .unwrap();
    root.drain(Duration::ZERO).await;
}

#[actix::test]
async fn a_full_mailbox_refuses_those_who_try_in_every_form() {
    let root = root();
    each_form(oracle(&root, Bounds::messages(2)), async |form, endpoint| {
        let hanging = [endpoint.clone(), endpoint.clone()]
            .map(|endpoint| tokio::task::spawn_local(async move { endpoint.call(ask("hang"), LONG).await }));
        // Until the hanging ones have arrived there is room.
        let refused = loop {
            if let Err(status) = endpoint.try_call(ask("echo"), LONG).await {
                break status;
            }
        };
        assert_eq!(refused.code(), Code::ResourceExhausted, "{form:?}");
        for call in hanging {
            call.abort();
        }
    })
    .await
    .unwrap();
    root.drain(Duration::ZERO).await;
}

#[actix::test]
async fn streams_their_errors_and_their_deadlines_are_the_same_in_every_form() {
    let root = root();
    let child = Child::<Streams>::new("streams", Bounds::messages(4));
    let local = StreamEndpoint::local(child.mailbox::<Ask>());
    root.add(child, |_| Ok(Streams));
    root.start();
    each_stream_form(local, async |form, endpoint| {
        let collect = async |what: &str, deadline| {
            let items: Vec<_> = endpoint.call(ask(what), deadline).await.unwrap().collect().await;
            items
                .into_iter()
                .map(|item| item.map(|told| told.body[0]).map_err(|status| status.code()))
                .collect::<Vec<_>>()
        };
        assert_eq!(collect("three", LONG).await, [Ok(1), Ok(2), Ok(3)], "{form:?}");
        assert_eq!(collect("broken", LONG).await, [Ok(1), Err(Code::DataLoss)], "{form:?}");
        let slow = collect("slow", Duration::from_millis(50)).await;
        assert_eq!(slow, [Ok(1), Err(Code::DeadlineExceeded)], "{form:?}");
        assert_eq!(endpoint.call(ask("refused"), LONG).await.map(drop).unwrap_err().code(), Code::NotFound, "{form:?}");
    })
    .await
    .unwrap();
    root.drain(LONG).await;
}

#[actix::test]
async fn patience_ends_a_wait_for_the_other_side_and_not_the_pauses_of_the_reader() {
    let root = root();
    let child = Child::<Streams>::new("streams", Bounds::messages(4));
    let local = StreamEndpoint::local(child.mailbox::<Ask>());
    root.add(child, |_| Ok(Streams));
    root.start();
    let patience = Duration::from_millis(40);
    each_stream_form(local, async |form, endpoint| {
        let mut replies = endpoint.call_patiently(ask("three"), patience, LONG).await.unwrap();
        let mut told = Vec::new();
        while let Some(reply) = replies.next().await {
            told.push(reply.unwrap().body[0]);
            tokio::time::sleep(patience * 2).await;
        }
        assert_eq!(told, [1, 2, 3], "{form:?}");
        let slow: Vec<_> = endpoint.call_patiently(ask("slow"), patience, LONG).await.unwrap().collect().await;
        assert_eq!(slow[1].as_ref().unwrap_err().code(), Code::DeadlineExceeded, "{form:?}");
        assert_eq!(slow.len(), 2, "{form:?}");
    })
    .await
    .unwrap();
    root.drain(LONG).await;
}

#[actix::test]
async fn a_peer_that_is_not_there_is_unavailable() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let channel = crate::Dial::default().channel(&free.to_string()).unwrap();
    let endpoint = Endpoint::<Ask, Told>::remote(&Peer::new(channel, "nobody"), "vivace.test.Oracle");
    let status = endpoint.call(ask("echo"), LONG).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().starts_with("nobody cannot be reached"), "{}", status.message());
}

#[actix::test]
async fn two_components_answer_the_same_message_in_one_process() {
    let root = root();
    let one = oracle(&root, Bounds::messages(4));
    let other = Supervisor::root("other", Arc::new(SystemClock), Placement::Here);
    let other_one = oracle(&other, Bounds::messages(4));
    let router = EndpointRouter::of("vivace.test.One").unary(one).into_router();
    let router = router.merge(EndpointRouter::of("vivace.test.Other").unary(other_one).into_router());
    let (address, stop) = crate::contract::expose(router).await.unwrap();
    let peer = crate::contract::peer(&address).unwrap();
    other.drain(LONG).await;
    let call = async |service| Endpoint::<Ask, Told>::remote(&peer, service).call(ask("echo"), LONG).await;
    assert!(call("vivace.test.One").await.is_ok());
    assert_eq!(call("vivace.test.Other").await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(call("vivace.test.Third").await.unwrap_err().code(), Code::Unimplemented);
    stop.cancel();
    root.drain(LONG).await;
}
