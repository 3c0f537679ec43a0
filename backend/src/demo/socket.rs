//! How a node asks its supervisor for chaos.
//!
//! The supervisor listens on a Unix socket in a directory that is its user's alone, and obeys who
//! knows the token that it gave its nodes. A connection carries one line each way: a request, and
//! its answer.

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

/// How many requests are taken at a time.
pub const MAX_CONNECTIONS: usize = 8;

/// A request, for the supervisor to answer.
#[derive(Debug)]
pub struct Order {
    pub request: Request,
    pub reply: oneshot::Sender<Answer>,
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
        vec![(demo_child::SOCKET, path), (demo_child::TOKEN, self.token.clone())]
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

#[cfg(test)]
mod tests;
