//! A command in a process group of its own, so that all that it starts can be stopped together.
//!
//! Where there is a terminal, the group is lent it, as a shell does. It cannot be put to sleep with
//! Ctrl-Z: it would keep the lock from everybody, and nobody would see why.

use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, Signal, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp},
};
use std::{io, os::unix::process::CommandExt, process::Command, time::Duration};
use tokio::{
    signal::unix::{Signal as Signals, SignalKind, signal},
    time::{sleep, timeout},
};

/// How long a command that lost its lock may take to end, before it is killed.
pub const STOP_WITHIN: Duration = Duration::from_secs(5);
/// How often to look whether something of the group is left.
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Job {
    /// The command's process id, and that of its group.
    group: Pid,
    changed: Signals,
    _terminal: Option<Lent>,
}

impl Job {
    pub fn start(command: &mut Command) -> io::Result<Job> {
        let changed = signal(SignalKind::child())?;
        let child = command.process_group(0).spawn()?;
        let group = Pid::from_raw(child.id().cast_signed());
        Ok(Job { group, changed, _terminal: Lent::to(group) })
    }

    /// The exit code, as a shell tells it; once it was told, it is not known any more.
    pub async fn ended(&mut self) -> u8 {
        loop {
            match waitpid(self.group, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
                Ok(WaitStatus::Exited(_, code)) => return code.to_le_bytes()[0],
                Ok(WaitStatus::Signaled(_, signal, _)) => return super::BY_SIGNAL + signal as u8,
                Ok(WaitStatus::Stopped(_, Signal::SIGTSTP)) => self.send(Signal::SIGCONT),
                Err(Errno::ECHILD) => return super::FAILED,
                Ok(_) | Err(_) => {
                    self.changed.recv().await;
                }
            }
        }
    }

    /// To all of the group.
    pub fn send(&self, signal: Signal) {
        // It may have ended in this moment.
        let _ = killpg(self.group, signal);
    }

    /// Asks the group to end, and kills what is left of it after a while.
    pub async fn stop(&mut self) {
        self.send(Signal::SIGTERM);
        // What is stopped hears nothing else.
        self.send(Signal::SIGCONT);
        let all_gone = async {
            self.ended().await;
            // What it has started may take longer.
            while killpg(self.group, None).is_ok() {
                sleep(LOOK_EVERY).await;
            }
        };
        if timeout(STOP_WITHIN, all_gone).await.is_err() {
            self.send(Signal::SIGKILL);
            self.ended().await;
        }
    }
}

/// The terminal, lent to another process group until this is dropped.
#[derive(Debug)]
struct Lent;

impl Lent {
    /// Where this process has it to lend.
    fn to(group: Pid) -> Option<Lent> {
        let stdin = io::stdin();
        if tcgetpgrp(&stdin) != Ok(getpgrp()) {
            return None;
        }
        tcsetpgrp(&stdin, group).ok()?;
        // It may have asked for the terminal a moment too early, and been stopped for that.
        let _ = killpg(group, Signal::SIGCONT);
        Some(Lent)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // Whoever takes the terminal from the background is stopped for that, unless they do not listen.
        let mut background = SigSet::empty();
        background.add(Signal::SIGTTOU);
        if background.thread_block().is_ok() {
            let _ = tcsetpgrp(io::stdin(), getpgrp());
            let _ = background.thread_unblock();
        }
    }
}
