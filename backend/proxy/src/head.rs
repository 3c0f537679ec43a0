//! Heads of HTTP/1 messages: what they say, and what of it is refused.
//!
//! Two servers that read one message differently can be made to disagree about where it ends, and then a
//! request is smuggled past one of them. So whatever could be read in two ways is refused: lengths that are
//! repeated, malformed or contradicted by an encoding, encodings other than `chunked`, lines that end
//! without a carriage return, and everything that the parser itself takes for wrong.

use super::answer::Refusal;
use httparse::{Header, Status};
use ringmaster_common::error::Code;
use std::mem::MaybeUninit;

/// How many headers a message has.
pub const MAX_HEADERS: usize = 100;
/// How many answers that are not final come before the one that is.
pub const MAX_INTERIM: u32 = 16;
/// What a connection may become.
pub const WEBSOCKET: &str = "websocket";
/// How many headers `Connection` names.
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
    /// Where the connection does. Only responses end so.
    Close,
}

/// The head of a request.
#[derive(Debug)]
pub struct RequestHead<'h, 'b> {
    pub len: usize,
    pub method: &'b str,
    pub target: &'b str,
    /// Of HTTP/1.
    pub minor: u8,
    pub headers: &'h [Header<'b>],
    pub host: &'b str,
    pub framing: Framing,
    pub named: Named<'b>,
    /// What the connection is to become.
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
    /// Whether the connection takes another request after this.
    pub keeps_alive: bool,
}

/// What `Connection` says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Named<'b> {
    names: [&'b str; MAX_NAMED],
    count: usize,
    pub close: bool,
    pub keep_alive: bool,
    upgrade: bool,
}

/// What a response is the answer to.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub head: bool,
    pub upgrade: bool,
}

/// None while more has to come.
pub fn request<'h, 'b>(
    bytes: &'b [u8],
    room: &'h mut Room<'b>,
) -> Result<Option<RequestHead<'h, 'b>>, Refusal> {
    let mut parsed = httparse::Request::new(&mut []);
    let len = match parsed.parse_with_uninit_headers(bytes, room) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(too_large()),
        Err(error) => return Err(bad(format!("the request is malformed: {error}"))),
    };
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(bad("the request line is incomplete"));
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
        _ if host_again => return Err(bad("there is more than one Host")),
        Some(host) if !host.bytes().all(fits_host) => return Err(bad("the Host is none")),
        None if minor > 0 => return Err(bad("there is no Host")),
        host => host.unwrap_or_default(),
    };
    if lengths.chunked && minor == 0 {
        return Err(bad("HTTP/1.0 knows no Transfer-Encoding"));
    }
    let framing = lengths.framing()?.unwrap_or(Framing::Empty);
    // Another protocol, HTTP/2 above all, would take whatever comes next past the routes.
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

/// None while more has to come. A response that cannot be trusted is an error, with its reason.
pub fn response<'h, 'b>(
    bytes: &'b [u8],
    room: &'h mut Room<'b>,
    asked: Asked,
) -> Result<Option<ResponseHead<'h, 'b>>, Refusal> {
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let len = match config.parse_response_with_uninit_headers(&mut parsed, bytes, room) {
        Ok(Status::Complete(len)) => len,
        Ok(Status::Partial) => return Ok(None),
        Err(error) => return Err(bad(format!("the head is malformed: {error}"))),
    };
    let (Some(status), Some(minor)) = (parsed.code, parsed.version) else {
        return Err(bad("the status line is incomplete"));
    };
    let headers: &'h [Header<'b>] = parsed.headers;
    check_lines(bytes, len, headers)?;
    if status < 100 {
        return Err(bad(format!("there is no status {status}")));
    }
    let (mut lengths, mut named, mut upgrade) = (Lengths::default(), Named::default(), None);
    for header in headers {
        match header.name.len() {
            7 if is(header, "upgrade") => upgrade = Some(text(header)?),
            10 if is(header, "connection") => named.read(text(header)?)?,
            14 if is(header, "content-length") => lengths.length(header.value)?,
            17 if is(header, "transfer-encoding") => lengths.encoding(header.value)?,
            _ => {}
        }
    }
    if lengths.chunked && minor == 0 {
        return Err(bad("HTTP/1.0 knows no Transfer-Encoding"));
    }
    let declared = lengths.framing()?;
    let framing = match status {
        101 if asked.upgrade && upgrade.is_some_and(|to| to.eq_ignore_ascii_case(WEBSOCKET)) => {
            Framing::Empty
        }
        101 if asked.upgrade => return Err(bad("it changes to another protocol than was asked for")),
        101 => return Err(bad("it changes the protocol though nobody asked for that")),
        100..200 | 204 | 304 => Framing::Empty,
        _ if asked.head => Framing::Empty,
        _ => declared.unwrap_or(Framing::Close),
    };
    let keeps_alive = framing != Framing::Close && !named.close && (minor > 0 || named.keep_alive);
    let reason = parsed.reason.unwrap_or_default();
    Ok(Some(ResponseHead { len, status, reason, headers, framing, named, keeps_alive }))
}

