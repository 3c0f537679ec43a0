//! How a node asks its supervisor for chaos.
//!
//! The supervisor listens on a Unix socket in a directory that is its user's alone, and obeys who
//! knows the token that it gave its nodes. A connection carries one line each way: a request, and
//! its answer.

use super::{child, home::private_directory};
use ringmaster_common::{
    demo::{Chaos, DemoNode},
    error::{Code, Refusal},
    id::NodeId,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{env, io, path::Path, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};
use uuid::Uuid;

/// How long a request and its answer may take. A node takes a moment to die.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The longest line.
pub const MAX_LINE_BYTES: u64 = 16 * 1024;
/// How many requests are taken at a time.
pub const MAX_CONNECTIONS: usize = 8;

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

/// A request, for the supervisor to answer.
#[derive(Debug)]
pub struct Order {
    pub request: Request,
    pub reply: oneshot::Sender<Answer>,
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    token: String,
    request: Request,
}

/// The supervisor's end. It takes requests until its runtime ends.
#[derive(Debug)]
pub struct Socket {
    directory: TempDir,
    token: String,
}

impl Socket {
    pub fn open(orders: mpsc::Sender<Order>) -> io::Result<Socket> {
        let directory = private_directory()?;
        let token = Uuid::new_v4().simple().to_string();
        let listener = UnixListener::bind(path_in(&directory))?;
        tokio::spawn(listen(listener, token.clone(), orders));
        Ok(Socket { directory, token })
    }

    /// What a node needs to know to ask.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let path = path_in(&self.directory).display().to_string();
        vec![(child::SOCKET, path), (child::TOKEN, self.token.clone())]
    }
}

fn path_in(directory: &TempDir) -> std::path::PathBuf {
    directory.path().join("supervisor")
}

async fn listen(listener: UnixListener, token: String, orders: mpsc::Sender<Order>) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let token: Arc<str> = token.into();
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (token, orders) = (token.clone(), orders.clone());
                tokio::spawn(async move {
                    match timeout(ANSWER_WITHIN, answer(stream, &token, &orders)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::debug!(%error, "a request of a node is lost"),
                        Err(_) => tracing::debug!("a request of a node took too long"),
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: it passes, and nothing else can be done.
                tracing::error!(%error, "cannot take a request of a node");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, token: &str, orders: &mpsc::Sender<Order>) -> io::Result<()> {
    let failed = |why: &str| Refusal::new(Code::DemoFailed, why);
    let answer: Answer = match read_line::<Envelope>(&mut stream).await {
        Err(error) => Err(failed(&format!("the request is not understood: {error}"))),
        Ok(Envelope { token: given, .. }) if given != token => Err(failed("the token is wrong")),
        Ok(Envelope { request, .. }) => {
            let (reply, answered) = oneshot::channel();
            match orders.send(Order { request, reply }).await {
                Ok(()) => answered.await.unwrap_or_else(|_| Err(failed("the demo is ending"))),
                Err(_) => Err(failed("the demo is ending")),
            }
        }
    };
    write_line(&mut stream, &answer).await
}

/// Asks this node's supervisor, if it has one.
pub async fn ask(request: Request) -> Answer {
    let (Some(path), Ok(token)) = (env::var_os(child::SOCKET), env::var(child::TOKEN)) else {
        return Err(Refusal::new(Code::NotADemo, "this cluster was not started by `ringmaster demo`"));
    };
    ask_at(path.as_ref(), token, request).await
}

async fn ask_at(path: &Path, token: String, request: Request) -> Answer {
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

async fn read_line<T: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<T> {
    let mut line = Vec::new();
    BufReader::new(stream.take(MAX_LINE_BYTES)).read_until(b'\n', &mut line).await?;
    Ok(serde_json::from_slice(&line)?)
}

async fn write_line(stream: &mut UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

#[cfg(test)]
mod tests;
