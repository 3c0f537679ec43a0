//! A request at an endpoint: counted while it is under way, and judged when it is answered.

use super::{
    course::Failure,
    endpoint::Endpoint,
    moment::Moment,
    pick::{Pick, Why, Wish},
    proxy_protocol,
    relay::Ending,
    upstream::{ErrorKind, Nobody, Outcome, Tried, Upstream},
};
use std::{net::SocketAddr, sync::atomic::Ordering::Relaxed, time::Duration};
use tokio::{io::AsyncWriteExt, net::TcpStream, time::timeout};

/// How soon a connection that waited shows that the endpoint had closed it.
const STALE_WITHIN: Duration = Duration::from_millis(500);

/// Counts as under way for as long as it lives.
#[derive(Debug)]
pub struct Attempt<'u> {
    upstream: &'u Upstream,
    pick: Pick,
    tried: Tried,
    since: Moment,
}

impl<'u> Attempt<'u> {
    pub fn begin(upstream: &'u Upstream, wish: &Wish, random: u64) -> Result<Attempt<'u>, Nobody> {
        let since = Moment::now();
        let pick = upstream.pick(wish, since, random)?;
        upstream.seats[pick.seat].endpoint.in_flight.fetch_add(1, Relaxed);
        Ok(Attempt { upstream, pick, tried: wish.tried, since })
    }

    pub fn upstream(&self) -> &'u Upstream {
        self.upstream
    }

    pub fn endpoint(&self) -> &'u Endpoint {
        &self.upstream.seats[self.pick.seat].endpoint
    }

    pub fn seat(&self) -> usize {
        self.pick.seat
    }

    pub fn why(&self) -> Why {
        self.pick.why
    }

    /// Who had been tried before.
    pub fn tried(&self) -> &Tried {
        &self.tried
    }

    /// A connection that waits; none where each begins with who the client is. `resendable`: no harm is done
    /// should it turn out to be dead.
    pub fn take_idle(&self, worker: usize, resendable: bool) -> Option<TcpStream> {
        if self.upstream.config.send_proxy_protocol {
            return None;
        }
        self.endpoint().take_idle(worker, !resendable)
    }

    /// Whether a connection that waited, and now came to nothing, had died before. Servers close those;
    /// that says nothing about how they are. What took its time did reach somebody.
    pub fn was_stale(&self) -> bool {
        Moment::now().since(self.since) < STALE_WITHIN
    }

    /// A new connection, on behalf of `client`, who connected to `here`.
    pub async fn connect(&self, client: SocketAddr, here: SocketAddr) -> Result<TcpStream, Failure> {
        let config = &self.upstream.config;
        let limit = Duration::from_millis(config.timeouts.connect_ms);
        let mut link = match timeout(limit, self.endpoint().connect()).await {
            Ok(Ok(link)) => link,
            Ok(Err(error)) => return Err(Failure::Unreached(format!("no connection: {error}"))),
            Err(_) => {
                return Err(Failure::Unreached(format!("no connection within {} ms", limit.as_millis())));
            }
        };
        if config.send_proxy_protocol {
            let header = proxy_protocol::header(client, here);
            link.write_all(&header).await.map_err(|error| Failure::Unreached(error.to_string()))?;
        }
        Ok(link)
    }

    pub fn answered(&self, status: u16, now: Moment) {
        self.upstream.note(self.pick.seat, Outcome::Answered(status), now.since(self.since), now);
    }

    /// How the answer ended that it was answered with.
    pub fn ended(&self, status: u16, ending: Ending) {
        match ending {
            Ending::Whole => self.upstream.went_well(self.pick.seat, Outcome::Answered(status)),
            Ending::BrokenOff => {
                self.upstream.broke_off(self.pick.seat, Outcome::Answered(status), Moment::now());
            }
            Ending::GivenUp => {}
        }
    }

    pub fn failed(&self, kind: ErrorKind, now: Moment) {
        self.upstream.note(self.pick.seat, Outcome::Failed(kind), now.since(self.since), now);
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.endpoint().in_flight.fetch_sub(1, Relaxed);
    }
}
