//! Plain TCP: a client's connection goes to one endpoint as it is, or nowhere.
//!
//! Until there is a connection to an endpoint, others are tried: nothing was sent yet, so that is always safe.

use super::{
    attempt::{Attempt, Log},
    buffer::Buffer,
    headers,
    moment::Moment,
    proxy_protocol,
    random::Random,
    table::Route,
    timer::Timer,
    tunnel,
};
use std::{net::SocketAddr, sync::atomic::Ordering::Relaxed, time::Duration};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

/// What stands for success in figures that count statuses.
const CONNECTED: u16 = 200;

pub async fn serve(mut client: TcpStream, peer: SocketAddr, route: &Route) {
    let upstream = &route.upstream;
    if route.limit.as_ref().is_some_and(|limit| !limit.admits(Moment::now())) {
        return;
    }
    let (mut random, mut log) = (Random::seeded(), Log::new(route, Moment::now()));
    let mut wish = headers::wish(std::iter::empty(), peer.ip(), "", route);
    let config = &upstream.config;
    loop {
        let attempt = match Attempt::begin(upstream, &wish, random.next()) {
            Ok(attempt) => attempt,
            Err(nobody) => {
                upstream.standing.turned_away.fetch_add(1, Relaxed);
                return log.ended(b"TCP", 503, None, &nobody.0);
            }
        };
        let endpoint = attempt.endpoint();
        let limit = Duration::from_millis(config.timeouts.connect_ms);
        let connect = async {
            let mut link = endpoint.connect().await?;
            if config.send_proxy_protocol {
                let here = client.local_addr().unwrap_or(peer);
                link.write_all(&proxy_protocol::header(peer, here)).await?;
            }
            Ok::<_, std::io::Error>(link)
        };
        let why = match timeout(limit, connect).await {
            Ok(Ok(mut link)) => {
                attempt.answered(CONNECTED, Moment::now());
                log.ended(b"TCP", CONNECTED, Some(&attempt), "");
                let idle = Duration::from_millis(config.timeouts.idle_ms);
                let (nothing, told) = (Buffer::default(), |now| endpoint.is_cut(now));
                return tunnel::run(
                    (&mut client, &nothing),
                    (&mut link, &nothing),
                    idle,
                    &mut Timer::new(),
                    told,
                )
                .await;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no connection within {} ms", limit.as_millis()),
        };
        attempt.failed(Moment::now());
        if log.retries >= config.retries.attempts || !upstream.may_retry() {
            return log.ended(b"TCP", 502, None, &why);
        }
        log.retries += 1;
        wish.tried.add(attempt.seat());
    }
}
