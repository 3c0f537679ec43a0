//! The processes that contend, and the resource that the locks protect.

use super::record::{self, Deed, Write};
use crate::{
    SOON,
    cluster::Cluster,
    eventually,
    process::{Process, beside, free_ports},
};
use nix::unistd::Pid;
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tokio::net::TcpStream;

/// They run until [`Contenders::finish`], and keep files in the cluster's directory.
#[derive(Debug)]
pub struct Contenders {
    dir: PathBuf,
    contenders: Vec<Process>,
    _resource: Process,
}

/// The records of all of them: of each contender in its order, and of the resource.
#[derive(Clone, Debug)]
pub struct Seen {
    pub deeds: Vec<Vec<Deed>>,
    pub writes: Vec<Write>,
}

/// Its name, from its number.
pub fn lock(number: usize) -> String {
    format!("lock-{number}")
}

fn deeds(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("deeds-{number}"))
}

fn writes(dir: &Path) -> PathBuf {
    dir.join("writes")
}

impl Contenders {
    /// Each asks another node first. An unchecked resource looks at no token.
    pub async fn start(
        cluster: &Cluster,
        count: usize,
        locks: usize,
        ttl: Duration,
        unchecked_resource: bool,
    ) -> Contenders {
        let dir = cluster.dir().to_owned();
        let [port] = free_ports();
        let resource_addr = format!("127.0.0.1:{port}");
        let mut resource = Command::new(beside("lock-resource"));
        let checks = if unchecked_resource { "unchecked" } else { "checks" };
        resource.arg(&resource_addr).arg(writes(&dir)).arg(checks);
        let resource = Process::start(&mut resource, &dir.join("resource.log"));
        eventually("the resource to listen", SOON, async || {
            TcpStream::connect(&resource_addr).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
        let urls: Vec<_> = cluster.nodes.iter().map(|node| node.url.clone()).collect();
        let start = |number: usize| {
            let mut command = Command::new(beside("lock-contender"));
            command
                .arg(format!("contender-{number}"))
                .arg(ttl.as_millis().to_string())
                .arg(lock(number % locks))
                .arg(&resource_addr)
                .arg(deeds(&dir, number))
                .args(urls.iter().cycle().skip(number % urls.len()).take(urls.len()));
            Process::start(&mut command, &dir.join(format!("contender-{number}.log")))
        };
        let contenders = (0..count).map(start).collect();
        Contenders { dir, contenders, _resource: resource }
    }

    pub fn pids(&self) -> Vec<Pid> {
        self.contenders.iter().map(Process::pid).collect()
    }

    /// Ends the contenders, and reads what all of them saw.
    pub fn finish(self) -> Seen {
        let Contenders { dir, contenders, _resource } = self;
        let count = contenders.len();
        drop(contenders);
        let deeds =
            (0..count).map(|number| record::read(&deeds(&dir, number)).expect("they are whole")).collect();
        Seen { deeds, writes: record::read(&writes(&dir)).expect("they are whole") }
    }
}
