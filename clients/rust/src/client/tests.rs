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

#[tokio::test]
async fn the_list_of_addresses_is_bounded() {
    let client = Client::new(["http://a".parse().unwrap()]);
    let urls: Vec<_> = (0..50).map(|n| format!("http://b{n}")).collect();
    client.add_addresses(urls.iter().map(String::as_str));
    client.add_addresses(["http://a/", "no address"]);
    assert_eq!(client.addresses().len(), MAX_ADDRESSES);
    assert_eq!(client.addresses()[0].to_string(), "http://a");
}
