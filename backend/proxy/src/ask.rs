//! What a client asks for, in whichever protocol: the route that it leads to, and the head that its
//! endpoint gets, in the protocol that the endpoint speaks.

use super::{
    answer::Refusal,
    head::{Framing, bad},
    headers::{self, Client, Sink},
    moment::Moment,
    path,
    pick::Wish,
    random::Random,
    table::{Route, Site},
};
use hyper::{HeaderMap, Method, Request, Uri, header::HeaderValue};
use ringmaster_common::{error::Code, traffic::upstream::Protocol};

/// A request whose head was read, and what of it is needed after that.
#[derive(Debug)]
pub struct Ask<'t> {
    pub route: &'t Route,
    pub wish: Wish,
    /// Of the body.
    pub framing: Framing,
    /// Where method and path end in what [`prepare`] wrote, without the query; for people to read.
    pub line: usize,
    /// What an endpoint gets that speaks HTTP/2.
    pub onward: Option<Box<Request<()>>>,
    pub idempotent: bool,
    pub head: bool,
    pub upgrade: bool,
}

/// What the first line of a request says, or what stands for it, and how its body is framed.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'b> {
    pub method: &'b str,
    /// With the query.
    pub path: &'b str,
    pub framing: Framing,
    pub upgrade: Option<&'b str>,
}

impl Ask<'_> {
    /// Whether an endpoint may see it twice, and all of it is still there then.
    pub fn is_resendable(&self) -> bool {
        self.idempotent && self.framing == Framing::Empty
    }
}

/// Finds the route, and writes the head that its endpoint gets: to `out` if that speaks HTTP/1. To HTTP/2 it
/// goes in the form that is encoded anew each time, and `out` has method and path alone.
pub fn prepare<'t, 'h>(
    asked: Asked<'_>,
    fields: impl Iterator<Item = (&'h str, &'h [u8])> + Clone,
    named: impl Fn(&str) -> bool,
    client: Client<'_>,
    site: &'t Site,
    random: &mut Random,
    out: &mut Vec<u8>,
) -> Result<Ask<'t>, Refusal> {
    let (path, query) = match asked.path.find('?') {
        Some(at) => asked.path.split_at(at),
        None => (asked.path, ""),
    };
    let path = if path.is_empty() { "/" } else { path };
    let (path, route) = find(asked.method, client.host, path, query, site)?;
    if let Framing::Length(length) = asked.framing
        && length > route.spec.max_body_bytes
    {
        return Err(too_long(route));
    }
    let forwarded = route.rewrite(&path);
    out.clear();
    out.extend_from_slice(asked.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(forwarded.as_bytes());
    let line = out.len();
    let mut ask = Ask {
        route,
        wish: headers::wish(fields.clone(), client.ip, &path, route),
        framing: asked.framing,
        line,
        onward: None,
        idempotent: is_idempotent(asked.method),
        head: asked.method == "HEAD",
        upgrade: false,
    };
    match route.upstream.config.protocol {
        Protocol::Http1 => {
            out.extend_from_slice(query.as_bytes());
            out.extend_from_slice(b" HTTP/1.1\r\n");
            out.header("host", client.host.as_bytes());
            headers::request(fields, named, client, route, random, out);
            if asked.framing == Framing::Chunked {
                out.header("transfer-encoding", b"chunked");
            }
            if let Some(upgrade) = asked.upgrade {
                ask.upgrade = true;
                out.header("connection", b"upgrade");
                out.header("upgrade", upgrade.as_bytes());
            }
            out.extend_from_slice(b"\r\n");
        }
        Protocol::Http2 => {
            let mut headers = HeaderMap::new();
            // Whoever wants trailers says so at each hop (RFC 9113, 8.2.2); gRPC servers insist on it.
            if fields.clone().any(|(name, value)| name.eq_ignore_ascii_case("te") && value == b"trailers") {
                headers.insert("te", HeaderValue::from_static("trailers"));
            }
            headers::request(fields, named, client, route, random, &mut headers);
            // The proxy answers it by itself: whether the endpoint wants the body is told by its window.
            headers.remove("expect");
            ask.onward = Some(Box::new(onward(asked.method, client.host, &forwarded, query, headers)?));
        }
        Protocol::Tcp => {
            let detail = format!("upstream {} speaks tcp, and the client HTTP", route.upstream.name);
            return Err(Refusal::new(Code::BadGateway, detail));
        }
    }
    Ok(ask)
}

fn onward(
    method: &str,
    host: &str,
    path: &str,
    query: &str,
    headers: HeaderMap,
) -> Result<Request<()>, Refusal> {
    let method: Method = method.parse().map_err(|_| bad("the method is none"))?;
    let uri = Uri::builder().scheme("http").authority(host).path_and_query(format!("{path}{query}"));
    let uri = uri.build().map_err(|error| bad(format!("HTTP/2 cannot ask for this: {error}")))?;
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

/// The route for a request, with its path as it is routed and forwarded.
fn find<'t, 'p>(
    method: &str,
    host: &str,
    path: &'p str,
    query: &str,
    site: &'t Site,
) -> Result<(std::borrow::Cow<'p, str>, &'t Route), Refusal> {
    if matches!(method, "CONNECT" | "TRACE") {
        return Err(Refusal::new(Code::MethodNotAllowed, format!("this proxy does not take {method}")));
    }
    if !query.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(bad("the query has letters that have to be escaped"));
    }
    let path = path::normalise(path)
        .ok_or_else(|| bad("the path is none, or could be read in more than one way"))?;
    let Some(route) = site.find(host, &path) else {
        return Err(Refusal::new(Code::NoRoute, format!("no route is for {path:.200} at host {host:?}")));
    };
    if let Some(limit) = &route.limit
        && !limit.admits(Moment::now())
    {
        let rate = route.spec.rate_limit_per_s.unwrap_or_default();
        let detail = format!("route {} lets {rate} requests a second through each node", route.name);
        return Err(Refusal::new(Code::RateLimited, detail));
    }
    Ok((path, route))
}

/// The listener that a request came in by is configured no more.
pub fn no_listener() -> Refusal {
    Refusal::new(Code::NoRoute, "no route is for this listener any more")
}

/// Whether a request may be sent twice (RFC 9110, 9.2.2).
fn is_idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "PUT" | "DELETE")
}

pub fn too_long(route: &Route) -> Refusal {
    let detail = format!("route {} takes bodies of up to {} bytes", route.name, route.spec.max_body_bytes);
    Refusal::new(Code::BodyTooLarge, detail)
}
