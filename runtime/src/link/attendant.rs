//! Attendant: the asker's end of one link. It takes a call, sends it, passes on what comes of it, and takes the next.

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use tonic::Status;

use super::frame::{Ask, Down, Up};
use super::{BEAT, Call, Event, Links, SILENCE};
use crate::endpoint::Admission;

/// See the module. Its end is the end of the link.
pub(super) struct Attendant {
    links: Links,
    down: mpsc::Sender<Result<Down, Status>>,
    peer: String,
    process: u64,
    leaving: bool,
}

/// Counts a link as long as it is there.
struct Connected(Links);

impl Connected {
    fn new(links: &Links) -> Self {
        links.0.connected.send_modify(|connected| *connected += 1);
        Self(links.clone())
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.0.connected.send_modify(|connected| *connected -= 1);
    }
}

type Incoming = BoxStream<'static, Result<Up, Status>>;

impl Attendant {
    pub(super) fn new(links: Links, down: mpsc::Sender<Result<Down, Status>>) -> Self {
        Self { links, down, peer: String::new(), process: 0, leaving: false }
    }

    pub(super) async fn run(mut self, mut up: Incoming) {
        match timeout(SILENCE, up.next()).await {
            Ok(Some(Ok(first))) if !first.hello.is_empty() => (self.peer, self.process) = (first.hello, first.process),
            _ => return,
        }
        tracing::debug!(peer = self.peer, "link opened");
        let connected = Connected::new(&self.links);
        let closed = self.links.0.closed.clone();
        let down = self.down.clone();
        // Beside the calls: an asker that reads slowly is alive all the same.
        let beats = async move {
            let mut beat = interval(BEAT);
            beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                beat.tick().await;
                if down.send(Ok(Down::default())).await.is_err() {
                    return;
                }
            }
        };
        let why = tokio::select! {
            why = self.attend(&mut up) => why,
            () = beats => "the other side ended it",
            () = closed.cancelled() => "this process stops",
        };
        drop(connected);
        tracing::debug!(peer = self.peer, why, "link closed");
    }

    async fn attend(&mut self, up: &mut Incoming) -> &'static str {
        let mut silent_until = Instant::now() + SILENCE;
        let mut broken = self.links.0.broken.subscribe();
        // Another link of the same process broke: this one takes no call before the process has shown that it lives.
        let mut suspect = false;
        while !self.leaving {
            tokio::select! {
                biased;
                frame = timeout_at(silent_until, up.next()) => match frame {
                    Ok(Some(Ok(frame))) => {
                        suspect = false;
                        self.leaving |= frame.leaving;
                        silent_until = Instant::now() + SILENCE;
                    }
                    Ok(Some(Err(_)) | None) => return "the other side ended it",
                    Err(_) => return "the other side is silent",
                },
                news = broken.recv() => {
                    // Who has missed some news assumes the worst.
                    if news.is_ok_and(|process| process != self.process) {
                        continue;
                    }
                    suspect = true;
                    // Without room something else is on its way, which is answered as well.
                    self.down.try_send(Ok(Down { probe: true, ..Down::default() })).ok();
                }
                call = self.links.next(), if !suspect => {
                    let Some(call) = call else { return "this process stops" };
                    if let Err(why) = self.conduct(call, up).await {
                        return why;
                    }
                    silent_until = Instant::now() + SILENCE;
                }
            }
        }
        "the other side stops"
    }

    /// One call from beginning to end. An error is the end of the link.
    async fn conduct(&mut self, call: Call, up: &mut Incoming) -> Result<(), &'static str> {
        let serial = self.links.serial();
        let ask = Ask {
            path: call.path,
            request: call.request,
            timeout_nanos: u64::try_from(call.deadline.left().as_nanos()).unwrap_or(u64::MAX),
            only_if_room: call.admission == Admission::Try,
        };
        let begin = Down { call: serial, ask: Some(ask), ..Down::default() };
        if self.down.send(Ok(begin)).await.is_err() {
            return self.lost(&call.events, "the other side ended it").await;
        }
        loop {
            let frame = tokio::select! {
                frame = timeout(SILENCE, up.next()) => frame,
                () = call.events.closed() => return self.cancel(serial, up).await,
            };
            let frame = match frame {
                Ok(Some(Ok(frame))) => frame,
                Ok(Some(Err(_)) | None) => return self.lost(&call.events, "the other side ended it").await,
                Err(_) => return self.lost(&call.events, "the other side is silent").await,
            };
            self.leaving |= frame.leaving;
            if frame.call != serial {
                continue;
            }
            // Waits until the asker has taken what came before: the stream waits with it, and so does the other side.
            let mut told = Ok(());
            if frame.started {
                told = call.events.send(Event::Started).await;
            }
            if let Some(reply) = frame.reply {
                told = call.events.send(Event::Reply(reply)).await;
            }
            if let Some(end) = frame.end {
                // Nobody may be there any more to hear it, and nothing is left to cancel.
                call.events.send(Event::Ended(end.result())).await.ok();
                return Ok(());
            }
            if told.is_err() {
                return self.cancel(serial, up).await;
            }
        }
    }

    /// The asker is gone: the other side is told, and the link is free once it has ended the call.
    async fn cancel(&mut self, serial: u64, up: &mut Incoming) -> Result<(), &'static str> {
        if self.down.send(Ok(Down { call: serial, cancel: true, ..Down::default() })).await.is_err() {
            return Err("the other side ended it");
        }
        let ended = async {
            while let Some(Ok(frame)) = up.next().await {
                self.leaving |= frame.leaving;
                if frame.call == serial && frame.end.is_some() {
                    return Ok(());
                }
            }
            Err("the other side ended it")
        };
        timeout(SILENCE, ended).await.unwrap_or(Err("the other side does not end a call"))
    }

    async fn lost(&self, events: &mpsc::Sender<Event>, why: &'static str) -> Result<(), &'static str> {
        let status =
            Status::unavailable(format!("{} went away ({why}); whether the request took effect is unknown", self.peer));
        // Before the asker can ask again, so that it does not go to another link of a process that has died. Without any
        // other link nobody listens.
        self.links.0.broken.send(self.process).ok();
        // The asker may have gone first.
        events.send(Event::Ended(Err(status))).await.ok();
        Err(why)
    }
}
