//! The PROXY protocol: a header with the client's address at the beginning of a connection.
//!
//! Endpoints get version 2; a load balancer in front of this proxy may send either version. If a listener expects the
//! header, a connection without an exactly correct one is refused, and no byte behind the header is read. A client that
//! reaches such a listener can claim any address, so the listener is for load balancers alone.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, on behalf of a client.
const PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
/// Version 2, on the sender's own behalf, as for health checks.
const LOCAL: u8 = 0x20;
/// The line of version 1, with its end.
const MAX_LINE: usize = 107;
/// How much may follow the first bytes of version 2: addresses and further fields.
const MAX_REST: usize = 4 << 10;
/// How long a header may take to arrive.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What is sent first on a connection on behalf of `client`, who connected to `here`.
pub fn header(client: SocketAddr, here: SocketAddr) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.push(PROXY);
    match (client.ip().to_canonical(), here.ip().to_canonical()) {
        (IpAddr::V4(client_ip), IpAddr::V4(here_ip)) => {
            header.extend_from_slice(&[TCP_OVER_IPV4, 0, 12]);
            header.extend_from_slice(&client_ip.octets());
            header.extend_from_slice(&here_ip.octets());
        }
        (client_ip, here_ip) => {
            let v6 = |ip: IpAddr| match ip {
                IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                IpAddr::V6(ip) => ip,
            };
            header.extend_from_slice(&[TCP_OVER_IPV6, 0, 36]);
            header.extend_from_slice(&v6(client_ip).octets());
            header.extend_from_slice(&v6(here_ip).octets());
        }
    }
    header.extend_from_slice(&client.port().to_be_bytes());
    header.extend_from_slice(&here.port().to_be_bytes());
    header
}

/// The same on behalf of this node itself.
pub fn on_own_behalf() -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    header.extend_from_slice(&[LOCAL, 0, 0, 0]);
    header
}

