//! The downscale endpoints of a live-store, on its board and its marker.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use vivace_runtime::{Clock, Compute};

use super::routes::Downscale;
use crate::board::Board;
use crate::partition::Change;
use crate::partition::downscale::{Answer, Marker, Method, partition_report, partition_target, refused};
use crate::ring::{Command, CommandError};
use crate::state::Partition;

/// From leaving the ring to the end of answers: in less than this all have heard.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a live-store answers when it is told that it will go.
#[derive(Clone)]
pub struct LiveStoreDownscale {
    /// The host of its rings.
    pub board: Board,
    /// Its partition.
    pub own: u32,
    /// What it remembers over a restart.
    pub marker: Arc<Mutex<Marker>>,
    /// Where the marker is written.
    pub compute: Compute,
    /// The time that is written into the marker.
    pub clock: Arc<dyn Clock>,
    /// Whether the live-store runs.
    pub runs: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl std::fmt::Debug for LiveStoreDownscale {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveStoreDownscale").field("own", &self.own).finish_non_exhaustive()
    }
}

impl LiveStoreDownscale {
    fn own(&self) -> Option<Partition> {
        let rings = self.board.rings();
        let (_, view) = rings.partitions.as_ref()?;
        view.get(self.own).map(|entry| entry.partition.clone())
    }

    /// At the beginning of a stop: one that was told that it will not come back leaves its ring while it still answers, and waits
    /// until all have heard, so that nobody asks in vain for what blocks have.
    pub async fn stopping(&self) {
        if !self.marker.lock().is_set() {
            return;
        }
        match self.board.command(Command::Leave).await {
            Ok(()) => self.clock.sleep(FAREWELL).await,
            Err(error) => tracing::warn!(%error, "others may still ask this live-store while it stops"),
        }
    }

    /// Removes the marker at the end of a clean stop: what it announced has happened.
    ///
    /// # Errors
    /// Those of the disk, in words.
    pub async fn stopped(&self) -> Result<(), String> {
        let marker = Arc::clone(&self.marker);
        let cleared = self.compute.run(0, move || {
            let mut marker = marker.lock();
            if marker.is_set() { marker.clear() } else { Ok(()) }
        });
        match cleared.await {
            Ok(cleared) => cleared.map_err(|error| error.to_string()),
            Err(status) => Err(status.message().to_owned()),
        }
    }

    async fn change_partition(&self, method: Method) -> Answer {
        if !(self.runs)() {
            return Answer::unavailable();
        }
        let to = match partition_target(method, self.own, self.own().as_ref()) {
            Ok(to) => to,
            Err(answer) => return answer,
        };
        if let Some(to) = to {
            let command = Command::Partition { id: self.own, change: Change::State(to) };
            match self.board.command(command).await {
                Ok(()) => {}
                Err(CommandError::Partition(error)) => return refused(&error),
                Err(error) => return Answer::new(500, format!("{error}\n")),
            }
        }
        match self.own() {
            Some(partition) => partition_report(&partition),
            None => Answer::new(500, format!("partition {} is not in the ring\n", self.own)),
        }
    }

    async fn change_instance(&self, method: Method) -> Answer {
        if !(self.runs)() {
            return Answer::unavailable();
        }
        let (marker, partition, own, now) = (Arc::clone(&self.marker), self.own(), self.own, self.clock.unix());
        let written = self.compute.run(0, move || {
            let mut marker = marker.lock();
            let answer = marker.answer(method, own, partition.as_ref(), now);
            (answer, marker.removes_owner())
        });
        match written.await {
            Ok((answer, removes)) if answer.status == 204 => {
                match self.board.command(Command::RemoveOwner(removes)).await {
                    Ok(()) => answer,
                    Err(error) => Answer::new(500, format!("{error}\n")),
                }
            }
            Ok((answer, _)) => answer,
            Err(status) => Answer::new(500, format!("{}\n", status.message())),
        }
    }
}

impl Downscale for LiveStoreDownscale {
    fn partition(&self, method: Method) -> BoxFuture<'_, Answer> {
        self.change_partition(method).boxed()
    }

    fn instance(&self, method: Method) -> BoxFuture<'_, Answer> {
        self.change_instance(method).boxed()
    }
}
