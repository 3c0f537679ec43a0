//! What the connections of a worker share, and the limits of all of them.

use crate::{refusals::Refusals, table::Table};
use arc_swap::ArcSwap;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

/// How long a client may pause between two requests.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a client may take to send a head.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to read a response of the proxy itself.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of the target of a refused request is written to the access log.
pub const MAX_LOGGED_TARGET: usize = 200;

#[derive(Debug)]
pub struct WorkerContext {
    pub worker: usize,
    pub tables: Arc<ArcSwap<Table>>,
    pub refusals: Arc<Refusals>,
    closing: AtomicBool,
}

impl WorkerContext {
    pub fn new(worker: usize, tables: Arc<ArcSwap<Table>>, refusals: Arc<Refusals>) -> WorkerContext {
        WorkerContext { worker, tables, refusals, closing: AtomicBool::new(false) }
    }

    /// From now on connections take no more requests.
    pub fn close(&self) {
        self.closing.store(true, Relaxed);
    }

    pub fn is_closing(&self) -> bool {
        self.closing.load(Relaxed)
    }
}
