//! The listeners of all workers, and why some cannot be opened.
//!
//! Workers share an address, so the kernel would also allow another listener of ours at the same address if it is spelt
//! differently. The kernel would then choose the listener of each connection. So an address is reserved for one
//! listener before workers share it. Nodes on one machine do share the listeners that routes name: they serve the same
//! routes there.
//!
//! An address that cannot be opened is tried again, less and less often. All workers try; their error is logged when it
//! changes, and reported for as long as it lasts, so that an operator who reads no logs sees it.

use ringmaster_common::traffic::warnings::MAX_FAILED_LISTENERS;
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpSocket, lookup_host},
    time::sleep,
};

/// How many connections wait in the kernel.
const BACKLOG: u32 = 4096;
/// How long to wait before listening again where it failed, at first ...
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// ... and at the most: a free address is used within this time.
const MAX_PAUSE: Duration = Duration::from_secs(16);

#[derive(Debug, Default)]
pub struct Listeners {
    failed: Mutex<BTreeMap<String, Failed>>,
    reserved: Mutex<BTreeMap<SocketAddr, Reservation>>,
}

#[derive(Debug)]
struct Reservation {
    by: Name,
    /// How many workers listen at the address.
    workers: usize,
}

/// A listener's name: none for the node's own.
pub type Name = Option<Arc<str>>;

/// A listening socket of one worker. The address is free for another listener once the sockets of all workers are gone.
#[derive(Debug)]
pub struct Open {
    pub socket: TcpListener,
    _reserved: Reserved,
}

#[derive(Debug)]
struct Reserved {
    listeners: Arc<Listeners>,
    addr: SocketAddr,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut reserved = self.listeners.reserved();
        if let Some(known) = reserved.get_mut(&self.addr) {
            known.workers -= 1;
            if known.workers == 0 {
                reserved.remove(&self.addr);
            }
        }
    }
}

#[derive(Debug)]
struct Failed {
    why: String,
    /// How many workers try.
    workers: usize,
}

/// One worker that tries to open a listener, until it succeeds or the listener is not wanted any more.
struct Trying<'a> {
    listeners: &'a Listeners,
    addr: &'a str,
}

impl Listeners {
    /// Listens at an address that all workers share, as soon as that is possible.
    pub async fn open(self: &Arc<Self>, name: &Name, addr: &str) -> Open {
        let mut trying = None;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.listen(name, addr).await {
                Ok(open) => {
                    if trying.is_some() {
                        tracing::info!(addr, "the proxy listens at this address now");
                    }
                    return open;
                }
                Err(error) => {
                    let trying = trying.get_or_insert_with(|| self.try_at(addr));
                    trying.failed(&describe(&error));
                }
            }
            sleep(pause).await;
            pause = (2 * pause).min(MAX_PAUSE);
        }
    }

    async fn listen(self: &Arc<Self>, name: &Name, addr: &str) -> io::Result<Open> {
        let addr = lookup_host(addr).await?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let _reserved = self.reserve(name, addr)?;
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind(addr)?;
        Ok(Open { socket: socket.listen(BACKLOG)?, _reserved })
    }

    /// Fails if another listener has the address.
    fn reserve(self: &Arc<Self>, name: &Name, addr: SocketAddr) -> io::Result<Reserved> {
        let mut reserved = self.reserved();
        let meet = |other: &SocketAddr| {
            let same = other.ip() == addr.ip() || other.ip().is_unspecified() || addr.ip().is_unspecified();
            other.port() == addr.port() && same
        };
        if reserved.iter().any(|(other, known)| meet(other) && known.by != *name) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        reserved.entry(addr).or_insert_with(|| Reservation { by: name.clone(), workers: 0 }).workers += 1;
        Ok(Reserved { listeners: self.clone(), addr })
    }

    fn reserved(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Reservation>> {
        self.reserved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The listeners that are not open, and why.
    pub fn failed(&self) -> Vec<(String, String)> {
        let failed = self.lock();
        failed
            .iter()
            .take(MAX_FAILED_LISTENERS)
            .map(|(addr, failed)| (addr.clone(), failed.why.clone()))
            .collect()
    }

    fn try_at<'a>(&'a self, addr: &'a str) -> Trying<'a> {
        self.lock().entry(addr.to_owned()).or_insert(Failed { why: String::new(), workers: 0 }).workers += 1;
        Trying { listeners: self, addr }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Failed>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trying<'_> {
    fn failed(&self, why: &str) {
        let mut failed = self.listeners.lock();
        if let Some(known) = failed.get_mut(self.addr).filter(|known| known.why != why) {
            tracing::warn!(addr = self.addr, why, "the proxy cannot listen at this address; trying again");
            why.clone_into(&mut known.why);
        }
    }
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        let mut failed = self.listeners.lock();
        if let Some(known) = failed.get_mut(self.addr) {
            known.workers -= 1;
            if known.workers == 0 {
                failed.remove(self.addr);
            }
        }
    }
}

/// Short for common errors, else as the system says it.
fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "no such address on this machine".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[tokio::test]
    async fn a_failed_listener_is_reported_until_it_opens_or_is_not_wanted() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap().to_string();
        let (listeners, name) = (Arc::new(Listeners::default()), Some(Arc::from(addr.as_str())));
        let brief = Duration::from_millis(100);
        let expected = || vec![(addr.clone(), "address in use".to_owned())];
        let (mut first, mut second) =
            (Box::pin(listeners.open(&name, &addr)), Box::pin(listeners.open(&name, &addr)));
        assert!(timeout(brief, &mut first).await.is_err() && timeout(brief, &mut second).await.is_err());
        assert_eq!(listeners.failed(), expected());
        // NoEligibleEndpoint needs the second any more; the first still tries.
        drop(second);
        assert_eq!(listeners.failed(), expected());
        drop(taken);
        timeout(3 * FIRST_PAUSE, first).await.expect("it is free now");
        assert!(listeners.failed().is_empty());
    }

    #[tokio::test]
    async fn only_workers_share_an_address() {
        let listeners = Arc::new(Listeners::default());
        let own = listeners.listen(&None, "127.0.0.1:0").await.unwrap();
        let addr = own.socket.local_addr().unwrap();
        drop(own);
        let named: Name = Some("other".into());
        let workers = [
            listeners.listen(&None, &addr.to_string()).await,
            listeners.listen(&None, &addr.to_string()).await,
        ];
        assert!(workers.iter().all(Result::is_ok));
        for spelt in
            [addr.to_string(), format!("localhost:{}", addr.port()), format!("0.0.0.0:{}", addr.port())]
        {
            let refused = listeners.listen(&named, &spelt).await;
            assert!(refused.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse), "{spelt}");
        }
        drop(workers);
        assert!(listeners.listen(&named, &addr.to_string()).await.is_ok());
    }
}
