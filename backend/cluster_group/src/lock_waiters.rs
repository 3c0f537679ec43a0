//! The clients of this node that wait for a lock.
//!
//! The queue of a lock is replicated; which connection waits is known here alone. Clients do not poll: applying an
//! entry notifies those that it concerns. A client enters before its request is proposed, so it misses no notification.

use ringmaster_cluster::locks::{LockNotification, WaitResult};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// The last notification of a waiting client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wakeup {
    #[default]
    None,
    Result(WaitResult),
    /// A snapshot has replaced entries: the state has to be looked at.
    Recheck,
}

type Key = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
struct Waiting {
    handles: usize,
    wakeup: watch::Sender<Wakeup>,
}

#[derive(Debug, Default)]
pub struct LockWaiters {
    /// By the lock and the id of the request. A client that comes back while its first connection
    /// lingers shares the entry with that connection.
    waiting: Mutex<HashMap<Key, Waiting>>,
}

/// The entry of a waiting client, until it is dropped.
#[derive(Debug)]
pub struct WaitHandle<'a> {
    waiters: &'a LockWaiters,
    key: Key,
    wakeup: watch::Receiver<Wakeup>,
}

impl LockWaiters {
    pub fn enter(&self, lock: &str, request: &str) -> WaitHandle<'_> {
        let key: Key = (lock.into(), request.into());
        let mut waiting = self.lock();
        let entry = waiting.entry(key.clone()).or_default();
        entry.handles += 1;
        WaitHandle { waiters: self, key, wakeup: entry.wakeup.subscribe() }
    }

    pub fn notify(&self, notices: Vec<LockNotification>) {
        let waiting = self.lock();
        for LockNotification { lock, request, result } in notices {
            if let Some(entry) = waiting.get(&(lock, request)) {
                entry.wakeup.send_replace(Wakeup::Result(result));
            }
        }
    }

    pub fn recheck_all(&self) {
        for entry in self.lock().values() {
            entry.wakeup.send_replace(Wakeup::Recheck);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WaitHandle<'_> {
    /// The next notification. A later one replaces one that was not taken.
    pub async fn wakeup(&mut self) -> Wakeup {
        // The sender lives as long as the handle does.
        let _ = self.wakeup.changed().await;
        *self.wakeup.borrow_and_update()
    }
}

impl Drop for WaitHandle<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.lock();
        let Some(entry) = waiting.get_mut(&self.key) else { return };
        entry.handles -= 1;
        if entry.handles == 0 {
            waiting.remove(&self.key);
        }
    }
}
