//! Durations on the command line: `500ms`, `10s`, `2m`, `1h`.

use std::time::Duration;

const UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];

/// Reads a whole number and its unit.
pub fn parse(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
    match (number.parse::<u64>(), factor) {
        (Ok(number), Some(factor)) => {
            number.checked_mul(factor).map(Duration::from_millis).ok_or_else(|| format!("{text} is too long"))
        }
        _ => Err("a duration is a whole number and a unit: 500ms, 10s, 2m, 1h".to_owned()),
    }
}

/// Reads a duration of `min_ms` to `max_ms`.
pub fn parse_within(text: &str, min_ms: u64, max_ms: u64) -> Result<Duration, String> {
    let duration = parse(text)?;
    if (u128::from(min_ms)..=u128::from(max_ms)).contains(&duration.as_millis()) {
        return Ok(duration);
    }
    Err(format!("it takes {} to {}", exact(min_ms), exact(max_ms)))
}

/// As [`parse`] reads it, in the largest unit that is whole.
fn exact(ms: u64) -> String {
    let (unit, factor) =
        UNITS.iter().rev().find(|(_, factor)| ms.is_multiple_of(*factor)).unwrap_or(&("ms", 1));
    if ms == 0 { "0s".to_owned() } else { format!("{}{unit}", ms / factor) }
}

/// Writes milliseconds with three digits or so: `80 ms`, `1.25 s`, `2 m 5 s`.
pub fn show_ms(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 if ms.is_multiple_of(1_000) => format!("{} s", ms / 1_000),
        1_000..60_000 => format!("{}.{:02} s", ms / 1_000, ms % 1_000 / 10),
        _ if ms < 3_600_000 => format!("{} m {} s", ms / 60_000, ms % 60_000 / 1_000),
        _ => format!("{} h {} m", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, ms) in [("500ms", 500), ("10s", 10_000), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "10", "s", "1.5s", "-1s", "10 s", "10sec", "99999999999999999h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_duration_out_of_bounds_is_refused_in_units_of_the_command_line() {
        let wait = |text: &str| parse_within(text, 0, 3_600_000);
        assert_eq!(wait("60m"), Ok(Duration::from_secs(3600)));
        assert_eq!(wait("2h"), Err("it takes 0s to 1h".to_owned()));
        assert_eq!(parse_within("99ms", 100, 86_400_000), Err("it takes 100ms to 24h".to_owned()));
        assert_eq!(parse_within("1d", 100, 200), parse("1d"), "the unit is what is wrong");
    }

    #[test]
    fn durations_are_shown() {
        for (ms, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1 s"),
            (1_250, "1.25 s"),
            (59_999, "59.99 s"),
            (125_000, "2 m 5 s"),
            (3_660_000, "1 h 1 m"),
        ] {
            assert_eq!(show_ms(ms), text);
        }
    }
}
