use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::sync::watch;
use tonic::{Code, Status};

use super::*;
use crate::contract::Linking;
use crate::{
    Bounds, Child, Cx, EndpointRouter, Part, Placement, Replies, Reply, Serve, StreamEndpoint, Supervisor, SystemClock,
};

const LONG: Duration = Duration::from_secs(60);
const SERVICE: &str = "vivace.test.Numbers";

#[derive(Clone, PartialEq, prost::Message)]
struct Count {
    #[prost(uint32, tag = "1")]
    to: u32,
    #[prost(bytes = "vec", tag = "2")]
    ballast: Vec<u8>,
}

impl prost::Name for Count {
    const NAME: &'static str = "Count";
    const PACKAGE: &'static str = "vivace.test";
}

/// How many streams of it are alive, and how many numbers they have given.
#[derive(Clone, Default)]
struct Watched(Arc<(watch::Sender<usize>, watch::Sender<usize>)>);

struct Alive(Watched);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.0.0.send_modify(|alive| *alive -= 1);
    }
}

struct Numbers(Watched);

impl Part for Numbers {}

impl Serve<Count> for Numbers {
    type Reply = Replies<Count>;

    fn serve(&mut self, count: Count, _cx: &mut Cx<Self>) -> Reply<Replies<Count>> {
        let watched = self.0.clone();
        watched.0.0.send_modify(|alive| *alive += 1);
        let alive = Alive(watched.clone());
        let numbers = futures::stream::iter(0..count.to).map(move |n| {
            watched.0.1.send_modify(|given| *given += 1);
            Ok(Count { to: n, ballast: count.ballast.clone() })
        });
        // One that counts to nothing hangs.
        let numbers = if count.to == 0 { futures::stream::pending().boxed() } else { numbers.boxed() };
        Reply::ok(
            numbers
                .map(move |number| {
                    let _until_the_stream_is_dropped = &alive;
                    number
                })
                .boxed(),
        )
    }
}

struct World {
    root: Supervisor,
    linking: Linking,
    numbers: StreamEndpoint<Count, Count>,
    watched: Watched,
}

async fn world(links: usize) -> World {
    let root = Supervisor::root("root", Arc::new(SystemClock), Placement::Here);
    let child = Child::<Numbers>::new("numbers", Bounds::messages(100));
    let local = StreamEndpoint::local(child.mailbox::<Count>());
    let watched = Watched::default();
    let part = watched.clone();
    root.add(child, move |_| Ok(Numbers(part.clone())));
    root.start();
    let linking = Linking::to(&EndpointRouter::of(SERVICE).streaming(local), links).await.unwrap();
    let numbers = StreamEndpoint::linked(&linking.links, SERVICE);
    World { root, linking, numbers, watched }
}

fn to(to: u32) -> Count {
    Count { to, ballast: Vec::new() }
}

async fn all(replies: Replies<Count>) -> Vec<Result<u32, Code>> {
    replies.map(|reply| reply.map(|count| count.to).map_err(|status: Status| status.code())).collect().await
}

#[actix::test]
async fn calls_share_the_links_and_wait_when_all_are_taken() {
    let World { root, linking, numbers, .. } = world(2).await;
    let hanging = numbers.call(to(0), LONG).await.unwrap();
    for _ in 0..20 {
        assert_eq!(all(numbers.call(to(3), LONG).await.unwrap()).await, [Ok(0), Ok(1), Ok(2)]);
    }
    let second = numbers.call(to(0), LONG).await.unwrap();
    let waiting = numbers.call(to(1), Duration::from_millis(50)).await.map(drop).unwrap_err();
    assert_eq!(waiting.code(), Code::DeadlineExceeded);
    drop(second);
    assert_eq!(all(numbers.call(to(1), LONG).await.unwrap()).await, [Ok(0)]);
    drop(hanging);
    linking.end();
    root.drain(Duration::ZERO).await;
}

#[actix::test]
async fn many_small_replies_wait_for_an_asker_that_does_not_read_for_a_while() {
    let World { root, linking, numbers, watched } = world(1).await;
    let mut given = watched.0.1.subscribe();
    let replies = numbers.call(to(1000), LONG).await.unwrap();
    // Where the connection was ended for them, they are never all given.
    tokio::time::timeout(LONG, given.wait_for(|given| *given == 1000)).await.expect("all replies are given").unwrap();
    assert_eq!(all(replies).await, (0..1000).map(Ok).collect::<Vec<_>>());
    linking.end();
    root.drain(Duration::ZERO).await;
}

