//! Time as [`crate::Jobs`] sees it: this machine's, and decisions only by differences of it. No node's clock counts.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A clock.
pub trait Clock: Send {
    /// Time since some moment; never goes back.
    fn now(&self) -> Duration;
    /// Seconds since 1970 (UTC), for people and for noticing a node whose clock is wrong.
    fn unix(&self) -> f64;
}

/// Seconds since 1970.
fn unix() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// The machine's.
pub struct System(Instant);

impl Default for System {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for System {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }

    fn unix(&self) -> f64 {
        unix()
    }
}

/// The machine's, faster: hours of a simulated cluster pass in seconds. Clones share their start.
#[derive(Clone)]
pub struct Scaled {
    start: Instant,
    unix: f64,
    factor: u32,
}

impl Scaled {
    /// So many times as fast.
    pub fn new(factor: u32) -> Self {
        Self { start: Instant::now(), unix: unix(), factor }
    }
}

impl Clock for Scaled {
    fn now(&self) -> Duration {
        self.start.elapsed() * self.factor
    }

    fn unix(&self) -> f64 {
        self.unix + self.now().as_secs_f64()
    }
}
