//! A command in its own process group, so that the command and its children can be stopped together.
//!
//! On a terminal, the group becomes the foreground process group, as in a shell. Ctrl-Z does not suspend
//! it: a suspended command would hold the lock without a visible reason.

use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, Signal, kill, killpg},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, getpgrp, tcgetpgrp, tcsetpgrp},
};
use std::{io, os::unix::process::CommandExt, process::Command, time::Duration};
use tokio::{
    signal::unix::{Signal as Signals, SignalKind, signal},
    time::{sleep, timeout},
};

/// How long a command may take to end after its lock was lost, before it is killed.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// How often the group is checked for remaining processes.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Job {
    /// The process id of the command, which is also the id of its group.
    group: Pid,
    child_signals: Signals,
    _foreground: Option<Foreground>,
}

impl Job {
    pub fn start(command: &mut Command) -> io::Result<Job> {
        let child_signals = signal(SignalKind::child())?;
        let child = command.process_group(0).spawn()?;
        let group = Pid::from_raw(child.id().cast_signed());
        Ok(Job { group, child_signals, _foreground: Foreground::give_to(group) })
    }

    /// The exit code, as a shell reports it. It can be read once.
    pub async fn ended(&mut self) -> u8 {
        loop {
            match waitpid(self.group, Some(WaitPidFlag::WNOHANG | WaitPidFlag::WUNTRACED)) {
                Ok(WaitStatus::Exited(_, code)) => return code.to_le_bytes()[0],
                Ok(WaitStatus::Signaled(_, signal, _)) => return super::BY_SIGNAL + signal as u8,
                Ok(WaitStatus::Stopped(_, Signal::SIGTSTP)) => self.send(Signal::SIGCONT),
                Err(Errno::ECHILD) => return super::FAILED,
                Ok(_) | Err(_) => {
                    self.child_signals.recv().await;
                }
            }
        }
    }

    /// Sends a signal to every process of the group.
    pub fn send(&self, signal: Signal) {
        // The group may just have ended.
        let _ = killpg(self.group, signal);
    }

    /// Sends a signal to the process of the command alone. Servers take some signals as orders, such as to reload, which
    /// would end their workers.
    pub fn send_to_command(&self, signal: Signal) {
        // It may just have ended.
        let _ = kill(self.group, signal);
    }

    /// Terminates the group, and kills the remaining processes after [`STOP_TIMEOUT`].
    pub async fn stop(&mut self) {
        self.send(Signal::SIGTERM);
        // A stopped process handles no other signal.
        self.send(Signal::SIGCONT);
        let all_gone = async {
            self.ended().await;
            // Its children may take longer.
            while killpg(self.group, None).is_ok() {
                sleep(POLL_INTERVAL).await;
            }
        };
        if timeout(STOP_TIMEOUT, all_gone).await.is_err() {
            self.send(Signal::SIGKILL);
            self.ended().await;
        }
    }
}

/// Makes another process group the foreground group of the terminal until this is dropped.
#[derive(Debug)]
struct Foreground;

impl Foreground {
    /// Fails unless this process is in the foreground itself.
    fn give_to(group: Pid) -> Option<Foreground> {
        let stdin = io::stdin();
        if tcgetpgrp(&stdin) != Ok(getpgrp()) {
            return None;
        }
        tcsetpgrp(&stdin, group).ok()?;
        // The group may have used the terminal too early and been stopped for that.
        let _ = killpg(group, Signal::SIGCONT);
        Some(Foreground)
    }
}

impl Drop for Foreground {
    fn drop(&mut self) {
        // A background process that takes the terminal is stopped by SIGTTOU unless it blocks the signal.
        let mut background = SigSet::empty();
        background.add(Signal::SIGTTOU);
        if background.thread_block().is_ok() {
            let _ = tcsetpgrp(io::stdin(), getpgrp());
            let _ = background.thread_unblock();
        }
    }
}
