//! Asking members whose state differs what they hold, for pages.

use std::collections::BTreeMap;
use std::time::Duration;

use vivace_runtime::{Reply, Responder};

use crate::pages::PeerView;
use crate::state::{Key, State};
use crate::swim::Swim;

/// Members asked at once.
const MEMBERS_MAX: usize = 8;
const NO_ANSWER: &str = "no answer in time";

/// Asks at most eight members whose state differs for their stamps, and waits so long for their answers. The ways to members
/// are tried as well.
#[derive(Debug, Clone, Copy)]
pub struct Compare {
    /// How long to wait.
    pub patience: Duration,
}

/// Questions that wait for answers.
#[derive(Debug, Default)]
pub(super) struct Asking {
    serial: u32,
    open: BTreeMap<u32, Question>,
}

#[derive(Debug)]
struct Question {
    answers: Vec<PeerView>,
    responder: Responder<Vec<PeerView>>,
}

impl Asking {
    pub(super) fn begin(&mut self, swim: &mut Swim<State>, now: Duration) -> (u32, Reply<Vec<PeerView>>) {
        self.serial = self.serial.wrapping_add(1);
        let members = swim.differing_members(MEMBERS_MAX);
        let (responder, reply) = Reply::deferred();
        let answers: Vec<_> = members
            .iter()
            .map(|node| PeerView { member: node.name().to_owned(), stamps: Err(NO_ANSWER.to_owned()) })
            .collect();
        for node in &members {
            swim.ask(now, node, self.serial);
        }
        self.open.insert(self.serial, Question { answers, responder });
        if members.is_empty() {
            self.end(self.serial);
        }
        (self.serial, reply)
    }

    pub(super) fn told(&mut self, token: u32, member: &str, stamps: &[(Vec<u8>, u64)]) {
        let Some(question) = self.open.get_mut(&token) else { return };
        let Some(answer) = question.answers.iter_mut().find(|answer| answer.member == member) else { return };
        answer.stamps = Ok(stamps.iter().filter_map(|(key, stamp)| Some((Key::decode(key).ok()?, *stamp))).collect());
        if question.answers.iter().all(|answer| answer.stamps.is_ok()) {
            self.end(token);
        }
    }

    /// Answers with what is there.
    pub(super) fn end(&mut self, token: u32) {
        if let Some(question) = self.open.remove(&token) {
            question.responder.respond(Ok(question.answers));
        }
    }
}