/// Reads the header that a connection begins with. None if it has no address of a client.
pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    timeout(TIMEOUT, read_any(stream)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn read_any(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    // As long as the signature, and shorter than any line.
    let mut first = [0; SIGNATURE.len()];
    stream.read_exact(&mut first).await?;
    if first == SIGNATURE {
        return read_binary(stream).await;
    }
    if !first.starts_with(b"PROXY ") {
        return Err(malformed("the signature is missing"));
    }
    let mut line = first.to_vec();
    while !line.ends_with(b"\r\n") {
        if line.len() == MAX_LINE {
            return Err(malformed("the line is too long"));
        }
        // Byte by byte: what follows the line is not part of the header.
        line.push(stream.read_u8().await?);
    }
    let text = str::from_utf8(&line[..line.len() - 2]).map_err(|_| malformed("the line is not text"))?;
    parse_line(text).ok_or_else(|| malformed("the line is malformed"))
}

fn parse_line(line: &str) -> Option<Option<SocketAddr>> {
    let parts: Vec<_> = line.split(' ').collect();
    let port = |text: &str| {
        let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        text.parse::<u16>().ok().filter(|_| plain)
    };
    match parts[..] {
        ["PROXY", "UNKNOWN", ..] => Some(None),
        ["PROXY", family, client, here, client_port, here_port] => {
            let ip = |text: &str| match family {
                "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
                "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
                _ => None,
            };
            let (client, _) =
                (SocketAddr::new(ip(client)?, port(client_port)?), (ip(here)?, port(here_port)?));
            Some(Some(client))
        }
        _ => None,
    }
}

async fn read_binary(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<SocketAddr>> {
    let (command, family) = (stream.read_u8().await?, stream.read_u8().await?);
    let len = usize::from(stream.read_u16().await?);
    if len > MAX_REST {
        return Err(malformed("the header is too long"));
    }
    let mut rest = vec![0; len];
    stream.read_exact(&mut rest).await?;
    let port = |at: usize| Some(u16::from_be_bytes(*rest.get(at..)?.first_chunk()?));
    let client = match (command, family) {
        (LOCAL, _) | (PROXY, 0) => return Ok(None),
        (PROXY, TCP_OVER_IPV4) => {
            let ip = rest.first_chunk::<4>().map(|octets| IpAddr::from(*octets));
            ip.zip(port(8)).filter(|_| len >= 12)
        }
        (PROXY, TCP_OVER_IPV6) => {
            let ip = rest.first_chunk::<16>().map(|octets| IpAddr::from(*octets));
            ip.zip(port(32)).filter(|_| len >= 36)
        }
        _ => None,
    };
    let client = client.ok_or_else(|| malformed("the header is not for TCP, or too short"))?;
    Ok(Some(client.into()))
}

fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_those_of_the_specification() {
        let header = header("192.0.2.1:56324".parse().unwrap(), "198.51.100.7:443".parse().unwrap());
        assert_eq!(
            header,
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x07\xdc\x04\x01\xbb"
        );
        let mixed = super::header("[2001:db8::1]:1".parse().unwrap(), "192.0.2.1:2".parse().unwrap());
        assert_eq!((mixed[13], mixed.len()), (TCP_OVER_IPV6, 16 + 36));
    }

    /// Reads a header with a request behind it, and checks that the request is left alone.
    async fn client_of(header: &[u8]) -> Result<Option<String>, io::ErrorKind> {
        let bytes = [header, b"GET /"].concat();
        let mut stream = bytes.as_slice();
        let client = read(&mut stream).await.map_err(|error| error.kind())?;
        assert_eq!(stream, b"GET /", "{header:?}");
        Ok(client.map(|client| client.to_string()))
    }

    #[tokio::test]
    async fn either_version_has_the_address_of_the_client() {
        for (client, here) in [("192.0.2.1:56324", "198.51.100.7:443"), ("[2001:db8::1]:1", "[::1]:65535")] {
            let header = header(client.parse().unwrap(), here.parse().unwrap());
            assert_eq!(client_of(&header).await, Ok(Some(client.to_owned())));
        }
        for (line, client) in [
            ("PROXY TCP4 192.0.2.1 198.51.100.7 56324 443", Some("192.0.2.1:56324")),
            ("PROXY TCP6 2001:db8::1 ::1 1 65535", Some("[2001:db8::1]:1")),
            ("PROXY UNKNOWN", None),
            ("PROXY UNKNOWN whatever it is", None),
        ] {
            let line = format!("{line}\r\n");
            assert_eq!(client_of(line.as_bytes()).await, Ok(client.map(str::to_owned)), "{line}");
        }
        // Further fields are skipped, and a health check names no client.
        let more =
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0f\xc0\x00\x02\x01\xc6\x33\x64\x07\xdc\x04\x01\xbb\x04\0\0";
        assert_eq!(client_of(more).await, Ok(Some("192.0.2.1:56324".to_owned())));
        assert_eq!(client_of(b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00").await, Ok(None));
    }

    #[tokio::test]
    async fn malformed_headers_are_refused() {
        for text in [
            "GET / HTTP/1.1\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324\r\n",
            "PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 56324 65536\r\n",
            "PROXY TCP4 192.0.2.1 198.51.100.7 +1 443\r\n",
            "PROXY TCP4 192.0.2.1  198.51.100.7 1 443\r\n",
            "PROXY UDP4 192.0.2.1 198.51.100.7 1 443\r\n",
            "\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x04\x01\x02\x03\x04",
            "\r\n\r\n\0\r\nQUIT\n\x21\x12\x00\x00",
            "\r\n\r\n\0\r\nQUIT\n\x11\x11\x00\x00",
            "\r\n\r\n\0\r\nQUIT\n\x21\x11\x7f\x7f",
        ] {
            assert_eq!(client_of(text.as_bytes()).await, Err(io::ErrorKind::InvalidData), "{text:?}");
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(MAX_LINE));
        assert_eq!(client_of(endless.as_bytes()).await, Err(io::ErrorKind::InvalidData));
    }
}