/// The parser takes a line feed alone for the end of a line, and others do not.
fn check_lines(bytes: &[u8], len: usize, headers: &[Header<'_>]) -> Result<(), Refusal> {
    let base = bytes.as_ptr().addr();
    let ends_right = |end: usize| end >= 2 && bytes[end - 2..end] == *b"\r\n";
    let starts = headers.iter().map(|header| header.name.as_ptr().addr() - base);
    // The end of the head is that of an empty line behind the last one.
    if starts.chain([len, len - 2]).all(ends_right) {
        Ok(())
    } else {
        Err(bad("a line ends without a carriage return"))
    }
}

/// What a message says of its length.
#[derive(Debug, Default)]
struct Lengths {
    length: Option<u64>,
    chunked: bool,
}

impl Lengths {
    fn length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        let digits = !value.is_empty() && value.len() <= 19 && value.iter().all(u8::is_ascii_digit);
        if !digits {
            return Err(bad("the Content-Length is not a number"));
        }
        let length = value.iter().fold(0u64, |number, digit| number * 10 + u64::from(digit - b'0'));
        match self.length.replace(length) {
            None => Ok(()),
            Some(_) => Err(bad("there is more than one Content-Length")),
        }
    }

    fn encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(bad("a Transfer-Encoding is chunked, once, and nothing else"));
        }
        self.chunked = true;
        Ok(())
    }

    fn framing(&self) -> Result<Option<Framing>, Refusal> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err(bad("there are a Content-Length and a Transfer-Encoding")),
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
                return Err(bad(format!(
                    "Connection names {name}, without which a message cannot be understood"
                )));
            } else if self.count < MAX_NAMED {
                self.names[self.count] = name;
                self.count += 1;
            } else {
                return Err(bad(format!("Connection names more than {MAX_NAMED} headers")));
            }
        }
        Ok(())
    }

    /// Whether a header belongs to the connection alone.
    pub fn has(&self, name: &str) -> bool {
        self.names[..self.count].iter().any(|named| named.eq_ignore_ascii_case(name))
    }
}

fn is(header: &Header<'_>, name: &str) -> bool {
    header.name.eq_ignore_ascii_case(name)
}

fn text<'b>(header: &Header<'b>) -> Result<&'b str, Refusal> {
    str::from_utf8(header.value).map_err(|_| bad(format!("{} is no text", header.name)))
}

pub fn fits_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(&byte)
}

pub fn bad(detail: impl Into<String>) -> Refusal {
    Refusal::new(Code::InvalidRequest, detail)
}

/// An endpoint says without end that its answer is still to come.
pub fn never_final() -> Refusal {
    bad(format!("more than {MAX_INTERIM} answers of it are not final"))
}

pub fn too_large() -> Refusal {
    Refusal::new(
        Code::HeadTooLarge,
        format!("a head has up to {} bytes and {MAX_HEADERS} headers", super::buffer::MAX_BUFFER),
    )
}

#[cfg(test)]
mod tests;
