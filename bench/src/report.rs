//! The result of a run: rows of numbers, and bounds for some of them.

use serde_json::{Map, Value, json};
use std::{fmt, time::Duration};

/// The outcome of one command.
#[derive(Debug)]
pub struct Report {
    title: String,
    rows: Vec<Vec<(&'static str, Value)>>,
    checks: Vec<Check>,
    notes: Vec<String>,
}

/// A number that must not be greater than another.
#[derive(Debug)]
struct Check {
    what: String,
    value: f64,
    at_most: f64,
}

impl Check {
    fn holds(&self) -> bool {
        self.value <= self.at_most
    }
}

impl Report {
    pub fn new(title: impl Into<String>) -> Report {
        Report { title: title.into(), rows: Vec::new(), checks: Vec::new(), notes: Vec::new() }
    }

    /// All rows have the columns of the first.
    pub fn row(&mut self, cells: Vec<(&'static str, Value)>) {
        self.rows.push(cells);
    }

    pub fn check(&mut self, what: impl Into<String>, value: f64, at_most: f64) {
        self.checks.push(Check { what: what.into(), value, at_most });
    }

    pub fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    pub fn holds(&self) -> bool {
        self.checks.iter().all(Check::holds)
    }

    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(|row| Value::Object(object(row))).collect();
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(|check| {
                json!({ "what": check.what, "value": check.value, "at_most": check.at_most, "holds": check.holds() })
            })
            .collect();
        json!({ "title": self.title, "rows": rows, "checks": checks, "notes": self.notes })
    }
}

fn object(row: &[(&'static str, Value)]) -> Map<String, Value> {
    row.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.title)?;
        let header = self.rows.first().map(|row| row.iter().map(|(name, _)| (*name).to_owned()).collect());
        let lines: Vec<Vec<String>> = header
            .into_iter()
            .chain(self.rows.iter().map(|row| row.iter().map(|(_, value)| text(value)).collect()))
            .collect();
        let columns = lines.first().map_or(0, Vec::len);
        let widths: Vec<usize> = (0..columns)
            .map(|n| lines.iter().map(|line| line[n].chars().count()).max().unwrap_or(0))
            .collect();
        for line in &lines {
            for (cell, width) in line.iter().zip(&widths) {
                write!(f, "  {cell:>width$}")?;
            }
            writeln!(f)?;
        }
        for Check { what, value, at_most } in &self.checks {
            let word = if value <= at_most { "holds " } else { "MISSED" };
            write!(f, "\n  {word}  {what}: {} (wanted: at most {})", number(*value), number(*at_most))?;
        }
        for note in &self.notes {
            write!(f, "\n  {note}")?;
        }
        Ok(())
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(value) => value.as_f64().map_or_else(|| value.to_string(), number),
        Value::Null => "–".to_owned(),
        other => other.to_string(),
    }
}

/// Three digits are enough for what is noisy, and whole numbers stay whole.
fn number(value: f64) -> String {
    if value == value.trunc() || value.abs() >= 100.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}

/// Durations in ascending order, to be asked for quantiles.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    pub fn new(mut times: Vec<Duration>) -> Times {
        times.sort();
        Times(times)
    }

    /// The nearest rank: a time that was measured.
    pub fn quantile(&self, q: f64) -> Duration {
        let rank = (self.0.len() as f64 * q).ceil() as usize;
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_ranks() {
        let times = Times::new((1..=200).rev().map(Duration::from_millis).collect());
        for (q, ms) in [(0.0, 1), (0.5, 100), (0.9, 180), (0.99, 198), (1.0, 200)] {
            assert_eq!(times.quantile(q), Duration::from_millis(ms), "{q}");
        }
        assert_eq!(Times::default().quantile(0.5), Duration::ZERO);
    }

    #[test]
    fn a_report_holds_if_every_check_does() {
        let mut report = Report::new("runs");
        report.row(vec![("name", json!("a")), ("s", json!(0.25))]);
        report.check("p50 in s", 0.25, 0.3);
        assert!(report.holds());
        assert_eq!(
            report.to_string(),
            "runs\n\n  name      s\n     a  0.250\n\n  holds   p50 in s: 0.250 (wanted: at most 0.300)"
        );
        report.check("lost", 1.0, 0.0);
        assert!(!report.holds());
        assert_eq!(report.json()["checks"][1]["holds"], false);
    }
}
