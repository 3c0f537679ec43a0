//! Heads of HTTP/1 messages: how they are read, and which are refused.
//!
//! Two servers that read one message differently disagree about where it ends, and a request can be smuggled past one of
//! them. So ambiguous messages are refused: with lengths that are repeated, malformed or contradicted by an encoding,
//! encodings other than `chunked`, lines that end without a carriage return, and all that the parser rejects.

use super::buffer::MAX_BUFFER;
use httparse::{Header, Status};
use ringmaster_common::error::{Code, Refusal};
use std::mem::MaybeUninit;

/// How many headers a message has.
pub const MAX_HEADERS: usize = 100;
/// How many interim responses (1xx) may come before the final one.
pub const MAX_INTERIM: u32 = 16;
/// The only protocol that a connection may be upgraded to.
pub const WEBSOCKET: &str = "websocket";
/// How many headers `Connection` may name.
pub const MAX_NAMED: usize = 8;

/// Room for the headers of one message.
pub type Room<'b> = [MaybeUninit<Header<'b>>; MAX_HEADERS];

pub fn room<'b>() -> Room<'b> {
    [const { MaybeUninit::uninit() }; MAX_HEADERS]
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    Empty,
    Length(u64),
    Chunked,
    /// At the end of the connection. Only responses end so.
    Close,
}

/// The head of a request.
#[derive(Debug)]
pub struct RequestHead<'h, 'b> {
    pub len: usize,
    pub method: &'b str,
    pub target: &'b str,
    /// The minor version of HTTP/1.
    pub minor: u8,
    pub headers: &'h [Header<'b>],
    pub host: &'b str,
    pub framing: Framing,
    pub named: Named<'b>,
    /// The protocol that the client wants to upgrade to.
    pub upgrade: Option<&'b str>,
    pub expects_continue: bool,
}

/// The head of a response.
#[derive(Debug)]
pub struct ResponseHead<'h, 'b> {
    pub len: usize,
    pub status: u16,
    pub reason: &'b str,
    pub headers: &'h [Header<'b>],
    pub framing: Framing,
    pub named: Named<'b>,
    /// Whether the connection takes another request after this response.
    pub keeps_alive: bool,
    /// How many seconds the connection stays open without another request, if it says so.
    pub keep_alive_s: Option<u32>,
}

/// The options of `Connection`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Named<'b> {
    names: [&'b str; MAX_NAMED],
    count: usize,
    pub close: bool,
    pub keep_alive: bool,
    upgrade: bool,
}

/// The parts of a request that decide how its response is read.
#[derive(Clone, Copy, Debug)]
pub struct RequestFacts {
    /// It is a HEAD request.
    pub is_head: bool,
    pub wants_upgrade: bool,
}

/// None if the head is not complete.
pub fn request<'h, 'b>(
    bytes: &'b [u8],
    room: &'h mut Room<'b>,
) -> Result<Option<RequestHead<'h, 'b>>, Refusal> {
    let mut parsed = httparse::Request::new(&mut []);
    let len = match parsed.parse_with_uninit_headers(bytes, room) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(too_large()),
        Err(error) => return Err(malformed(format!("the request is malformed: {error}"))),
    };
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(malformed("the request line is incomplete"));
    };
    let headers: &'h [Header<'b>] = parsed.headers;
    check_lines(bytes, len, headers)?;
    let (mut lengths, mut host_again, mut upgrade_again) = (Lengths::default(), false, false);
    let (mut host, mut named, mut upgrade, mut expects_continue) = (None, Named::default(), None, false);
    for header in headers {
        match header.name.len() {
            4 if is(header, "host") => host_again |= host.replace(text(header)?).is_some(),
            6 if is(header, "expect") => {
                expects_continue = header.value.eq_ignore_ascii_case(b"100-continue")
            }
            7 if is(header, "upgrade") => upgrade_again |= upgrade.replace(text(header)?).is_some(),
            10 if is(header, "connection") => named.read(text(header)?)?,
            14 if is(header, "content-length") => lengths.length(header.value)?,
            17 if is(header, "transfer-encoding") => lengths.encoding(header.value)?,
            _ => {}
        }
    }
    let host = match host {
        _ if host_again => return Err(malformed("there is more than one Host")),
        Some(host) if !host.bytes().all(fits_host) => return Err(malformed("the Host is invalid")),
        None if minor > 0 => return Err(malformed("there is no Host")),
        host => host.unwrap_or_default(),
    };
    if lengths.chunked && minor == 0 {
        return Err(malformed("HTTP/1.0 has no Transfer-Encoding"));
    }
    let framing = lengths.framing()?.unwrap_or(Framing::Empty);
    // Another protocol, HTTP/2 above all, would bypass the routes.
    let upgrade = upgrade.filter(|to| {
        named.upgrade
            && framing == Framing::Empty
            && minor > 0
            && !upgrade_again
            && to.eq_ignore_ascii_case(WEBSOCKET)
    });
    Ok(Some(RequestHead {
        len,
        method,
        target,
        minor,
        headers,
        host,
        framing,
        named,
        upgrade,
        expects_continue,
    }))
}

