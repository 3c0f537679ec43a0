//! A new connection to one address, and what can be seen of a connection without reading it.
//!
//! What always holds: link-local and cloud-metadata addresses are refused after the name was resolved, so no name can
//! lead to them.

use ringmaster_net::forbidden::is_forbidden;
use socket2::SockRef;
use std::{io, mem::MaybeUninit, net::SocketAddr};
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
