pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
use super::worker::Worker;
use std::{net::SocketAddr, sync::Arc};
use tokio::net::TcpStream;
#[derive(Debug, Default)]
pub struct Links;
pub async fn serve(_s: TcpStream, _f: &[u8], _p: SocketAddr, _l: Option<Arc<str>>, _w: Arc<Worker>) {}
pub async fn probe(_s: TcpStream, _host: &str, _path: &str) -> Result<u16, String> {
    Err(String::new())
}
