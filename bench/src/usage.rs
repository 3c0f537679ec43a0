//! The resources that processes use, as the kernel counts them.

use nix::unistd::{Pid, SysconfVar, sysconf};
use std::{fs, time::Duration};

/// CPU time of these processes so far, in user and kernel mode.
pub fn cpu(pids: &[Pid]) -> Result<Duration, String> {
    let ticks_per_second = match sysconf(SysconfVar::CLK_TCK) {
        Ok(Some(ticks)) if ticks > 0 => ticks as f64,
        other => return Err(format!("the kernel does not say how long a tick is: {other:?}")),
    };
    let mut ticks = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        // The name, in parentheses, may hold anything; utime and stime are fields 14 and 15.
        let fields: Vec<&str> =
            stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
        for field in [11, 12] {
            ticks += fields
                .get(field)
                .and_then(|ticks| ticks.parse::<u64>().ok())
                .ok_or_else(|| format!("{path} has another form: {stat}"))?;
        }
    }
    Ok(Duration::from_secs_f64(ticks as f64 / ticks_per_second))
}

/// Resident memory of a process, in bytes.
pub fn memory(pid: Pid) -> Result<u64, String> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.map(|kilobytes| kilobytes * 1024).ok_or_else(|| format!("{path} has no VmRSS"))
}
