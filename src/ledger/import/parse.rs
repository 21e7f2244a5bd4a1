//! Finds the records in a legacy file: one object, a list, JSON lines, or several of these one after the other.
//!
//! A record is imported as a whole or not at all. A value that is not imported becomes an item that holds the reason.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::record::{Digester, LegacyRecord, RecordFields, RecordReader, Scalar};

/// One value in a file: a record, or something else.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct FileItem {
    /// Its number in the file, from 1.
    pub(super) number: u64,
    /// The line on which it, or the list that contains it, begins; from 1.
    pub(super) line: u64,
    /// The record, or why it is not a record.
    pub(super) record: Result<LegacyRecord, String>,
}

/// The items of a file, in order. There are none if the file is empty, or has empty lists. Of what is not a record, the first
/// `max_faults` are listed and the others are counted: a file can have 32 million of them.
pub(super) fn items(bytes: &[u8], reader: &RecordReader, max_faults: u64) -> (Vec<FileItem>, u64) {
    let mut found = Items { reader, max_faults, listed: Vec::new(), all: 0, faults: 0 };
    match decode(bytes) {
        Ok(text) => found.read(text.as_ref()),
        Err(reason) => found.add(1, Err(reason)),
    }
    let unlisted = found.faults.saturating_sub(max_faults);
    (found.listed, unlisted)
}

/// The items that were found so far.
struct Items<'a> {
    reader: &'a RecordReader,
    max_faults: u64,
    listed: Vec<FileItem>,
    all: u64,
    faults: u64,
}

/// How many items there were at some moment.
type Position = (usize, u64, u64);

/// Removes a byte order mark, and converts UTF-16 to UTF-8: Windows tools write both.
fn decode(bytes: &[u8]) -> Result<Cow<'_, [u8]>, String> {
    let units: fn([u8; 2]) -> u16 = match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => return Ok(rest.into()),
        [0xFF, 0xFE, ..] => u16::from_le_bytes,
        [0xFE, 0xFF, ..] => u16::from_be_bytes,
        _ => return Ok(bytes.into()),
    };
    let (pairs, rest) = bytes[2..].as_chunks::<2>();
    let text: Result<String, _> = char::decode_utf16(pairs.iter().map(|pair| units(*pair))).collect();
    match text {
        Ok(text) if rest.is_empty() => Ok(text.into_bytes().into()),
        _ => Err("is not valid UTF-16, which its byte order mark says it is; if it is still being written, the next \
                  import takes it"
            .to_owned()),
    }
}

/// The lines that are not blank, with their numbers.
fn lines(text: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    (1..).zip(text.split(|byte| *byte == b'\n')).filter(|(_, line)| !line.trim_ascii().is_empty())
}

/// Whether a broken file has JSON lines, so that its other lines are records. The lines of a broken pretty-printed file are
/// not records, because they can be parts of one.
fn is_json_lines(text: &[u8]) -> bool {
    let is_object = |line: &[u8]| {
        line.trim_ascii_start().starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(line.trim_ascii()).is_ok()
    };
    let mut rest = lines(text).map(|(_, line)| line);
    let Some(first) = rest.next() else { return false };
    if is_object(first) {
        return true;
    }
    // The first line is broken, or the beginning of the file was cut off. In a pretty-printed file, two consecutive lines are
    // never objects, because there is a comma or a key between them.
    let (good, all) = rest.fold((0_u64, 1_u64), |(good, all), line| (good + u64::from(is_object(line)), all + 1));
    !first.trim_ascii_start().starts_with(b"[") && good * 2 > all
}

impl Items<'_> {
    fn add(&mut self, line: u64, record: Result<LegacyRecord, String>) {
        self.all += 1;
        self.faults += u64::from(record.is_err());
        if record.is_ok() || self.faults <= self.max_faults {
            self.listed.push(FileItem { number: self.all, line, record });
        }
    }

    fn mark(&self) -> Position {
        (self.listed.len(), self.all, self.faults)
    }

    /// Forgets what was added since `mark`.
    fn forget(&mut self, (listed, all, faults): Position) {
        self.listed.truncate(listed);
        (self.all, self.faults) = (all, faults);
    }

    fn read(&mut self, text: &[u8]) {
        let begin = self.mark();
        let Err((line, broken)) = self.values(text, 1) else { return };
        self.forget(begin);
        if !is_json_lines(text) {
            return self.add(line, Err(broken));
        }
        for (number, line) in lines(text) {
            let before = self.mark();
            if let Err((number, broken)) = self.values(line, number) {
                self.forget(before);
                self.add(number, Err(broken));
            }
        }
    }

    /// Adds the items of all values in `text`, which begins on line `line`.
    ///
    /// # Errors
    /// The line and the reason of the first syntax error.
    fn values(&mut self, text: &[u8], line: u64) -> Result<(), (u64, String)> {
        let (mut at, mut line) = (0, line);
        loop {
            let blank = text[at..].iter().take_while(|byte| b" \t\r\n".contains(byte)).count();
            line += newlines(&text[at..at + blank]);
            at += blank;
            let rest = &text[at..];
            if rest.is_empty() {
                return Ok(());
            }
            // The value is found first and read then, so that the next value is found also if this one is invalid.
            let mut ahead = serde_json::Deserializer::from_slice(rest).into_iter::<IgnoredAny>();
            if let Some(Err(e)) = ahead.next() {
                return Err((line, broken(&e)));
            }
            let end = ahead.byte_offset().max(1);
            self.one_value(&rest[..end], line);
            line += newlines(&rest[..end]);
            at += end;
        }
    }

    /// Adds the items of one value. Of a list that is not valid JSON, nothing is imported.
    fn one_value(&mut self, value: &[u8], line: u64) {
        let before = self.mark();
        let read = match value.first() {
            Some(b'[') => serde_json::Deserializer::from_slice(value).deserialize_seq(ListVisitor(self, line)),
            _ => one_record(value, self.reader).map(|record| self.add(line, record)),
        };
        if let Err(e) = read {
            self.forget(before);
            // The position of the error is to be the one in the whole value.
            let mut whole = serde_json::Deserializer::from_slice(value);
            let error = FieldValue(&mut Digester::default()).deserialize(&mut whole).err().unwrap_or(e);
            self.add(line, Err(broken(&error)));
        }
    }
}