#[actix::test]
async fn a_call_whose_asker_is_gone_ends_at_the_other_side_and_the_link_goes_on() {
    let World { root, linking, numbers, watched } = world(1).await;
    let mut alive = watched.0.0.subscribe();
    let hanging = numbers.call(to(0), LONG).await.unwrap();
    alive.wait_for(|alive| *alive == 1).await.unwrap();
    drop(hanging);
    alive.wait_for(|alive| *alive == 0).await.unwrap();
    assert_eq!(all(numbers.call(to(2), LONG).await.unwrap()).await, [Ok(0), Ok(1)]);
    assert_eq!(linking.links.connected(), 1);
    linking.end();
    root.drain(Duration::ZERO).await;
}

#[actix::test]
async fn the_calls_of_a_peer_that_dies_end_unavailable_and_others_do_not() {
    let World { root, linking, numbers, .. } = world(2).await;
    let calls = [numbers.call(to(0), LONG).await.unwrap(), numbers.call(to(0), LONG).await.unwrap()];
    linking.workers[0].abort();
    let mut connected = linking.links.watch();
    connected.wait_for(|connected| *connected == 1).await.unwrap();
    let [one, two] = calls;
    // One of both was on it.
    let (died, lives) = tokio::select! {
        died = all(one) => (died, None),
        died = all(two) => (died, None::<()>),
    };
    assert_eq!((died, lives), (vec![Err(Code::Unavailable)], None));
    linking.end();
    root.drain(Duration::ZERO).await;
}

/// A link that is open and silent, as that of a process which has died unnoticed.
async fn silent(address: &str, process: u64) -> (mpsc::Sender<Up>, Streaming<Down>) {
    let (up, outgoing) = mpsc::channel(1);
    up.try_send(Up { hello: "silent".to_owned(), process, ..Up::default() }).unwrap();
    let mut client = tonic::client::Grpc::new(crate::contract::peer(address).unwrap().channel());
    client.ready().await.unwrap();
    let (path, codec) = (http::uri::PathAndQuery::from_static(PATH), ProstCodec::<Up, Down>::default());
    let down = client.streaming(Request::new(ReceiverStream::new(outgoing)), path, codec).await.unwrap();
    (up, down.into_inner())
}

#[actix::test]
async fn what_a_process_that_died_leaves_behind_gets_no_call() {
    let World { root, linking, .. } = world(0).await;
    let child = Child::<Numbers>::new("numbers", Bounds::messages(100));
    let local = StreamEndpoint::local(child.mailbox::<Count>());
    let other = Supervisor::root("other", Arc::new(SystemClock), Placement::Here);
    other.add(child, move |_| Ok(Numbers(Watched::default())));
    other.start();
    let links = Links::new("processes");
    let (address, server) = crate::contract::expose(links.router()).await.unwrap();
    let answers = EndpointRouter::of(SERVICE).streaming(local).answers();
    let open = |process: u64| {
        let (peer, name) = (crate::contract::peer(&address).unwrap(), format!("process {process}"));
        let link = LinkTo { peer, name, process, answers: answers.clone() };
        tokio::spawn(async move { drop(link.serve(CancellationToken::new()).await) })
    };
    let mut connected = links.watch();
    let dying = open(1);
    connected.wait_for(|connected| *connected == 1).await.unwrap();
    let numbers = StreamEndpoint::<Count, Count>::linked(&links, SERVICE);
    let call = numbers.call(to(0), LONG).await.unwrap();
    let left_behind = [silent(&address, 1).await, silent(&address, 1).await];
    let lives = open(2);
    connected.wait_for(|connected| *connected == 4).await.unwrap();
    dying.abort();
    assert_eq!(all(call).await, [Err(Code::Unavailable)]);
    for _ in 0..10 {
        assert_eq!(all(numbers.call(to(1), LONG).await.unwrap()).await, [Ok(0)]);
    }
    drop(left_behind);
    lives.abort();
    server.cancel();
    linking.end();
    other.drain(Duration::ZERO).await;
    root.drain(Duration::ZERO).await;
}

