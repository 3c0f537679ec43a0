use super::*;
use ringmaster_common::{
    demo::{Chaos, DemoNode, ProcessState},
    id::NodeId,
};
use ringmaster_servers::demo_child::protocol::{MAX_LINE_BYTES, ask_at};
use std::path::Path;
use tokio::io::AsyncWriteExt;

/// A supervisor that answers every request with one node.
fn supervisor() -> Socket {
    let (sender, mut requests) = mpsc::channel::<PendingRequest>(1);
    tokio::spawn(async move {
        while let Some(pending) = requests.recv().await {
            let node = match pending.request {
                Request::Chaos { node, .. } => node,
                Request::AddNode | Request::List => NodeId(1),
            };
            let node =
                DemoNode { node, state: ProcessState::Running, pid: Some(7), url: "http://x".to_owned() };
            pending.reply.send(Ok(vec![node])).unwrap();
        }
    });
    Socket::open(sender).unwrap()
}

#[tokio::test]
async fn a_request_with_the_token_is_executed() {
    let socket = supervisor();
    let request = Request::Chaos { node: NodeId(2), chaos: Chaos::Kill };
    let answer = ask_at(&path_in(&socket.directory), socket.token.clone(), request).await.unwrap();
    assert_eq!(answer[0].node, NodeId(2));
}

#[tokio::test]
async fn a_request_with_a_wrong_token_is_refused() {
    let socket = supervisor();
    for token in ["", "guessed"] {
        let refusal = ask_at(&path_in(&socket.directory), token.to_owned(), Request::List).await.unwrap_err();
        assert_eq!((refusal.code, refusal.detail.as_str()), (Code::DemoFailed, "the token is wrong"));
    }
}

#[tokio::test]
async fn a_long_request_is_refused() {
    let socket = supervisor();
    let long = "x".repeat(usize::try_from(MAX_LINE_BYTES).unwrap());
    let refusal = ask_at(&path_in(&socket.directory), long, Request::List).await.unwrap_err();
    assert_eq!(refusal.code, Code::DemoFailed);
}

#[tokio::test]
async fn an_invalid_request_is_refused_without_side_effects() {
    let socket = supervisor();
    let mut stream = UnixStream::connect(path_in(&socket.directory)).await.unwrap();
    stream.write_all(b"{]\n").await.unwrap();
    let refusal = read_line::<Answer>(&mut stream).await.unwrap().unwrap_err();
    assert!(refusal.detail.contains("cannot parse"), "{refusal}");
    ask_at(&path_in(&socket.directory), socket.token.clone(), Request::List).await.unwrap();
}

#[tokio::test]
async fn a_missing_supervisor_is_reported() {
    let refusal =
        ask_at(Path::new("/nonexistent/supervisor"), String::new(), Request::List).await.unwrap_err();
    assert!(refusal.detail.contains("does not answer"), "{refusal}");
}
