//! Where the clients of this node wait for a lock.
//!
//! Who waits is replicated; who is to be told is known here alone. Nobody polls: applying an entry
//! tells those whom it concerns. A guest enters before their request is proposed, so no news is missed.

use ringmaster_cluster::locks::{Fate, Notice};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::watch;

/// What a guest has heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum News {
    #[default]
    None,
    Fate(Fate),
    /// Entries were skipped, for there was a snapshot: look at the state.
    LookAgain,
}

type Place = (Arc<str>, Arc<str>);

#[derive(Debug, Default)]
struct Guests {
    count: usize,
    news: watch::Sender<News>,
}

#[derive(Debug, Default)]
pub struct WaitingRoom {
    /// By the lock and the id of the request. A client that comes back while its first connection
    /// lingers shares the place with that.
    guests: Mutex<HashMap<Place, Guests>>,
}

/// A place in the room, for as long as it is kept.
#[derive(Debug)]
pub struct Guest<'a> {
    room: &'a WaitingRoom,
    place: Place,
    news: watch::Receiver<News>,
}

impl WaitingRoom {
    pub fn enter(&self, lock: &str, request: &str) -> Guest<'_> {
        let place: Place = (lock.into(), request.into());
        let mut guests = self.guests();
        let here = guests.entry(place.clone()).or_default();
        here.count += 1;
        Guest { room: self, place, news: here.news.subscribe() }
    }

    pub(super) fn tell(&self, notices: Vec<Notice>) {
        if notices.is_empty() {
            return;
        }
        let guests = self.guests();
        for Notice { lock, request, fate } in notices {
            if let Some(here) = guests.get(&(lock, request)) {
                here.news.send_replace(News::Fate(fate));
            }
        }
    }

    pub(super) fn look_again(&self) {
        for here in self.guests().values() {
            here.news.send_replace(News::LookAgain);
        }
    }

    fn guests(&self) -> MutexGuard<'_, HashMap<Place, Guests>> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest<'_> {
    /// The next news. It stays the last until there is other.
    pub async fn news(&mut self) -> News {
        // The sender lives as long as a guest does.
        let _ = self.news.changed().await;
        *self.news.borrow_and_update()
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        let mut guests = self.room.guests();
        let Some(here) = guests.get_mut(&self.place) else { return };
        here.count -= 1;
        if here.count == 0 {
            guests.remove(&self.place);
        }
    }
}