/// None if the head is not complete.
pub fn response<'h, 'b>(
    bytes: &'b [u8],
    room: &'h mut Room<'b>,
    request: RequestFacts,
) -> Result<Option<ResponseHead<'h, 'b>>, Refusal> {
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let len = match config.parse_response_with_uninit_headers(&mut parsed, bytes, room) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(response_too_large()),
        Err(error) => return Err(malformed(format!("the head is malformed: {error}"))),
    };
    let (Some(status), Some(minor)) = (parsed.code, parsed.version) else {
        return Err(malformed("the status line is incomplete"));
    };
    let headers: &'h [Header<'b>] = parsed.headers;
    check_lines(bytes, len, headers)?;
    if status < 100 {
        return Err(malformed(format!("the status {status} is invalid")));
    }
    let (mut lengths, mut named, mut upgrade) = (Lengths::default(), Named::default(), None);
    let mut keep_alive_s = None;
    for header in headers {
        match header.name.len() {
            7 if is(header, "upgrade") => upgrade = Some(text(header)?),
            10 if is(header, "connection") => named.read(text(header)?)?,
            10 if is(header, "keep-alive") => keep_alive_s = keep_alive_timeout(header.value),
            14 if is(header, "content-length") => lengths.length(header.value)?,
            17 if is(header, "transfer-encoding") => lengths.encoding(header.value)?,
            _ => {}
        }
    }
    if lengths.chunked && minor == 0 {
        return Err(malformed("HTTP/1.0 has no Transfer-Encoding"));
    }
    let declared = lengths.framing()?;
    let framing = match status {
        101 if request.wants_upgrade && upgrade.is_some_and(|to| to.eq_ignore_ascii_case(WEBSOCKET)) => {
            Framing::Empty
        }
        101 if request.wants_upgrade => {
            return Err(malformed("it upgrades to another protocol than requested"));
        }
        101 => return Err(malformed("it upgrades the protocol unasked")),
        100..200 | 204 | 304 => Framing::Empty,
        _ if request.is_head => Framing::Empty,
        _ => declared.unwrap_or(Framing::Close),
    };
    let keeps_alive = framing != Framing::Close && !named.close && (minor > 0 || named.keep_alive);
    let reason = parsed.reason.unwrap_or_default();
    Ok(Some(ResponseHead { len, status, reason, headers, framing, named, keeps_alive, keep_alive_s }))
}

/// The seconds of `timeout=5, max=100`.
fn keep_alive_timeout(value: &[u8]) -> Option<u32> {
    let parameters = str::from_utf8(value).ok()?.split(',');
    parameters.map(str::trim).find_map(|parameter| {
        let (name, seconds) = parameter.split_once('=')?;
        name.trim_end()
            .eq_ignore_ascii_case("timeout")
            .then(|| seconds.trim().trim_matches('"').parse().ok())?
    })
}

