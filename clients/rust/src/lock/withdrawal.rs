//! Leaves the queue for a client that stops waiting, so that the next waiter is not held up until the cluster notices.

use super::LockRequest;
use crate::client::Request;
use ringmaster_common::lock::{AcquireLock, LockGrant, ReleaseLock};
use std::time::Duration;
use tokio::{runtime::Handle, time::Instant};
use uuid::Uuid;

/// How long a withdrawal is tried. The cluster notices by itself then.
const WITHDRAW_TIMEOUT: Duration = Duration::from_secs(2);

/// A request that waits. Dropping this withdraws it, unless it was answered.
pub(super) struct Withdrawal<'a> {
    request: &'a LockRequest,
    key: Uuid,
    is_answered: bool,
}

impl<'a> Withdrawal<'a> {
    pub fn of(request: &'a LockRequest, key: Uuid) -> Withdrawal<'a> {
        Withdrawal { request, key, is_answered: false }
    }

    pub fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        if self.is_answered || self.request.wait.is_zero() {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(withdraw(self.request.clone(), self.key));
        }
    }
}

/// The same request without a wait gives its place up, or finds the grant.
async fn withdraw(request: LockRequest, key: Uuid) {
    let attempt = || {
        let body = AcquireLock { wait_ms: 0, ..request.body() };
        Request::post("/v1/locks/acquire", &body).with_key(key)
    };
    let until = Instant::now() + WITHDRAW_TIMEOUT;
    if let Ok(grant) = request.client.send_until::<LockGrant>(until, attempt).await {
        let release = ReleaseLock { name: grant.name, owner: grant.owner, token: grant.token };
        let _ = request.client.post::<()>("/v1/locks/release", &release).await;
    }
}
