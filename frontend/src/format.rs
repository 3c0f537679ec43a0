//! ClusterMetrics as people read them: grouped digits, a number and its small unit, ages and countdowns.
//!
//! Nothing here reads a clock or a locale: what depends on either comes in as an argument.

use jiff::{civil::DateTime, tz::Offset};
use ringmaster_common::Timestamp;

/// The sign for an unknown or unmeasured value.
pub const NONE: &str = "–";

/// A number, and the unit that is shown small beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantity {
    pub number: String,
    pub unit: &'static str,
}

impl Quantity {
    fn new(number: impl Into<String>, unit: &'static str) -> Self {
        Quantity { number: number.into(), unit }
    }
}

/// `18204` as `18,204`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate with as many digits as mean something.
pub fn rate(per_second: f64) -> Quantity {
    let number = if per_second >= 9.95 {
        // A rate is never negative, and one beyond 2^53 is not measured here.
        grouped(per_second.round().max(0.0) as u64)
    } else {
        format!("{per_second:.1}")
    };
    Quantity::new(number, "/s")
}

/// A short time, as measured in microseconds.
pub fn micros(us: u64) -> Quantity {
    let ms = us as f64 / 1_000.0;
    match us {
        0..1_000 => Quantity::new(format!("{ms:.2}"), "ms"),
        1_000..10_000 => Quantity::new(format!("{ms:.1}"), "ms"),
        10_000..1_000_000 => Quantity::new(format!("{ms:.0}"), "ms"),
        _ => Quantity::new(format!("{:.1}", ms / 1_000.0), "s"),
    }
}

