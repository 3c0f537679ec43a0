use super::*;
use tokio::{io::AsyncWriteExt, net::TcpListener};

const LIMITS: Connections = Connections { idle_ms: 30_000, max_age_ms: 60_000 };
const NOW: CoarseInstant = CoarseInstant(1_000_000_000);

/// A pool with a connection that is idle since [`NOW`], and the endpoint's side of it. `change` comes before it is idle.
async fn idle(change: impl FnOnce(&mut Connection)) -> (Pool, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let pool = Pool::new(&listener.local_addr().unwrap().to_string(), 1);
    let mut connection = Connection::new(pool.connect(Duration::from_secs(1)).await.unwrap(), NOW);
    change(&mut connection);
    pool.keep_idle(0, connection);
    pool.idle[0].lock().unwrap()[0].since = NOW;
    (pool, listener.accept().await.unwrap().0)
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test]
async fn a_connection_is_used_again_within_its_limits() {
    for (idle_for, keep_alive, is_resendable, is_taken) in [
        (0, None, true, true),
        (29_900, None, true, true),
        (30_100, None, true, false),
        // A request that must not be sent twice. An endpoint may close after a second, and be 200 ms away.
        (200, None, false, true),
        (300, None, false, false),
        // The endpoint says when it closes: a second before, or half the time.
        (3_900, Some(5_000), true, true),
        (4_100, Some(5_000), true, false),
        (400, Some(1_000), true, true),
        (600, Some(1_000), true, false),
        (0, Some(0), true, false),
    ] {
        let (pool, _endpoint) = idle(|connection| connection.keep_alive = keep_alive.map(ms)).await;
        let taken = pool.take_idle(0, NOW.after(ms(idle_for)), &LIMITS, is_resendable);
        assert_eq!(taken.is_some(), is_taken, "{idle_for} {keep_alive:?} {is_resendable}");
        assert!(taken.is_none_or(|taken| taken.is_used));
    }
    let (pool, _endpoint) = idle(|_| {}).await;
    let none = Connections { idle_ms: 0, max_age_ms: 0 };
    assert!(pool.take_idle(0, NOW, &none, true).is_none(), "0 keeps none");
}

#[tokio::test]
async fn a_connection_has_a_maximum_age() {
    let (pool, _endpoint) = idle(|_| {}).await;
    let limits = Connections { idle_ms: 3_600_000, max_age_ms: 60_000 };
    pool.idle[0].lock().unwrap()[0].since = NOW.after(ms(59_000));
    pool.close_idle(NOW.after(ms(59_900)), &limits);
    assert_eq!(pool.idle[0].lock().unwrap().len(), 1);
    pool.close_idle(NOW.after(ms(60_000)), &Connections { max_age_ms: 0, ..limits });
    assert_eq!(pool.idle[0].lock().unwrap().len(), 1, "0 is no limit");
    pool.close_idle(NOW.after(ms(60_000)), &limits);
    assert_eq!(pool.idle[0].lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_connection_that_waited_and_holds_bytes_is_not_used() {
    for (idle_for, follows_head) in [(10, false), (0, true)] {
        let (pool, mut endpoint) = idle(|connection| connection.follows_head = follows_head).await;
        endpoint.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").await.unwrap();
        // The runtime has not looked yet.
        std::thread::sleep(ms(20));
        assert!(pool.take_idle(0, NOW.after(ms(idle_for)), &LIMITS, true).is_none());
    }
}
