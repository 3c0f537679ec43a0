//! What goes over the wire, and how it is read: heads, bodies, headers, paths, frames. No routing and no state of the
//! proxy.

pub mod body;
pub mod buffer;
pub mod head;
pub mod headers;
pub mod http1;
pub mod http2;
pub mod message;
pub mod path;
pub mod proxy_protocol;
pub mod websocket;
