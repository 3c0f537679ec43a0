//! A new connection to one address, and what can be seen of a connection without reading it.
//!
//! What always holds: link-local and cloud-metadata addresses are refused after the name was resolved, so no name can
//! lead to them.

use socket2::SockRef;
use std::{
    io,
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};
use tokio::net::{TcpSocket, TcpStream};

pub async fn connect_to(addr: SocketAddr) -> io::Result<TcpStream> {
    if is_forbidden(addr.ip()) {
        let why = "link-local and metadata addresses are not allowed";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    socket.connect(addr).await
}

/// Whether the kernel has data, or an end, that was not read yet. A system call.
pub fn is_readable(stream: &TcpStream) -> bool {
    let peeked = SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]);
    !matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Whether nothing arrived, not even an end, as far as the runtime knows. No system call if nothing did.
pub fn is_quiet(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

/// Clouds serve secrets of their machines at such addresses.
fn is_forbidden(ip: IpAddr) -> bool {
    /// A metadata address outside the link-local network.
    const METADATA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
    let v4 = |ip: Ipv4Addr| ip.is_link_local() || ip.is_unspecified() || ip.is_multicast() || ip == METADATA;
    match ip {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => v4(ip),
            None => {
                ip.is_unicast_link_local()
                    || ip.is_unspecified()
                    || ip.is_multicast()
                    || ip.segments()[..3] == [0xfd00, 0xec2, 0]
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_addresses_are_refused() {
        for addr in [
            "169.254.169.254",
            "100.100.100.200",
            "fe80::1",
            "::ffff:169.254.169.254",
            "0.0.0.0",
            "::",
            "fd00:ec2::254",
        ] {
            assert!(is_forbidden(addr.parse().unwrap()), "{addr}");
        }
        for addr in ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "192.0.2.1"] {
            assert!(!is_forbidden(addr.parse().unwrap()), "{addr}");
        }
    }
}
