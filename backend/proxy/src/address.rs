//! The address of an endpoint: an IP address with a port, or a name with the addresses that it has now.
//!
//! Requests and checks of an endpoint all go to one address, its *current* one: the first that accepted a connection. It
//! stays current for as long as the name has it and it accepts connections. So the health check judges the address that
//! receives the requests, and where a name moves, both move. A name is resolved when it is first needed, when no address
//! of it accepts a connection, and once a second ([`crate::resolve`]). While it cannot be resolved, it keeps the
//! addresses that it had.
//!
//! Deliberately absent: the TTLs of DNS, which the system's resolver does not reveal; and any spreading of requests over
//! the addresses of a name.

use crate::{
    connect::connect_to,
    race::{interleave, race},
};
use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::net::TcpStream;

/// How many addresses of a name are tried.
const MAX_ADDRESSES: usize = 16;

#[derive(Debug)]
pub struct Address {
    /// Present if the address needs no resolution.
    literal: Option<SocketAddr>,
    name: Arc<Name>,
    /// One lookup runs at a time, however many requests wait for it.
    lookup: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Debug)]
struct Name {
    /// With its port.
    text: String,
    resolved: Mutex<Resolved>,
}

#[derive(Debug, Default)]
struct Resolved {
    /// In the order in which they are tried.
    addrs: Vec<SocketAddr>,
    current: Option<SocketAddr>,
    /// How many lookups succeeded.
    lookups: u64,
}

impl Name {
    fn resolved(&self) -> MutexGuard<'_, Resolved> {
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the system's resolver, which blocks.
    fn look_up(&self) -> io::Result<()> {
        let mut found: Vec<SocketAddr> = Vec::new();
        for addr in addresses_of(&self.text)? {
            if found.len() < MAX_ADDRESSES && !found.contains(&addr) {
                found.push(addr);
            }
        }
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        let mut resolved = self.resolved();
        let before = resolved.current;
        resolved.addrs = interleave(found);
        resolved.current = before.filter(|current| resolved.addrs.contains(current));
        resolved.lookups += 1;
        if let Some(before) = before.filter(|_| resolved.current.is_none()) {
            tracing::info!(name = self.text, %before, now = ?resolved.addrs, "the name of an endpoint has moved");
        }
        Ok(())
    }
}

impl Address {
    pub fn new(text: &str) -> Address {
        Address {
            literal: text.parse().ok(),
            name: Arc::new(Name { text: text.to_owned(), resolved: Mutex::default() }),
            lookup: Arc::default(),
        }
    }

    pub fn is_name(&self) -> bool {
        self.literal.is_none()
    }

    /// Connects to the current address, or to the first other one that accepts the connection. `limit` is how long the
    /// caller waits.
    pub async fn connect(&self, limit: Duration) -> io::Result<TcpStream> {
        if let Some(addr) = self.literal {
            return connect_to(addr).await;
        }
        let mut candidates = self.candidates();
        if candidates.is_empty() {
            self.resolve().await?;
            candidates = self.candidates();
        }
        let connected = match race(&candidates, limit, connect_to).await {
            Ok(stream) => Ok(stream),
            // The name may have moved since it was resolved.
            Err(error) => match self.resolve().await.map(|()| self.candidates()) {
                Ok(now) if now.iter().any(|addr| !candidates.contains(addr)) => {
                    race(&now, limit, connect_to).await
                }
                _ => Err(error),
            },
        };
        let stream = connected?;
        let peer = stream.peer_addr()?;
        let mut resolved = self.name.resolved();
        if resolved.addrs.contains(&peer) {
            resolved.current = Some(peer);
        }
        drop(resolved);
        Ok(stream)
    }

    /// The current address, and then the others.
    fn candidates(&self) -> Vec<SocketAddr> {
        let resolved = self.name.resolved();
        let others = resolved.addrs.iter().copied().filter(|addr| Some(*addr) != resolved.current);
        resolved.current.into_iter().chain(others).collect()
    }

    /// Whether a connection to `peer` may carry further requests. While no address is current, the first connection
    /// decides which one is.
    pub fn is_current(&self, peer: SocketAddr) -> bool {
        if self.literal.is_some() {
            return true;
        }
        let resolved = self.name.resolved();
        match resolved.current {
            Some(current) => current == peer,
            None => resolved.addrs.contains(&peer),
        }
    }

