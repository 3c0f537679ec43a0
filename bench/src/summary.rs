//! What one measurement of a server says, and the medians of several.

use crate::report::Times;
use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub struct Summary {
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// CPU time of the server's processes for each.
    pub cpu_us: f64,
}

impl Summary {
    pub fn new(latencies: Times, count: u64, took: Duration, cpu: Duration) -> Summary {
        let ms = |q| latencies.quantile(q).as_secs_f64() * 1e3;
        Summary {
            per_second: count as f64 / took.as_secs_f64(),
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            cpu_us: cpu.as_secs_f64() * 1e6 / count as f64,
        }
    }

    /// The median of each number, taken separately.
    pub fn median(all: &[Summary]) -> Summary {
        let of = |number: fn(&Summary) -> f64| {
            let mut values: Vec<f64> = all.iter().map(number).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
        };
        Summary {
            per_second: of(|summary| summary.per_second),
            p50_ms: of(|summary| summary.p50_ms),
            p99_ms: of(|summary| summary.p99_ms),
            cpu_us: of(|summary| summary.cpu_us),
        }
    }
}
