//! Wall-clock times, for people to read: milliseconds since 1970 in UTC, RFC 3339 in JSON.
//!
//! The date library writes and reads the text. This type fixes the precision, stays a plain integer, and
//! deliberately cannot ask for the present.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt, ops::Add, str::FromStr, time::Duration};

/// A time of RFC 3339, in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
#[cfg_attr(feature = "openapi", schema(example = "2026-01-31T14:02:11.5Z"))]
pub struct Timestamp(i64);

/// A text that is not RFC 3339, or a time before the year -9999 or after 9999.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time is written as 2026-01-31T14:02:11.5Z")]
pub struct Malformed;

impl Timestamp {
    pub const UNIX_EPOCH: Timestamp = Timestamp(0);

    pub fn from_millisecond(millisecond: i64) -> Result<Timestamp, Malformed> {
        jiff::Timestamp::from_millisecond(millisecond).map(Timestamp::from).map_err(|_| Malformed)
    }

    pub fn as_millisecond(self) -> i64 {
        self.0
    }

    pub fn as_second(self) -> i64 {
        self.0.div_euclid(1_000)
    }
}

impl From<jiff::Timestamp> for Timestamp {
    /// Drops what is finer than a millisecond.
    fn from(timestamp: jiff::Timestamp) -> Self {
        Timestamp(timestamp.as_millisecond())
    }
}

impl From<Timestamp> for jiff::Timestamp {
    fn from(timestamp: Timestamp) -> Self {
        jiff::Timestamp::from_millisecond(timestamp.0).unwrap_or(jiff::Timestamp::MAX)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    /// The latest time that can be written, where the sum is beyond it.
    fn add(self, duration: Duration) -> Timestamp {
        let milliseconds = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_millisecond(self.0.saturating_add(milliseconds))
            .unwrap_or(Timestamp(jiff::Timestamp::MAX.as_millisecond()))
    }
}

impl FromStr for Timestamp {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        text.parse::<jiff::Timestamp>().map(Timestamp::from).map_err(|_| Malformed)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        jiff::Timestamp::from(*self).fmt(f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for (millisecond, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_500, "1970-01-01T00:00:01.5Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (1_709_210_096_041, "2024-02-29T12:34:56.041Z"),
            (-62_135_596_800_000, "0001-01-01T00:00:00Z"),
        ] {
            let timestamp = Timestamp::from_millisecond(millisecond).unwrap();
            assert_eq!(timestamp.to_string(), text);
            assert_eq!(text.parse(), Ok(timestamp));
            assert_eq!(serde_json::to_string(&timestamp).unwrap(), format!("\"{text}\""));
        }
    }

    #[test]
    fn the_precision_is_milliseconds_and_offsets_become_utc() {
        for (text, read) in [
            ("2026-01-31T14:02:11.123456789Z", "2026-01-31T14:02:11.123Z"),
            ("2026-01-31T14:02:11+01:00", "2026-01-31T13:02:11Z"),
        ] {
            assert_eq!(text.parse::<Timestamp>().unwrap().to_string(), read);
        }
    }

    #[test]
    fn a_text_without_offset_or_out_of_range_is_refused() {
        for text in
            ["", "2026-01-31", "2026-01-31T14:02:11", "2026-13-31T14:02:11Z", "2026-01-31T14:02:11.xZ"]
        {
            assert_eq!(text.parse::<Timestamp>(), Err(Malformed), "{text}");
        }
        assert_eq!(Timestamp::from_millisecond(i64::MAX), Err(Malformed));
        let latest = Timestamp::UNIX_EPOCH + Duration::MAX;
        assert_eq!(latest.to_string().parse(), Ok(latest));
    }
}