/// Reads the elements of a list as records, one after the other. The second field is the line of the list.
struct ListVisitor<'a, 'b>(&'a mut Items<'b>, u64);

impl<'de> Visitor<'de> for ListVisitor<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        let Self(items, line) = self;
        while let Some(element) = elements.next_element::<&RawValue>()? {
            let record = one_record(element.get().as_bytes(), items.reader).map_err(serde::de::Error::custom)?;
            items.add(line, record);
        }
        Ok(())
    }
}

/// The record in a value that is not a list, or why it is not a record.
///
/// # Errors
/// The value is not valid JSON.
fn one_record(value: &[u8], reader: &RecordReader) -> serde_json::Result<Result<LegacyRecord, String>> {
    let what = match value.first() {
        Some(b'{') => {
            let mut json = serde_json::Deserializer::from_slice(value);
            let record = json.deserialize_map(RecordVisitor(reader))?;
            return json.end().map(|()| record);
        }
        Some(b'[') => return Ok(not_an_object("a list in a list")),
        Some(b'"') => "text",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        _ => "a number",
    };
    serde_json::from_slice::<serde_json::Value>(value).map(|_| not_an_object(what))
}

fn not_an_object(what: &str) -> Result<LegacyRecord, String> {
    Err(format!("is {what}, not an object with the fields of a notification"))
}

fn newlines(text: &[u8]) -> u64 {
    text.iter().filter(|byte| **byte == b'\n').count() as u64
}

fn broken(error: &serde_json::Error) -> String {
    let mut text = error.to_string();
    if let Some(at) = text.rfind(" at line ") {
        text.truncate(at);
    }
    if error.is_eof() {
        return format!(
            "ends in the middle of a value ({text}); if it is still being written, the next import reads it"
        );
    }
    let place = match (error.line(), error.column()) {
        (0, _) => String::new(),
        (1, column) => format!(", column {column}"),
        (lines, column) => format!(", {} lines down, column {column}", lines - 1),
    };
    format!("is not valid JSON ({text}{place})")
}

/// Reads an object as a record.
struct RecordVisitor<'a>(&'a RecordReader);

impl<'de> Visitor<'de> for RecordVisitor<'_> {
    type Value = Result<LegacyRecord, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut digester, mut fields) = (Digester::default(), RecordFields::default());
        while let Some(key) = map.next_key::<String>()? {
            digester.text(b'k', &key);
            let value = map.next_value_seed(FieldValue(&mut digester))?;
            fields.set(self.0, &key, value);
        }
        Ok(self.0.read(fields, digester.finish()))
    }
}

/// Reads the value of one field, and adds it to the digest.
struct FieldValue<'a>(&'a mut Digester);

impl<'de> DeserializeSeed<'de> for FieldValue<'_> {
    type Value = Scalar;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Scalar, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for FieldValue<'_> {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
        self.0.begin(b'{');
        while let Some(key) = map.next_key::<String>()? {
            self.0.text(b'k', &key);
            map.next_value_seed(FieldValue(&mut *self.0))?;
        }
        self.0.begin(b'}');
        Ok(Scalar::Other("an object"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Scalar, A::Error> {
        self.0.begin(b'[');
        while elements.next_element_seed(FieldValue(&mut *self.0))?.is_some() {}
        self.0.begin(b']');
        Ok(Scalar::Other("a list"))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Scalar, E> {
        self.0.text(b's', text);
        Ok(Scalar::Text(text.to_owned()))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Scalar, E> {
        self.0.begin(if value { b't' } else { b'f' });
        Ok(Scalar::Other("true or false"))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Scalar, E> {
        self.0.number(b'u', number.to_le_bytes());
        Ok(Scalar::Whole(i128::from(number)))
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Scalar, E> {
        self.0.number(b'i', number.to_le_bytes());
        Ok(Scalar::Whole(i128::from(number)))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Scalar, E> {
        self.0.number(b'd', number.to_bits().to_le_bytes());
        Ok(Scalar::Fraction(number))
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Scalar, E> {
        self.0.begin(b'n');
        Ok(Scalar::Null)
    }
}
