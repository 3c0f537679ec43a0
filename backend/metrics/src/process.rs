//! Metrics of this process, as the kernel has them, under the standard names of Prometheus. Values that the kernel does
//! not give are left out.

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
pub struct ProcessCollector {
    started: Timestamp,
}

impl ProcessCollector {
    pub fn starting() -> Self {
        ProcessCollector { started: clock::wall() }
    }
}

impl Collector for ProcessCollector {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Families(encoder);
        let started = self.started.as_millisecond() as f64 / 1e3;
        out.gauge(
            "process_start_time",
            "Start time of the process since the Unix epoch",
            Some(&Unit::Seconds),
            started,
        )?;
        out.gauge(
            "process_resident_memory",
            "Resident memory size",
            Some(&Unit::Bytes),
            resident_bytes() as f64,
        )?;
        if let Some(seconds) = cpu_seconds() {
            out.float_counter("process_cpu", "User and system CPU time spent", &Unit::Seconds, seconds)?;
        }
        if let Some(open) = open_fds() {
            out.gauge("process_open_fds", "Open file descriptors", None, open as f64)?;
        }
        Ok(())
    }
}

/// User and system CPU time spent.
fn cpu_seconds() -> Option<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).ok()?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Some(micros as f64 / 1e6)
}

/// Open file descriptors: files, sockets and others.
fn open_fds() -> Option<u64> {
    let open = std::fs::read_dir("/proc/self/fd").ok()?.count() as u64;
    // One of them is the directory that was read.
    Some(open.saturating_sub(1))
}
