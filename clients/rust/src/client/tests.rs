use super::*;
use crate::fake::{problem, serve, unused_address};
use axum::{
    Json, Router,
    extract::State,
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde_json::json;

#[tokio::test]
async fn the_next_address_is_tried_and_preferred_when_one_does_not_answer() {
    let node = serve(Router::new().route("/x", get(|| async { Json(7) }))).await;
    let client = Client::new([unused_address().await, node.clone()]);
    assert_eq!(client.get::<u64>("/x").await.unwrap(), 7);
    assert_eq!(client.addresses()[0], node);
}

#[tokio::test]
async fn without_any_answer_the_cluster_is_unreachable() {
    let client = Client::new([unused_address().await, unused_address().await]);
    let error = client.get::<Value>("/x").await.unwrap_err();
    let ClientError::Unreachable(attempts) = &error else { panic!("{error}") };
    assert_eq!(attempts.len(), 2);
    let text = error.to_string();
    assert!(text.contains("refused"), "{text}");
    assert!(!text.contains("may or may not"), "nothing was sent: {text}");
}

#[tokio::test]
async fn a_problem_is_typed_and_not_repeated() {
    let calls = Arc::new(Mutex::new(0));
    let counted = calls.clone();
    let refuse = move || async move {
        *counted.lock().unwrap() += 1;
        problem(Code::UnknownNode, "node 99 is not a member")
    };
    let client = Client::new([serve(Router::new().route("/x", post(refuse))).await]);
    let error = client.post::<Value>("/x", &json!({})).await.unwrap_err();
    assert!(matches!(&error, ClientError::Problem(problem) if problem.code == "unknown_node"), "{error}");
    assert_eq!(error.to_string(), "unknown_node: node 99 is not a member");
    assert_eq!(*calls.lock().unwrap(), 1);
}

#[tokio::test]
async fn a_change_without_leader_is_repeated_with_the_same_key() {
    type Keys = Arc<Mutex<Vec<HeaderMap>>>;
    async fn answer(State(keys): State<Keys>, headers: HeaderMap) -> Response {
        let mut keys = keys.lock().unwrap();
        keys.push(headers);
        match keys.len() {
            1 => problem(Code::NoLeader, "there is none"),
            2 => problem(Code::OutcomeUnknown, "it was sent and not answered"),
            _ => Json(true).into_response(),
        }
    }
    let seen = Keys::default();
    let router = Router::new().route("/x", axum::routing::put(answer)).with_state(seen.clone());
    let client = Client::new([serve(router).await]);
    assert!(client.put::<bool>("/x", &json!({}), Some(Revision(12))).await.unwrap());

    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 3);
    assert!(Uuid::parse_str(seen[0][IDEMPOTENCY_KEY].to_str().unwrap()).is_ok());
    assert!(seen.iter().all(|headers| headers[IDEMPOTENCY_KEY] == seen[0][IDEMPOTENCY_KEY]));
    assert!(seen.iter().all(|headers| headers["if-match"] == "\"12\"" && headers[CLIENT_HEADER] == "client"));
}

#[tokio::test]
async fn an_answer_of_another_server_is_a_protocol_error() {
    let client = Client::new([serve(Router::new().route("/x", get(|| async { "hello" }))).await]);
    for path in ["/x", "/elsewhere"] {
        let error = client.get::<Value>(path).await.unwrap_err();
        assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
    }
}

/// A proxy whose node does not answer in time, or that has none.
async fn proxy(status: StatusCode) -> Address {
    let page = move || async move { (status, "<html>").into_response() };
    serve(Router::new().fallback(page)).await
}

#[tokio::test]
async fn a_failure_of_a_proxy_is_no_answer_of_a_node() {
    for status in [502, 503, 504, 408, 429].map(|code| StatusCode::from_u16(code).unwrap()) {
        let node =
            serve(Router::new().route("/x", get(|| async { Json(7) }).post(|| async { Json(8) }))).await;
        let client = Client::new([proxy(status).await, node.clone()]);
        assert_eq!(client.get::<u64>("/x").await.unwrap(), 7);
        assert_eq!(client.addresses()[0], node);
        let client = Client::new([proxy(status).await, node]);
        assert_eq!(client.post::<u64>("/x", &json!({})).await.unwrap(), 8);

        let client = Client::new([proxy(status).await]);
        let error = client.post::<Value>("/x", &json!({})).await.unwrap_err();
        assert!(matches!(error, ClientError::Unreachable(_)), "{error}");
        let text = error.to_string();
        assert!(text.contains(status.as_str()) && text.contains("may or may not"), "{text}");
    }
}

#[tokio::test]
async fn a_later_attempt_says_what_was_seen_before_the_first() {
    type Seen = Arc<Mutex<Vec<Option<String>>>>;
    async fn answer(State(seen): State<Seen>, headers: HeaderMap) -> Response {
        let mut seen = seen.lock().unwrap();
        seen.push(headers.get(RESENT_AFTER).map(|value| value.to_str().unwrap().to_owned()));
        match seen.len() {
            2 => problem(Code::NoLeader, "nothing was sent"),
            3 => problem(Code::OutcomeUnknown, "it was sent and not answered"),
            _ => ([(REVISION, (40 + seen.len()).to_string())], Json(true)).into_response(),
        }
    }
    let seen = Seen::default();
    let node = serve(Router::new().route("/x", post(answer)).with_state(seen.clone())).await;
    let client = Client::new([node]);
    for _ in 0..2 {
        assert!(client.post::<bool>("/x", &json!({})).await.unwrap());
    }
    // The second request is sent three times; its second attempt repeats nothing that may have taken effect.
    let expected = [None, None, None, Some("41".to_owned())];
    assert_eq!(*seen.lock().unwrap(), expected);
    assert!(client.post::<bool>("/x", &json!({})).await.unwrap());
    assert_eq!(seen.lock().unwrap()[4], None, "a new request");
}

