//! A client of Ringmaster: its HTTP API, its stream, and locks that renew themselves.
//!
//! A [`Client`] knows several addresses of one cluster and asks them in turn: any node can answer, so
//! the first that does is as good as another, and is asked first the next time. A change carries one
//! idempotency key through all its attempts, so that it takes effect once, however often it is sent.
//!
//! - [`Client::get`], [`Client::post`] and [`Client::put`] speak the API in the types of
//!   [`ringmaster_common`].
//! - [`Stream`] keeps the cluster's view current.
//! - [`Client::lock`] acquires a lock and keeps it; see [`lock`] for what a lock can do and what not.
//!
//! Deliberately absent: TLS and credentials. The nodes have neither yet, and refuse to listen beyond
//! loopback unless told that it is acceptable.

mod address;
mod client;
mod error;
#[cfg(test)]
mod fake;
pub mod lock;
pub mod stream;

pub use address::{Address, segment};
pub use client::{
    ANSWER_WITHIN, CONNECT_WITHIN, Client, MAX_ADDRESSES, MAX_ANSWER_BYTES, NO_LEADER_PAUSE,
    NO_LEADER_RETRIES, PROBE_EVERY, PROBE_WITHIN,
};
pub use error::{Attempt, ClientError};
pub use lock::{LockError, LockGuard, LockRequest, Loss};
pub use stream::{Stream, Update};
