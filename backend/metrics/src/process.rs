//! What the kernel says of this process, under the names that every process has. What it does not
//! say is left out.

use super::families::Families;
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeValLike,
};
use prometheus_client::{collector::Collector, encoding::DescriptorEncoder, registry::Unit};
use ringmaster_common::Timestamp;
use ringmaster_net::clock;
use ringmaster_telemetry::resident_bytes;
use std::fmt;

#[derive(Debug)]
pub struct Process {
    started: Timestamp,
}

impl Process {
    pub fn starting() -> Self {
        Process { started: clock::wall() }
    }
}

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families(encoder);
        let started = self.started.as_millisecond() as f64 / 1e3;
        out.gauge(
            "process_start_time",
            "When the process started, in seconds since 1970",
            Some(&Unit::Seconds),
            started,
        )?;
        out.gauge("process_resident_memory", "Resident memory", Some(&Unit::Bytes), resident_bytes() as f64)?;
        if let Some(seconds) = cpu_seconds() {
            out.float_counter("process_cpu", "Processor time that was used", &Unit::Seconds, seconds)?;
        }
        if let Some(open) = open_fds() {
            out.gauge("process_open_fds", "Open file descriptors", None, open as f64)?;
        }
        Ok(())
    }
}

/// Processor time that was used, in seconds.
fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Some(micros as f64 / 1e6)
}

/// Open file descriptors: files, sockets and what else there is.
fn open_fds() -> Option<u64> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    // One of them is the directory that was read.
    Some(open.saturating_sub(1))
}
