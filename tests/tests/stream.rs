//! The stream is the truth: the fold of its events is the state, on whichever node it goes on.

use futures::{SinkExt, StreamExt};
use ringmaster_common::{
    stream::{STREAM_FORMAT, ServerMessage},
    view::ClusterView,
};
use ringmaster_tests::{SOON, cluster::Cluster, eventually};
use serde_json::json;
use std::time::Duration;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    view: ClusterView,
    samples: usize,
    fresh_views: usize,
}

impl Client {
    async fn connect(cluster: &Cluster, node: u64, view: ClusterView) -> Client {
        let known = if view.revision.0 > 0 {
            format!("?after={}&incarnation={}", view.revision, view.incarnation)
        } else {
            String::new()
        };
        let url = format!("ws://127.0.0.1:{}/v1/stream{known}", cluster.node(node).api_port);
        let (socket, _) = connect_async(url).await.expect("the node streams");
        let mut client = Client { socket, view, samples: 0, fresh_views: 0 };
        match client.next().await {
            ServerMessage::Hello { format, node: from, .. } => {
                assert_eq!((format, from.0), (STREAM_FORMAT, node));
            }
            other => panic!("the first message is {other:?}"),
        }
        client
    }

    async fn next(&mut self) -> ServerMessage {
        loop {
            let message = timeout(SOON, self.socket.next()).await.expect("samples come all the time");
            match message.expect("the stream goes on").expect("the stream is sound") {
                Message::Text(text) => return serde_json::from_str(&text).expect("a message of the stream"),
                Message::Ping(_) | Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn step(&mut self) {
        match self.next().await {
            ServerMessage::View { view } => {
                assert!(view.revision >= self.view.revision, "a stream never goes backwards");
                self.view = *view;
                self.fresh_views += 1;
            }
            ServerMessage::Events { prev, batch } => {
                assert_eq!(prev, self.view.revision, "a gap before {}", batch.revision);
                assert!(batch.revision > prev);
                self.view.fold(&batch);
            }
            ServerMessage::Sample { .. } => self.samples += 1,
            other => panic!("{other:?}"),
        }
    }

    async fn until(&mut self, what: &str, reached: impl Fn(&Client) -> bool) {
        timeout(SOON, async {
            while !reached(self) {
                self.step().await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("waited for {what} at revision {}", self.view.revision));
    }
}

fn value(client: &Client, key: &str) -> Option<u64> {
    client.view.settings.get(key)?.value.as_u64()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_with_another_node_when_its_own_dies() {
    let mut cluster = Cluster::start(3).await;
    let mut client = Client::connect(&cluster, 1, ClusterView::default()).await;
    client.until("a view and samples", |client| client.fresh_views == 1 && client.samples >= 2).await;
    assert_eq!(client.view.nodes.len(), 3);

    cluster.put_setting(2, "n", json!(1)).await.expect("the cluster takes writes");
    client.until("the setting", |client| value(client, "n") == Some(1)).await;

    cluster.node_mut(1).kill();
    let survivor = 2;
    for n in 2..30 {
        eventually("a write", SOON, async || cluster.put_setting(survivor, "n", json!(n)).await).await;
    }
    let view = client.view.clone();
    let mut client = Client::connect(&cluster, 3, view).await;
    client.until("the latest setting", |client| value(client, "n") == Some(29)).await;
    assert_eq!(client.fresh_views, 0, "the history of another node went on where the first one's ended");

    // What was folded is what a fresh view shows.
    let mut fresh = Client::connect(&cluster, 2, ClusterView::default()).await;
    fresh.until("a view", |client| client.fresh_views == 1).await;
    let target = fresh.view.revision.max(client.view.revision);
    client.until("the same revision", |client| client.view.revision >= target).await;
    fresh.until("the same revision", |fresh| fresh.view.revision >= client.view.revision).await;
    client.until("the same revision", |client| client.view.revision >= fresh.view.revision).await;
    if client.view.revision == fresh.view.revision {
        assert_eq!(client.view, fresh.view);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_from_elsewhere_gets_a_fresh_view() {
    let cluster = Cluster::start(1).await;
    let url = format!("ws://127.0.0.1:{}/v1/stream?after=1&incarnation=99", cluster.node(1).api_port);
    let (socket, _) = connect_async(url).await.expect("the node streams");
    let mut client = Client { socket, view: ClusterView::default(), samples: 0, fresh_views: 0 };
    client.next().await;
    client.until("a fresh view", |client| client.fresh_views == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_ahead_is_sent_elsewhere() {
    let cluster = Cluster::start(1).await;
    let url = format!("ws://127.0.0.1:{}/v1/stream?after=1000000", cluster.node(1).api_port);
    let (socket, _) = connect_async(url).await.expect("the node streams");
    let mut client = Client { socket, view: ClusterView::default(), samples: 0, fresh_views: 0 };
    client.next().await;
    match client.next().await {
        ServerMessage::Behind { revision, .. } => assert!(revision.0 < 1_000_000),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_a_foreign_origin_gets_no_stream() {
    let cluster = Cluster::start(1).await;
    let port = cluster.node(1).api_port;
    let connect = async |origin: &str| {
        let mut request =
            format!("ws://127.0.0.1:{port}/v1/stream").into_client_request().expect("a request");
        request.headers_mut().insert("origin", origin.parse().expect("a header"));
        connect_async(request).await
    };
    let (mut socket, _) = connect(&format!("http://127.0.0.1:{port}")).await.expect("its own page streams");
    socket.close(None).await.expect("it closes");
    let refused = connect("http://evil.example").await.expect_err("a foreign page does not");
    assert!(refused.to_string().contains("403"), "{refused}");
    timeout(Duration::from_secs(5), socket.send(Message::Text("late".into()))).await.expect("no hang").ok();
}
