//! The accept loop of every TCP listener.
//!
//! What always holds: no more connections are served at a time than there are permits, each in a task of its own; and an
//! error of `accept`, such as too many open files, is logged and followed by a pause, so that the loop neither ends nor
//! spins.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::sleep,
};

/// How long to wait after an error of the whole listener, at first ...
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// ... and at the most: a descriptor that becomes free is used within this time.
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// What happens to a connection when all permits are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It stays in the kernel's queue until a permit is free.
    Wait,
    /// It is accepted and closed at once: clients learn that at once, and try elsewhere.
    Close,
}

/// Accepts connections for ever, and serves each with a permit of `permits`. If this future is dropped, no further
/// connections are accepted, and those that were accepted are served to their end.
pub async fn run<S>(
    listener: &TcpListener,
    permits: Arc<Semaphore>,
    when_full: WhenFull,
    mut serve: impl FnMut(TcpStream, SocketAddr) -> S,
) where
    S: Future<Output = ()> + Send + 'static,
{
    let mut acceptor = Acceptor::new(listener, permits, when_full);
    loop {
        let (stream, peer, permit) = acceptor.next().await;
        let served = serve(stream, peer);
        tokio::spawn(async move {
            served.await;
            drop(permit);
        });
    }
}

/// The same, but dropping this future also ends the connections that were accepted.
pub async fn run_owned<S>(
    listener: &TcpListener,
    permits: Arc<Semaphore>,
    when_full: WhenFull,
    mut serve: impl FnMut(TcpStream, SocketAddr) -> S,
) where
    S: Future<Output = ()> + Send + 'static,
{
    let mut acceptor = Acceptor::new(listener, permits, when_full);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            (stream, peer, permit) = acceptor.next() => {
                let served = serve(stream, peer);
                connections.spawn(async move {
                    served.await;
                    drop(permit);
                });
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

struct Acceptor<'a> {
    listener: &'a TcpListener,
    permits: Arc<Semaphore>,
    when_full: WhenFull,
    /// Taken before a connection is accepted, so that a full listener leaves connections to the kernel.
    permit: Option<OwnedSemaphorePermit>,
    pause: Duration,
}

impl Acceptor<'_> {
    fn new(listener: &TcpListener, permits: Arc<Semaphore>, when_full: WhenFull) -> Acceptor<'_> {
        Acceptor { listener, permits, when_full, permit: None, pause: FIRST_PAUSE }
    }

    /// Loses no connection if it is dropped before it is ready.
    async fn next(&mut self) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
        loop {
            if self.when_full == WhenFull::Wait && self.permit.is_none() {
                let permit = Arc::clone(&self.permits).acquire_owned().await;
                self.permit = Some(permit.expect("the semaphore is never closed"));
            }
            match self.listener.accept().await {
                Ok((stream, peer)) => {
                    self.pause = FIRST_PAUSE;
                    let permit = self.permit.take();
                    // Without a permit, the connection is closed here.
                    if let Some(permit) =
                        permit.or_else(|| Arc::clone(&self.permits).try_acquire_owned().ok())
                    {
                        return (stream, peer, permit);
                    }
                }
                Err(error) if is_of_one_connection(&error) => {
                    tracing::debug!(%error, "a connection ended before it was accepted");
                }
                Err(error) => {
                    let listener = self.listener.local_addr().ok();
                    tracing::warn!(?listener, %error, "cannot accept connections; trying again");
                    sleep(self.pause).await;
                    self.pause = (2 * self.pause).min(MAX_PAUSE);
                }
            }
        }
    }
}

/// Whether only the connection that was to be accepted is affected, so that the next can be accepted at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        net::Ipv4Addr,
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        time::timeout,
    };

    const LIMIT: Duration = Duration::from_secs(5);
    const BRIEF: Duration = Duration::from_millis(100);

    /// A listener with one permit that sends a byte to each client and waits until the client closes.
    async fn serving(when_full: WhenFull) -> (SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let served = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&served);
        tokio::spawn(async move {
            run(&listener, Arc::new(Semaphore::new(1)), when_full, |mut stream, _| {
                count.fetch_add(1, Relaxed);
                async move {
                    stream.write_all(b"!").await.unwrap();
                    let _ = stream.read(&mut [0]).await;
                }
            })
            .await;
        });
        (addr, served)
    }

    async fn is_served(stream: &mut TcpStream) -> bool {
        matches!(timeout(BRIEF, stream.read(&mut [0])).await, Ok(Ok(1)))
    }

    #[tokio::test]
    async fn a_connection_waits_for_a_permit() {
        let (addr, served) = serving(WhenFull::Wait).await;
        let mut first = TcpStream::connect(addr).await.unwrap();
        assert!(is_served(&mut first).await);
        let mut second = TcpStream::connect(addr).await.unwrap();
        assert!(!is_served(&mut second).await);
        drop(first);
        assert!(matches!(timeout(LIMIT, second.read(&mut [0])).await, Ok(Ok(1))));
        assert_eq!(served.load(Relaxed), 2);
    }

    #[tokio::test]
    async fn a_connection_without_a_permit_is_closed() {
        let (addr, served) = serving(WhenFull::Close).await;
        let mut first = TcpStream::connect(addr).await.unwrap();
        assert!(is_served(&mut first).await);
        let mut second = TcpStream::connect(addr).await.unwrap();
        let end = timeout(LIMIT, second.read(&mut [0])).await.expect("it is closed");
        assert!(!matches!(end, Ok(1..)), "it is not served");
        assert_eq!(served.load(Relaxed), 1);
    }

    #[tokio::test]
    async fn owned_connections_end_with_their_loop() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let accepting = tokio::spawn(async move {
            run_owned(&listener, Arc::new(Semaphore::new(8)), WhenFull::Close, |stream, _| async move {
                let _stream = stream;
                std::future::pending::<()>().await;
            })
            .await;
        });
        let mut client = TcpStream::connect(addr).await.unwrap();
        assert!(timeout(BRIEF, client.read(&mut [0])).await.is_err(), "it is served");
        accepting.abort();
        timeout(LIMIT, client.read(&mut [0])).await.expect("it ends").ok();
    }
}