/// A duration in milliseconds, in its largest sensible unit.
pub fn duration(ms: u64) -> String {
    let seconds = ms / 1_000;
    match seconds {
        _ if ms < 1_000 => format!("{ms} ms"),
        0..10 => format!("{}.{} s", seconds, ms % 1_000 / 100),
        10..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// A bound: what takes no longer than this.
pub fn bound(ms: u64) -> String {
    if ms.is_multiple_of(1_000) && ms < 120_000 {
        format!("≤ {} s", ms / 1_000)
    } else {
        format!("≤ {}", duration(ms))
    }
}

/// How long `then` lies before `now`; a clock that differs a little makes no negative age.
pub fn age_ms(then: Timestamp, now: Timestamp) -> u64 {
    now.as_millisecond().saturating_sub(then.as_millisecond()).max(0).cast_unsigned()
}

/// How long ago `then` was, in words.
pub fn ago(then: Timestamp, now: Timestamp) -> String {
    match age_ms(then, now) {
        0..1_000 => "just now".to_owned(),
        ms @ 1_000..10_000 => format!("{} s ago", ms / 1_000),
        ms => format!("{} ago", duration(ms)),
    }
}

/// The time until `then`, in whole seconds and never below zero.
pub fn seconds_left(then: Timestamp, now: Timestamp) -> u64 {
    age_ms(now, then) / 1_000
}

/// The time of day, `offset_minutes` east of Greenwich.
pub fn time_of_day(at: Timestamp, offset_minutes: i32) -> String {
    local(at, offset_minutes).strftime("%H:%M:%S").to_string()
}

/// The date and the time of day, for what is older than today.
pub fn date_and_time(at: Timestamp, offset_minutes: i32) -> String {
    local(at, offset_minutes).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The time of day for what happened on the same day as `now`, else with the date.
pub fn moment(at: Timestamp, now: Timestamp, offset_minutes: i32) -> String {
    let is_today = local(at, offset_minutes).date() == local(now, offset_minutes).date();
    if is_today { time_of_day(at, offset_minutes) } else { date_and_time(at, offset_minutes) }
}

/// In UTC, for programs that read the page.
pub fn machine_readable(at: Timestamp) -> String {
    at.to_string()
}

fn local(at: Timestamp, offset_minutes: i32) -> DateTime {
    Offset::from_seconds(offset_minutes * 60).unwrap_or(Offset::UTC).to_datetime(at.into())
}

/// A count with its noun: `1 node`, `2 nodes`.
pub fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ if noun.ends_with('y') => format!("{} {}ies", grouped(number), &noun[..noun.len() - 1]),
        _ => format!("{} {noun}s", grouped(number)),
    }
}

/// `1`, `1 and 2`, `1, 2 and 3`.
pub fn listed<T: ToString>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(T::to_string).collect();
    match items.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// A small number as a word.
pub fn in_words(number: u64) -> String {
    const WORDS: [&str; 8] = ["no", "one", "two", "three", "four", "five", "six", "seven"];
    usize::try_from(number)
        .ok()
        .and_then(|index| WORDS.get(index))
        .map_or_else(|| number.to_string(), |word| (*word).to_owned())
}

/// The text with its first letter as a capital, unless it begins with a name such as `demo.beat`.
pub fn capitalised(text: &str) -> String {
    let mut text = text.to_owned();
    if text.split(' ').next().is_some_and(|word| word.contains(['.', '_', '/'])) {
        return text;
    }
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    text
}

/// Where a long name is cut, so that its end stays in sight: the head may shrink, the tail does not.
pub fn split_name(name: &str) -> (&str, &str) {
    const TAIL: usize = 9;
    let length = name.chars().count();
    if length <= 2 * TAIL {
        return (name, "");
    }
    let cut = name.char_indices().nth(length - TAIL).map_or(name.len(), |(index, _)| index);
    name.split_at(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn digits_are_grouped() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1_000, "1,000"), (18_204, "18,204"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn quantities_keep_their_unit_apart() {
        assert_eq!(rate(0.0), Quantity::new("0.0", "/s"));
        assert_eq!(rate(9.96), Quantity::new("10", "/s"));
        assert_eq!(rate(1_812.4), Quantity::new("1,812", "/s"));
        assert_eq!(micros(412), Quantity::new("0.41", "ms"));
        assert_eq!(micros(3_400), Quantity::new("3.4", "ms"));
        assert_eq!(micros(41_000), Quantity::new("41", "ms"));
        assert_eq!(micros(2_500_000), Quantity::new("2.5", "s"));
    }

    #[test]
    fn durations_take_their_largest_sensible_unit() {
        let cases = [
            (41, "41 ms"),
            (1_240, "1.2 s"),
            (41_900, "41 s"),
            (180_000, "3 min"),
            (7_300_000, "2 h"),
            (259_200_000, "3 days"),
        ];
        for (ms, text) in cases {
            assert_eq!(duration(ms), text);
        }
        assert_eq!(bound(1_000), "≤ 1 s");
        assert_eq!(bound(1_500), "≤ 1.5 s");
    }

    #[test]
    fn ages_are_never_negative() {
        let (early, late) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:41.5Z"));
        assert_eq!(ago(early, late), "41 s ago");
        assert_eq!(ago(late, early), "just now");
        assert_eq!(seconds_left(late, early), 41);
        assert_eq!(seconds_left(early, late), 0);
    }

    #[test]
    fn times_are_those_of_the_reader() {
        let late = at("2026-02-28T23:30:05Z");
        assert_eq!(time_of_day(late, 0), "23:30:05");
        assert_eq!(date_and_time(late, 60), "2026-03-01 00:30:05");
        assert_eq!(date_and_time(at("2024-02-29T12:00:00Z"), -60), "2024-02-29 11:00:00");
        assert_eq!(machine_readable(late), "2026-02-28T23:30:05Z");
        assert_eq!(moment(late, at("2026-02-28T23:59:00Z"), 0), "23:30:05");
        assert_eq!(moment(late, at("2026-03-01T00:10:00Z"), 0), "2026-02-28 23:30:05");
    }

    #[test]
    fn lists_and_counts_read_as_prose() {
        assert_eq!(listed(&[1]), "1");
        assert_eq!(listed(&[1, 2, 5]), "1, 2 and 5");
        assert_eq!(count(1, "entry"), "1 entry");
        assert_eq!(count(2_000, "entry"), "2,000 entries");
        assert_eq!(count(2, "node"), "2 nodes");
        assert_eq!(in_words(1), "one");
        assert_eq!(in_words(12), "12");
        assert_eq!(capitalised("node 2 is down"), "Node 2 is down");
        assert_eq!(capitalised("demo.beat is at version 3"), "demo.beat is at version 3");
    }

    #[test]
    fn long_names_keep_their_end() {
        assert_eq!(split_name("amber-fox"), ("amber-fox", ""));
        let name = "edge-proxy-eu-central-1b-rack-07-blade-12-production-node-03";
        let (head, tail) = split_name(name);
        assert_eq!((head.len() + tail.len(), tail), (name.len(), "n-node-03"));
    }
}