#[actix::test]
async fn a_link_of_a_process_that_lives_goes_on_when_another_breaks() {
    let World { root, linking, numbers, .. } = world(0).await;
    let (address, server) = crate::contract::expose(linking.links.router()).await.unwrap();
    let child = Child::<Numbers>::new("numbers", Bounds::messages(100));
    let local = StreamEndpoint::local(child.mailbox::<Count>());
    let other = Supervisor::root("other", Arc::new(SystemClock), Placement::Here);
    other.add(child, move |_| Ok(Numbers(Watched::default())));
    other.start();
    let answers = EndpointRouter::of(SERVICE).streaming(local).answers();
    let open = || {
        let peer = crate::contract::peer(&address).unwrap();
        let link = LinkTo { peer, name: "one".to_owned(), process: 7, answers: answers.clone() };
        tokio::spawn(async move { drop(link.serve(CancellationToken::new()).await) })
    };
    let mut connected = linking.links.watch();
    let first = open();
    connected.wait_for(|connected| *connected == 1).await.unwrap();
    let call = numbers.call(to(0), LONG).await.unwrap();
    let second = open();
    connected.wait_for(|connected| *connected == 2).await.unwrap();
    first.abort();
    assert_eq!(all(call).await, [Err(Code::Unavailable)]);
    // Well before the next beat, because it was asked.
    assert_eq!(all(numbers.call(to(1), BEAT / 2).await.unwrap()).await, [Ok(0)]);
    second.abort();
    server.cancel();
    linking.end();
    other.drain(Duration::ZERO).await;
    root.drain(Duration::ZERO).await;
}

#[actix::test]
async fn a_slow_reader_slows_the_other_side_down() {
    let World { root, linking, numbers, watched } = world(1).await;
    let ballast = vec![7; 1 << 20];
    let mut replies = numbers.call(Count { to: 200, ballast }, LONG).await.unwrap();
    assert_eq!(replies.next().await.unwrap().unwrap().to, 0);
    let given = *watched.0.1.borrow();
    // What is under way are windows and channels, a few messages; the rest is not made before it is asked for.
    assert!(given < 100, "{given} messages of a MiB were made for a reader that took one");
    let rest = all(replies).await;
    assert_eq!((rest.len(), rest.last()), (199, Some(&Ok(199))));
    linking.end();
    root.drain(Duration::ZERO).await;
}

#[actix::test]
async fn who_leaves_finishes_its_call_and_gets_no_other() {
    let World { root, linking, .. } = world(0).await;
    let child = Child::<Numbers>::new("numbers", Bounds::messages(100));
    let local = StreamEndpoint::local(child.mailbox::<Count>());
    let other = Supervisor::root("other", Arc::new(SystemClock), Placement::Here);
    let watched = Watched::default();
    let part = watched.clone();
    other.add(child, move |_| Ok(Numbers(part.clone())));
    other.start();
    let links = Links::new("leavers");
    let (address, server) = crate::contract::expose(links.router()).await.unwrap();
    let answers = EndpointRouter::of(SERVICE).streaming(local).answers();
    let link =
        LinkTo { peer: crate::contract::peer(&address).unwrap(), name: "leaver".to_owned(), process: 1, answers };
    let leave = CancellationToken::new();
    let (leaves, serving) = (leave.clone(), link.clone());
    let served = tokio::spawn(async move { serving.serve(leaves).await });
    let numbers = StreamEndpoint::<Count, Count>::linked(&links, SERVICE);
    let mut replies = numbers.call(Count { to: 40, ballast: vec![0; 1 << 20] }, LONG).await.unwrap();
    assert_eq!(replies.next().await.unwrap().unwrap().to, 0);
    leave.cancel();
    assert_eq!(all(replies).await.len(), 39);
    served.await.unwrap().unwrap();
    assert_eq!(links.connected(), 0);
    let late = numbers.call(to(1), Duration::from_millis(50)).await.map(drop).unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    server.cancel();
    linking.end();
    other.drain(Duration::ZERO).await;
    root.drain(Duration::ZERO).await;
}

#[actix::test]
async fn closing_ends_links_and_their_calls() {
    let World { root, linking, numbers, .. } = world(1).await;
    let call = numbers.call(to(0), LONG).await.unwrap();
    linking.links.close();
    assert_eq!(all(call).await, [Err(Code::Unavailable)]);
    let mut connected = linking.links.watch();
    connected.wait_for(|connected| *connected == 0).await.unwrap();
    linking.end();
    root.drain(Duration::ZERO).await;
}

#[test]
fn ends_carry_the_whole_status() {
    let mut status = Status::with_details(Code::Aborted, "wrong: ü", Bytes::from_static(b"\x00d"));
    status.metadata_mut().insert("x-reason", "because".parse().unwrap());
    let back = frame::End::of(Err(status)).result().unwrap_err();
    assert_eq!((back.code(), back.message(), back.details()), (Code::Aborted, "wrong: ü", &b"\x00d"[..]));
    assert_eq!(back.metadata().get("x-reason").unwrap(), "because");
    assert!(frame::End::of(Ok(())).result().is_ok());
}
