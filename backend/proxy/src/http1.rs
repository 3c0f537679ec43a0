//! A client's connection that speaks HTTP/1: one request after the other.
//!
//! One task serves a connection, and talks to endpoints itself: no request is handed from task to task. It
//! reads a head, has the route found and the endpoint's head written, and leaves the rest to
//! [`exchange`]. Where it refuses, the bytes that may still come are not taken for the next request. A
//! connection whose first bytes are the preface of HTTP/2 goes on in [`super::http2`].

pub mod ends;
mod exchange;

use super::{
    answer::{self, Refusal},
    ask::{self, Ask, Asked},
    buffer::Buffer,
    head::{self, Framing, RequestHead, bad},
    headers::{self, Client},
    http2,
    random::Random,
    table::{Site, Table},
    timer::{Deadline, Timer, never_told},
    worker::Worker,
};
use arc_swap::{ArcSwap, Cache};
use ringmaster_common::error::Code;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How long a client may do without a request.
pub const KEEP_ALIVE: Duration = Duration::from_secs(60);
/// How long a client may take to send a head.
pub const HEAD_PATIENCE: Duration = Duration::from_secs(10);
/// How long a client may take to take an answer of ours.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// How long, and for how many bytes, a client that was refused may go on sending. Were its connection
/// closed at once, it would never see why.
const LINGER: Duration = Duration::from_secs(1);
const MAX_LINGER_BYTES: usize = 1 << 20;
/// How much of a target that is refused the access log has.
pub const MAX_TOLD: usize = 200;

/// Follows the routing table at no cost where it is the same.
type Tables = Cache<Arc<ArcSwap<Table>>, Arc<Table>>;

/// A client's connection.
#[derive(Debug)]
pub struct Visit {
    stream: TcpStream,
    /// Nothing but the beginning of the first request has come yet.
    fresh: bool,
    /// What came and is not used yet.
    inbox: Buffer,
    /// What the endpoint is sent.
    request: Vec<u8>,
    /// What came from the endpoint.
    arrived: Buffer,
    /// What the client is sent.
    response: Vec<u8>,
    peer: SocketAddr,
    addr: String,
    timer: Timer,
    random: Random,
    worker: Arc<Worker>,
    listener: Option<Arc<str>>,
}

/// How the client wants to be spoken to.
#[derive(Clone, Copy, Debug)]
struct Manner {
    /// It knows chunks and answers that are not final.
    http11: bool,
    expects_continue: bool,
    keep_alive: bool,
}

impl Manner {
    /// The same, but that there is no other request where the proxy takes none.
    fn unless(self, closing: bool) -> Manner {
        Manner { keep_alive: self.keep_alive && !closing, ..self }
    }
}

/// What becomes of a client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// It may send another request.
    Another,
    /// It is told that there is no other.
    Close,
    /// It is closed at once.
    Drop,
    /// It is broken off, for the client to see that what it has is not the whole.
    Torn,
}

/// How the wait for a head ended.
enum Arrived<'t> {
    Ask(Ask<'t>, Manner),
    /// There is no route, or no more room; the head was read.
    Refused(Refusal, Kept),
    /// The head was read, and its request makes no sense: nobody can say where the next would begin.
    Confused(Refusal),
    /// It could not even be read.
    Unreadable(Refusal),
    /// It speaks HTTP/2.
    Http2,
    Gone,
}

/// What has to be known to answer without an endpoint.
#[derive(Clone, Copy)]
struct Kept {
    keep_alive: bool,
    head: bool,
}

impl Visit {
    pub fn new(
        stream: TcpStream,
        peer: SocketAddr,
        listener: Option<Arc<str>>,
        worker: Arc<Worker>,
    ) -> Visit {
        Visit {
            stream,
            fresh: true,
            inbox: Buffer::default(),
            request: Vec::new(),
            arrived: Buffer::default(),
            response: Vec::new(),
            peer,
            addr: headers::addr_text(peer.ip()),
            timer: Timer::new(),
            random: Random::seeded(),
            worker,
            listener,
        }
    }

    pub async fn serve(mut self) {
        let mut tables: Tables = Cache::new(self.worker.table.clone());
        loop {
            if !self.first_byte().await {
                return;
            }
            let next = match self.head(&mut tables).await {
                Arrived::Ask(ask, manner) => self.exchange(ask, manner).await,
                Arrived::Refused(refusal, kept) => self.refuse(refusal, kept.keep_alive, kept.head).await,
                Arrived::Confused(refusal) => self.refuse(refusal, false, false).await,
                Arrived::Unreadable(refusal) => {
                    self.worker.refusals.note(self.peer.ip(), "", &refusal);
                    self.refuse(refusal, false, false).await
                }
                Arrived::Http2 => {
                    let Visit { stream, inbox, peer, worker, listener, .. } = self;
                    return http2::serve(stream, inbox, peer, listener, worker).await;
                }
                Arrived::Gone => return,
            };
            self.fresh = false;
            match next {
                Next::Another => {}
                Next::Close => return self.linger().await,
                Next::Drop => return,
                Next::Torn => {
                    // Where that cannot be set, the connection is gone already.
                    let _ = self.stream.set_zero_linger();
                    return;
                }
            }
        }
    }

