//! A client for one webhook, which connects to checked addresses alone.
//!
//! What always holds: link-local and cloud-metadata addresses are refused after the name was resolved, and redirects are
//! not followed, so no webhook leads to them.

use reqwest::{Client, Url, redirect::Policy};
use ringmaster_net::forbidden::is_forbidden;
use std::{net::SocketAddr, time::Duration};
use tokio::{net::lookup_host, time::timeout};

/// How many addresses of a name are tried.
const MAX_ADDRESSES: usize = 8;
/// How long the resolution of the name may take, and then the connection.
const CONNECTED_WITHIN: Duration = Duration::from_secs(2);

/// A client for requests to `webhook`, which may take so long. The error says why it is not called.
pub(super) async fn client(webhook: &str, answered_within: Duration) -> Result<Client, String> {
    let url: Url = webhook.parse().map_err(|error| format!("{webhook} is no URL: {error}"))?;
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        return Err(format!("{webhook} names no host"));
    };
    let addresses = checked_addresses(webhook, host, port).await?;
    Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .resolve_to_addrs(host, &addresses)
        .connect_timeout(CONNECTED_WITHIN)
        .timeout(answered_within)
        .build()
        .map_err(|error| error.to_string())
}

async fn checked_addresses(webhook: &str, host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    let resolved = timeout(CONNECTED_WITHIN, lookup_host(format!("{host}:{port}"))).await;
    let Ok(Ok(found)) = resolved else {
        return Err(format!("{webhook} is unreachable: {host} was not resolved"));
    };
    let allowed: Vec<_> = found.filter(|addr| !is_forbidden(addr.ip())).take(MAX_ADDRESSES).collect();
    if allowed.is_empty() {
        return Err(format!("{webhook} is not called: link-local and metadata addresses are not allowed"));
    }
    Ok(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn metadata_addresses_are_not_called() {
        for forbidden in [
            "http://169.254.169.254/fence",
            "http://[fe80::1]:80/",
            "http://0xa9fea9fe/",
            "http://0.0.0.0:9/",
        ] {
            let refused = client(forbidden, CONNECTED_WITHIN).await.expect_err(forbidden);
            assert!(refused.contains("not allowed"), "{refused}");
        }
        client("http://127.0.0.1:9000/fence", CONNECTED_WITHIN).await.expect("it is allowed");
        client("http://localhost:9000/fence", CONNECTED_WITHIN).await.expect("it is allowed");
        let refused = client("http://name.invalid/", CONNECTED_WITHIN).await.expect_err("no such name");
        assert!(refused.contains("unreachable"), "{refused}");
    }
}
