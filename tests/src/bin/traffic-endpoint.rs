//! An endpoint of HTTP/1.1 that says who it is.
//!
//! | asked for | it |
//! | --- | --- |
//! | any path | answers with its id |
//! | `/slow/MS` | does so after that many milliseconds |
//! | `/healthz` | answers, and does not count it |
//! | `/seen` | answers how many requests it has had, and does not count that |
//! | with `Upgrade` | agrees, and sends back what it is sent |
//!
//! It serves requests without a body; anything else ends the connection.

use std::{
    env, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::sleep,
};

/// The longest head of a request.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// While no process listened on the port, the kernel may have given it to a client for a moment.
const TRY_TO_LISTEN: u32 = 100;
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(100);

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let [id, addr] = env::args().skip(1).collect::<Vec<_>>().try_into().expect("two arguments");
    let listener = listen(&addr).await?;
    let id: Arc<str> = id.into();
    let seen = Arc::new(AtomicU64::new(0));
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(stream, id.clone(), seen.clone()));
    }
}

async fn listen(addr: &str) -> io::Result<TcpListener> {
    for _ in 1..TRY_TO_LISTEN {
        match TcpListener::bind(addr).await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => sleep(TRY_AGAIN_AFTER).await,
            other => return other,
        }
    }
    TcpListener::bind(addr).await
}

async fn serve(mut stream: TcpStream, id: Arc<str>, seen: Arc<AtomicU64>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = Vec::new();
    while let Some(head) = next_head(&mut stream, &mut bytes).await? {
        let path = head.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        if !matches!(path, "/healthz" | "/seen") {
            seen.fetch_add(1, Relaxed);
        }
        if head.lines().any(|line| line.to_ascii_lowercase().starts_with("upgrade:")) {
            let agreed = format!(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nX-Endpoint: {id}\r\n\r\n"
            );
            stream.write_all(agreed.as_bytes()).await?;
            let (mut read, mut write) = stream.split();
            tokio::io::copy(&mut read, &mut write).await?;
            return Ok(());
        }
        let body = match path {
            "" => return Ok(()),
            "/seen" => seen.load(Relaxed).to_string(),
            _ => {
                if let Some(ms) = path.strip_prefix("/slow/").and_then(|ms| ms.parse().ok()) {
                    sleep(Duration::from_millis(ms)).await;
                }
                id.to_string()
            }
        };
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

/// None where the client is done, or sends what is no request.
async fn next_head(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<Option<String>> {
    loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head: Vec<u8> = bytes.drain(..at + 4).collect();
            return Ok(String::from_utf8(head).ok());
        }
        if bytes.len() > MAX_HEAD_BYTES || stream.read_buf(bytes).await? == 0 {
            return Ok(None);
        }
    }
}