    /// Whether there is one. A proxy that closes takes no more requests from who has none under way.
    async fn first_byte(&mut self) -> bool {
        if !self.inbox.is_empty() {
            return true;
        }
        let closing = |_| self.worker.is_closing();
        let read = self.inbox.read_from(&mut self.stream);
        let read = self.timer.within(&mut Deadline::after(KEEP_ALIVE), closing, read).await;
        matches!(read, Ok(Ok(1..)))
    }

    /// A head goes by the table of when it is complete.
    async fn head<'t>(&mut self, tables: &'t mut Tables) -> Arrived<'t> {
        let mut deadline = Deadline::after(HEAD_PATIENCE);
        // Only the end of a line can complete a head; to look at each byte that trickles in would be dear.
        let mut looked_at = 0;
        loop {
            let mut room = head::room();
            let filled = self.inbox.filled();
            let parsed = match looked_at {
                1.. if !filled[looked_at..].contains(&b'\n') => Ok(None),
                _ => head::request(filled, &mut room),
            };
            looked_at = filled.len();
            match parsed {
                Ok(Some(head)) => {
                    let Some(site) = tables.load().site(self.listener.as_deref()) else {
                        return Arrived::Unreadable(ask::no_listener());
                    };
                    let kept = Kept {
                        keep_alive: keeps_alive(&head) && head.framing == Framing::Empty,
                        head: head.method == "HEAD",
                    };
                    let client = Client { ip: self.peer.ip(), addr: &self.addr, host: head.host };
                    let len = head.len;
                    let manner = Manner {
                        http11: head.minor > 0,
                        expects_continue: head.expects_continue,
                        keep_alive: keeps_alive(&head),
                    };
                    let asked = prepare(&head, client, site, &mut self.random, &mut self.request);
                    if let Err(refusal) = &asked {
                        let line = format!("{} {:.MAX_TOLD$}", head.method, head.target);
                        self.worker.refusals.note(self.peer.ip(), &line, refusal);
                    }
                    self.inbox.consume(len);
                    return match asked {
                        Ok(ask) => Arrived::Ask(ask, manner),
                        Err(refusal) if refusal.code == Code::InvalidRequest => Arrived::Confused(refusal),
                        Err(refusal) => Arrived::Refused(refusal, kept),
                    };
                }
                Ok(None) if self.inbox.is_full() => return Arrived::Unreadable(head::too_large()),
                Ok(None) => {}
                Err(_) if self.fresh && self.inbox.filled().starts_with(http2::PREFACE_LINE) => {
                    return Arrived::Http2;
                }
                Err(refusal) => return Arrived::Unreadable(refusal),
            }
            let read = self.inbox.read_from(&mut self.stream);
            match self.timer.within(&mut deadline, never_told, read).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0) | Err(_)) => return Arrived::Gone,
                Err(_) => {
                    let detail = format!("the head did not arrive within {} s", HEAD_PATIENCE.as_secs());
                    return Arrived::Unreadable(Refusal::new(Code::RequestTimeout, detail));
                }
            }
        }
    }

    /// Answers without an endpoint.
    async fn refuse(&mut self, refusal: Refusal, keep_alive: bool, head: bool) -> Next {
        let keep_alive = keep_alive && !self.worker.is_closing();
        self.response.clear();
        answer::write(refusal, keep_alive, head, &mut self.response);
        let write = self.stream.write_all(&self.response);
        match self.timer.within(&mut Deadline::after(ANSWER_PATIENCE), never_told, write).await {
            Ok(Ok(())) if keep_alive => Next::Another,
            Ok(Ok(())) => Next::Close,
            _ => Next::Drop,
        }
    }

    /// Says that nothing follows, and reads what was on its way.
    async fn linger(mut self) {
        let drain = async {
            self.stream.shutdown().await?;
            let (mut read, mut nowhere) = (0, [0; 4096]);
            while read < MAX_LINGER_BYTES {
                match self.stream.read(&mut nowhere).await? {
                    0 => break,
                    count => read += count,
                }
            }
            io::Result::Ok(())
        };
        // How it ends makes no difference: it is over.
        let _ = self.timer.within(&mut Deadline::after(LINGER), never_told, drain).await;
    }
}

fn keeps_alive(head: &RequestHead<'_, '_>) -> bool {
    !head.named.close && (head.minor > 0 || head.named.keep_alive)
}

/// Whom the request is for, and what it asks for there.
fn prepare<'t, 'b>(
    head: &RequestHead<'_, 'b>,
    mut client: Client<'b>,
    site: &'t Site,
    random: &mut Random,
    out: &mut Vec<u8>,
) -> Result<Ask<'t>, Refusal> {
    // A target in absolute form says whom it is for, whatever the Host says.
    let path = match head.target.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http://") => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            client.host = &rest[..end];
            if end == 0 || !client.host.bytes().all(head::fits_host) {
                return Err(bad("the target's authority is none"));
            }
            &rest[end..]
        }
        _ => head.target,
    };
    let asked = Asked { method: head.method, path, framing: head.framing, upgrade: head.upgrade };
    let fields = head.headers.iter().map(|header| (header.name, header.value));
    ask::prepare(asked, fields, |name| head.named.has(name), client, site, random, out)
}
