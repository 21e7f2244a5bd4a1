//! One record of a legacy file: its fields become a row, its whole content a digest.

use std::hash::Hasher as _;

use chrono_tz::Tz;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

use super::time::{self, Moment, shown};
use crate::error::{Error, Result};
use crate::ledger::LedgerRow;
use crate::ledger::rows::{check_names, check_status};
use crate::ledger::tables::{FLAG, NO, YES};

/// What a record is known by: a digest of its keys and values in their order. Spacing does not count.
pub(super) type Digest = [u8; 16];

/// Ours, in the order of [`Slots`].
const OURS: [&str; 5] = ["file_name", "job_id", "status", "timestamp", FLAG];

/// A record that can be imported.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Found {
    pub(super) digest: Digest,
    pub(super) row: LedgerRow,
    /// It says that AutoSys took it already.
    pub(super) acknowledged: bool,
    /// Its local time came twice that day; the first one was taken.
    pub(super) ambiguous: bool,
}

/// How records are read: which fields, and where the clocks were.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    /// The names that the files have for [`OURS`].
    names: [String; 5],
    zone: Option<Tz>,
}

impl Reader {
    /// `fields` maps our names to those in the files.
    pub(super) fn new(fields: &[(String, String)], timezone: Option<&str>) -> Result<Self> {
        let mut names = OURS.map(str::to_owned);
        for (ours, theirs) in fields {
            let Some(slot) = OURS.iter().position(|name| name == ours) else {
                return Err(Error::invalid(format!(
                    "fields has the key {}, which is not one of {}; nothing was imported",
                    shown(ours),
                    OURS.join(", ")
                )));
            };
            if theirs.is_empty() {
                return Err(Error::invalid(format!(
                    "fields maps \"{ours}\" to an empty name; give the name that the files have for it"
                )));
            }
            names[slot].clone_from(theirs);
        }
        let zone = timezone
            .map(|name| {
                time::zone(name).ok_or_else(|| {
                    Error::invalid(format!(
                        "timezone {} is not in the IANA database; give a name such as \"Europe/Berlin\" or \"UTC\"",
                        shown(name)
                    ))
                })
            })
            .transpose()?;
        Ok(Self { names, zone })
    }

    /// The row that the fields of a record make, or why they make none.
    pub(super) fn read(&self, slots: Slots, digest: Digest) -> std::result::Result<Found, String> {
        if let Some(slot) = slots.twice {
            return Err(format!("has the field \"{}\" twice", self.names[slot]));
        }
        let [file_name, job_id, status, timestamp, flag] = slots.values;
        let text = |slot: usize, value: Option<Scalar>| match value {
            Some(Scalar::Text(text)) => Ok(text),
            // A whole number has one spelling only, so that no information is made up or lost.
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
        let moment = self.moment(timestamp)?;
        let acknowledged = match flag {
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
            timestamp: Some(moment.micros),
        };
        Ok(Found { digest, row, acknowledged, ambiguous: moment.ambiguous })
    }

    fn moment(&self, value: Option<Scalar>) -> std::result::Result<Moment, String> {
        let name = &self.names[3];
        match value {
            Some(Scalar::Text(text)) => time::from_text(&text, self.zone),
            Some(Scalar::Whole(number)) => time::from_number(number as f64),
            Some(Scalar::Fraction(number)) => time::from_number(number),
            None => Err(format!("has no field \"{name}\"{}, and a time is not made up", self.hint(3))),
            Some(other) => Err(format!("has {} in the field \"{name}\", which must be a time", other.kind())),
        }
    }

    /// What to do about a missing field that nobody mapped.
    fn hint(&self, slot: usize) -> String {
        if self.names[slot] != OURS[slot] {
            return String::new();
        }
        format!(" (if the files call it something else, say so with fields={{\"{}\": …}})", OURS[slot])
    }
}

/// The values of a record that matter.
#[derive(Debug, Default)]
pub(super) struct Slots {
    values: [Option<Scalar>; 5],
    /// A field that was there more than once: which value counts is anybody's guess.
    twice: Option<usize>,
}

impl Slots {
    pub(super) fn take(&mut self, reader: &Reader, key: &str, value: Scalar) {
        for (slot, name) in reader.names.iter().enumerate() {
            if name == key && self.values[slot].replace(value.clone()).is_some() {
                self.twice = Some(slot);
            }
        }
    }
}

/// The value of a field, as far as a row can take it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Null,
    Whole(i128),
    Fraction(f64),
    Text(String),
    /// Something that no field can be; what, in words.
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

/// Digests a record as a sequence of tagged values, each of known length, so that no two sequences look alike.
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

    pub(super) fn finish(&self) -> Digest {
        u128::from(self.0.finish128()).to_le_bytes()
    }
}
