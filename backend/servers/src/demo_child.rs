//! What a node of a demo does because it is one.

pub mod protocol;

use nix::unistd::{Pid, getppid};
use std::env;

/// Where the supervisor listens. Only nodes of a demo have it.
pub const SOCKET: &str = "RINGMASTER_DEMO_SOCKET";
/// What shows the supervisor that a request comes from one of its nodes.
pub const TOKEN: &str = "RINGMASTER_DEMO_TOKEN";
/// The process id of the supervisor.
pub const SUPERVISOR: &str = "RINGMASTER_DEMO_SUPERVISOR";

/// Whether this process is a node of a demo.
pub fn is_demo() -> bool {
    env::var_os(SOCKET).is_some()
}

/// Has the kernel kill this process when the supervisor dies, however it dies, and even while this
/// process is paused. Does nothing in a process that is no node of a demo.
///
/// To be called on the main thread: the kernel drops the wish with the thread that made it.
pub fn die_with_supervisor() -> Result<(), String> {
    if !is_demo() {
        return Ok(());
    }
    let supervisor = env::var(SUPERVISOR)
        .ok()
        .and_then(|pid| pid.parse().ok())
        .map(Pid::from_raw)
        .ok_or_else(|| format!("{SOCKET} is set, and {SUPERVISOR} names no process"))?;
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
        .map_err(|error| format!("cannot tie this node to its demo: {error}"))?;
    // It may have died before the wish was made.
    if getppid() == supervisor { Ok(()) } else { Err("the demo that started this node is gone".to_owned()) }
}
