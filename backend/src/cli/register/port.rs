//! Waits until a command accepts connections.

use ringmaster_net::clock;
use std::time::Duration;
use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// After so long, a message says what is waited for.
const QUIET: Duration = Duration::from_secs(5);

/// Returns once `addr` accepts a connection, which is closed at once.
pub async fn accepts_connections(addr: &str) {
    let (start, mut is_shown) = (clock::now(), false);
    loop {
        let why = match timeout(CONNECT_TIMEOUT, TcpStream::connect(addr)).await {
            Ok(Ok(_)) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()),
        };
        if !is_shown && clock::now().saturating_duration_since(start) >= QUIET {
            eprintln!("ringmaster: not registered yet: {addr} accepts no connection ({why}); waiting");
            is_shown = true;
        }
        sleep(POLL_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_port_is_waited_for() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let addr = listener.local_addr().expect("an address");
        drop(listener);
        let waiting = tokio::spawn(async move { accepts_connections(&addr.to_string()).await });
        sleep(3 * POLL_INTERVAL).await;
        assert!(!waiting.is_finished(), "nothing listens yet");
        let _listener = TcpListener::bind(addr).await.expect("the port is still free");
        timeout(Duration::from_secs(10), waiting).await.expect("it accepts connections").expect("no panic");
    }
}
