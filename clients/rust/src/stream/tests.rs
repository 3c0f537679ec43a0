use super::*;
use crate::fake::{serve, unused_address};
use axum::{
    Router,
    extract::{
        RawQuery, State, WebSocketUpgrade,
        ws::{Message as Frame, WebSocket},
    },
    response::Response,
    routing::get,
};
use ringmaster_common::{
    event::Event,
    id::{Incarnation, Revision},
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

/// A node that sends these messages and closes, and the queries that it received.
async fn node(messages: Vec<Value>) -> (Address, Arc<Mutex<Vec<Option<String>>>>) {
    type Script = (Vec<Value>, Arc<Mutex<Vec<Option<String>>>>);
    async fn upgrade(
        State((messages, asked)): State<Script>,
        RawQuery(query): RawQuery,
        upgrade: WebSocketUpgrade,
    ) -> Response {
        asked.lock().unwrap().push(query);
        upgrade.on_upgrade(|mut socket: WebSocket| async move {
            for message in messages {
                socket.send(Frame::text(message.to_string())).await.unwrap();
            }
        })
    }
    let asked = Arc::default();
    let script: Script = (messages, Arc::clone(&asked));
    (serve(Router::new().route("/v1/stream", get(upgrade)).with_state(script)).await, asked)
}

fn resumed() -> Value {
    json!({"type": "resumed", "format": 1, "node": 1, "incarnation": 1})
}

fn view(revision: u64, member: &str) -> Value {
    let view = ClusterView {
        id: "c1".to_owned(),
        incarnation: Incarnation(1),
        revision: Revision(revision),
        ..Default::default()
    };
    let mut view = serde_json::to_value(view).unwrap();
    view["type"] = "view".into();
    view["format"] = 1.into();
    view["node"] = 1.into();
    view["nodes"] = json!([{
        "id": 2, "name": "owl", "zone": "a", "weight": 1, "api_addr": "", "peer_addr": "", "public_url": member,
        "status": "up", "status_reason": "", "status_since": "2026-01-01T00:00:00Z", "status_revision": 1,
        "voter": true, "opinions": []
    }]);
    view
}

fn events(prev: u64, revision: u64) -> Value {
    json!({
        "type": "events", "prev": prev, "revision": revision, "at": "2026-01-01T00:00:00Z", "actor": "ops",
        "request_id": "r", "events": [Event::Audited { count: revision }]
    })
}

/// The kind and the revision of each of the next `count` updates.
async fn updates(stream: &mut Stream, count: usize) -> Vec<(&'static str, u64)> {
    let mut seen = Vec::new();
    for _ in 0..count {
        let update = stream.next().await.unwrap();
        let what = match update {
            Update::View => "view",
            Update::Events(_) => "events",
            Update::Sample => "sample",
            Update::Locks(_) => "locks",
        };
        seen.push((what, stream.view().unwrap().revision.0));
    }
    seen
}

#[tokio::test]
async fn a_lost_stream_resumes_at_a_member_of_the_view() {
    // The second node repeats what the first has sent; it must not count twice.
    let (second, asked) = node(vec![resumed(), events(10, 11), events(11, 13)]).await;
    let (first, _) = node(vec![view(10, &second.to_string()), events(10, 11)]).await;
    let client = Client::new([first]);
    let mut stream = Stream::open(&client);
    assert_eq!(updates(&mut stream, 3).await, [("view", 10), ("events", 11), ("events", 13)]);
    assert_eq!(stream.view().unwrap().audit_count, 13);
    assert_eq!(*asked.lock().unwrap(), [Some("after=11&incarnation=1&cluster=c1".to_owned())]);
}

/// A node that dies in the middle of a view, or of events, loses nothing and repeats nothing.
#[tokio::test]
async fn a_message_in_parts_counts_once_it_is_complete() {
    let part = |number: u32, revision: u64| {
        let setting = json!({
            "key": format!("k{number}"), "value": 1, "version": 1, "updated_at": null, "updated_by": null
        });
        json!({ "type": "view_part", "revision": revision, "part": number, "settings": [setting] })
    };
    let split = |mut message: Value, part: u32| {
        message["part"] = part.into();
        message["parts"] = 2.into();
        message
    };
    let header = |member: &str| {
        let mut header = view(10, member);
        header["parts"] = 2.into();
        header
    };
    let (third, asked_third) =
        node(vec![resumed(), split(events(10, 11), 1), split(events(11, 11), 2)]).await;
    let (second, asked_second) =
        node(vec![header(&third.to_string()), part(1, 10), part(2, 10), split(events(10, 11), 1)]).await;
    let (first, _) = node(vec![header(&second.to_string()), part(1, 10)]).await;
    let mut stream = Stream::open(&Client::new([first, second]));
    assert_eq!(updates(&mut stream, 2).await, [("view", 10), ("events", 11)]);
    let keys: Vec<_> = stream.view().unwrap().settings.keys().cloned().collect();
    assert_eq!(keys, ["k1", "k2"]);
    assert_eq!(*asked_second.lock().unwrap(), [None]);
    assert_eq!(*asked_third.lock().unwrap(), [Some("after=10&incarnation=1&cluster=c1".to_owned())]);
}

#[tokio::test]
async fn after_a_gap_there_is_a_fresh_view() {
    let (fresh, asked) = node(vec![view(30, "http://x"), events(30, 31)]).await;
    let (gap, _) = node(vec![view(10, &fresh.to_string()), events(20, 21)]).await;
    let mut stream = Stream::open(&Client::new([gap]));
    assert_eq!(updates(&mut stream, 3).await, [("view", 10), ("view", 30), ("events", 31)]);
    assert_eq!(*asked.lock().unwrap(), [None], "it must not resume over the gap");
}

#[tokio::test]
async fn the_view_never_goes_back() {
    let (ahead, _) = node(vec![resumed(), events(10, 12)]).await;
    let (behind, _) = node(vec![view(5, "http://x")]).await;
    let (first, _) = node(vec![view(10, "http://x")]).await;
    let mut stream = Stream::open(&Client::new([first, behind, ahead]));
    assert_eq!(updates(&mut stream, 2).await, [("view", 10), ("events", 12)]);
}

#[tokio::test]
async fn a_node_that_is_behind_names_a_better_one() {
    let (better, _) = node(vec![view(9, "http://x")]).await;
    let behind = json!({"type": "behind", "revision": 3, "try_urls": [better.to_string()]});
    let (first, _) = node(vec![behind]).await;
    let mut stream = Stream::open(&Client::new([first]));
    assert_eq!(updates(&mut stream, 1).await, [("view", 9)]);
}

#[tokio::test]
async fn an_unreachable_cluster_is_reported_at_once() {
    let mut stream = Stream::open(&Client::new([unused_address().await]));
    let error = tokio::time::timeout(Duration::from_secs(2), stream.next()).await.unwrap().unwrap_err();
    assert!(matches!(&error, ClientError::Unreachable(tried) if tried.len() == 1), "{error}");
}

/// A node of another version, whose messages this client does not understand, is not retried for ever.
#[tokio::test]
async fn a_stream_that_is_never_understood_ends() {
    let (stranger, asked) = node(vec![json!({"type": "novelty"})]).await;
    let mut stream = Stream::open(&Client::new([stranger]));
    stream.view = Some(ClusterView { incarnation: Incarnation(1), ..ClusterView::default() });
    stream.rounds = RECONNECT_ROUNDS - 1;
    let error = stream.next().await.unwrap_err();
    assert!(error.to_string().contains("not understood"), "{error}");
    assert_eq!(asked.lock().unwrap().len(), 2, "it was asked twice more, and no further");
}

#[tokio::test]
async fn topics_are_followed_on_every_connection() {
    type Received = Arc<Mutex<Vec<Value>>>;
    async fn upgrade(State(received): State<Received>, upgrade: WebSocketUpgrade) -> Response {
        upgrade.on_upgrade(|mut socket: WebSocket| async move {
            socket.send(Frame::text(view(10, "http://x").to_string())).await.unwrap();
            let Some(Ok(Frame::Text(text))) = socket.recv().await else { return };
            received.lock().unwrap().push(serde_json::from_str(&text).unwrap());
            let locks = json!({"type": "locks", "revision": 9, "items": [], "next": null});
            socket.send(Frame::text(locks.to_string())).await.unwrap();
        })
    }
    let received = Received::default();
    let router = Router::new().route("/v1/stream", get(upgrade)).with_state(received.clone());
    let topic: ClientMessage =
        serde_json::from_value(json!({"type": "follow", "topic": "locks", "prefix": "jobs/"})).unwrap();
    let mut stream = Stream::open(&Client::new([serve(router).await])).following(topic);
    let seen = updates(&mut stream, 4).await;
    assert_eq!(seen, [("view", 10), ("locks", 10), ("view", 10), ("locks", 10)]);
    let received = received.lock().unwrap();
    assert!(
        received.len() >= 2 && received.iter().all(|message| message["prefix"] == "jobs/"),
        "{received:?}"
    );
}
