//! Locks: leases with fencing tokens, and the queues for them.

use crate::{
    Read, ReadRequest, ServiceError, Services, WriteRequest, Written,
    admission::Class,
    page::{Paging, page},
};
use ringmaster_cluster::command::{Command, Outcome};
use ringmaster_common::{
    error::{Code, Refusal},
    lock::{
        AcquireLock, Lock, LockDetail, LockGrant, LockVerdict, ReleaseLock, RenewLock, VerifyLock, check_name,
    },
    page::Page,
};

/// Acquires a lock once it is granted, or refuses it once the wait has passed. A caller that drops this leaves the
/// queue. The same request under the same id finds its own lease or its own place in the queue, on any node.
pub async fn acquire(
    services: &Services,
    request: WriteRequest,
    acquire: AcquireLock,
) -> Result<Written<LockGrant>, ServiceError> {
    request.check(acquire.check().map_err(invalid))?;
    let class = if acquire.wait_ms == 0 { Class::Locks } else { Class::LockWaits };
    let (request_id, asked) = request.into_command_request();
    let _admitted = services
        .admission
        .enter(class)
        .map_err(|overloaded| ServiceError { request_id: Some(request_id.clone()), ..overloaded.into() })?;
    match services.group.acquire(asked, acquire).await {
        Ok(value) => Ok(Written { value, revision: None, request_id }),
        Err(refusal) => Err(ServiceError::of_write(refusal, request_id)),
    }
}

/// Extends a lease.
pub async fn renew(
    services: &Services,
    request: WriteRequest,
    renew: RenewLock,
) -> Result<Written<LockGrant>, ServiceError> {
    request.check(check_name(&renew.name).map_err(invalid))?;
    services.write(request, Command::RenewLock(renew)).await?.expect(|outcome| match outcome {
        Outcome::LockGranted(grant) => Some(grant),
        _ => None,
    })
}

/// Ends a lease. A release that was carried out before gets its first answer again.
pub async fn release(
    services: &Services,
    request: WriteRequest,
    release: ReleaseLock,
) -> Result<Written<()>, ServiceError> {
    request.check(check_name(&release.name).map_err(invalid))?;
    Ok(services.write(request, Command::ReleaseLock(release)).await?.map(drop))
}

/// Whether a token is that of a holder.
pub async fn verify(
    services: &Services,
    request: ReadRequest,
    verify: VerifyLock,
) -> Result<Read<LockVerdict>, ServiceError> {
    check_name(&verify.name).map_err(invalid)?;
    Ok(services.read(request).await?.map(|state| state.locks.verify(&verify.name, verify.token)))
}

/// Which locks are listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockFilter {
    /// The locks whose names begin with this.
    pub prefix: String,
    /// Only the locks that have waiters.
    pub contended: bool,
}

/// The locks in use, in the order of names.
pub async fn list(
    services: &Services,
    request: ReadRequest,
    filter: LockFilter,
    paging: Paging<Option<String>>,
) -> Result<Read<Page<Lock>>, ServiceError> {
    services
        .list(request, |state| {
            let now = services.group.cluster_time_here();
            let locks = state.locks.list(&filter.prefix, paging.after.as_deref(), filter.contended, now);
            Ok(page(locks, paging.limit, |lock| lock.name.clone()))
        })
        .await
}

/// One lock, with its history and its waiters.
pub async fn get(
    services: &Services,
    request: ReadRequest,
    name: &str,
) -> Result<Read<LockDetail>, ServiceError> {
    services.read(request).await?.find(|state| {
        state.locks.detail(name, services.group.cluster_time_here()).ok_or_else(|| {
            Refusal::new(
                Code::UnknownLock,
                format!("the lock {name:?} has no holder, no waiter and no recent history"),
            )
        })
    })
}

fn invalid(detail: String) -> Refusal {
    Refusal::new(Code::InvalidRequest, detail)
}
