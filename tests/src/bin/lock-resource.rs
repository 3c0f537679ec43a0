//! A resource that fencing tokens protect: it keeps the highest token that it has seen of each lock,
//! and refuses lower ones. Told not to, it takes everything.
//!
//! A line `LOCK TOKEN` is answered with `ok` or `stale`.

use ringmaster_tests::contention::record::{Journal, Write};
use std::{
    collections::BTreeMap,
    env, io,
    path::PathBuf,
    sync::{Arc, Mutex},
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

struct Resource {
    checks: bool,
    marks: BTreeMap<String, u64>,
    journal: Journal,
}

impl Resource {
    fn write(&mut self, lock: &str, token: u64) -> io::Result<bool> {
        let mark = self.marks.entry(lock.to_owned()).or_default();
        let accepted = token >= *mark || !self.checks;
        *mark = token.max(*mark);
        self.journal.write(&Write { lock: lock.to_owned(), token, accepted })?;
        Ok(accepted)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let [addr, journal, checks] =
        env::args().skip(1).collect::<Vec<_>>().try_into().expect("three arguments");
    let resource = Arc::new(Mutex::new(Resource {
        checks: checks == "checks",
        marks: BTreeMap::new(),
        journal: Journal::open(&PathBuf::from(journal))?,
    }));
    let listener = TcpListener::bind(addr).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(serve(stream, resource.clone()));
    }
}

async fn serve(stream: TcpStream, resource: Arc<Mutex<Resource>>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        let (lock, token) = line.trim().split_once(' ').ok_or_else(|| io::Error::other("no token"))?;
        let token = token.parse().map_err(io::Error::other)?;
        let accepted = resource.lock().expect("no thread panics").write(lock, token)?;
        stream.get_mut().write_all(if accepted { b"ok\n" } else { b"stale\n" }).await?;
        line.clear();
    }
    Ok(())
}