    /// Resolves the name; waits for a lookup that runs already.
    pub async fn resolve(&self) -> io::Result<()> {
        let before = self.name.resolved().lookups;
        let one_at_a_time = self.lookup.clone().lock_owned().await;
        let name = self.name.clone();
        if name.resolved().lookups != before {
            return Ok(());
        }
        let lookup = tokio::task::spawn_blocking(move || {
            // A caller that waits no longer does not end the lookup, so the lookup itself holds the lock.
            let _one_at_a_time = one_at_a_time;
            name.look_up()
        });
        lookup.await.map_err(io::Error::other).flatten()
    }

    /// Whether a lookup runs.
    pub fn is_resolving(&self) -> bool {
        self.lookup.try_lock().is_err()
    }
}

fn addresses_of(name: &str) -> io::Result<Vec<SocketAddr>> {
    #[cfg(test)]
    if let Some(addrs) = tests::HOSTS.lock().unwrap().get(name) {
        return Ok(addrs.clone());
    }
    name.to_socket_addrs().map(Iterator::collect)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::{collections::HashMap, net::Ipv4Addr, sync::LazyLock};
    use tokio::net::{TcpListener, TcpSocket};

    /// Names of tests: what the resolver finds.
    pub static HOSTS: LazyLock<Mutex<HashMap<String, Vec<SocketAddr>>>> = LazyLock::new(Mutex::default);

    pub fn set_host(name: &str, addrs: &[SocketAddr]) {
        HOSTS.lock().unwrap().insert(name.to_owned(), addrs.to_vec());
    }

    /// Connections take no time, or that of a delay between two addresses.
    const LIMIT: Duration = Duration::from_secs(20);

    async fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        (listener, addr)
    }

    async fn connected(address: &Address) -> SocketAddr {
        address.connect(LIMIT).await.unwrap().peer_addr().unwrap()
    }

    #[tokio::test]
    async fn connections_follow_a_name_that_moves() {
        let ((_first, one), (_second, two)) = (listener().await, listener().await);
        set_host("moves.test:80", &[one]);
        let address = Address::new("moves.test:80");
        assert_eq!(connected(&address).await, one);
        set_host("moves.test:80", &[two, one]);
        address.resolve().await.unwrap();
        assert_eq!(connected(&address).await, one, "it stays where it is as long as the name has it");
        assert!(address.is_current(one) && !address.is_current(two));
        set_host("moves.test:80", &[two]);
        address.resolve().await.unwrap();
        assert!(!address.is_current(one) && address.is_current(two));
        assert_eq!(connected(&address).await, two);
    }

    #[tokio::test]
    async fn a_name_whose_address_is_gone_is_resolved_at_once() {
        let ((first, one), (_second, two)) = (listener().await, listener().await);
        set_host("gone.test:80", &[one]);
        let address = Address::new("gone.test:80");
        assert_eq!(connected(&address).await, one);
        drop(first);
        let error = address.connect(LIMIT).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        set_host("gone.test:80", &[two]);
        assert_eq!(connected(&address).await, two);
    }

    #[tokio::test]
    async fn a_name_that_cannot_be_resolved_keeps_its_addresses() {
        let (_listener, addr) = listener().await;
        set_host("lost.test:80", &[addr]);
        let address = Address::new("lost.test:80");
        assert_eq!(connected(&address).await, addr);
        set_host("lost.test:80", &[]);
        assert!(address.resolve().await.is_err());
        assert_eq!(connected(&address).await, addr);
    }

    #[tokio::test]
    async fn a_silent_address_costs_one_connection_a_moment_and_further_ones_nothing() {
        // A listener whose queue is full: Linux drops further SYNs, as a firewall does.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let silent = socket.listen(0).unwrap();
        let silent_addr = silent.local_addr().unwrap();
        let fill: Vec<_> = (0..4).map(|_| tokio::spawn(TcpStream::connect(silent_addr))).collect();
        let (_listener, addr) = listener().await;
        set_host("half.test:80", &[silent_addr, addr]);
        let address = Address::new("half.test:80");
        tokio::time::sleep(Duration::from_millis(50)).await;
        let start = ringmaster_net::clock::now();
        assert_eq!(connected(&address).await, addr);
        let first = start.elapsed();
        assert!(first >= Duration::from_millis(240) && first < LIMIT / 2, "{first:?}");
        assert!(address.is_current(addr) && !address.is_current(silent_addr));
        // A busy machine may delay some of them.
        let mut fastest = LIMIT;
        for _ in 0..10 {
            let start = ringmaster_net::clock::now();
            assert_eq!(connected(&address).await, addr);
            fastest = fastest.min(start.elapsed());
        }
        assert!(fastest < Duration::from_millis(240), "none waits for the silent address: {fastest:?}");
        fill.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
