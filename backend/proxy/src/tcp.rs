//! Plain TCP: a client's connection goes to one endpoint as it is, or nowhere.
//!
//! Until there is a connection to an endpoint, others are tried: nothing was sent yet, so that is always safe.

use super::{
    buffer::Buffer,
    course::{Course, Then},
    headers,
    moment::Moment,
    random::Random,
    relay::Ending,
    table::{Route, Table},
    timer::Timer,
    tunnel::{self, Speech},
};
use arc_swap::ArcSwap;
use std::{net::SocketAddr, time::Duration};
use tokio::net::TcpStream;

/// What stands for success in figures that count statuses.
const CONNECTED: u16 = 200;
/// What stands for method and path.
const LINE: &[u8] = b"TCP";

pub async fn serve(mut client: TcpStream, peer: SocketAddr, route: &Route, tables: &ArcSwap<Table>) {
    if route.limit.as_ref().is_some_and(|limit| !limit.admits(Moment::now())) {
        return;
    }
    let wish = headers::wish(std::iter::empty(), peer.ip(), "", route);
    let (mut random, mut course) = (Random::seeded(), Course::new(route, wish, peer.ip()));
    let here = client.local_addr().unwrap_or(peer);
    loop {
        let moved = course.moved();
        let upstream = moved.as_deref().unwrap_or(&route.upstream);
        let attempt = match course.attempt(upstream, random.next()) {
            Ok(attempt) => attempt,
            Err(refusal) => return course.refused(LINE, &refusal),
        };
        match attempt.connect(peer, here).await {
            Ok(mut link) => {
                course.answered(LINE, CONNECTED, &attempt);
                attempt.ended(CONNECTED, Ending::Whole);
                let idle = Duration::from_millis(route.upstream.config.timeouts.idle_ms);
                let (nothing, endpoint) = (Buffer::default(), attempt.endpoint());
                let (client, link) = ((&mut client, &nothing), (&mut link, &nothing));
                let told = |now| endpoint.is_cut(now);
                return tunnel::run(client, link, Speech::Unknown, idle, &mut Timer::new(), told).await;
            }
            Err(failure) => match course.failed(LINE, &attempt, failure, true, tables) {
                Then::Again => {}
                Then::Refuse(refusal) => return course.refused(LINE, &refusal),
                Then::Nothing => return,
            },
        }
    }
}
