//! The socket on which nodes request chaos from their supervisor.
//!
//! The supervisor listens on a Unix socket in a private directory and accepts requests with the token
//! that it passed to its nodes. A connection carries one line each way: a request and its answer.

use super::home::private_directory;
use ringmaster_common::error::{Code, Refusal};
use ringmaster_servers::demo_child::{
    self,
    protocol::{ANSWER_WITHIN, Answer, Envelope, Request, read_line, write_line},
};
use std::{io, sync::Arc, time::Duration};
use tempfile::TempDir;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};
use uuid::Uuid;

/// The maximum number of concurrent connections.
pub const MAX_CONNECTIONS: usize = 8;

/// A request that waits for the supervisor's answer.
#[derive(Debug)]
pub struct PendingRequest {
    pub request: Request,
    pub reply: oneshot::Sender<Answer>,
}

/// The supervisor's end of the socket. It accepts requests until its runtime ends.
#[derive(Debug)]
pub struct Socket {
    directory: TempDir,
    token: String,
}

impl Socket {
    pub fn open(requests: mpsc::Sender<PendingRequest>) -> io::Result<Socket> {
        let directory = private_directory()?;
        let token = Uuid::new_v4().simple().to_string();
        let listener = UnixListener::bind(path_in(&directory))?;
        tokio::spawn(listen(listener, token.clone(), requests));
        Ok(Socket { directory, token })
    }

    /// The environment variables with which a node reaches the socket.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let path = path_in(&self.directory).display().to_string();
        vec![(demo_child::SOCKET, path), (demo_child::TOKEN, self.token.clone())]
    }
}

fn path_in(directory: &TempDir) -> std::path::PathBuf {
    directory.path().join("supervisor")
}

async fn listen(listener: UnixListener, token: String, requests: mpsc::Sender<PendingRequest>) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let token: Arc<str> = token.into();
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (token, requests) = (token.clone(), requests.clone());
                tokio::spawn(async move {
                    match timeout(ANSWER_WITHIN, answer(stream, &token, &requests)).await {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => tracing::debug!(%error, "a request from a node failed"),
                        Err(_) => tracing::debug!("a request from a node timed out"),
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                // Most likely out of file descriptors, which is temporary.
                tracing::error!(%error, "cannot accept a request from a node");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn answer(
    mut stream: UnixStream,
    token: &str,
    requests: &mpsc::Sender<PendingRequest>,
) -> io::Result<()> {
    let failed = |why: &str| Refusal::new(Code::DemoFailed, why);
    let answer: Answer = match read_line::<Envelope>(&mut stream).await {
        Err(error) => Err(failed(&format!("cannot parse the request: {error}"))),
        Ok(Envelope { token: given, .. }) if given != token => Err(failed("the token is wrong")),
        Ok(Envelope { request, .. }) => {
            let (reply, answered) = oneshot::channel();
            match requests.send(PendingRequest { request, reply }).await {
                Ok(()) => answered.await.unwrap_or_else(|_| Err(failed("the demo is ending"))),
                Err(_) => Err(failed("the demo is ending")),
            }
        }
    };
    write_line(&mut stream, &answer).await
}

#[cfg(test)]
mod tests;
