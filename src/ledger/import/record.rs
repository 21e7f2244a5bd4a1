//! One record of a legacy file: its fields become a row, and its content becomes a digest. Its time, text or a number, becomes
//! microseconds since 1970 UTC.

use std::hash::Hasher as _;

use chrono::{DateTime, FixedOffset, MappedLocalTime, NaiveDate, NaiveDateTime, TimeZone as _, Utc};
use chrono_tz::Tz;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use crate::error::{Error, Result};
use crate::ledger::LedgerRow;
use crate::ledger::rows::{check_names, check_status};
use crate::ledger::tables::{FLAG, NO, YES};

/// Identifies a record: a digest of its keys and values in their order, without the spacing.
pub(super) type RecordDigest = [u8; 16];

/// Our field names, in the order of [`RecordFields`].
const FIELDS: [&str; 5] = ["file_name", "job_id", "status", "timestamp", FLAG];

/// A record that can be imported.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct LegacyRecord {
    pub(super) digest: RecordDigest,
    pub(super) row: LedgerRow,
    /// Its flag is `YES`.
    pub(super) is_acknowledged: bool,
    /// Its local time occurs twice on that day. The first one was used.
    pub(super) is_ambiguous: bool,
}

/// Reads records: the names of their fields, and the time zone of their times.
#[derive(Debug, Clone)]
pub(super) struct RecordReader {
    /// The names in the files, in the order of [`FIELDS`].
    names: [String; 5],
    zone: Option<Tz>,
}

impl RecordReader {
    /// A reader; `fields` maps our names to the names in the files.
    pub(super) fn new(fields: &[(String, String)], timezone: Option<&str>) -> Result<Self> {
        let mut names = FIELDS.map(str::to_owned);
        for (ours, theirs) in fields {
            let Some(slot) = FIELDS.iter().position(|name| name == ours) else {
                return Err(Error::invalid(format!(
                    "fields has the key {}, which is not one of {}; nothing was imported",
                    shown(ours),
                    FIELDS.join(", ")
                )));
            };
            if theirs.is_empty() {
                return Err(Error::invalid(format!(
                    "fields maps \"{ours}\" to an empty name; give the name that the files have for it"
                )));
            }
            names[slot].clone_from(theirs);
        }
        let unknown = |name| {
            let text = "is not in the IANA database; give a name such as \"Europe/Berlin\" or \"UTC\"";
            Error::invalid(format!("timezone {} {text}", shown(name)))
        };
        let zone = timezone.map(|name| name.parse().map_err(|_| unknown(name))).transpose()?;
        Ok(Self { names, zone })
    }

    /// The record with these fields, or why they are invalid.
    pub(super) fn read(&self, fields: RecordFields, digest: RecordDigest) -> std::result::Result<LegacyRecord, String> {
        if let Some(slot) = fields.duplicate {
            return Err(format!("has the field \"{}\" twice", self.names[slot]));
        }
        let [file_name, job_id, status, timestamp, flag] = fields.values;
        let text = |slot: usize, value: Option<Scalar>| match value {
            Some(Scalar::Text(text)) => Ok(text),
            // A whole number has only one spelling, so that the text is exact.
            Some(Scalar::Whole(number)) => Ok(number.to_string()),
            None => Err(format!("has no field \"{}\"{}", self.names[slot], self.hint(slot))),
            Some(other) => {
                Err(format!("has {} in the field \"{}\", which must be text", other.kind(), self.names[slot]))
            }
        };
        let (file_name, job_id, status) = (text(0, file_name)?, text(1, job_id)?, text(2, status)?);
        check_names(&file_name, &job_id)
            .and_then(|()| check_status(&status))
            .map_err(|e| e.to_string().replace("; nothing was logged", ""))?;
        let time = self.time(timestamp)?;
        let is_acknowledged = match flag {
            None | Some(Scalar::Null) => false,
            Some(Scalar::Text(flag)) if flag == NO => false,
            Some(Scalar::Text(flag)) if flag == YES => true,
            Some(Scalar::Text(flag)) => {
                return Err(format!("has the {} {}, which is neither \"YES\" nor \"NO\"", self.names[4], shown(&flag)));
            }
            Some(other) => {
                return Err(format!("has {} as its {}, which must be \"YES\" or \"NO\"", other.kind(), self.names[4]));
            }
        };
        let row = LedgerRow {
            file_name: Some(file_name),
            job_id: Some(job_id),
            status: Some(status),
            timestamp: Some(time.micros),
        };
        Ok(LegacyRecord { digest, row, is_acknowledged, is_ambiguous: time.is_ambiguous })
    }

    fn time(&self, value: Option<Scalar>) -> std::result::Result<RecordTime, String> {
        let name = &self.names[3];
        match value {
            Some(Scalar::Text(text)) => time_of_text(&text, self.zone),
            Some(Scalar::Whole(number)) => time_of_number(number as f64),
            Some(Scalar::Fraction(number)) => time_of_number(number),
            None => {
                Err(format!("has no field \"{name}\"{}; the import does not insert the current time", self.hint(3)))
            }
            Some(other) => Err(format!("has {} in the field \"{name}\", which must be a time", other.kind())),
        }
    }

    /// What to do about a missing field without a mapping.
    fn hint(&self, slot: usize) -> String {
        if self.names[slot] != FIELDS[slot] {
            return String::new();
        }
        format!(" (if the files use another name, map it: fields={{\"{0}\": …}}, or --field {0}=…)", FIELDS[slot])
    }
}

/// The values of a record's known fields.
#[derive(Debug, Default)]
pub(super) struct RecordFields {
    values: [Option<Scalar>; 5],
    /// A field that occurs more than once.
    duplicate: Option<usize>,
}

impl RecordFields {
    pub(super) fn set(&mut self, reader: &RecordReader, key: &str, value: Scalar) {
        for (slot, name) in reader.names.iter().enumerate() {
            if name == key && self.values[slot].replace(value.clone()).is_some() {
                self.duplicate = Some(slot);
            }
        }
    }
}

/// The value of a field.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Null,
    Whole(i128),
    Fraction(f64),
    Text(String),
    /// A value that no field can have; its kind, in words.
    Other(&'static str),
}

impl Scalar {
    fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Whole(_) => "a number",
            Self::Fraction(_) => "a number that is not whole, or too large,",
            Self::Text(_) => "text",
            Self::Other(kind) => kind,
        }
    }
}

/// Digests a record as a sequence of tagged values of known length, so that no two sequences are alike.
#[derive(Default)]
pub(super) struct Digester(SipHasher24);

impl Digester {
    pub(super) fn begin(&mut self, tag: u8) {
        self.0.write(&[tag]);
    }

    pub(super) fn number(&mut self, tag: u8, bytes: [u8; 8]) {
        self.0.write(&[tag]);
        self.0.write(&bytes);
    }

    pub(super) fn text(&mut self, tag: u8, text: &str) {
        self.number(tag, (text.len() as u64).to_le_bytes());
        self.0.write(text.as_bytes());
    }

    pub(super) fn finish(&self) -> RecordDigest {
        u128::from(self.0.finish128()).to_le_bytes()
    }
}

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
pub(super) fn time_of_text(text: &str, zone: Option<Tz>) -> Result<RecordTime, String> {
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
pub(super) fn time_of_number(number: f64) -> Result<RecordTime, String> {
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
            micros = rest.number(1)? * unit;
            while let Some(digit) = rest.number(1) {
                unit /= 10;
                micros += digit * unit;
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
fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(60).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    format!("{cut:?}")
}
