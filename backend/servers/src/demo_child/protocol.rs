//! The messages between a node of a demo and its supervisor: one line of JSON each way, over a Unix socket.

use ringmaster_common::{
    demo::{Chaos, DemoNode},
    error::{Code, Refusal},
    id::NodeId,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{env, io, path::Path, time::Duration};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::UnixStream,
    time::timeout,
};

/// How long a request and its answer may take. A node takes a moment to die.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The longest line.
pub const MAX_LINE_BYTES: u64 = 16 * 1024;
/// What a node may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    Chaos {
        node: NodeId,
        chaos: Chaos,
    },
    /// Starts a node that joins the cluster.
    AddNode,
    List,
}

/// The nodes that were asked for, as they are now.
pub type Answer = Result<Vec<DemoNode>, Refusal>;

/// A request with what shows that a node of the demo makes it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Envelope {
    pub token: String,
    pub request: Request,
}

/// Asks this node's supervisor, if it has one.
pub async fn ask(request: Request) -> Answer {
    let (Some(path), Ok(token)) = (env::var_os(super::SOCKET), env::var(super::TOKEN)) else {
        return Err(Refusal::new(Code::NotADemo, "this cluster was not started by `ringmaster demo`"));
    };
    ask_at(path.as_ref(), token, request).await
}

/// Asks the supervisor that listens at `path`.
pub async fn ask_at(path: &Path, token: String, request: Request) -> Answer {
    let failed =
        |why: String| Refusal::new(Code::DemoFailed, format!("the demo's supervisor does not answer: {why}"));
    let exchange = async {
        let mut stream = UnixStream::connect(path).await?;
        write_line(&mut stream, &Envelope { token, request }).await?;
        read_line::<Answer>(&mut stream).await
    };
    match timeout(ANSWER_WITHIN, exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Err(failed(error.to_string())),
        Err(_) => Err(failed(format!("nothing within {} s", ANSWER_WITHIN.as_secs()))),
    }
}

/// Reads one message, which is one line.
pub async fn read_line<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<T> {
    let mut line = Vec::new();
    BufReader::new(stream.take(MAX_LINE_BYTES)).read_until(b'\n', &mut line).await?;
    Ok(serde_json::from_slice(&line)?)
}

/// Writes one message, as one line.
pub async fn write_line(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line).await
}
