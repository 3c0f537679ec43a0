//! Where workers listen, and what keeps them from it.
//!
//! Workers share an address, so the kernel would let another listener of ours share it, too, that is spelt differently.
//! Then each connection would be served by whichever the kernel chose. So an address is taken for one listener, as a
//! whole, before workers share it. Nodes on one machine do share the listeners that routes name: they serve the same there.
//!
//! An address that is not to be had is tried again, more and more seldom: whoever has it may let it go. All workers
//! try, and what they find is one thing: it is logged when it is another than before, and told for as long as it
//! holds, so that somebody who never reads logs learns of it.

use ringmaster_common::traffic::warnings::MAX_DEAF_LISTENERS;
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
/// ... and at the most: whoever frees the address sees it in use within this.
const MAX_PAUSE: Duration = Duration::from_secs(16);

/// The listeners of all workers that are not open.
#[derive(Debug, Default)]
pub struct Listeners {
    deaf: Mutex<BTreeMap<String, Deaf>>,
    /// Which addresses are taken.
    taken: Mutex<BTreeMap<SocketAddr, Taken>>,
}

#[derive(Debug)]
struct Taken {
    by: Name,
    /// How many workers listen there.
    workers: usize,
}

/// A listener's name: none for the node's own.
pub type Name = Option<Arc<str>>;

/// A socket that clients come in by. The address is free for another listener once all workers' are gone.
#[derive(Debug)]
pub struct Open {
    pub socket: TcpListener,
    _place: Place,
}

#[derive(Debug)]
struct Place {
    listeners: Arc<Listeners>,
    addr: SocketAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.listeners.taken();
        if let Some(known) = taken.get_mut(&self.addr) {
            known.workers -= 1;
            if known.workers == 0 {
                taken.remove(&self.addr);
            }
        }
    }
}

#[derive(Debug)]
struct Deaf {
    why: String,
    /// How many workers try.
    workers: usize,
}

/// One worker that tries. It no longer does when this is dropped, be it that it succeeded or that nobody wants the
/// listener any more.
struct Trying<'a> {
    listeners: &'a Listeners,
    addr: &'a str,
}

impl Listeners {
    /// Listens at an address where other workers do, too, as soon as that can be.
    pub async fn open(self: &Arc<Self>, name: &Name, addr: &str) -> Open {
        let mut trying = None;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.listen(name, addr).await {
                Ok(open) => {
                    if trying.is_some() {
                        tracing::info!(addr, "the proxy listens here after all");
                    }
                    return open;
                }
                Err(error) => {
                    let trying = trying.get_or_insert_with(|| self.try_at(addr));
                    trying.failed(&in_words(&error));
                }
            }
            sleep(pause).await;
            pause = (2 * pause).min(MAX_PAUSE);
        }
    }

    async fn listen(self: &Arc<Self>, name: &Name, addr: &str) -> io::Result<Open> {
        let addr = lookup_host(addr).await?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let _place = self.take(name, addr)?;
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind(addr)?;
        Ok(Open { socket: socket.listen(BACKLOG)?, _place })
    }

    /// Takes an address for a listener, unless another one has it.
    fn take(self: &Arc<Self>, name: &Name, addr: SocketAddr) -> io::Result<Place> {
        let mut taken = self.taken();
        let meet = |other: &SocketAddr| {
            let same = other.ip() == addr.ip() || other.ip().is_unspecified() || addr.ip().is_unspecified();
            other.port() == addr.port() && same
        };
        if taken.iter().any(|(other, known)| meet(other) && known.by != *name) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        taken.entry(addr).or_insert_with(|| Taken { by: name.clone(), workers: 0 }).workers += 1;
        Ok(Place { listeners: self.clone(), addr })
    }

    fn taken(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Taken>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which are not open, and why.
    pub fn deaf(&self) -> Vec<(String, String)> {
        let deaf = self.lock();
        deaf.iter().take(MAX_DEAF_LISTENERS).map(|(addr, deaf)| (addr.clone(), deaf.why.clone())).collect()
    }

    fn try_at<'a>(&'a self, addr: &'a str) -> Trying<'a> {
        self.lock().entry(addr.to_owned()).or_insert(Deaf { why: String::new(), workers: 0 }).workers += 1;
        Trying { listeners: self, addr }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Deaf>> {
        self.deaf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Trying<'_> {
    fn failed(&self, why: &str) {
        let mut deaf = self.listeners.lock();
        if let Some(known) = deaf.get_mut(self.addr).filter(|known| known.why != why) {
            tracing::warn!(addr = self.addr, why, "the proxy cannot listen here; it goes on trying");
            why.clone_into(&mut known.why);
        }
    }
}

impl Drop for Trying<'_> {
    fn drop(&mut self) {
        let mut deaf = self.listeners.lock();
        if let Some(known) = deaf.get_mut(self.addr) {
            known.workers -= 1;
            if known.workers == 0 {
                deaf.remove(self.addr);
            }
        }
    }
}

/// Short where everybody knows it, and as the system says where it is rare.
fn in_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "address in use".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[tokio::test]
    async fn who_cannot_listen_is_told_until_they_can_or_need_not() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap().to_string();
        let (listeners, name) = (Arc::new(Listeners::default()), Some(Arc::from(addr.as_str())));
        let brief = Duration::from_millis(100);
        let told = || vec![(addr.clone(), "address in use".to_owned())];
        let (mut first, mut second) =
            (Box::pin(listeners.open(&name, &addr)), Box::pin(listeners.open(&name, &addr)));
        assert!(timeout(brief, &mut first).await.is_err() && timeout(brief, &mut second).await.is_err());
        assert_eq!(listeners.deaf(), told());
        // Nobody needs the second any more; the first still tries.
        drop(second);
        assert_eq!(listeners.deaf(), told());
        drop(taken);
        timeout(3 * FIRST_PAUSE, first).await.expect("it is free now");
        assert!(listeners.deaf().is_empty());
    }

    #[tokio::test]
    async fn workers_share_an_address_and_nobody_else_does() {
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
