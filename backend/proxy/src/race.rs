//! Connects to one of several addresses: tries them in short succession, and takes the first connection (RFC 8305,
//! *Happy Eyeballs*).
//!
//! An attempt that fails starts the next one at once; one that neither fails nor succeeds does so after a delay, and
//! continues beside it. What always holds: all addresses are tried within the first half of the time that a connection may
//! take, so each has at least the other half.

use futures::{StreamExt, stream::FuturesUnordered};
use ringmaster_net::clock;
use std::{io, net::SocketAddr, time::Duration};
use tokio::time::sleep_until;

/// How long an attempt has for itself at the most, as RFC 8305 recommends (section 8).
const MAX_DELAY: Duration = Duration::from_millis(250);

/// Tries the addresses in this order. `limit` is how long the caller waits; the caller enforces it.
pub async fn race<T, C>(
    addrs: &[SocketAddr],
    limit: Duration,
    connect: impl Fn(SocketAddr) -> C,
) -> io::Result<T>
where
    C: Future<Output = io::Result<T>>,
{
    let count = u32::try_from(addrs.len()).unwrap_or(u32::MAX).max(1);
    let delay = MAX_DELAY.min(limit / (2 * count));
    let mut waiting = addrs.iter().copied();
    let mut attempts = FuturesUnordered::new();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let mut next_at = clock::now();
    loop {
        tokio::select! {
            biased;
            Some(outcome) = attempts.next() => match outcome {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    last = error;
                    next_at = clock::now();
                }
            },
            () = sleep_until(next_at.into()), if waiting.len() > 0 => {
                attempts.extend(waiting.next().map(&connect));
                next_at = clock::now() + delay;
            }
            else => return Err(last),
        }
    }
}

/// Alternates between IPv6 and IPv4, beginning with the family of the first, so that a network without one of them costs
/// one attempt. Each family keeps its order.
pub fn interleave(addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let starts_with_v6 = addrs.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addrs.into_iter().partition(|addr| addr.is_ipv6() == starts_with_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut mixed = Vec::with_capacity(first.len() + second.len());
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return mixed;
        }
        mixed.extend(pair.into_iter().flatten());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn addrs(count: u8) -> Vec<SocketAddr> {
        (1..=count).map(|last| SocketAddr::from(([192, 0, 2, last], 80))).collect()
    }

    /// Runs the race; returns who won and when each attempt began, in milliseconds. `connect` says for the last byte of
    /// an address after how many milliseconds it fails or succeeds; none: never.
    async fn run(
        count: u8,
        limit: Duration,
        connect: impl Fn(u8) -> Option<(u64, bool)>,
    ) -> (io::Result<u8>, Vec<(u8, u128)>) {
        let (start, begun) = (clock::now(), Mutex::new(Vec::new()));
        let attempt = async |addr: SocketAddr| {
            let last = addr.to_string().split(['.', ':']).nth(3).unwrap().parse().unwrap();
            begun.lock().unwrap().push((last, start.elapsed().as_millis()));
            let Some((millis, succeeds)) = connect(last) else { return std::future::pending().await };
            tokio::time::sleep(Duration::from_millis(millis)).await;
            if succeeds { Ok(last) } else { Err(io::ErrorKind::ConnectionRefused.into()) }
        };
        let won = race(&addrs(count), limit, attempt).await;
        (won, begun.into_inner().unwrap())
    }

    // A busy machine delays attempts, so the limits leave seconds for that.

    #[tokio::test]
    async fn an_address_that_does_not_answer_delays_the_next_one_by_a_quarter_of_a_second() {
        let limit = Duration::from_secs(20);
        let (won, begun) = run(2, limit, |last| (last == 2).then_some((1, true))).await;
        let [(1, _), (2, second)] = begun[..] else { panic!("{begun:?}") };
        assert!(
            won.unwrap() == 2 && (250..5_000).contains(&second),
            "not after half of the limit: {begun:?}"
        );
    }

    #[tokio::test]
    async fn all_of_many_addresses_are_tried_in_half_of_the_time() {
        let limit = Duration::from_secs(2);
        let (won, begun) = run(10, limit, |last| (last == 10).then_some((1, true))).await;
        // A quarter of a second each would be more than the limit.
        let at = begun.last().unwrap().1;
        assert!(won.unwrap() == 10 && begun.len() == 10 && (900..2_000).contains(&at), "{begun:?}");
    }

    #[tokio::test]
    async fn a_refused_connection_starts_the_next_one_at_once() {
        // With a delay of a quarter of a second before each, they would take longer.
        let limit = Duration::from_secs(60);
        let (won, begun) = run(40, limit, |last| Some((1, last == 40))).await;
        assert!(won.unwrap() == 40 && begun.is_sorted(), "{begun:?}");
        assert!(begun.len() == 40 && begun[39].1 < 39 * 250, "{begun:?}");
        let (lost, _) = run(3, limit, |_| Some((1, false))).await;
        assert_eq!(lost.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let (none, _) = run(0, limit, |_| None).await;
        assert_eq!(none.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_slow_address_may_still_win() {
        let second_begins = tokio::sync::Notify::new();
        let addrs = addrs(2);
        let attempt = async |addr: SocketAddr| {
            if addr == addrs[0] {
                second_begins.notified().await;
                return Ok(addr);
            }
            second_begins.notify_one();
            std::future::pending().await
        };
        assert_eq!(race(&addrs, Duration::from_secs(20), attempt).await.unwrap(), addrs[0]);
    }

    #[test]
    fn families_alternate() {
        let mixed = |text: &str| -> String {
            let addrs = text.split(' ').map(|addr| addr.parse().unwrap()).collect();
            interleave(addrs).iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            mixed("[::1]:1 [::2]:1 [::3]:1 10.0.0.1:1 10.0.0.2:1"),
            "[::1]:1 10.0.0.1:1 [::2]:1 10.0.0.2:1 [::3]:1"
        );
        assert_eq!(mixed("10.0.0.1:1 [::1]:1 [::2]:1"), "10.0.0.1:1 [::1]:1 [::2]:1");
    }
}
