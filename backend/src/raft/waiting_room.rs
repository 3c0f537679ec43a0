//! Where the clients of this node wait for a lock.
//!
//! Who waits is replicated; who is to be told is known here alone. Nobody polls: applying an entry
//! tells those whom it concerns. A guest enters before their request is proposed, so no news is missed.

use crate::state::locks::{Fate, Notice};
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

#[derive(Debug, Default)]
pub struct WaitingRoom {
    /// By the ids of their requests. A client that comes back while its first connection lingers
    /// shares the place with that.
    guests: Mutex<HashMap<Arc<str>, watch::Sender<News>>>,
}

/// A place in the room, for as long as it is kept.
#[derive(Debug)]
pub struct Guest<'a> {
    room: &'a WaitingRoom,
    request: Arc<str>,
    news: watch::Receiver<News>,
}

impl WaitingRoom {
    pub fn enter(&self, request: &str) -> Guest<'_> {
        let request: Arc<str> = request.into();
        let news = self.guests().entry(request.clone()).or_default().subscribe();
        Guest { room: self, request, news }
    }

    pub(super) fn tell(&self, notices: Vec<Notice>) {
        if notices.is_empty() {
            return;
        }
        let guests = self.guests();
        for Notice { request, fate } in notices {
            if let Some(guest) = guests.get(&request) {
                guest.send_replace(News::Fate(fate));
            }
        }
    }

    pub(super) fn look_again(&self) {
        for guest in self.guests().values() {
            guest.send_replace(News::LookAgain);
        }
    }

    fn guests(&self) -> MutexGuard<'_, HashMap<Arc<str>, watch::Sender<News>>> {
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
        // This one's own receiver is still counted.
        if guests.get(&self.request).is_some_and(|guest| guest.receiver_count() <= 1) {
            guests.remove(&self.request);
        }
    }
}