/// A node that refuses a later attempt where it has forgotten answers since the revision that the client names, as a real
/// one does. Others have written meanwhile.
#[derive(Default)]
struct Busy {
    revision: u64,
    forgotten: u64,
    /// How many attempts are in doubt.
    unanswered: u32,
    /// Each request that came, with what its client had seen.
    came: Vec<(&'static str, Option<u64>)>,
}

fn busy(node: &Arc<Mutex<Busy>>) -> Router {
    type Node = State<Arc<Mutex<Busy>>>;
    async fn read(State(node): Node) -> Response {
        let mut node = node.lock().unwrap();
        node.came.push(("read", None));
        ([(REVISION, node.revision.to_string()), (AGE_MS, "0".to_owned())], Json(json!({}))).into_response()
    }
    async fn write(State(node): Node, headers: HeaderMap) -> Response {
        let mut node = node.lock().unwrap();
        let after = headers.get(RESENT_AFTER).map(|value| value.to_str().unwrap().parse().unwrap());
        node.came.push(("write", after));
        if node.unanswered > 0 {
            node.unanswered -= 1;
            return problem(Code::OutcomeUnknown, "it was sent and not answered");
        }
        if after.is_some_and(|after| after < node.forgotten) {
            return problem(Code::OutcomeUnknown, "whether it was carried out is no longer known");
        }
        node.revision += 1;
        ([(REVISION, node.revision.to_string())], Json(true)).into_response()
    }
    Router::new().route("/v1/locks", get(read)).route("/x", post(write)).with_state(node.clone())
}

/// A client that has seen revision 41 so long ago, at a node that has forgotten all answers up to 1000 since.
async fn idle_for(idle: Duration) -> (Client, Arc<Mutex<Busy>>) {
    let node = Arc::new(Mutex::new(Busy { revision: 40, ..Busy::default() }));
    let client = Client::new([serve(busy(&node)).await]);
    assert!(client.post::<bool>("/x", &json!({})).await.unwrap());
    let mut seen = client.seen.lock().unwrap();
    seen.as_mut().unwrap().at = Instant::now().checked_sub(idle).unwrap();
    drop(seen);
    let mut busy = node.lock().unwrap();
    (busy.revision, busy.forgotten, busy.unanswered) = (1_010, 1_000, 1);
    busy.came.clear();
    drop(busy);
    (client, node)
}

#[tokio::test]
async fn a_client_that_was_idle_looks_before_its_first_attempt() {
    let idle = MAX_SEEN_AGE + Duration::from_secs(1);
    let (client, node) = idle_for(idle).await;
    assert!(client.post::<bool>("/x", &json!({})).await.unwrap());
    let expected = vec![("read", None), ("write", None), ("write", Some(1_010))];
    assert_eq!(std::mem::take(&mut node.lock().unwrap().came), expected);
    // What was just seen is not read again.
    assert!(client.post::<bool>("/x", &json!({})).await.unwrap());
    assert_eq!(node.lock().unwrap().came, [("write", None)]);

    let (client, node) = idle_for(idle).await;
    let until = Instant::now() + Duration::from_secs(5);
    assert!(client.send_until::<bool>(until, || Request::post("/x", &json!({}))).await.is_ok());
    assert!(node.lock().unwrap().came.contains(&("read", None)));
}

#[tokio::test]
async fn an_outcome_that_was_forgotten_during_the_attempts_is_unknown() {
    let (client, node) = idle_for(Duration::ZERO).await;
    let error = client.post::<bool>("/x", &json!({})).await.unwrap_err();
    assert!(error.is(Code::OutcomeUnknown), "{error}");
    let came = node.lock().unwrap().came.clone();
    assert_eq!(came, [("write", None), ("write", Some(41)), ("write", Some(41))]);
}

#[tokio::test]
async fn an_idle_client_reads_at_the_next_node_if_one_is_silent() {
    let (client, node) = idle_for(MAX_SEEN_AGE + Duration::from_secs(1)).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    client.prefer(&silent);
    assert!(client.post::<bool>("/x", &json!({})).await.unwrap());
    assert_eq!(node.lock().unwrap().came, [("read", None), ("write", None), ("write", Some(1_010))]);
}

#[tokio::test]
async fn an_idle_client_sends_its_change_though_nothing_can_be_read() {
    let node = serve(Router::new().route("/x", post(|| async { ([(REVISION, "41")], Json(true)) }))).await;
    let client = Client::new([node]);
    assert!(client.post::<bool>("/x", &json!({})).await.unwrap());
    client.seen.lock().unwrap().as_mut().unwrap().at -= 2 * MAX_SEEN_AGE;
    assert!(client.post::<bool>("/x", &json!({})).await.unwrap());
}

#[tokio::test]
async fn the_list_of_addresses_is_bounded() {
    let client = Client::new(["http://a".parse().unwrap()]);
    let urls: Vec<_> = (0..50).map(|n| format!("http://b{n}")).collect();
    client.add_addresses(urls.iter().map(String::as_str));
    client.add_addresses(["http://a/", "no address"]);
    assert_eq!(client.addresses().len(), MAX_ADDRESSES);
    assert_eq!(client.addresses()[0].to_string(), "http://a");
}
