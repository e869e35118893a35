//! Farewell: removes the shutdown marker at the end of a clean stop, when what it announced has happened.
//! Gets no messages; its place is the row below the live-store, so that it drains when that is done. On restart: nothing.

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use vivace_gossip::pages::LiveStoreDownscale;
use vivace_runtime::{Bounds, Child, Cx, Part, Supervisor};

/// The part.
pub(super) struct Farewell(LiveStoreDownscale);

impl Farewell {
    pub(super) fn add(root: &Supervisor, downscale: LiveStoreDownscale) {
        let child = Child::<Self>::new("shutdown-marker", Bounds::messages(1));
        root.add(child, move |_| Ok(Self(downscale.clone())));
    }
}

impl Part for Farewell {
    fn drain(&mut self, _: &mut Cx<Self>) -> LocalBoxFuture<'static, ()> {
        let downscale = self.0.clone();
        async move {
            if let Err(error) = downscale.stopped().await {
                tracing::warn!(%error, "the shutdown marker was not removed; the next start does not make its partition");
            }
        }
        .boxed_local()
    }
}
