//! Wall-clock times, for people to read: milliseconds since 1970 in UTC, RFC 3339 in JSON.
//!
//! A date library does more than this, and its parser with all of its messages would be a tenth of
//! all that a page loads. What is needed is one format with one precision, both ways; a test holds it
//! against such a library. It deliberately knows no time zone, and cannot ask for the present.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{borrow::Cow, fmt, ops::Add, str::FromStr, time::Duration};

const SECONDS_PER_DAY: i64 = 86_400;
/// From the first of March of year 0 to 1970. Years that begin in March have their odd day at the end.
const DAYS_TO_1970: i64 = 719_468;
const DAYS_PER_ERA: i64 = 146_097;

/// Milliseconds since 1970, in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
#[cfg_attr(feature = "openapi", schema(example = "2026-01-31T14:02:11.5Z"))]
pub struct Timestamp(i64);

/// A text that is not RFC 3339 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time is written as 2026-01-31T14:02:11.5Z")]
pub struct Malformed;

impl Timestamp {
    pub const UNIX_EPOCH: Timestamp = Timestamp(0);

    pub fn from_millisecond(millisecond: i64) -> Result<Timestamp, Malformed> {
        Ok(Timestamp(millisecond))
    }

    pub fn as_millisecond(self) -> i64 {
        self.0
    }

    pub fn as_second(self) -> i64 {
        self.0.div_euclid(1_000)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, duration: Duration) -> Timestamp {
        let milliseconds = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Timestamp(self.0.saturating_add(milliseconds))
    }
}

impl FromStr for Timestamp {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let text = text.strip_suffix('Z').ok_or(Malformed)?;
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let bytes = whole.as_bytes();
        let separated = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
        if bytes.len() != 19 || separated.iter().any(|(position, mark)| bytes[*position] != *mark) {
            return Err(Malformed);
        }
        let number = |from, to| number(&bytes[from..to]);
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        let fits =
            (1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 60;
        if !fits {
            return Err(Malformed);
        }
        let seconds = days(year, month, day) * SECONDS_PER_DAY + hour * 3_600 + minute * 60 + second;
        Ok(Timestamp(seconds * 1_000 + milliseconds(fraction.as_bytes())?))
    }
}

fn number(digits: &[u8]) -> Result<i64, Malformed> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    Ok(digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
}

fn milliseconds(fraction: &[u8]) -> Result<i64, Malformed> {
    number(fraction)?;
    let mut digits = [b'0'; 3];
    for (digit, given) in digits.iter_mut().zip(fraction) {
        *digit = *given;
    }
    number(&digits)
}

/// Days since 1970 of a date of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month > 2 { year } else { year - 1 };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * DAYS_PER_ERA + day_of_era - DAYS_TO_1970
}

/// The date, as year, month and day, of a day since 1970.
pub fn date(days: i64) -> (i64, i64, i64) {
    let shifted = days + DAYS_TO_1970;
    let (era, day_of_era) = (shifted.div_euclid(DAYS_PER_ERA), shifted.rem_euclid(DAYS_PER_ERA));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date(self.as_second().div_euclid(SECONDS_PER_DAY));
        let second = self.as_second().rem_euclid(SECONDS_PER_DAY);
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        match self.0.rem_euclid(1_000) {
            0 => f.write_str("Z"),
            millisecond => write!(f, ".{millisecond:03}Z"),
        }
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

    /// A library of the field agrees on what is written and read.
    #[test]
    fn it_agrees_with_a_date_library() {
        for millisecond in
            [0, 1, 999, 1_000, 951_782_400_000, 1_709_210_096_041, 4_102_444_799_999, -1, -62_135_596_800_000]
        {
            let theirs = jiff::Timestamp::from_millisecond(millisecond).unwrap();
            let ours: Timestamp = theirs.to_string().parse().unwrap();
            assert_eq!(ours.as_millisecond(), millisecond, "{theirs}");
            assert_eq!(ours.to_string().parse::<jiff::Timestamp>().unwrap(), theirs);
        }
        let precise: Timestamp = "2026-01-31T14:02:11.123456789Z".parse().unwrap();
        assert_eq!(precise.as_millisecond() % 1_000, 123);
        assert_eq!(serde_json::to_string(&precise).unwrap(), "\"2026-01-31T14:02:11.123Z\"");
        assert_eq!(
            serde_json::from_str::<Timestamp>("\"1970-01-01T00:00:01.5Z\"").unwrap(),
            Timestamp(1_500)
        );
    }

    #[test]
    fn nothing_else_is_read() {
        for text in [
            "",
            "2026-01-31",
            "2026-01-31T14:02:11",
            "2026-01-31T14:02:11+01:00",
            "2026-13-31T14:02:11Z",
            "2026-01-31T24:02:11Z",
            "2026-01-31T14:02:11.Z",
            "2026-01-31T14:02:11.xZ",
            "+026-01-31T14:02:11Z",
            "2026-01-31 14:02:11Z",
            "2026-01-3éT14:02:1Z",
        ] {
            assert_eq!(text.parse::<Timestamp>(), Err(Malformed), "{text}");
        }
    }
}
