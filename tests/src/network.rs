//! Hosts of their own on one machine: a network namespace for each node, all on one bridge.
//!
//! Whoever makes them lives beside the bridge, in a namespace that has no name and is gone with the
//! process. A node that is cut off is taken from the bridge: no packet passes either way, and no process
//! is notified, as when a cable is pulled between two switches.

use crate::cluster::Host;
use nix::{
    sched::{CloneFlags, unshare},
    unistd::geteuid,
};
use std::process::Command;

const BRIDGE: &str = "br0";
/// A link-layer address that no host has.
const NOBODY: &str = "02:00:00:00:00:ff";

/// Takes the calling thread into a network namespace that has nothing in it.
pub fn enter_namespace() -> Result<(), String> {
    if !geteuid().is_root() {
        return Err("network namespaces need root; run it with sudo".to_owned());
    }
    unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace is to be had: {error}"))
}

/// Runs the calling test as root in a network namespace that has nothing in it, and `test` is its name. Who is
/// not root may be it among namespaces of their own: then the test is run again, there, and it is done
/// when this returns true.
pub fn enter_for(test: &str) -> bool {
    if geteuid().is_root() {
        enter_namespace().expect("root may have a network namespace");
        return false;
    }
    // Names of namespaces are kept in a directory that is root's.
    let script = "mount -t tmpfs tmpfs /run && exec \"$0\" \"$@\"";
    let this = std::env::current_exe().expect("a test is a program");
    let again = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(this)
        .args(["--exact", test, "--nocapture"])
        .status()
        .expect("unshare is installed (Debian: util-linux)");
    assert!(again.success(), "{test}, run again in namespaces of its own: {again}");
    true
}

/// Namespaces for some nodes. They are removed with this.
#[derive(Debug)]
pub struct Network {
    namespaces: Vec<String>,
}

impl Network {
    pub fn create(nodes: usize) -> Result<Network, String> {
        ip("link set lo up")?;
        ip(&format!("link add {BRIDGE} type bridge"))?;
        ip(&format!("addr add 10.77.0.254/24 dev {BRIDGE}"))?;
        ip(&format!("link set {BRIDGE} up"))?;
        let mut network = Network { namespaces: Vec::new() };
        for node in 1..=nodes {
            let name = format!("ringmaster-{}-{node}", std::process::id());
            ip(&format!("netns add {name}"))?;
            network.namespaces.push(name.clone());
            ip(&format!("link add v{node} type veth peer name eth0 netns {name}"))?;
            ip(&format!("link set v{node} master {BRIDGE} up"))?;
            ip(&format!("-n {name} addr add 10.77.0.{node}/24 dev eth0"))?;
            ip(&format!("-n {name} link set eth0 up"))?;
            ip(&format!("-n {name} link set lo up"))?;
        }
        Ok(network)
    }

    pub fn hosts(&self) -> Vec<Host> {
        let host = |(name, node): (&String, u64)| Host {
            ip: format!("10.77.0.{node}"),
            enter: ["ip", "netns", "exec", name].map(str::to_owned).to_vec(),
        };
        self.namespaces.iter().zip(1..).map(host).collect()
    }

    /// Has what a node sends to the others get lost, and what they send to it arrive: it takes them for
    /// a host that does not exist.
    pub fn mute(&self, node: u64) -> Result<(), String> {
        let mut others = (1..=self.namespaces.len() as u64).filter(|other| *other != node);
        others.try_for_each(|other| self.lose(node, other))
    }

    /// Has what one node sends to another get lost, and nothing else.
    pub fn lose(&self, from: u64, to: u64) -> Result<(), String> {
        let name = self.name(from)?;
        ip(&format!("-n {name} neigh replace 10.77.0.{to} lladdr {NOBODY} dev eth0 nud permanent"))
    }

    /// Has all that a node sends arrive again.
    pub fn unmute(&self, node: u64) -> Result<(), String> {
        let name = self.name(node)?;
        ip(&format!("-n {name} neigh flush dev eth0 nud permanent"))
    }

    fn name(&self, node: u64) -> Result<&str, String> {
        let name = self.namespaces.get(node as usize - 1);
        name.map(String::as_str).ok_or_else(|| format!("there is no node {node}"))
    }

    pub fn cut_off(&self, node: u64) -> Result<(), String> {
        ip(&format!("link set v{node} nomaster"))
    }

    pub fn heal(&self, node: u64) -> Result<(), String> {
        ip(&format!("link set v{node} master {BRIDGE}"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in &self.namespaces {
            if let Err(why) = ip(&format!("netns delete {name}")) {
                eprintln!("the network namespace {name} is left over: {why}");
            }
        }
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().map_err(|error| {
        format!("ip does not run: {error}; install it (Debian: apt-get install iproute2)")
    })?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("ip {arguments}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}