/// The parser takes a line feed alone for the end of a line, other servers do not.
fn check_lines(bytes: &[u8], len: usize, headers: &[Header<'_>]) -> Result<(), Refusal> {
    let base = bytes.as_ptr().addr();
    let ends_right = |end: usize| end >= 2 && bytes[end - 2..end] == *b"\r\n";
    let starts = headers.iter().map(|header| header.name.as_ptr().addr() - base);
    // The head ends with an empty line.
    if starts.chain([len, len - 2]).all(ends_right) {
        Ok(())
    } else {
        Err(malformed("a line ends without a carriage return"))
    }
}

/// What a message says about its length.
#[derive(Debug, Default)]
struct Lengths {
    length: Option<u64>,
    chunked: bool,
}

impl Lengths {
    fn length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let digits = !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit);
        if !digits {
            return Err(malformed("the Content-Length is not a number"));
        }
        let length = value.iter().fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
        match self.length.replace(length) {
            None => Ok(()),
            Some(_) => Err(malformed("there is more than one Content-Length")),
        }
    }

    fn encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(malformed("the only Transfer-Encoding that is allowed is chunked, once"));
        }
        self.chunked = true;
        Ok(())
    }

    fn framing(&self) -> Result<Option<Framing>, Refusal> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err(malformed("there is both a Content-Length and a Transfer-Encoding")),
            (None, true) => Ok(Some(Framing::Chunked)),
            (Some(0), false) => Ok(Some(Framing::Empty)),
            (Some(length), false) => Ok(Some(Framing::Length(length))),
            (None, false) => Ok(None),
        }
    }
}

impl<'b> Named<'b> {
    fn read(&mut self, value: &'b str) -> Result<(), Refusal> {
        for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            if name.eq_ignore_ascii_case("close") {
                self.close = true;
            } else if name.eq_ignore_ascii_case("keep-alive") {
                self.keep_alive = true;
            } else if name.eq_ignore_ascii_case("upgrade") {
                self.upgrade = true;
            } else if ["host", "content-length"].iter().any(|kept| name.eq_ignore_ascii_case(kept)) {
                return Err(malformed(format!("Connection must not name {name}")));
            } else if self.count < MAX_NAMED {
                self.names[self.count] = name;
                self.count += 1;
            } else {
                return Err(malformed(format!("Connection names more than {MAX_NAMED} headers")));
            }
        }
        Ok(())
    }

    /// Whether `Connection` names this header.
    pub fn has(&self, name: &str) -> bool {
        self.names[..self.count].iter().any(|named| named.eq_ignore_ascii_case(name))
    }
}

fn is(header: &Header<'_>, name: &str) -> bool {
    header.name.eq_ignore_ascii_case(name)
}

fn text<'b>(header: &Header<'b>) -> Result<&'b str, Refusal> {
    str::from_utf8(header.value).map_err(|_| malformed(format!("{} is not text", header.name)))
}

pub fn fits_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(&byte)
}

pub fn malformed(detail: impl Into<String>) -> Refusal {
    Refusal::new(Code::InvalidRequest, detail)
}

/// An endpoint sends interim responses without end.
pub fn too_many_interim() -> Refusal {
    Refusal::new(Code::HeadTooLarge, format!("more than {MAX_INTERIM} interim responses"))
}

/// The head of a response that is beyond the bounds.
pub fn response_too_large() -> Refusal {
    Refusal::new(
        Code::HeadTooLarge,
        format!("the head of the response exceeds {MAX_BUFFER} bytes or {MAX_HEADERS} headers"),
    )
}

pub fn too_large() -> Refusal {
    Refusal::new(
        Code::HeadTooLarge,
        format!("a head is limited to {MAX_BUFFER} bytes and {MAX_HEADERS} headers"),
    )
}

#[cfg(test)]
mod tests;
