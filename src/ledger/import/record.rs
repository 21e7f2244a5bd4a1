//! One record of a legacy file: its fields become a row, and its content becomes a digest.

use std::hash::Hasher as _;

use chrono_tz::Tz;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use super::time::{self, RecordTime, shown};
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
            Some(Scalar::Text(text)) => time::from_text(&text, self.zone),
            Some(Scalar::Whole(number)) => time::from_number(number as f64),
            Some(Scalar::Fraction(number)) => time::from_number(number),
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
        format!(" (if the files use another name, map it: fields={{\"{}\": …}})", FIELDS[slot])
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

    pub(super) fn key(&mut self, key: &str) {
        self.sized(b'k', key);
    }

    pub(super) fn text(&mut self, text: &str) {
        self.sized(b's', text);
    }

    pub(super) fn number(&mut self, tag: u8, bytes: [u8; 8]) {
        self.0.write(&[tag]);
        self.0.write(&bytes);
    }

    fn sized(&mut self, tag: u8, text: &str) {
        self.number(tag, (text.len() as u64).to_le_bytes());
        self.0.write(text.as_bytes());
    }

    pub(super) fn finish(&self) -> RecordDigest {
        u128::from(self.0.finish128()).to_le_bytes()
    }
}
