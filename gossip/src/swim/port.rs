//! What foca wants done: collected while it runs, carried out afterwards.

use std::cell::RefCell;
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use foca::{BroadcastHandler, Invalidates, Notification, OwnedNotification, Runtime, Timer};

use super::Node;
use crate::sync::Replicated;

/// Collects foca's orders.
#[derive(Debug, Default)]
pub(crate) struct Port {
    pub(crate) sends: Vec<(Node, Vec<u8>)>,
    pub(crate) timers: Vec<(Timer<Node>, Duration)>,
    pub(crate) notes: Vec<OwnedNotification<Node>>,
}

impl Runtime<Node> for Port {
    fn notify(&mut self, notification: Notification<'_, Node>) {
        self.notes.push(notification.to_owned());
    }

    fn send_to(&mut self, to: Node, data: &[u8]) {
        self.sends.push((to, data.to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Node>, after: Duration) {
        self.timers.push((event, after));
    }
}

/// Hands records that ride on foca's packets to the state, and says which are worth spreading further.
pub(crate) struct Spread<S> {
    pub(crate) state: Rc<RefCell<S>>,
    pub(crate) changed: Rc<RefCell<Vec<Vec<u8>>>>,
}

/// The key of a record: a newer record of the same key takes the place of an older one that is still being told.
pub(crate) struct RecordKey(Vec<u8>);

impl Invalidates for RecordKey {
    fn invalidates(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<S: Replicated> BroadcastHandler<Node> for Spread<S> {
    type Key = RecordKey;
    type Error = Infallible;

    fn receive_item(&mut self, data: &[u8], sender: Option<&Node>) -> Result<Option<RecordKey>, Infallible> {
        if sender.is_none() {
            // Our own news: merged already.
            return Ok(self.state.borrow().key_of(data).map(RecordKey));
        }
        let changed = self.state.borrow_mut().apply(data);
        if let Some(key) = &changed {
            self.changed.borrow_mut().push(key.clone());
        }
        Ok(changed.map(RecordKey))
    }
}
