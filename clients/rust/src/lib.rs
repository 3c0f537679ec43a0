//! A client of Ringmaster: the HTTP API, the event stream, and locks with automatic renewal.
//!
//! A [`Client`] knows several addresses of one cluster and tries them in turn: any node can answer. The
//! node that answered is tried first the next time. All attempts of a change carry one idempotency key,
//! so that the change takes effect once however often it is sent.
//!
//! - [`Client::get`], [`Client::post`] and [`Client::put`] call the API with the types of
//!   [`ringmaster_common`].
//! - [`Stream`] keeps the cluster's view up to date.
//! - [`Client::lock`] acquires a lock and renews it; [`lock`] describes the guarantees and their limits.
//!
//! Deliberately absent: TLS and credentials. The nodes support neither yet, and listen on addresses other
//! than loopback only with `--insecure`.

mod address;
mod client;
mod error;
#[cfg(test)]
mod fake;
pub mod lock;
pub mod stream;

pub use address::{Address, segment};
pub use client::{
    CONNECT_TIMEOUT, Client, MAX_ADDRESSES, MAX_ANSWER_BYTES, NO_LEADER_PAUSE, NO_LEADER_RETRIES,
    PROBE_INTERVAL, PROBE_TIMEOUT, REQUEST_TIMEOUT,
};
pub use error::{Attempt, ClientError};
pub use lock::{LockError, LockGuard, LockLoss, LockRequest};
pub use stream::{Stream, Update};
