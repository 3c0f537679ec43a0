//! The head of a response as the client gets it: the endpoint's, without headers of its connection, with what the
//! route sets and the sticky cookie.

use crate::{
    table::Route,
    wire::{
        head::Framing,
        headers::{HeaderSink, ShortText, is_hop_by_hop},
    },
};
use std::io::Write;

/// What an HTTP/1 client understands.
#[derive(Clone, Copy, Debug)]
pub struct ClientCapabilities {
    /// HTTP/1.1: chunks and interim responses.
    pub http11: bool,
    pub expects_continue: bool,
    pub keep_alive: bool,
}

impl ClientCapabilities {
    /// The same, but the connection is not kept if `closing`.
    pub fn unless(self, closing: bool) -> ClientCapabilities {
        ClientCapabilities { keep_alive: self.keep_alive && !closing, ..self }
    }

    /// What `Connection` says in a response. A client of HTTP/1.0 takes a connection for closed unless the response says
    /// that it is kept.
    pub fn connection_option(self, keep_alive: bool) -> Option<&'static str> {
        match (keep_alive, self.http11) {
            (false, _) => Some("close"),
            (true, false) => Some("keep-alive"),
            (true, true) => None,
        }
    }
}

/// What the status line says, and how the body is framed.
#[derive(Clone, Copy, Debug)]
pub struct StatusLine<'h> {
    pub status: u16,
    pub reason: &'h str,
    pub framing: Framing,
}

/// Writes the head for an HTTP/1 client. Returns whether the client may send another request.
pub fn write<'h>(
    line: StatusLine<'_>,
    fields: impl Iterator<Item = (&'h str, &'h [u8])> + Clone,
    named: impl Fn(&str) -> bool,
    route: &Route,
    sticky: Option<u64>,
    client: ClientCapabilities,
    out: &mut Vec<u8>,
) -> bool {
    let StatusLine { status, reason, framing } = line;
    let switched = status == 101;
    let framing = match framing {
        // A client without chunks learns the end of the body by the end of the connection.
        Framing::Chunked if !client.http11 => Framing::Close,
        framing => framing,
    };
    let keep_alive = client.keep_alive && framing != Framing::Close && !switched;
    // Writing to a vector cannot fail.
    let _ = write!(out, "HTTP/1.1 {status} {reason}\r\n");
    headers(fields.clone(), named, route, sticky, out);
    if switched {
        out.header("connection", b"upgrade");
        let upgrade = fields.clone().find(|(name, _)| name.eq_ignore_ascii_case("upgrade"));
        out.header("upgrade", upgrade.map_or(b"", |(_, value)| value));
    } else {
        if framing == Framing::Chunked {
            out.header("transfer-encoding", b"chunked");
        }
        if let Some(option) = client.connection_option(keep_alive) {
            out.header("connection", option.as_bytes());
        }
    }
    out.extend_from_slice(b"\r\n");
    keep_alive
}

/// Writes the headers for a client of any protocol. `sticky` names the endpoint to come back to.
pub fn headers<'h>(
    fields: impl Iterator<Item = (&'h str, &'h [u8])>,
    named: impl Fn(&str) -> bool,
    route: &Route,
    sticky: Option<u64>,
    out: &mut impl HeaderSink,
) {
    let set_by_route = &route.spec.set_response_headers;
    for (name, value) in fields {
        let is_set = set_by_route.keys().any(|set| set.eq_ignore_ascii_case(name));
        if !is_hop_by_hop(name) && !named(name) && !is_set {
            out.header(name, value);
        }
    }
    if let (Some(cookie), Some(token)) = (&route.upstream.config.sticky_cookie, sticky) {
        let mut text = ShortText::default();
        text.put(format_args!("{cookie}={token:016x}; Path=/; HttpOnly; SameSite=Lax"));
        out.header("set-cookie", text.bytes());
    }
    for (name, value) in set_by_route {
        out.header(name, value.as_bytes());
    }
}

/// Writes the head of an interim response (1xx) for an HTTP/1 client; nothing if the client does not want it.
pub fn write_interim<'h>(
    status: u16,
    reason: &str,
    fields: impl Iterator<Item = (&'h str, &'h [u8])>,
    named: impl Fn(&str) -> bool,
    client: ClientCapabilities,
    out: &mut Vec<u8>,
) {
    if !client.http11 || status == 100 && !client.expects_continue {
        return;
    }
    // Writing to a vector cannot fail.
    let _ = write!(out, "HTTP/1.1 {status} {reason}\r\n");
    for (name, value) in fields {
        let frames = name.eq_ignore_ascii_case("content-length");
        if !frames && !is_hop_by_hop(name) && !named(name) {
            out.header(name, value);
        }
    }
    out.extend_from_slice(b"\r\n");
}
