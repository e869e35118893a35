//! Time as an injected value: the system's, or one that a test moves by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Where a part learns what time it is. One value per process, handed down from `main`.
pub trait Clock: Send + Sync + 'static {
    /// Monotonic time, for measuring and for deadlines.
    fn now(&self) -> Instant;

    /// Time since the Unix epoch as the host believes it; it may jump in both directions.
    fn unix(&self) -> Duration;

    /// Completes once `duration` has passed on this clock.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Nanoseconds since the Unix epoch, the unit of every span time.
    fn unix_nanos(&self) -> u64 {
        u64::try_from(self.unix().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The host's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        // tokio's clock is the host's, except below `tokio::time::pause`, where both kinds of waiting must agree.
        tokio::time::Instant::now().into_std()
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    fn unix(&self) -> Duration {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        tokio::time::sleep(duration).boxed()
    }
}

/// A clock that stands still until a test calls [`FakeClock::advance`].
#[derive(Debug, Clone)]
pub struct FakeClock(Arc<Mutex<Hands>>);

#[derive(Debug)]
struct Hands {
    origin: Instant,
    elapsed: Duration,
    unix_origin: Duration,
    serial: u64,
    sleepers: BTreeMap<(Duration, u64), oneshot::Sender<()>>,
}

impl FakeClock {
    /// A clock that shows `unix` since the epoch.
    #[must_use]
    pub fn at(unix: Duration) -> Self {
        Self(Arc::new(Mutex::new(Hands {
            origin: Instant::now(),
            elapsed: Duration::ZERO,
            unix_origin: unix,
            serial: 0,
            sleepers: BTreeMap::new(),
        })))
    }

    /// Moves time forward and wakes, in the order of their times, everybody whose sleep ends by then.
    pub fn advance(&self, by: Duration) {
        let due: Vec<_> = {
            let mut hands = self.0.lock();
            hands.elapsed += by;
            let limit = (hands.elapsed + Duration::from_nanos(1), 0);
            let later = hands.sleepers.split_off(&limit);
            std::mem::replace(&mut hands.sleepers, later).into_values().collect()
        };
        for sleeper in due {
            // A sleeper that gave up has dropped its end; there is nobody to tell.
            sleeper.send(()).ok();
        }
    }

    /// Sets the wall clock without moving monotonic time, as an operator or NTP would.
    pub fn set_unix(&self, unix: Duration) {
        let mut hands = self.0.lock();
        hands.unix_origin = unix.saturating_sub(hands.elapsed);
    }

    /// How many sleeps are waiting, so that a test can wait until its subject sleeps instead of guessing.
    #[must_use]
    pub fn sleepers(&self) -> usize {
        let mut hands = self.0.lock();
        hands.sleepers.retain(|_, sleeper| !sleeper.is_closed());
        hands.sleepers.len()
    }

    /// How far away the next waking is.
    #[must_use]
    pub fn until_next(&self) -> Option<Duration> {
        let mut hands = self.0.lock();
        hands.sleepers.retain(|_, sleeper| !sleeper.is_closed());
        let elapsed = hands.elapsed;
        hands.sleepers.keys().next().map(|(due, _)| due.saturating_sub(elapsed))
    }
}

impl Default for FakeClock {
    /// A clock at 2020-09-13T12:26:40Z, a round number of seconds.
    fn default() -> Self {
        Self::at(Duration::from_secs(1_600_000_000))
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Instant {
        let hands = self.0.lock();
        hands.origin + hands.elapsed
    }

    fn unix(&self) -> Duration {
        let hands = self.0.lock();
        hands.unix_origin + hands.elapsed
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        if duration.is_zero() {
            return std::future::ready(()).boxed();
        }
        let (wake, woken) = oneshot::channel();
        let mut hands = self.0.lock();
        hands.serial += 1;
        let key = (hands.elapsed + duration, hands.serial);
        hands.sleepers.insert(key, wake);
        woken.map(|_| ()).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fake_clock_wakes_only_what_is_due() {
        let clock = FakeClock::default();
        let (short, long) = (clock.sleep(Duration::from_secs(1)), clock.sleep(Duration::from_secs(5)));
        assert_eq!(clock.sleepers(), 2);
        clock.advance(Duration::from_secs(1));
        short.await;
        assert_eq!(clock.sleepers(), 1);
        assert_eq!(clock.until_next(), Some(Duration::from_secs(4)));
        drop(long);
        assert_eq!(clock.sleepers(), 0);
        assert_eq!(clock.unix(), Duration::from_secs(1_600_000_001));
    }

    #[test]
    fn the_wall_clock_may_go_back_while_monotonic_time_does_not() {
        let clock = FakeClock::default();
        let before = clock.now();
        clock.advance(Duration::from_secs(2));
        clock.set_unix(Duration::from_secs(10));
        assert_eq!(clock.unix(), Duration::from_secs(10));
        assert_eq!(clock.now() - before, Duration::from_secs(2));
    }
}
