//! The time of a record: text or a number in a legacy file becomes microseconds since 1970 UTC.

use chrono::{DateTime, FixedOffset, MappedLocalTime, NaiveDate, NaiveDateTime, TimeZone as _, Utc};
use chrono_tz::Tz;

/// Seconds since 1970 of the years 2000 and 2100. A number is a time between them in seconds, milliseconds or microseconds.
/// Only one of the three is possible, because the ranges do not overlap.
const YEAR_2000: f64 = 946_684_800.0;
const YEAR_2100: f64 = 4_102_444_800.0;

/// A time, and whether its local time occurs twice on that day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecordTime {
    pub(super) micros: i64,
    pub(super) is_ambiguous: bool,
}

/// Reads an ISO 8601 date and time (extended format, `T` or one space in between, optional seconds and fraction), with an
/// offset or local to `zone`. Digits beyond microseconds are cut off.
pub(super) fn from_text(text: &str, zone: Option<Tz>) -> Result<RecordTime, String> {
    let not_iso = || {
        format!(
            "the timestamp {} is not an ISO 8601 date and time such as 2025-04-16T09:01:05 or 2025-04-16T09:01:05+02:00",
            shown(text)
        )
    };
    let mut rest = Digits(text.trim().as_bytes());
    let local = local(&mut rest).ok_or_else(not_iso)?;
    if rest.0.first() == Some(&b' ') {
        rest.0 = &rest.0[1..];
        if rest.0.is_empty() {
            return Err(not_iso());
        }
    }
    let moment = |at: DateTime<Utc>, is_ambiguous| RecordTime { micros: at.timestamp_micros(), is_ambiguous };
    if !rest.0.is_empty() {
        let offset = offset(&mut rest).filter(|_| rest.0.is_empty()).ok_or_else(not_iso)?;
        let at = offset.from_local_datetime(&local).single().ok_or_else(not_iso)?;
        return Ok(moment(at.to_utc(), false));
    }
    let Some(zone) = zone else {
        return Err(format!(
            "the timestamp {} has no offset, so it could mean any hour; give the timezone of the files, such as \
             timezone=\"Europe/Berlin\"",
            shown(text)
        ));
    };
    match zone.from_local_datetime(&local) {
        MappedLocalTime::Single(at) => Ok(moment(at.to_utc(), false)),
        MappedLocalTime::Ambiguous(first, second) => Ok(moment(first.to_utc().min(second.to_utc()), true)),
        MappedLocalTime::None => Err(format!(
            "the timestamp {} does not exist in {}: clocks were put forward over it; see whether the timezone is right",
            shown(text),
            zone.name()
        )),
    }
}

/// Reads seconds, milliseconds or microseconds since 1970, whichever is a time between the years 2000 and 2100.
pub(super) fn from_number(number: f64) -> Result<RecordTime, String> {
    for per_second in [1.0, 1e3, 1e6] {
        let seconds = number / per_second;
        if (YEAR_2000..YEAR_2100).contains(&seconds) {
            // In range, so that neither the product nor the conversion can overflow.
            let micros = (number * (1e6 / per_second)).round() as i64;
            return Ok(RecordTime { micros, is_ambiguous: false });
        }
    }
    Err(format!(
        "the timestamp {number} is a number, but not one of seconds, milliseconds or microseconds between the years 2000 and 2100"
    ))
}

/// The text that is left to read.
struct Digits<'a>(&'a [u8]);

impl Digits<'_> {
    /// A number of exactly `count` digits.
    fn number(&mut self, count: usize) -> Option<u32> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        let number = digits
            .iter()
            .try_fold(0u32, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u32::from(digit - b'0')))?;
        self.0 = rest;
        Some(number)
    }

    fn any_of(&mut self, wanted: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        wanted.contains(first).then(|| self.0 = rest).map(|()| *first)
    }
}

fn local(rest: &mut Digits<'_>) -> Option<NaiveDateTime> {
    let year = rest.number(4).filter(|year| *year > 0)?;
    rest.any_of(b"-")?;
    let month = rest.number(2)?;
    rest.any_of(b"-")?;
    let day = rest.number(2)?;
    rest.any_of(b"Tt ")?;
    let hour = rest.number(2)?;
    rest.any_of(b":")?;
    let minute = rest.number(2)?;
    let (mut second, mut micros) = (0, 0);
    if rest.any_of(b":").is_some() {
        second = rest.number(2)?;
        if rest.any_of(b".,").is_some() {
            let mut unit = 100_000;
            let mut digits = 0;
            while let Some(digit) = rest.number(1) {
                micros += digit * unit;
                unit /= 10;
                digits += 1;
            }
            if digits == 0 {
                return None;
            }
        }
    }
    NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, day)?.and_hms_micro_opt(hour, minute, second, micros)
}

/// `Z`, `+02:00`, `+0200` or `+02`.
fn offset(rest: &mut Digits<'_>) -> Option<FixedOffset> {
    let sign = match rest.any_of(b"Zz+-")? {
        b'+' => 1,
        b'-' => -1,
        _ => return FixedOffset::east_opt(0),
    };
    let hours = rest.number(2)?;
    let colon = rest.any_of(b":").is_some();
    let minutes = if colon || !rest.0.is_empty() { rest.number(2)? } else { 0 };
    if minutes > 59 {
        return None;
    }
    FixedOffset::east_opt(sign * i32::try_from(hours * 3600 + minutes * 60).ok()?)
}

/// A value for a message: quoted, with control characters escaped, and shortened.
pub(super) fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(60).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    format!("{cut:?}")
}
