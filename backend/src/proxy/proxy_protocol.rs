//! The PROXY protocol, version 2: tells an endpoint who the client is, before anything else.

use std::net::{IpAddr, SocketAddr};

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, and that the connection is on somebody's behalf.
const PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_that_of_the_specification() {
        let header = header("192.0.2.1:56324".parse().unwrap(), "198.51.100.7:443".parse().unwrap());
        assert_eq!(
            header,
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x07\xdc\x04\x01\xbb"
        );
        let mixed = super::header("[2001:db8::1]:1".parse().unwrap(), "192.0.2.1:2".parse().unwrap());
        assert_eq!((mixed[13], mixed.len()), (TCP_OVER_IPV6, 16 + 36));
    }
}
